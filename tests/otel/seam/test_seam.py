"""What httpx, httpx2 and the recorder have beside what all clients have (test_contract.py)."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import wrapt
from conftest import Capture
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recorded import fetch, read_store, run_python
from tracefork_backend.simulate import ModelServer, Reply

from tracefork_otel.seam import patch

BOTH = pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def test_garbage_collected_in_the_processor_does_not_deadlock(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """A collection that finds a dropped response while a lock of the telemetry is held ends no span there."""
    from opentelemetry.sdk.trace import SpanProcessor

    lock = threading.Lock()

    class Locking(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            with lock:
                gc.collect()

        def on_end(self, span: Any) -> None:
            with lock:
                gc.collect()

    gc.freeze()  # what there is so far need not be looked at again and again
    provider.add_span_processor(Locking())
    capture.on(tracer_provider=provider)
    client = httpx2.Client()
    for _ in range(3):
        response: Any = client.send(client.build_request("GET", f"{raw}/sse?events=5"), stream=True)
        response.itself = response  # only the collector can free it
        del response
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    client.close()
    gc.collect()
    gc.unfreeze()
    outcomes = sorted(exchange.outcome for exchange in capture.read().exchanges)
    assert outcomes == ["abandoned"] * 3 + ["complete"]


@BOTH
@KINDS
def test_custom_transport_is_captured(module: ModuleType, kind: str, capture: Capture) -> None:
    """A mock transport that gives its body at once is captured, also an encoded one."""
    packed = gzip.compress(b"hello")

    def answer(request: Any) -> Any:
        return module.Response(200, headers={"content-encoding": "gzip"}, content=packed)

    capture.on()
    response = fetch(
        module, kind, "GET", "http://mock.test/", client={"transport": module.MockTransport(answer)}
    )
    exchange = capture.read().only()
    assert response.content == b"hello"
    assert exchange.response is not None
    assert exchange.response.body == packed
    assert exchange.outcome == "complete"


@BOTH
def test_mounts_are_captured(module: ModuleType, capture: Capture) -> None:
    """A mounted transport is captured under the URL that was asked for."""
    capture.on()
    mock = module.MockTransport(lambda request: module.Response(200, content=b"mounted"))
    assert fetch(module, "sync", "GET", "http://m.test/", client={"mounts": {"http://m.test": mock}}).content
    assert capture.read().only().request.url == "http://m.test/"


@BOTH
@KINDS
def test_elapsed_and_hooks_work(module: ModuleType, kind: str, capture: Capture, raw: str) -> None:
    """`.elapsed` and event hooks work as without us."""
    seen: list[str] = []

    async def request_hook(request: Any) -> None:
        seen.append(request.method)

    async def response_hook(response: Any) -> None:
        seen.append(str(response.status_code))

    def sync_request_hook(request: Any) -> None:
        seen.append(request.method)

    def sync_response_hook(response: Any) -> None:
        seen.append(str(response.status_code))

    hooks = (sync_request_hook, sync_response_hook) if kind == "sync" else (request_hook, response_hook)
    capture.on()
    response = fetch(
        module,
        kind,
        "GET",
        f"{raw}/slow?ms=30",
        client={"event_hooks": {"request": [hooks[0]], "response": [hooks[1]]}},
    )
    assert response.elapsed.total_seconds() >= 0.03
    assert seen == ["GET", "200"]


def test_retries_are_exchanges(capture: Capture, provider: TracerProvider) -> None:
    """An SDK that is told 429 tries again as it would without us, and both attempts are exchanges."""
    with ModelServer(
        lambda call: Reply(status=429, retry_after=0.01) if call.index == 0 else Reply(text="ok")
    ) as server:
        capture.on(tracer_provider=provider)
        client = anthropic.Anthropic(api_key="sk-ant-test-000000000000", base_url=server.url)
        message = client.messages.create(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )
        assert message.content[0].type == "text"
        arrived = len(server.requests)
    first, second = capture.read().in_order()
    assert arrived == 2
    assert [first.response and first.response.status, second.response and second.response.status] == [
        429,
        200,
    ]
    assert first.request.body == second.request.body
    assert first.name == second.name == "chat claude-test"


def test_sdk_streams_are_recorded_and_named(capture: Capture) -> None:
    """Streams of the Anthropic and OpenAI SDKs are recorded whole, and named after what they do."""
    with ModelServer(lambda call: Reply(text="some words to stream")) as server:
        capture.on()
        claude = anthropic.Anthropic(api_key="sk-ant-test-000000000000", base_url=server.url)
        with claude.messages.stream(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        ) as events:
            assert events.get_final_text() == "some words to stream"
        gpt = openai.OpenAI(api_key="sk-test-000000000000000000", base_url=server.openai_url)
        parts = gpt.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert gpt.responses.create(model="gpt-other", input="hi").output_text
        sent = [request.body for request in server.requests]
    recorded = capture.read().in_order()
    assert [exchange.name for exchange in recorded] == ["chat claude-test", "chat gpt-test", "chat gpt-other"]
    assert [exchange.request.body for exchange in recorded] == sent
    assert [exchange.attributes["gen_ai.provider.name"] for exchange in recorded] == [
        "anthropic",
        "openai",
        "openai",
    ]
    assert all(exchange.response and exchange.response.body for exchange in recorded)


@pytest.mark.slow
def test_threads_and_tasks_keep_their_parents(capture: Capture, provider: TracerProvider, raw: str) -> None:
    """8 threads of 60 calls and 50 tasks at once: every exchange is a child of the span around its call."""
    tracer = provider.get_tracer("test")
    capture.on(tracer_provider=provider)
    parents: dict[str, str] = {}
    shared = httpx2.Client()

    def worker(number: int) -> None:
        for step in range(60):
            with tracer.start_as_current_span("call") as span:
                content = f"{number}.{step}".encode()
                parents[content.decode()] = f"{span.get_span_context().span_id:016x}"
                assert shared.post(f"{raw}/echo", content=content).content == content

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(worker, range(8)))
    shared.close()

    async def task(client: httpx2.AsyncClient, number: int) -> None:
        with tracer.start_as_current_span("call") as span:
            content = f"task {number}"
            parents[content] = f"{span.get_span_context().span_id:016x}"
            assert (await client.post(f"{raw}/echo", content=content)).text == content

    async def main() -> None:
        async with httpx2.AsyncClient() as client:
            await asyncio.gather(*(task(client, number) for number in range(50)))

    asyncio.run(main())
    recorded = capture.read().exchanges
    assert len(recorded) == 8 * 60 + 50
    assert all(parents[exchange.request.body.decode()] == exchange.parent_span_id for exchange in recorded)
    assert sorted(exchange.seq for exchange in recorded) == list(range(530))
    assert len({exchange.span_id for exchange in recorded}) == 530


def test_two_instruments_make_one_exchange(capture: Capture, raw: str) -> None:
    """Instrumenting twice still records each request once."""
    capture.on()
    capture.on()
    patch.install(httpx2)
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.read().only()


def test_uninstrument_leaves_a_later_patch(
    capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch that came after ours stays when we leave, ours is passive below it, and comes back once."""
    before = httpx2.Client._send_single_request
    capture.on()
    ours = httpx2.Client._send_single_request
    calls: list[str] = []

    def later(client: Any, request: Any) -> Any:
        calls.append(str(request.url))
        return ours(client, request)

    monkeypatch.setattr(httpx2.Client, "_send_single_request", later)
    capture.off()
    assert httpx2.Client._send_single_request is later
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert len(calls) == 1
    assert not read_store(capture.store).exchanges
    capture.on()
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert len(capture.read().exchanges) == 1
    monkeypatch.undo()
    assert httpx2.Client._send_single_request is ours
    capture.on()
    capture.off()
    assert httpx2.Client._send_single_request is before


@pytest.mark.parametrize("module", [httpx2, httpx])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_below_a_wrapper_of_wrapt(
    module: ModuleType, kind: str, capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that ddtrace or another APM has wrapped gets its client and its request as before."""
    asked: list[tuple[str, str]] = []

    def apm(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked.append((type(instance).__name__, args[0].method))
        return wrapped(*args, **kwargs)

    cls = module.Client if kind == "sync" else module.AsyncClient
    theirs = wrapt.FunctionWrapper(cls.__dict__["_send_single_request"], apm)
    monkeypatch.setattr(cls, "_send_single_request", theirs)
    capture.on()
    fetch(module, kind, "GET", f"{raw}/empty")
    assert len(capture.read().exchanges) == 1
    assert asked == [(cls.__name__, "GET")]
    assert cls.__dict__["_send_single_request"] is theirs


def test_alias_of_httpx_makes_one_exchange(tmp_path: Path, raw: str) -> None:
    """Where httpx is an alias of httpx2, a request is one exchange, whichever name it was made by."""
    code = f"""
import httpx2
httpx2.alias_httpx()
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument()
import httpx
assert httpx is httpx2
httpx.get("{raw}/empty")
httpx2.get("{raw}/empty")
"""
    run_python(code, store=tmp_path)
    assert len(read_store(tmp_path).exchanges) == 2


@pytest.mark.parametrize("when", ["before", "after", "absent", "by us"])
def test_beside_the_stock_instrumentor(
    when: str, capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str
) -> None:
    """One exchange span, with the stock span as its child, in whichever order both were turned on."""
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor

    stock = HTTPX2ClientInstrumentor()
    if when == "before":
        stock.instrument(tracer_provider=provider)
    capture.on(tracer_provider=provider, http_spans=when == "by us")
    if when == "after":
        stock.instrument(tracer_provider=provider)
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    exchange = capture.read().only()
    assert stock.is_instrumented_by_opentelemetry == (when in ("before", "after"))
    if stock.is_instrumented_by_opentelemetry:
        stock.uninstrument()
    spans = exported.get_finished_spans()
    ours = [span for span in spans if span.attributes and span.attributes.get("tracefork.exchange")]
    children = [
        span for span in spans if span.parent is not None and span.parent.span_id == ours[0].context.span_id
    ]
    assert len(ours) == 1
    assert f"{ours[0].context.span_id:016x}" == exchange.span_id
    assert len(children) == (0 if when == "absent" else 1)


def test_an_exporters_own_requests_are_not_recorded(capture: Capture, raw: str) -> None:
    """What the SDK's processors send is none of the agent's, by whatever client."""

    class Posting(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
            return SpanExportResult.SUCCESS

    capture.on()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Posting()))
    provider.get_tracer("x").start_span("exported").end()
    fetch(httpx2, "sync", "GET", f"{raw}/status/200")
    provider.add_span_processor(BatchSpanProcessor(Posting()))
    provider.get_tracer("x").start_span("exported twice").end()
    provider.shutdown()
    assert capture.read().only().request.url.endswith("/raw/status/200")


def test_a_vendors_suppression_hides_no_call(capture: Capture, raw: str) -> None:
    """Instrumentations set OpenTelemetry's keys round the very calls that they trace; those are recorded."""
    from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation

    capture.on()
    with suppress_instrumentation():
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
        fetch(httpx2, "async", "GET", f"{raw}/status/201")
    with suppress_http_instrumentation():
        fetch(httpx2, "sync", "GET", f"{raw}/status/200")
    recorded = [exchange.request.url.partition("/raw/")[2] for exchange in capture.read().in_order()]
    assert recorded == ["empty", "status/201", "status/200"]


def test_a_store_that_cannot_be_written_does_not_stop_the_application(
    capture: Capture, raw: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store at a place where no folder can be made costs the record, said once, not the request."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    capture.on(store=blocked / "store")
    for _ in range(3):
        assert fetch(httpx2, "sync", "GET", f"{raw}/status/200").status_code == 200
    capture.off()
    said = [record.getMessage() for record in caplog.records if record.name == "tracefork_otel"]
    assert any("could not record" in line for line in said)
    assert len(said) == len(set(said))


def test_current_span_is_the_exchange_only_while_it_is_sent(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """After the call, and between the chunks of a stream, the application's own span is current again."""
    capture.on(tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("mine") as mine:
        with httpx2.Client() as client, client.stream("GET", f"{raw}/sse?events=2") as response:
            assert trace.get_current_span() is mine
            for _ in response.iter_raw():
                assert trace.get_current_span() is mine
        assert trace.get_current_span() is mine
