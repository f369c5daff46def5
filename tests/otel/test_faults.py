"""Every function of the recorder raises at random: the agent's results are as without it."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from conftest import Capture
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recorded import run_python

import tracefork_otel

PACKAGES = tuple(
    f"tracefork_otel.{room}"
    for room in (
        "exchange",
        "files",
        "redaction",
        "recording",
        "session",
        "seam",
        "store",
        "wire",
        "decorators",
    )
)
GUARDS = frozenset((
    # What stands around the application's own call, and what is one `try` that catches everything.
    "record", "arecord", "Sending.__init__", "Sending.__enter__", "Sending.__exit__", "_made", "_kept",
    "Session.lost", "Session.append", "SeamExchange.finish", "SeamExchange.give_up", "begin", "received",
    "opened", "SeamExchange.chunk", "SeamExchange.fail", "_AgentCall.end", "OpenToolCall.end", "warn", "end",
    "store_span", "TraceforkSpanProcessor.on_start", "TraceforkSpanProcessor.on_end",
    # What reads and sets an attribute or two.
    "_ready", "RequestTee._parts", "Call.__init__", "Call.enter", "OpenToolCall.enter", "OpenExchange.drop",
))  # fmt: skip
ERRORS = (ValueError, OSError, MemoryError, RecursionError, KeyError, RuntimeError)


class Faults:
    """The functions of the recorder, each of which raises with some probability while this is armed."""

    def __init__(self, seed: int, share: float) -> None:
        self._random = random.Random(seed)
        self._share = share
        self.armed = False
        self.raised: dict[str, int] = {}
        self._undo: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        """Stand before every function of the rooms, by whatever name it is called."""
        modules = [one for name, one in sys.modules.items() if name.startswith("tracefork_otel") and one]
        standing: dict[FunctionType, Callable[..., Any]] = {}
        for module in modules:
            if module.__name__.startswith(PACKAGES):
                for owner, name, function in _functions(module):
                    standing[function] = self._standing(function)
                    if owner is not module:
                        self._set(owner, name, standing[function])
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, FunctionType) and value in standing:
                    self._set(module, name, standing[value])

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def _standing(self, function: FunctionType) -> Callable[..., Any]:
        @functools.wraps(function)
        def standing(*args: Any, **kwargs: Any) -> Any:
            if self.armed and self._random.random() < self._share:
                place = f"{function.__module__}.{function.__qualname__}"
                self.raised[place] = self.raised.get(place, 0) + 1
                raise self._random.choice(ERRORS)(f"a fault in {place}")
            return function(*args, **kwargs)

        return standing

    def undo(self) -> None:
        """Everything is as it was."""
        self.armed = False
        for owner, name, value in reversed(self._undo):
            setattr(owner, name, value)


def _functions(module: ModuleType) -> Iterator[tuple[Any, str, FunctionType]]:
    """The module's own functions and methods, but for those that guard the application from the others."""
    owners: list[Any] = [module, *(one for one in vars(module).values() if isinstance(one, type))]
    for owner in owners:
        if owner is module or owner.__module__ == module.__name__:
            for name, value in list(vars(owner).items()):
                if (
                    isinstance(value, FunctionType)
                    and value.__module__ == module.__name__
                    and value.__qualname__ not in GUARDS
                    and "<locals>" not in value.__qualname__
                ):
                    yield owner, name, value


def answered(request: Any) -> Any:
    """A model's answer, whole or as a stream, by the path."""
    module = httpx2 if type(request).__module__.startswith("httpx2") else httpx
    if request.url.path.endswith("fail"):
        raise module.ConnectError("refused")
    if request.url.path.endswith("stream"):
        return module.Response(200, stream=Chunks(module), headers={"content-type": "text/event-stream"})
    return module.Response(200, json={"said": request.content.decode() if request.method == "POST" else ""})


def Chunks(module: ModuleType) -> Any:
    """A body that comes in pieces."""

    class Both(module.SyncByteStream, module.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from (b"data: 1\n\n", b"data: 2\n\n")

        async def __aiter__(self) -> Any:
            for chunk in self:
                yield chunk

    return Both()


@tracefork_otel.tool
def look_up(word: str) -> str:
    """A tool that has a result."""
    return word.upper()


@tracefork_otel.tool
async def fails(word: str) -> str:
    """A tool that has none."""
    raise LookupError(word)


@tracefork_otel.agent
def work(module: ModuleType, provider: TracerProvider) -> list[object]:
    """What an agent does: calls of each kind, tools, spans of its own, errors that it sees."""
    seen: list[object] = []
    url = "https://api.openai.com/v1/chat/completions"
    with module.Client(transport=module.MockTransport(answered)) as client:
        with provider.get_tracer("his").start_as_current_span("his"):
            seen.append(
                client.post(url, json={"model": "m", "messages": [{"role": "user", "content": "q"}]}).json()
            )
        with client.stream("POST", f"{url}/stream", content=iter([b"sent ", b"in parts"])) as response:
            seen.append(list(response.iter_raw()))
        with client.stream("GET", f"{url}/stream") as response:
            seen.append(next(response.iter_raw()))
        try:
            client.get(f"{url}/fail")
        except module.ConnectError as error:
            seen.append(str(error))
    seen.append(look_up("word"))
    seen.append(asyncio.run(later(module, url)))
    return seen


async def later(module: ModuleType, url: str) -> list[object]:
    """The same, waited for."""
    seen: list[object] = []
    async with module.AsyncClient(transport=module.MockTransport(answered)) as client:
        both = await asyncio.gather(
            client.get(f"{url}?a=1"), client.post(url, content=b"\xff"), return_exceptions=True
        )
        seen += [one.status_code if isinstance(one, module.Response) else type(one).__name__ for one in both]
        async with client.stream("GET", f"{url}/stream") as response:
            seen.append([chunk async for chunk in response.aiter_raw()])
    try:
        await fails("why")
    except LookupError as error:
        seen.append(repr(error))
    return seen


def injected(seed: int, share: float, rounds: int, capture: Capture, rules: Any) -> Faults:
    """Faults that were raised in some rounds of work, none of which saw any."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    expected = {module: inspect.unwrap(work)(module, provider) for module in (httpx2, httpx)}
    capture.on(tracer_provider=provider, http_spans=True, redact=rules)
    for module in expected:
        work(module, provider)  # so that all is loaded
    exporter.clear()
    faults = Faults(seed, share)
    faults.install()
    # A fault in what the collector closes is one of Python's "Exception ignored in": no agent sees it.
    told, sys.unraisablehook = sys.unraisablehook, lambda _ignored: None
    try:
        for number in range(rounds):
            faults.armed = True
            module = (httpx2, httpx)[number % 2]
            seen = work(module, provider)
            faults.armed = False
            assert seen == expected[module], faults.raised
            assert trace.get_current_span() is trace.INVALID_SPAN, faults.raised
            assert [span.name for span in exporter.get_finished_spans()].count("his") == 1
            exporter.clear()
    finally:
        faults.undo()
        gc.collect()
        sys.unraisablehook = told
    return faults


@pytest.fixture
def rules(tmp_path: Any) -> Any:
    """A file of redaction rules, so that those are at work as well."""
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\npattern = 'word'\n[[rule]]\njson = '**.content'\n")
    return path


@pytest.mark.slow
def test_faults_of_the_recorder_reach_no_agent(capture: Capture, rules: Any) -> None:
    """Some hundred faults, rare and frequent, in all functions: every result is right."""
    count = 0
    for seed, share in enumerate((0.3, 0.03, 0.003)):
        count += sum(injected(seed, share, 12, capture, rules).raised.values())
        capture.off()
    assert count >= 300


@pytest.mark.slow
def test_ten_thousand_faults_reach_no_agent(capture: Capture, rules: Any) -> None:
    """Ten thousand faults in more than a hundred functions."""
    raised: dict[str, int] = {}
    seed = 100
    while sum(raised.values()) < 10_000:
        seed += 1
        faults = injected(seed, random.Random(seed).choice([0.5, 0.1, 0.02, 0.005]), 20, capture, rules)
        capture.off()
        raised = {
            place: raised.get(place, 0) + faults.raised.get(place, 0) for place in raised | faults.raised
        }
    print(f"{sum(raised.values())} faults in {len(raised)} functions")
    assert len(raised) > 100


@pytest.mark.slow
def test_the_exit_of_the_process_is_its_own(tmp_path: Any) -> None:
    """A process whose recorder fails everywhere, at its end too, says and returns what it does without."""
    code = """
import sys, test_faults
from tracefork_otel import TraceforkInstrumentor
from opentelemetry.sdk.trace import TracerProvider
import httpx2
if len(sys.argv) > 1:
    TraceforkInstrumentor().instrument()
    faults = test_faults.Faults(int(sys.argv[1]), 0.2)
    test_faults.work(httpx2, TracerProvider())
    faults.install()
    faults.armed = True
else:
    test_faults.work(httpx2, TracerProvider())
print(test_faults.work(httpx2, TracerProvider()))
sys.exit(7)
"""
    path = tmp_path / "agent.py"
    path.write_text(code)
    here = Path(__file__).parent
    tests = os.pathsep.join(map(str, (here, here.parent)))
    ends = [
        run_python([str(path), *given], store=tmp_path / "store", check=False, PYTHONPATH=tests)
        for given in ([], ["1"], ["2"])
    ]
    assert [one.returncode for one in ends] == [7, 7, 7], ends[-1].stderr
    assert len({one.stdout for one in ends}) == 1
