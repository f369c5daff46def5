"""Finished spans sent by OTLP, in the background: no collector can hold up or fail what is written."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tracefork_otel import __version__

from ..spelling import counted

if TYPE_CHECKING:
    from tracefork_otel.store.records import SpanRecord

CLOSE_S = 5.0
"""A collector that does not answer costs whoever waits for it no more than this."""
_EXPORT_S = 3.0
"""One attempt and its retries: less than CLOSE_S, so that the exporter can say why it failed."""
_GATHER_MS = 200
"""How long a span waits for others to be sent with."""
_MANY = 1_000_000
"""More spans than one operation writes."""
_REASON_LENGTH = 300
"""Characters of an exporter's complaint that fit into a warning."""

_GRPC_PORT = ":4317"
"""Of every collector's gRPC, which answers HTTP with nothing that says so."""
_KNOWN = (
    ("Connection refused", "connection refused"),
    ("Name or service not known", "no such host"),
    ("NameResolutionError", "no such host"),
    ("due to timeout", f"no answer in {_EXPORT_S:.0f} s"),
    ("DEADLINE_EXCEEDED", f"no answer in {_EXPORT_S:.0f} s"),
)
"""What exporters say at length, in short."""

_HTTP = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "tracefork-otel[otlp]")
_GRPC = ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "opentelemetry-exporter-otlp-proto-grpc")


def endpoint(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the collector that the environment names for traces, or None if it names none or wants none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    named = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return (named or "").strip() or None


def speaks_grpc(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for gRPC; by the standard it is HTTP unless said otherwise."""
    name = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return (name or "").strip().lower() == "grpc"


class Outbox:
    """Sends what it is given, and says at its end what did not arrive; no method raises."""

    def __init__(self, *, service: str, scope: str, warn: Callable[[str], None]) -> None:
        self._service = service
        self._scope = InstrumentationScope(scope, __version__)
        self._warn = warn
        self._endpoint = endpoint()
        self._lock = threading.Lock()
        self._exporter = _Counting()
        self._sender: tuple[BatchSpanProcessor, Resource] | None = None
        self._closing: threading.Thread | None = None
        self._given = 0

    def send(self, record: SpanRecord) -> None:
        """Send the span to the collector, if there is one."""
        if self._endpoint is None:
            return
        with self._lock:
            self._given += 1
            if self._sender is None:
                about = {"service.name": self._service, "service.version": __version__}
                batches = BatchSpanProcessor(
                    self._exporter,
                    max_queue_size=_MANY,
                    schedule_delay_millis=_GATHER_MS,
                    max_export_batch_size=512,
                )
                self._sender = batches, Resource.create(about)
        batches, resource = self._sender
        batches.on_end(_readable(record, resource, self._scope))

    def finish(self) -> None:
        """Take nothing more and send what is left; `close` waits for it."""
        if self._sender is not None and self._closing is None:
            # The SDK waits longer than we do. It is a daemon: it ends with the exporter's own time limit.
            batches, _ = self._sender
            self._closing = threading.Thread(target=batches.shutdown, name="tracefork-otlp", daemon=True)
            self._closing.start()

    def close(self) -> None:
        """Wait until everything arrived, at most CLOSE_S; warn of how much did not, and why."""
        self.finish()
        if self._closing is None:
            return
        self._closing.join(CLOSE_S)
        if self._closing.is_alive():
            self._exporter.give_up(f"it did not answer in {CLOSE_S:.0f} s")
        lost = self._given - self._exporter.sent
        if lost:
            why = self._exporter.reason or "it did not take them"
            self._warn(
                f"{counted(lost, 'span')} did not reach the collector at {self._endpoint}, "
                f"the store has them all the same: {why}{self._hint()}"
            )

    def _hint(self) -> str:
        if _GRPC_PORT in (self._endpoint or "") and not speaks_grpc():
            return "; that is the port for gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use 4318"
        return ""


class _Counting(SpanExporter):
    """The exporter that the environment asks for, made in the thread that sends; counts what arrived."""

    def __init__(self) -> None:
        self.sent = 0
        self.reason: str | None = None
        self._exporter: SpanExporter | None = None
        self._over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; what fails is remembered, not raised."""
        if self._over:
            return SpanExportResult.FAILURE
        try:
            if self._exporter is None:
                self._exporter = _exporter()
            with _listening(self._exporter, self._failed):
                result = self._exporter.export(spans)
        except Exception as error:
            self._failed(str(error) or type(error).__name__)
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def give_up(self, reason: str) -> None:
        """Send no further batch."""
        self._over = True
        self._failed(reason)

    def shutdown(self) -> None:
        """Let the collector go."""
        if self._exporter is not None:
            with contextlib.suppress(Exception):
                self._exporter.shutdown()

    def _failed(self, reason: str) -> None:
        short = next((plain for words, plain in _KNOWN if words in reason), reason[:_REASON_LENGTH])
        self.reason = self.reason or short


def _exporter() -> SpanExporter:
    """Return the exporter for the protocol asked for; raise RuntimeError if it is not installed."""
    module, package = _GRPC if speaks_grpc() else _HTTP
    try:
        cls: Any = importlib.import_module(module).OTLPSpanExporter
    except ImportError as error:
        raise RuntimeError(
            f"the exporter for it cannot be imported ({error}); install it: pip install '{package}'"
        ) from error
    return cls(timeout=_EXPORT_S)


def _readable(record: SpanRecord, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    """Return the record as a span of the SDK, whole: the user's sampler and limits are for the agent's."""
    parent = record.parent_span_id
    told: Mapping[str, Any] = record.attributes
    links: Sequence[Mapping[str, Any]] = record.links
    return ReadableSpan(
        record.name,
        context=_place(record.trace_id, record.span_id),
        parent=None if parent is None else _place(record.trace_id, parent),
        resource=resource,
        attributes=BoundedAttributes(attributes=told),
        links=[trace.Link(_place(one["trace_id"], one["span_id"]), one["attributes"]) for one in links],
        kind=trace.SpanKind[record.kind],
        status=trace.Status(trace.StatusCode[record.status], record.status_message),
        start_time=record.started_ns,
        end_time=record.ended_ns,
        instrumentation_scope=scope,
    )


def _place(trace_id: str, span_id: str) -> trace.SpanContext:
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)


@contextlib.contextmanager
def _listening(exporter: SpanExporter, heard: Callable[[str], None]) -> Iterator[None]:
    """Have what the exporter logs in this thread go to `heard` alone: one warning of ours says it better."""
    here = threading.get_ident()

    def ours(record: logging.LogRecord) -> bool:
        if record.thread != here:
            return True
        if record.levelno >= logging.WARNING:
            heard(record.getMessage())
        return False

    loggers = [logging.getLogger(cls.__module__) for cls in type(exporter).__mro__]
    for logger in loggers:
        logger.addFilter(ours)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(ours)
