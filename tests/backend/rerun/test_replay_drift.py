"""An agent function replayed in place, with the real SDKs: exact, or every kind of drift explained."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gzip
import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.rerun.replaying import ReplayResult, replay
from tracefork_backend.simulate import Behaviour, Call, ModelServer, Reply
from tracefork_backend.simulate.server import echo
from tracefork_backend.store import Run, open_store

from tracefork_otel import Drift, TraceforkInstrumentor, UsageError

Agent = Callable[[], Any]
Record = Callable[..., tuple[Run, Any, str]]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """Runs an agent against a server that is gone afterwards; gives run, return value and URL."""

    def run(make: Callable[[str], Agent], behaviour: Behaviour = echo) -> tuple[Run, Any, str]:
        with ModelServer(behaviour, seed=7) as server:
            TraceforkInstrumentor().instrument(store=tmp_path / "store", http_spans=False)
            try:
                returned = make(server.url)()
            finally:
                TraceforkInstrumentor().uninstrument()
        return open_store(tmp_path / "store").run("last"), returned, server.url

    yield run
    if TraceforkInstrumentor().is_instrumented_by_opentelemetry:
        TraceforkInstrumentor().uninstrument()


def client(url: str, retries: int = 0) -> anthropic.Anthropic:
    """A client of the scripted server."""
    return anthropic.Anthropic(base_url=url, api_key="k", max_retries=retries)


def trip(
    url: str, *, steps: int = 3, first: str = "Plan a trip", seats: str = "3 seats", **options: Any
) -> Agent:
    """An agent of so many steps, each with the results of a tool, whose requests the arguments change."""
    members: dict[str, Any] = {"model": "claude-x", "max_tokens": 64, "system": "Be brief.", **options}

    def agent() -> list[str]:
        messages: list[Any] = [{"role": "user", "content": first}]
        said: list[str] = []
        for step in range(steps):
            answer = client(url).messages.create(messages=list(messages), **members)
            said.append(answer.content[0].text)  # type: ignore[union-attr]
            messages += [
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": f"t{step}", "name": "f", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": f"t{step}", "content": seats}],
                },
            ]
        return said

    return agent


@pytest.mark.slow
def test_exact(record: Record) -> None:
    """The same agent gets the same bytes with no server, twice, and the process records on as before."""
    run, returned, url = record(trip)
    for _ in range(2):
        result = replay(run, agent=trip(url))
        assert result.passed, result.receipt
        assert (result.matched, result.total, result.result) == (3, 3, returned)
        assert result.replay_digest == result.tape_digest
        assert result.raise_for_drift() is result
    assert [one.kind for one in run.store.runs()].count("replay") == 2
    kept = run.store.run(result.replay_run_id)
    assert (kept.parent_run_id, kept.status) == (run.run_id, "ok")
    assert [exchange.replayed for exchange in kept.exchanges] == [True] * 3


SECONDS = itertools.count(1)
"""Of gzip's heads: each body is compressed at another."""


def upload(url: str) -> bytes:
    """A file is sent, with a boundary of its own."""
    return httpx2.post(f"{url}/raw/bytes/9", files={"file": ("a.txt", b"abc", "text/plain")}).content


def packed(url: str) -> bytes:
    """A body is compressed at another time, which stands in gzip's head."""
    body = gzip.compress(b'{"model": "m", "messages": []}', mtime=next(SECONDS))
    head = {"content-encoding": "gzip", "content-type": "application/json"}
    return httpx2.post(f"{url}/raw/bytes/9", content=body, headers=head).content


def traced(url: str) -> bytes:
    """A tool is called as MCP's SDK does, trace context in the body."""
    with TracerProvider().get_tracer("mcp").start_as_current_span("tools/call"):
        meta: dict[str, str] = {}
        propagate.inject(meta)
    message = {"jsonrpc": "2.0", "method": "tools/list", **({"params": {"_meta": meta}} if meta else {})}
    return httpx2.post(f"{url}/raw/bytes/9", json=message).content


@pytest.mark.parametrize("send", [upload, packed, traced])
def test_what_a_transport_makes_up(record: Record, send: Callable[[str], bytes]) -> None:
    """It is another each time: the request is served all the same, and the receipt says what was left out."""
    run, returned, url = record(lambda url: lambda: send(url))
    result = replay(run, agent=lambda: send(url))
    assert result.passed, result.receipt
    assert (result.result, result.renewed) == (returned, (0,))
    assert result.receipt[-2].startswith("note    step 0: the request differs in what its transport makes up")
    assert result.receipt[-1] == "PASS    equal in what was compared"


def context(url: str) -> list[object]:
    """What an agent reads of the context that stands round it, here and in a thread, and sends on."""

    def seen() -> object:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return trace.get_current_span().get_span_context().is_valid, carrier, dict(otel_context.get_current())

    client(url).messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": str(seen())}])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [seen(), pool.submit(seen).result()]


@pytest.mark.slow
def test_the_context_is_that_of_the_recording(record: Record) -> None:
    """Where nothing was current nothing is: no span, no baggage, nothing to propagate."""
    run, returned, url = record(lambda url: lambda: context(url))
    result = replay(run, agent=lambda: context(url))
    assert result.passed, result.receipt
    assert result.result == returned == [(False, {}, {})] * 2
    assert result.receipt[-1] == "PASS    bit-exact"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recorded", "got", "step", "path", "cause"),
    [
        (
            {"first": "Now 2026-11-24T10:00:01"},
            {"first": "Now 2026-11-24T10:00:03"},
            0,
            "messages[0].content",
            "clock",
        ),
        ({"first": f"id {uuid.uuid4()}"}, {"first": f"id {uuid.uuid4()}"}, 0, "messages[0].content", "id"),
        ({"first": "luck 0.123456"}, {"first": "luck 0.654321"}, 0, "messages[0].content", "random"),
        ({"first": "Plan a trip"}, {"first": "Plan a walk"}, 0, "messages[0].content", "prompt"),
        ({}, {"system": "Be long."}, 0, "system", "prompt"),
        ({}, {"seats": "no seats"}, 1, "messages[2].content[0].content", "tool_result"),
        ({}, {"model": "claude-y"}, 0, "model", "model"),
        ({}, {"max_tokens": 65}, 0, "max_tokens", "parameter"),
    ],
)
def test_drift_is_explained(
    record: Record, recorded: dict[str, Any], got: dict[str, Any], step: int, path: str, cause: str
) -> None:
    """The first request that differs is named by step, path, both values and cause; nothing else is."""
    run, _, url = record(lambda url: trip(url, **recorded))
    result = replay(run, agent=trip(url, **got))
    assert not result.passed
    assert result.matched == step
    (drift,) = result.drifts
    assert (drift.step, drift.path, drift.cause, drift.nearest) == (step, path, cause, step)
    assert drift.recorded != drift.got
    with pytest.raises(Drift, match=f"step {step}.*{cause}"):
        result.raise_for_drift()


@pytest.mark.slow
def test_a_real_clock_in_the_prompt(record: Record) -> None:
    """An agent that prints the time into its prompt drifts, and the clock is named as the cause."""

    def make(url: str) -> Agent:
        return lambda: trip(url, steps=1, first=f"It is {datetime.now(UTC).isoformat()}")()

    run, _, url = record(make)
    assert [drift.cause for drift in replay(run, agent=make(url)).drifts] == ["clock"]
    ignored = replay(run, agent=make(url), ignore=["messages[0].content"])
    assert ignored.passed
    assert ignored.receipt[-1].startswith("PASS    equal in what was compared")


@pytest.mark.slow
def test_fewer_calls_are_missing(record: Record) -> None:
    """An agent that stops early fails with the step that it never asked for."""
    run, _, url = record(trip)
    result = replay(run, agent=trip(url, steps=2))
    assert (result.matched, result.missing) == (2, (2,))
    assert [(drift.cause, drift.step) for drift in result.drifts] == [("missing", 2)]


@pytest.mark.slow
def test_one_more_call_is_extra(record: Record) -> None:
    """An agent that goes on fails with the call that the tape does not hold."""
    run, _, url = record(trip)
    result = replay(run, agent=trip(url, steps=4))
    assert (result.matched, result.missing) == (3, ())
    assert [(drift.cause, drift.step) for drift in result.drifts] == [("extra", 3)]


@pytest.mark.slow
def test_a_swallowed_drift_fails(record: Record) -> None:
    """An agent that catches the error of a changed request and goes on as recorded does not pass."""
    run, _, url = record(lambda url: lambda: [trip(url, steps=1, first=f"q{n}")() for n in range(3)])

    def agent() -> None:
        trip(url, steps=1, first="q0")()
        with pytest.raises(anthropic.APIConnectionError):
            trip(url, steps=1, first="changed")()
        trip(url, steps=1, first="q1")()
        trip(url, steps=1, first="q2")()

    result = replay(run, agent=agent)
    assert (result.matched, result.missing, len(result.drifts)) == (3, (), 1)
    assert result.replay_digest == result.tape_digest
    assert not result.passed
    assert result.receipt[-1].startswith("FAIL")


@pytest.mark.slow
def test_an_sdk_that_tries_again_drifts_once(record: Record) -> None:
    """The retries of a request that is not on the tape are one drift."""
    run, _, url = record(lambda url: trip(url, steps=1))

    def agent() -> None:
        with pytest.raises(anthropic.APIConnectionError):
            client(url, retries=1).messages.create(
                model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]
            )

    result = replay(run, agent=agent)
    assert len(result.drifts) == 1
    assert len(run.store.run(result.replay_run_id).exchanges) == 2


@pytest.mark.slow
def test_a_crash_is_an_agent_error(record: Record) -> None:
    """An agent that crashes of itself is told from one that drifts, in its own words."""
    run, _, url = record(trip)

    def agent() -> None:
        trip(url, steps=1)()
        raise ValueError("no plan")

    (drift,) = replay(run, agent=agent).drifts
    assert (drift.cause, drift.step) == ("agent_error", 1)
    assert "ValueError: no plan" in drift.text


def chatter(url: str) -> Agent:
    """An agent that streams once and returns each event as it came."""

    def agent() -> list[str]:
        with client(url).messages.stream(
            model="m",
            max_tokens=64,
            messages=[{"role": "user", "content": "Count to ten, slowly, in words."}],
        ) as stream:
            return [event.model_dump_json() for event in stream]

    return agent


@pytest.mark.slow
def test_a_stream_comes_in_the_same_cuts(record: Record) -> None:
    """Events, chunk sizes and bytes of a stream are the recorded ones."""
    run, events, url = record(chatter)
    result = replay(run, agent=chatter(url))
    assert result.passed, result.receipt
    assert result.result == events
    ours, theirs = run.exchanges[0].response, run.store.run(result.replay_run_id).exchanges[0].response
    assert ours is not None
    assert theirs is not None
    assert len(ours.chunk_sizes) > 3
    assert (ours.body, ours.chunk_sizes, ours.headers) == (theirs.body, theirs.chunk_sizes, theirs.headers)


def test_a_cut_stream_is_cut_again(record: Record) -> None:
    """A stream that broke off breaks off after the same events, with the same class of error."""

    def make(url: str) -> Agent:
        def agent() -> list[str]:
            seen: list[str] = []
            try:
                with client(url).messages.stream(
                    model="m",
                    max_tokens=64,
                    messages=[{"role": "user", "content": "one two three four five six"}],
                ) as stream:
                    seen += [event.type for event in stream]
            except Exception as error:
                seen.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
            return seen

        return agent

    def behaviour(call: Call) -> Reply:
        return Reply(
            text="one two three four five six", chunk_chars=4, fault="disconnect", cut_after_events=4
        )

    run, seen, url = record(make, behaviour)
    assert run.exchanges[0].outcome == "cut"
    result = replay(run, agent=make(url))
    assert result.result == seen
    assert result.passed, result.receipt


@pytest.mark.slow
def test_a_429_and_its_retry(record: Record) -> None:
    """A rate limit is served with its status and headers, and the SDK's own retry gets the second answer."""
    calls: list[int] = []

    def behaviour(call: Call) -> Reply:
        calls.append(call.index)
        return Reply(fault="429", retry_after=0.01) if call.index == 0 else Reply(text="ok")

    def make(url: str) -> Agent:
        message = {"role": "user", "content": "hi"}
        return lambda: (
            client(url, 2).messages.create(model="m", max_tokens=9, messages=[message]).content[0].text
        )  # type: ignore[union-attr, list-item]

    run, said, url = record(make, behaviour)
    assert [exchange.response and exchange.response.status for exchange in run.exchanges] == [429, 200]
    result = replay(run, agent=make(url))
    assert (result.passed, result.result, len(calls)) == (True, said, 2), result.receipt


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asyncio", "threads"])
def test_a_fan_out_replays_in_any_order(record: Record, how: str) -> None:
    """Six concurrent questions, answered in shuffled order, each get their own answer again."""
    delays = {f"question {n}": delay for n, delay in enumerate((0.12, 0.02, 0.09, 0.0, 0.06, 0.04))}

    def behaviour(call: Call) -> Reply:
        return Reply(text=f"answer to {call.last}", first_delay_s=delays[call.last])

    def ask(url: str, question: str) -> str:
        message = {"role": "user", "content": question}
        return client(url).messages.create(model="m", max_tokens=9, messages=[message]).content[0].text  # type: ignore[union-attr, list-item]

    def threads(url: str) -> list[str]:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            return list(pool.map(lambda question: ask(url, question), delays))

    async def gather(url: str) -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as one:

            async def ask(question: str) -> str:
                answer = await one.messages.create(
                    model="m", max_tokens=9, messages=[{"role": "user", "content": question}]
                )
                return answer.content[0].text  # type: ignore[union-attr]

            return await asyncio.gather(*map(ask, delays))

    def make(url: str) -> Agent:
        return (lambda: threads(url)) if how == "threads" else (lambda: gather(url))

    run, said, url = record(
        lambda url: lambda: threads(url) if how == "threads" else asyncio.run(gather(url)), behaviour
    )
    assert said == [f"answer to {question}" for question in delays]
    for _ in range(2):
        result = replay(run, agent=make(url))
        assert result.result == said
        assert result.passed, result.receipt


@pytest.mark.slow
def test_openai_chat_and_responses(record: Record) -> None:
    """Both of OpenAI's APIs, plain and streamed, replay exactly and drift by their own paths."""

    def make(url: str, question: str = "hi") -> Agent:
        def agent() -> list[Any]:
            one = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
            chat = one.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hello"}])
            streamed = one.chat.completions.create(
                model="gpt", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            parts = [chunk.model_dump_json() for chunk in streamed]
            answer = one.responses.create(model="gpt", input=question)
            return [chat.choices[0].message.content, parts, answer.output_text]

        return agent

    run, said, url = record(make)
    result = replay(run, agent=make(url))
    assert (result.passed, result.result) == (True, said), result.receipt
    (drift,) = replay(run, agent=make(url, "bye")).drifts
    assert (drift.step, drift.path, drift.cause) == (2, "input", "prompt")


def test_a_function_gets_its_recorded_arguments(record: Record, tmp_path: Path) -> None:
    """A decorated agent is called again with the arguments that its run recorded, without being told them."""
    from tracefork_otel import agent

    seen: list[str] = []

    def make(url: str) -> Callable[..., str]:
        @agent
        def plan(city: str, *, days: int) -> str:
            seen.append(city)
            return trip(url, steps=1, first=f"{days} days in {city}")()[0]

        return plan

    run, said, url = record(lambda url: lambda: make(url)("Osaka", days=2))
    result: ReplayResult = replay(run, agent=make(url))
    assert (result.passed, result.result, seen) == (True, said, ["Osaka", "Osaka"]), result.receipt


def test_a_wrong_path_is_refused(record: Record) -> None:
    """A path to ignore that is none is the caller's error, before anything runs."""
    run, _, url = record(lambda url: trip(url, steps=1))
    with pytest.raises(UsageError, match="JSON path"):
        replay(run, agent=trip(url), ignore=["a["])


@pytest.mark.slow
def test_the_recorder_of_the_process_is_left_as_it_was(record: Record, tmp_path: Path) -> None:
    """A process that records goes on recording into its own store after a replay in it."""
    run, _, url = record(trip)
    with ModelServer(seed=1) as server:
        TraceforkInstrumentor().instrument(store=tmp_path / "own", http_spans=False)
        try:
            trip(server.url, steps=1)()
            assert replay(run, agent=trip(url)).passed
            trip(server.url, steps=1)()
        finally:
            TraceforkInstrumentor().uninstrument()
    own = open_store(tmp_path / "own").run("last")
    assert [exchange.replayed for exchange in own.exchanges] == [False, False]
