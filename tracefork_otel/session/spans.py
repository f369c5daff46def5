"""Spans of our own: through the user's provider where it records, straight into the WAL where not."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from os import urandom
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..log import warn_once
from ..store.records import SpanRecord
from .own_span import OwnSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from .session import Session

SCOPE = "tracefork_otel"

_own_parent: ContextVar[SpanContext | None] = ContextVar("tracefork_parent", default=None)
"""A span of ours that no provider knows; in OTel's own context it would go out as `traceparent`."""


class Parent(NamedTuple):
    """What a new span is a child of."""

    context: Context
    span: SpanContext | None


def start(
    session: Session, tracer: trace.Tracer | None, name: str, parent: Parent, attributes: dict[str, Any]
) -> OwnSpan:
    """Open a span under the parent: the tracer's if that records, else one that only we know."""
    started_ns = time_ns()
    above = None if parent.span is None else parent.span.span_id
    if tracer is not None:
        span = tracer.start_span(
            name, context=parent.context, kind=SpanKind.INTERNAL, attributes=attributes, start_time=started_ns
        )
        if span.is_recording():
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
    return OwnSpan(name, context, above, None, started_ns, attributes)


def record(session: Session, span: OwnSpan, *, is_root: bool, **ended: Any) -> None:
    """Write the span into the store as it stands; a root's says how the process was started."""
    session.append(
        SpanRecord(
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            name=span.name,
            kind="INTERNAL",
            started_ns=span.started_ns,
            service=session.service,
            scope=SCOPE,
            attributes={**span.attributes, **(session.run_attributes() if is_root else {})},
            **ended,
        )
    )


def end(session: Session, span: OwnSpan, *, error: BaseException | None = None) -> None:
    """End the span once, in the store and wherever the provider exports to."""
    if span.ended:
        return
    span.ended = True
    message = None if error is None else f"{type(error).__name__}: {error}"
    if span.sdk is not None:
        span.sdk.set_attributes(span.attributes)
        if message is not None:
            span.sdk.set_status(Status(StatusCode.ERROR, message))
        span.sdk.end()
        return
    remote = None if session.remote is None else session.remote[1]  # the command that started this process
    record(
        session,
        span,
        is_root=span.parent_id is None or span.parent_id == remote,
        ended_ns=time_ns(),
        status="UNSET" if error is None else "ERROR",
        status_message=message,
    )


def current_parent(session: Session) -> Parent | None:
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


def remote_parent(session: Session) -> Parent:
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
