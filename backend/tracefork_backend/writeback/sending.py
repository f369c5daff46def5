"""Finished spans sent by OTLP, in the background: no collector can hold up or fail what is written."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tracefork_otel import __version__
from tracefork_otel.private_names import SUPPRESS

if TYPE_CHECKING:
    from tracefork_otel.store.records import SpanRecord

CLOSE_S = 5.0
"""A collector that does not answer costs whoever waits for it no more than this."""
_EXPORT_S = 3.0
"""One attempt and its retries: less than CLOSE_S, so that the exporter can say why it failed."""
_GATHER_S = 0.2
"""How long a span waits for others to be sent with."""
_BATCH = 512
"""What the SDK's own processor sends at once."""
_REASON_LENGTH = 300
"""Characters of an exporter's complaint that fit into a warning."""
_MANY = 1_000_000
"""More attributes or links than a span of ours has: the user's limits are meant for the agent's spans."""

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

_HTTP = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry-exporter-otlp-proto-http")
_GRPC = ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "opentelemetry-exporter-otlp-proto-grpc")


def endpoint(environ: Mapping[str, str] = os.environ) -> str | None:
    """The collector that the environment names for traces, or None if it names none or wants none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    named = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return (named or "").strip() or None


def speaks_grpc(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for OTLP by gRPC; by the standard it is HTTP unless said otherwise."""
    name = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return (name or "").strip().lower() == "grpc"


class Outbox:
    """Sends what it is given, and says at its end what did not arrive; no method raises."""

    def __init__(self, *, service: str, scope: str, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._endpoint = endpoint()
        self._queue: SimpleQueue[SpanRecord | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._stop = threading.Event()
        self._service = service
        self._scope = scope
        self._exporter: SpanExporter | None = None
        self._given = 0
        self._sent = 0
        self._reason: str | None = None

    def send(self, record: SpanRecord) -> None:
        """The span is on its way to the collector, if there is one."""
        if self._endpoint is None:
            return
        with self._lock:
            self._given += 1
            self._queue.put(record)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="tracefork-otlp", daemon=True)
                self._worker.start()

    def finish(self) -> None:
        """Nothing more comes: what is left is being sent; `close` waits for it."""
        self._stop.set()
        self._queue.put(None)

    def close(self) -> None:
        """Everything arrived, or a warning said how much did not and why; at most CLOSE_S have passed."""
        self.finish()
        worker = self._worker
        if worker is None:
            return
        worker.join(CLOSE_S)
        if worker.is_alive():
            self._reason = self._reason or f"it did not answer in {CLOSE_S:.0f} s"
        # A worker that still waits for the network is a daemon: it ends with its own time limit.
        lost = self._given - self._sent
        if lost:
            spans = "1 span" if lost == 1 else f"{lost} spans"
            self._warn(
                f"{spans} did not reach the collector at {self._endpoint}, the store has them all the same: "
                f"{self._reason or 'it did not take them'}{self._hint()}"
            )

    def _run(self) -> None:
        # Exporters are not to be traced themselves, nor counted as connections of the agent.
        token = otel_context.attach(otel_context.set_value(SUPPRESS, True))
        try:
            self._exporter = _exporter()
            spans = _SdkSpans(self._service, self._scope)
            with _listening(self._exporter, self._failed):
                more = True
                while more:
                    more = self._one_batch(spans)
        except Exception as error:
            self._failed(str(error) or type(error).__name__)
        finally:
            if self._exporter is not None:
                with contextlib.suppress(Exception):
                    self._exporter.shutdown()
            otel_context.detach(token)

    def _one_batch(self, spans: _SdkSpans) -> bool:
        """A batch was sent, or tried; False once nothing more will come."""
        assert self._exporter is not None
        records: list[SpanRecord] = []
        record = self._queue.get()
        until = time.monotonic() + _GATHER_S
        while record is not None:
            records.append(record)
            if len(records) == _BATCH:
                break
            try:
                # After the end was said nothing more is worth waiting for.
                wait = 0.0 if self._stop.is_set() else max(0.0, until - time.monotonic())
                record = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            except Empty:
                break
        if records:
            result = self._exporter.export([spans.made(one) for one in records])
            if result is SpanExportResult.SUCCESS:
                self._sent += len(records)
        return record is not None

    def _failed(self, reason: str) -> None:
        short = next((plain for words, plain in _KNOWN if words in reason), reason[:_REASON_LENGTH])
        self._reason = self._reason or short

    def _hint(self) -> str:
        if _GRPC_PORT in (self._endpoint or "") and not speaks_grpc():
            return "; that is the port for gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use 4318"
        return ""


def _exporter() -> SpanExporter:
    """The exporter for the protocol asked for; raises RuntimeError if it is not installed."""
    module, package = _GRPC if speaks_grpc() else _HTTP
    try:
        cls: Any = importlib.import_module(module).OTLPSpanExporter
    except ImportError as error:
        raise RuntimeError(
            f"the exporter for it cannot be imported ({error}); install it: pip install {package}"
        ) from error
    return cls(timeout=_EXPORT_S)


class _GivenIds(IdGenerator):
    """Hands out the ids that the next span is to have."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        """The trace id of the next span."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """The id of the next span."""
        return self.span_id


class _Kept(SpanProcessor):
    """Keeps the span that ended last."""

    span: ReadableSpan

    def on_end(self, span: ReadableSpan) -> None:
        """The span is the one that ended last."""
        self.span = span


class _SdkSpans:
    """Makes the SDK's spans out of records, whatever sampler and limits the user set; for one thread."""

    def __init__(self, service: str, scope: str) -> None:
        self._ids = _GivenIds()
        self._kept = _Kept()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": service, "service.version": __version__}),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(
                max_attributes=_MANY,
                max_span_attributes=_MANY,
                max_link_attributes=_MANY,
                max_links=_MANY,
                # What is not given is read from the environment; this value means none.
                max_attribute_length=SpanLimits.UNSET,
                max_span_attribute_length=SpanLimits.UNSET,
            ),
        )
        provider.add_span_processor(self._kept)
        self._tracer = provider.get_tracer(scope, __version__)

    def made(self, record: SpanRecord) -> ReadableSpan:
        """The record as an ended span with the same ids and times."""
        self._ids.trace_id = int(record.trace_id, 16)
        self._ids.span_id = int(record.span_id, 16)
        parent = otel_context.Context()
        if record.parent_span_id is not None:
            above = _place(record.trace_id, record.parent_span_id)
            parent = trace.set_span_in_context(trace.NonRecordingSpan(above), parent)
        span = self._tracer.start_span(
            record.name,
            context=parent,
            kind=trace.SpanKind[record.kind],
            attributes=dict(record.attributes),  # pyright: ignore[reportArgumentType]
            links=_links(record.links),
            start_time=record.started_ns,
        )
        if record.status != "UNSET":
            span.set_status(trace.Status(trace.StatusCode[record.status], record.status_message))
        span.end(record.ended_ns)
        return self._kept.span


def _links(links: Sequence[Mapping[str, Any]]) -> list[trace.Link]:
    return [trace.Link(_place(link["trace_id"], link["span_id"]), link["attributes"]) for link in links]


def _place(trace_id: str, span_id: str) -> trace.SpanContext:
    return trace.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )


@contextlib.contextmanager
def _listening(exporter: SpanExporter, heard: Callable[[str], None]) -> Iterator[None]:
    """What the exporter logs in this thread goes to `heard` alone: one warning of ours says it better."""
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
