"""Finished spans sent by OTLP, in the background: no collector can hold up or fail what is written."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tracefork_otel import __version__
from tracefork_otel.session.events import exported, exported_message
from tracefork_otel.session.spans import SCOPE as AGENTS_SCOPE
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import UNSENT

from ..spelling import counted
from .names import PROBLEM_TEXT, SERVICE

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
_MESSAGE = 3 * 1024 * 1024
"""Bytes of spans in one message: by gRPC collectors take 4 MiB, with what is around the spans."""
_AROUND = 48
"""Bytes that a value takes beside its own: tags and lengths, and ids and times of what it belongs to."""
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

    def __init__(self, *, warn: Callable[[str], None], close_s: float = CLOSE_S) -> None:
        """`close_s` is how long `close` waits for what did not arrive yet."""
        self._warn, self._close_s = warn, close_s
        self._endpoint = endpoint()
        self._lock = threading.Lock()
        self._exporter = _Counting()
        self._limit = Settings.from_env().content_limit if self._endpoint is not None else 0
        self._sender: BatchSpanProcessor | None = None
        self._resources: dict[str, Resource] = {}
        self._closing: threading.Thread | None = None
        self._given = 0

    @property
    def wanted(self) -> bool:
        """Whether there is a collector to send to."""
        return self._endpoint is not None

    def send(self, record: SpanRecord) -> None:
        """Send the span to the collector, if there is one."""
        if self._endpoint is None:
            return
        with self._lock:
            self._given += 1
            if self._sender is None:
                self._sender = BatchSpanProcessor(
                    self._exporter,
                    max_queue_size=_MANY,
                    schedule_delay_millis=_GATHER_MS,
                    max_export_batch_size=512,
                )
            resource = self._resources.get(record.service)
            if resource is None:
                resource = self._resources[record.service] = _resource(record.service)
        self._sender.on_end(_readable(record, resource, self._limit))

    def finish(self) -> None:
        """Take nothing more and send what is left; `close` waits for it."""
        if self._sender is not None and self._closing is None:
            # The SDK waits longer than we do. It is a daemon: it ends with the exporter's own time limit.
            self._closing = threading.Thread(target=self._sender.shutdown, name="tracefork-otlp", daemon=True)
            self._closing.start()

    @property
    def arrived(self) -> int:
        """How many spans the collector has taken."""
        return self._exporter.sent

    def has_taken(self, trace_id: str) -> bool:
        """Return whether the collector has taken a span of the trace."""
        return int(trace_id, 16) in self._exporter.traces

    def close(self) -> None:
        """Wait until everything arrived, for a limited time; warn of how much did not, and why."""
        self.finish()
        if self._closing is None:
            return
        self._closing.join(self._close_s)
        if self._closing.is_alive():
            self._exporter.give_up(f"it did not answer in {self._close_s:.0f} s")
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
        self.traces: set[int] = set()
        """Those of which a span arrived."""
        self.reason: str | None = None
        self._exporter: SpanExporter | None = None
        self._over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans in messages that a collector takes; what fails is remembered, not raised."""
        arrived = [self._send(part) for part in _parts(spans)]
        return SpanExportResult.SUCCESS if all(arrived) else SpanExportResult.FAILURE

    def _send(self, spans: Sequence[ReadableSpan]) -> bool:
        if self._over:
            return False
        try:
            if self._exporter is None:
                self._exporter = _exporter()
            with _listening(self._exporter, self._failed):
                result = self._exporter.export(spans)
        except Exception as error:
            self._failed(str(error) or type(error).__name__)
            return False
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
            self.traces.update(span.context.trace_id for span in spans if span.context is not None)
        return result is SpanExportResult.SUCCESS

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


def _parts(spans: Sequence[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    """Yield the spans in order, as many together as a message may hold; one that is larger goes alone."""
    part: list[ReadableSpan] = []
    size = 0
    for span in spans:
        own = _size(span)
        if part and size + own > _MESSAGE:
            yield part
            part, size = [], 0
        part.append(span)
        size += own
    if part:
        yield part


def _size(span: ReadableSpan) -> int:
    """Return about how many bytes the span takes in a message, rather more than fewer."""
    told = [span.attributes, *(one.attributes for one in (*span.events, *span.links))]
    names = [span.name, span.status.description or "", *(event.name for event in span.events)]
    return sum(map(_weight, (*told, *names)))


def _weight(value: object) -> int:
    if isinstance(value, str):
        return _AROUND + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))
    if isinstance(value, Mapping):
        told = cast("Mapping[str, object]", value)
        return _AROUND + sum(_weight(name) + _weight(one) for name, one in told.items())
    if isinstance(value, (list, tuple)):
        return _AROUND + sum(map(_weight, cast("Sequence[object]", value)))
    return _AROUND + (len(value) if isinstance(value, bytes) else 0)


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


def _resource(service: str) -> Resource:
    about = {"service.name": service or "unknown_service"}
    return Resource.create({**about, "service.version": __version__} if service == SERVICE else about)


def _readable(record: SpanRecord, resource: Resource, limit: int) -> ReadableSpan:
    """Return the record as a span of the SDK: the user's sampler and limits are for the agent's.

    How an agent is started and what it says are the store's alone, unless the settings allow `limit` bytes.
    """
    parent = record.parent_span_id
    told = exported({name: value for name, value in record.attributes.items() if name not in UNSENT}, limit)
    # Those whose message may quote the agent.
    quotes = record.scope == AGENTS_SCOPE or PROBLEM_TEXT in record.attributes
    said = exported_message(record.status_message, limit) if quotes else record.status_message
    links: Sequence[Mapping[str, Any]] = record.links
    events: Sequence[Mapping[str, Any]] = record.events
    return ReadableSpan(
        record.name,
        context=_place(record.trace_id, record.span_id),
        parent=None if parent is None else _place(record.trace_id, parent),
        resource=resource,
        attributes=BoundedAttributes(attributes=told),
        events=[Event(one["name"], one["attributes"], one["time_ns"]) for one in events],
        links=[trace.Link(_place(one["trace_id"], one["span_id"]), one["attributes"]) for one in links],
        kind=trace.SpanKind[record.kind],
        status=trace.Status(trace.StatusCode[record.status], said),
        start_time=record.started_ns,
        end_time=record.ended_ns,
        instrumentation_scope=InstrumentationScope(
            record.scope, __version__ if record.scope.startswith("tracefork_") else None
        ),
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
