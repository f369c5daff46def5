"""Spans of a user's provider are stored beside the exchanges, and the exchange span keeps its contract."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recorded import fetch, read_store, run_python, stream
from tracefork_backend.simulate import ModelServer

import tracefork_otel
from tracefork_otel import TraceforkSpanExporter, TraceforkSpanProcessor, log
from tracefork_otel.settings import CONTENT_VARIABLE, UNLIMITED
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import read_wal


@pytest.fixture(autouse=True)
def _warn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_warned", set())


def test_every_span_is_stored(capture: Capture, provider: TracerProvider, raw: str) -> None:
    """A user's span is stored with attributes, events, links and status; it is the parent of its exchange."""
    tracer = provider.get_tracer("agent")
    capture.on(tracer_provider=provider)

    def plan_and_fail() -> None:
        with tracer.start_as_current_span("plan", attributes={"a": [1, 2]}) as span:
            span.add_event("thought", {"b": "c"})
            span.add_link(tracer.start_span("other").get_span_context(), {"d": True})
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        plan_and_fail()
    recorded = capture.read()
    plan = recorded.span("plan")
    assert recorded.only().parent_span_id == plan.span_id
    assert recorded.only().trace_id == plan.trace_id
    assert plan.attributes["a"] == [1, 2]
    assert [event["name"] for event in plan.events] == ["thought", "exception"]
    assert plan.links[0]["attributes"] == {"d": True}
    assert (plan.status, plan.status_message) == ("ERROR", "RuntimeError: lost")
    assert plan.scope == "agent"
    assert plan.attributes["tracefork.command"]
    assert "tracefork.environment" in plan.attributes


def test_the_exchange_span_keeps_its_contract(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    """Name, kind, attributes and the two body events are what the design promises to other backends."""
    capture.on(tracer_provider=provider, event_body_limit=UNLIMITED)
    with ModelServer() as server:
        url = f"{server.url}/raw/echo"
        fetch(httpx2, "sync", "POST", url, content="größe", headers={"content-type": "text/plain"})
        stream(httpx2, "sync", f"{server.url}/raw/sse?events=3")
        port = server.port
    capture.off()
    echo, sse = (s for s in exported.get_finished_spans() if (s.attributes or {}).get("tracefork.exchange"))
    assert echo.name == "POST 127.0.0.1"
    assert echo.kind.name == "INTERNAL"
    assert echo.instrumentation_scope is not None
    assert echo.instrumentation_scope.name == "tracefork_otel"
    assert dict(echo.attributes or {}) == {
        "tracefork.exchange": True,
        "tracefork.seq": 0,
        "tracefork.replayed": False,
        "http.request.method": "POST",
        "url.full": url,
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    request, response = echo.events
    assert request.name == "tracefork.request.body"
    assert dict(request.attributes or {}) == {
        "tracefork.body": "größe",
        "tracefork.body.length": 7,
        "tracefork.body.sha256": hashlib.sha256("größe".encode()).hexdigest(),
        "tracefork.body.truncated": False,
        "tracefork.body.content_type": "text/plain",
    }
    assert request.timestamp == echo.start_time
    assert response.name == "tracefork.response.body"
    assert (response.attributes or {})["tracefork.outcome"] == "complete"
    assert len((sse.events[1].attributes or {})["tracefork.chunk.sizes"]) == 3  # type: ignore[arg-type]
    assert len((sse.events[1].attributes or {})["tracefork.chunk.offsets_us"]) == 3  # type: ignore[arg-type]


def test_what_the_agent_says_stays_in_the_store(
    capture: Capture,
    provider: TracerProvider,
    exported: InMemorySpanExporter,
    raw: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No exporter gets a body, an argument, a result or an error of a tool, unless content is asked for."""
    capture.on(tracer_provider=provider)

    @tracefork_otel.tool
    def look(city: str) -> str:
        return fetch(httpx2, "sync", "POST", f"{raw}/echo", content=f"PRIVATE body of {city}").text

    @tracefork_otel.agent
    def ask(city: str) -> str:
        with pytest.raises(ValueError, match="PRIVATE"):
            fail(city)
        return look(city)

    @tracefork_otel.tool
    def fail(city: str) -> None:
        raise ValueError(f"no PRIVATE {city}")

    def told() -> list[str]:
        ask("PRIVATE-city")
        spans = exported.get_finished_spans()
        exported.clear()
        return [span.name for span in spans if "PRIVATE" in span.to_json()]

    assert told() == []
    monkeypatch.setenv(CONTENT_VARIABLE, "SPAN_ONLY")
    assert told() == ["execute_tool fail", "execute_tool look", "invoke_agent ask"]
    records = capture.read()
    failed = [span.status_message for span in records.spans if span.name == "execute_tool fail"]
    assert failed == ["ValueError: no PRIVATE PRIVATE-city"] * 2
    kept = [span for span in records.spans if "PRIVATE" in str(span.attributes)]
    assert len([span for span in kept if span.name == "execute_tool look"]) == 2
    assert {span.attributes.get("tracefork.result") for span in kept} >= {"PRIVATE body of PRIVATE-city"}
    assert {str(span.attributes.get("tracefork.arguments")) for span in kept} >= {
        '{"args": ["PRIVATE-city"], "kwargs": {}}'
    }
    assert [exchange.request.body for exchange in records.exchanges] == [b"PRIVATE body of PRIVATE-city"] * 2


def test_long_bodies_are_cut_on_the_span_alone(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str
) -> None:
    """Beyond the limit a span has a text prefix with length and digest of the whole; the store has all."""
    capture.on(tracer_provider=provider, event_body_limit=10)
    body = "ä" * 6 + "x" * 50_000
    fetch(httpx2, "sync", "POST", f"{raw}/echo", content=body.encode()[1:])
    fetch(httpx2, "sync", "POST", f"{raw}/echo", content="x" + body)
    exchanges = capture.read().in_order()
    spans = [s for s in exported.get_finished_spans() if (s.attributes or {}).get("tracefork.exchange")]
    binary, text = (span.events[0].attributes or {} for span in spans)
    assert binary["tracefork.body"] == body.encode()[1:11]
    assert text["tracefork.body"] == "xääää"
    assert text["tracefork.body.truncated"] is True
    assert text["tracefork.body.length"] == len(exchanges[1].request.body) == len(body.encode()) + 1
    assert text["tracefork.body.sha256"] == exchanges[1].request.sha256


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "1"),
    ],
)
def test_limits_of_the_sdk_leave_the_store_whole(
    name: str, value: str, capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the SDK's limits take from the span, the store has bodies, URL and attributes whole."""
    monkeypatch.setenv(name, value)
    capture.on(tracer_provider=TracerProvider(shutdown_on_exit=False))
    long = "y" * 500
    body = b'{"model":"m","messages":"' + b"x" * 3000 + b'"}'
    url = f"{raw}/echo/v1/messages?{long}"
    fetch(httpx2, "sync", "POST", url, content=body)
    fetch(httpx2, "sync", "POST", f"{raw}/echo", content=body)
    first, second = capture.read().in_order()
    assert first.request.url == url
    assert first.name == "chat m"
    assert first.attributes["gen_ai.request.model"] == "m"
    assert second.response is not None
    assert first.request.body == second.response.body == body
    assert second.response.chunk_sizes


@pytest.mark.parametrize("how", ["sampler", "disabled", "foreign"])
def test_a_provider_that_records_nothing_costs_no_exchange(
    how: str, capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With spans dropped, the SDK disabled or a foreign provider, exchanges are stored, with one warning."""
    exported = InMemorySpanExporter()
    chosen: Any
    if how == "foreign":

        class Foreign:
            def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
                raise AssertionError("a foreign provider is not asked for spans of ours")

        chosen = Foreign()
    else:
        if how == "disabled":
            monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        chosen = TracerProvider(
            sampler=sampling.ALWAYS_OFF if how == "sampler" else sampling.ALWAYS_ON, shutdown_on_exit=False
        )
        chosen.add_span_processor(SimpleSpanProcessor(exported))
    capture.on(tracer_provider=chosen)
    for _ in range(3):
        fetch(httpx2, "sync", "POST", f"{raw}/echo", content=b"asked")
    recorded = capture.read()
    assert [exchange.request.body for exchange in recorded.exchanges] == [b"asked"] * 3
    assert len({exchange.trace_id for exchange in recorded.exchanges}) == 1
    assert {exchange.parent_span_id for exchange in recorded.exchanges} == {recorded.spans[0].span_id}
    assert not exported.get_finished_spans()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_dropped_span_of_the_user_groups_its_exchanges(capture: Capture, raw: str) -> None:
    """Under a span that the sampler dropped, exchanges keep that span's trace and are its children."""
    chosen = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)
    capture.on(tracer_provider=chosen)
    with chosen.get_tracer("agent").start_as_current_span("dropped") as span:
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
    exchange = capture.read().only()
    assert exchange.trace_id == f"{span.get_span_context().trace_id:032x}"
    assert exchange.parent_span_id == f"{span.get_span_context().span_id:016x}"


@pytest.mark.parametrize("kind", [7, None, "client", object()])
def test_a_span_of_a_kind_that_is_none_is_stored(
    capture: Capture, provider: TracerProvider, kind: Any
) -> None:
    """The SDK takes anything for a kind, and for a status; no record is lost by it."""
    capture.on(tracer_provider=provider)
    with provider.get_tracer("agent").start_as_current_span("plan", kind=kind) as span:
        span.set_attribute("city", "Osaka")
        span.set_status(kind)
    recorded = capture.read()
    assert recorded.span("plan").attributes["city"] == "Osaka"
    assert not [note for note in recorded.notes if note.kind == "lost"]


def test_spans_after_shutdown_are_stored(capture: Capture, raw: str) -> None:
    """A provider that is shut down before the last exchange costs the store nothing."""
    chosen = TracerProvider(shutdown_on_exit=False)
    capture.on(tracer_provider=chosen)
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    chosen.shutdown()
    with chosen.get_tracer("agent").start_as_current_span("late"):
        fetch(httpx2, "sync", "GET", f"{raw}/204")
    recorded = capture.read()
    assert len(recorded.exchanges) == 2
    assert recorded.span("late").ended_ns is not None


@pytest.mark.slow
def test_a_late_global_provider_is_adopted(tmp_path: Path, raw: str) -> None:
    """set_tracer_provider after the first exchange works without a warning, and its spans are stored."""
    code = f"""
from opentelemetry import trace
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import httpx2
httpx2.get("{raw}/empty")
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("agent").start_as_current_span("before any exchange of it"):
    pass
with trace.get_tracer("agent").start_as_current_span("mine"):
    httpx2.get("{raw}/204")
httpx2.get("{raw}/status/200")
"""
    done = run_python(code, store=tmp_path)
    recorded = read_store(tmp_path)
    first, second, third = recorded.in_order()
    assert done.stderr == ""
    assert recorded.span("before any exchange of it")
    assert second.parent_span_id == recorded.span("mine").span_id
    assert first.parent_span_id == third.parent_span_id == recorded.span("python -c").span_id
    assert recorded.span("python -c").attributes["tracefork.end"] == "atexit"


@pytest.mark.slow
def test_how_a_root_was_started_outlives_rotations(tmp_path: Path, raw: str) -> None:
    """A root's start alone tells it, and it is in the segment of its end, however many WALs lie between."""
    code = f"""
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import httpx2
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("agent").start_as_current_span("mine") as span, httpx2.Client() as client:
    for _ in range(6):
        client.post("{raw}/echo", content=os.urandom(10_000))
    span.set_attribute("late", True)
"""
    run_python(code, store=tmp_path, TRACEFORK_ROTATE_BYTES="20000")
    paths = wal_files(tmp_path)
    assert len(paths) > 2
    records = [record for path in paths for record in read_wal(path).records]
    ends = [record for record in records if isinstance(record, SpanRecord) and record.ended_ns is not None]
    assert [(end.name, "tracefork.command" in end.attributes) for end in ends] == [("mine", False)]
    for path in paths:
        assert sealing.seal(tmp_path, [path])
    (root,) = [
        span
        for entry in manifest.load(tmp_path).segments
        for span in segment.read_records(tmp_path, entry)[0]
    ]
    assert root.ended_ns is not None
    assert root.attributes["late"] is True
    assert root.attributes["tracefork.command"]
    assert "tracefork.environment" in root.attributes


def test_service_is_the_resources(capture: Capture, raw: str) -> None:
    """Exchanges and spans carry the provider's service name."""
    chosen = TracerProvider(resource=Resource.create({"service.name": "booker"}), shutdown_on_exit=False)
    capture.on(tracer_provider=chosen)
    with chosen.get_tracer("agent").start_as_current_span("mine"):
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
    recorded = capture.read()
    assert recorded.only().service == recorded.span("mine").service == "booker"


def test_processor_and_exporter_store_a_span_once(capture: Capture, provider: TracerProvider) -> None:
    """A span that comes by our processor, another of it, and our exporter is stored once."""
    capture.on(tracer_provider=provider)
    provider.add_span_processor(TraceforkSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(TraceforkSpanExporter()))
    with provider.get_tracer("agent").start_as_current_span("mine"):
        pass
    written = b"".join(path.read_bytes() for path in capture.store.rglob("*.wal"))
    capture.off()
    assert written.count(b'"mine"') == 2 + 1  # two processors note the start, one record has the end


def test_exporter_works_alone(tmp_path: Path) -> None:
    """In a pipeline of the user's own, without the one line, the exporter stores the spans."""
    code = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tracefork_otel import TraceforkSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(TraceforkSpanExporter()))
with provider.get_tracer("agent").start_as_current_span("outer"):
    with provider.get_tracer("agent").start_as_current_span("inner"): pass
"""
    run_python(code, store=tmp_path)
    recorded = read_store(tmp_path)
    assert recorded.span("inner").parent_span_id == recorded.span("outer").span_id


def test_a_vendors_provider_keeps_its_exporter(
    capture: Capture, exported: InMemorySpanExporter, raw: str
) -> None:
    """A subclass that takes its default processor out for the first one that is added (Phoenix) keeps it."""

    class Vendors(TracerProvider):
        default: SimpleSpanProcessor | None = None

        def add_span_processor(self, span_processor: SpanProcessor) -> None:
            if self.default is not None:
                self.default.shutdown()
                self.default = None
            super().add_span_processor(span_processor)

    vendors = Vendors(shutdown_on_exit=False)
    vendors.default = SimpleSpanProcessor(exported)
    TracerProvider.add_span_processor(vendors, vendors.default)
    capture.on(tracer_provider=vendors)
    with vendors.get_tracer("agent").start_as_current_span("work"):
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert vendors.default is not None
    assert "work" in [span.name for span in exported.get_finished_spans()]
    assert [span.name for span in capture.read().spans] == ["work"]


def test_a_span_that_nobody_ends_takes_no_later_call(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """A call without a current span belongs to the open one as long as somebody holds it."""
    capture.on(tracer_provider=provider)
    tracer = provider.get_tracer("agent")
    held = tracer.start_span("held")
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    held.end()
    tracer.start_span("dropped")
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    records = capture.read()
    first, second = records.in_order()
    assert first.parent_span_id == records.span("held").span_id
    roots = [span for span in records.spans if span.attributes.get("tracefork.root")]
    assert second.parent_span_id in {span.span_id for span in roots}
