"""A span processor of the user's that raises: his model calls and his own spans are as without us."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from conftest import Capture
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from recorded import fetch, stream

import tracefork_otel
from tracefork_otel import log


class Raising(SpanProcessor):
    """A processor that raises where it is told to."""

    def __init__(self, *where: str) -> None:
        self.where = where
        self.met = 0

    def _at(self, where: str) -> None:
        if where in self.where:
            self.met += 1
            raise ValueError(f"the user's own {where}")

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Raise or do nothing."""
        self._at("start")

    def on_end(self, span: ReadableSpan) -> None:
        """Raise or do nothing."""
        self._at("end")


class Exporter(SpanExporter):
    """An exporter that raises."""

    def export(self, spans: Any) -> SpanExportResult:
        """Raise."""
        raise OSError("no collector")


@pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
@pytest.mark.parametrize("where", [("start",), ("end",), ("start", "end")], ids="+".join)
@pytest.mark.parametrize("ours_first", [False, True])
def test_a_processor_that_raises_fails_no_call(
    module: ModuleType, where: tuple[str, ...], ours_first: bool, capture: Capture, raw: str
) -> None:
    """Every kind of call gets its answer and is stored, with OpenTelemetry's own spans of HTTP as well."""
    provider = TracerProvider(shutdown_on_exit=False)
    raising = Raising(*where)

    @tracefork_otel.tool
    def tool(number: int) -> int:
        return number + len(fetch(module, "sync", "GET", f"{raw}/bytes/10").content)

    @tracefork_otel.agent
    def agent() -> list[int]:
        return [len(fetch(module, kind, "GET", f"{raw}/bytes/500").content) for kind in ("sync", "async")]

    if ours_first:
        capture.on(tracer_provider=provider, http_spans=True)
    provider.add_span_processor(raising)
    capture.on(tracer_provider=provider, http_spans=True)
    assert agent() == [500, 500]
    assert tool(1) == 11
    for kind in ("sync", "async"):
        assert b"".join(stream(module, kind, f"{raw}/bytes/700")) != b""
    assert raising.met
    found = capture.read()
    assert [one.outcome for one in found.in_order()] == ["complete"] * 5
    assert found.span("invoke_agent agent").ended_ns
    assert found.span("execute_tool tool").ended_ns


def test_the_users_own_spans_are_as_without_us(capture: Capture, raw: str) -> None:
    """What his processor raises at his own spans still reaches him."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising("end"))
    capture.on(tracer_provider=provider, http_spans=True)
    with pytest.raises(ValueError, match="own end"), provider.get_tracer("his").start_as_current_span("s"):
        assert fetch(httpx2, "sync", "GET", f"{raw}/bytes/5").status_code == 200


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes(error: type[BaseException], capture: Capture, raw: str) -> None:
    """An interrupt that comes while a call is sent or read reaches the application as it came."""
    capture.on()

    def interrupted(request: Any) -> Any:
        raise error("stop")

    with (
        httpx2.Client(transport=httpx2.MockTransport(interrupted)) as client,
        pytest.raises(error, match="stop"),
    ):
        client.get("http://model.test/")
    with pytest.raises(error), httpx2.stream("GET", f"{raw}/bytes/5000"):
        raise error
    assert [one.outcome for one in capture.read().in_order()] == ["no_response", "closed"]


def test_an_exporter_that_raises_fails_no_call(capture: Capture, raw: str) -> None:
    """One behind a simple processor raises at the end of each span."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    capture.on(tracer_provider=provider, http_spans=True)
    assert fetch(httpx2, "sync", "GET", f"{raw}/bytes/5").status_code == 200
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert capture.read().only().outcome == "complete"


class Handler(logging.Handler):
    """A log handler that raises."""

    met = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        self.met += 1
        raise BufferError("the log is full")


@pytest.mark.parametrize("where", ["start", "end"])
@pytest.mark.parametrize("http_spans", [False, True])
def test_a_log_handler_that_raises_fails_no_call(
    where: str, http_spans: bool, capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot even be logged goes no further either."""
    monkeypatch.setattr(log, "_warned", set())
    handler = Handler()
    monkeypatch.setattr(log.LOG, "handlers", [handler])
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising(where))
    capture.on(tracer_provider=provider, http_spans=http_spans)
    for kind in ("sync", "async"):
        assert fetch(httpx2, kind, "GET", f"{raw}/bytes/500").status_code == 200
    assert handler.met
    assert [one.outcome for one in capture.read().in_order()] == ["complete"] * 2


class Refusing(TracerProvider):
    """A provider that raises where it is asked for a tracer."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        """Raise."""
        raise RuntimeError("no tracer today")


class Closed(trace.TracerProvider):
    """A provider that is none of the SDK's, and takes nothing more."""

    def add_span_processor(self, processor: object) -> None:
        """Raise."""
        raise RuntimeError("closed")

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """Return one that does nothing."""
        return trace.NoOpTracer()


@pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
@pytest.mark.parametrize("made", [Refusing, Closed])
def test_a_provider_that_raises_costs_no_exchange(
    module: ModuleType, made: type[trace.TracerProvider], capture: Capture, raw: str
) -> None:
    """Calls get their answers, and are whole in the store."""
    capture.on(tracer_provider=made(), http_spans=True)
    for kind in ("sync", "async"):
        assert len(fetch(module, kind, "GET", f"{raw}/bytes/500").content) == 500
    assert [one.outcome for one in capture.read().in_order()] == ["complete"] * 2
