"""Spans of our own: through the user's provider where it records, straight into the WAL where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from os import urandom
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..log import warn_once
from ..store.records import SpanRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ..settings import Settings

SCOPE = "tracefork_otel"

_own_parent: ContextVar[SpanContext | None] = ContextVar("tracefork_parent", default=None)
"""A span of ours that no provider knows; in OTel's own context it would go out as `traceparent`."""


class SpanStore(Protocol):
    """Where spans of ours are kept: the session."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        ...

    @property
    def service(self) -> str:
        """The service's name."""
        ...

    @property
    def remote(self) -> tuple[int, int, int] | None:
        """(trace id, span id, flags) of the span that this process's own root is a child of."""
        ...

    def join(self) -> None:
        """Look for the run of the process that started this one."""
        ...

    def append(self, record: SpanRecord) -> bool:
        """Write the record down."""
        ...

    def run_attributes(self) -> dict[str, object]:
        """Return how this process was started."""
        ...


class Parent(NamedTuple):
    """What a new span is a child of."""

    context: Context
    span: SpanContext | None


@dataclass(slots=True)
class OwnSpan:
    """A span of ours that is open; `sdk` is None where no provider records it."""

    name: str
    context: SpanContext
    parent_id: int | None
    sdk: Span | None
    started_ns: int
    attributes: dict[str, Any]
    ended: bool = False

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return f"{self.context.span_id:016x}"

    @property
    def parent_span_id(self) -> str | None:
        """16 hex digits, or None for a root."""
        return None if self.parent_id is None else f"{self.parent_id:016x}"

    def record(self, session: SpanStore, *, extras: Mapping[str, object] | None = None, **ended: Any) -> None:
        """Write the span into the store as it stands."""
        session.append(
            SpanRecord(
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_span_id=self.parent_span_id,
                name=self.name,
                kind="INTERNAL",
                started_ns=self.started_ns,
                service=session.service,
                scope=SCOPE,
                attributes={**self.attributes, **(extras or {})},
                **ended,
            )
        )

    def end(self, session: SpanStore, *, error: BaseException | None = None) -> None:
        """End the span once, in the store and wherever the provider exports to."""
        if self.ended:
            return
        self.ended = True
        message = None if error is None else f"{type(error).__name__}: {error}"
        if self.sdk is not None:
            self.sdk.set_attributes(self.attributes)
            if message is not None:
                self.sdk.set_status(Status(StatusCode.ERROR, message))
            self.sdk.end()
            return
        extras = session.run_attributes() if self.parent_id is None or self.is_process_root(session) else None
        self.record(
            session,
            extras=extras,
            ended_ns=time_ns(),
            status="UNSET" if error is None else "ERROR",
            status_message=message,
        )

    def is_process_root(self, session: SpanStore) -> bool:
        """Return whether its parent is the command that started this process."""
        return session.remote is not None and self.parent_id == session.remote[1]


def start(
    session: SpanStore,
    tracer: trace.Tracer | None,
    name: str,
    parent: Parent,
    attributes: dict[str, Any],
    started_ns: int,
) -> OwnSpan:
    """Open a span under the parent: the tracer's if that records, else one that only we know."""
    if tracer is not None:
        span = tracer.start_span(
            name, context=parent.context, kind=SpanKind.INTERNAL, attributes=attributes, start_time=started_ns
        )
        if span.is_recording():
            above = parent.span.span_id if parent.span is not None else None
            return OwnSpan(name, span.get_span_context(), above, span, started_ns, attributes)
        warn_once(
            "sampled",
            "the sampler of your TracerProvider (or OTEL_SDK_DISABLED) drops spans: your own backend will "
            "not show them, the exchanges are stored in %s all the same",
            session.settings.store,
        )
    trace_id = parent.span.trace_id if parent.span is not None else int.from_bytes(urandom(16), "big")
    flags = TraceFlags(TraceFlags.SAMPLED if tracer is None else TraceFlags.DEFAULT)
    context = SpanContext(
        trace_id, int.from_bytes(urandom(8), "big") or 1, is_remote=False, trace_flags=flags
    )
    return OwnSpan(
        name, context, None if parent.span is None else parent.span.span_id, None, started_ns, attributes
    )


def current_parent(session: SpanStore) -> Parent | None:
    """Return the current span as a parent; None for none, or only the command that started this process."""
    context = otel_context.get_current()
    span = trace.get_current_span(context).get_span_context()
    if span.is_valid and not (session.remote is not None and span.span_id == session.remote[1]):
        return Parent(context, span)
    own = _own_parent.get()
    if own is not None:
        return Parent(trace.set_span_in_context(NonRecordingSpan(own), context), own)
    return None


def under(span: OwnSpan) -> Parent:
    """Return the given span as a parent, in the current context."""
    carrier = span.sdk if span.sdk is not None else NonRecordingSpan(span.context)
    return Parent(trace.set_span_in_context(carrier, otel_context.get_current()), span.context)


def remote_parent(session: SpanStore) -> Parent:
    """Return the command that started this process as a parent, or none, in an otherwise empty context."""
    session.join()
    if session.remote is None:
        return Parent(otel_context.Context(), None)
    trace_id, span_id, flags = session.remote
    span = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return Parent(trace.set_span_in_context(NonRecordingSpan(span), otel_context.Context()), span)


def make_current(span: OwnSpan) -> Callable[[], None]:
    """Make a span that no provider knows the parent of spans of ours, until the result is called."""
    token = _own_parent.set(span.context)
    return lambda: _own_parent.reset(token)
