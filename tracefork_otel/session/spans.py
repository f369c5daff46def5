"""Spans of our own: through the user's provider where it records, straight into the WAL where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from os import urandom
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..log import warn_once
from ..store.records import SpanRecord
from ..tape import marks
from . import guarded
from .events import exported, exported_message
from .own_span import OwnSpan, Parent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan

    from .session import Session

SCOPE = "tracefork_otel"

_own_parent: ContextVar[SpanContext | None] = ContextVar("tracefork_parent", default=None)
"""A span of ours that no provider knows; in OTel's own context it would go out as `traceparent`."""
_whole: ContextVar[_Told | None] = ContextVar("tracefork_whole", default=None)
"""What the store is to have of the span that a tracer starts or ends right here; no provider cuts it."""


_WORK = 64
"""More than one is as good as many."""


@dataclass(slots=True)
class _Told:
    """The attributes that the store is to have, and the span for which our processor came for them."""

    attributes: Mapping[str, Any]
    message: str | None = None
    heard: SpanContext | None = None


def start(
    session: Session,
    tracer: trace.Tracer | None,
    name: str,
    parent: Parent,
    attributes: dict[str, Any],
    *,
    kind: SpanKind = SpanKind.INTERNAL,
) -> OwnSpan:
    """Open a span under the parent: the tracer's if that records, else one that only we know."""
    started_ns = time_ns()
    span: trace.Span | None = None
    above = None if parent.span is None else parent.span.span_id
    if tracer is not None:
        told = _Told(attributes)
        try:
            with _told_whole(told):
                span = tracer.start_span(
                    name,
                    context=parent.context,
                    kind=kind,
                    attributes=exported(attributes, session.settings.content_limit),
                    start_time=started_ns,
                )
        except Exception as error:
            guarded.warn("start", error)
            if told.heard is not None:  # its start is stored, by these ids
                return OwnSpan(name, told.heard, above, None, started_ns, attributes)
        if span is not None and span.is_recording():
            return OwnSpan(name, span.get_span_context(), above, span, started_ns, attributes)
        if span is not None and not otel_context.get_value(SUPPRESS):  # a vendor's, around its own span
            warn_once(
                "sampled",
                "the sampler of your TracerProvider (or OTEL_SDK_DISABLED) drops spans: your own backend will"
                " not show them, the exchanges are stored in %s all the same",
                session.settings.store,
            )
    trace_id = parent.span.trace_id if parent.span is not None else int.from_bytes(urandom(16), "big")
    dropped = tracer is not None and span is not None
    flags = TraceFlags(TraceFlags.DEFAULT if dropped else TraceFlags.SAMPLED)
    context = SpanContext(
        trace_id, int.from_bytes(urandom(8), "big") or 1, is_remote=False, trace_flags=flags
    )
    return OwnSpan(name, context, above, None, started_ns, attributes)


def whole(span: ReadableSpan) -> Mapping[str, Any]:
    """Return the attributes that the store is to have of a span that starts or ends in this context."""
    told = _told_of(span)
    if told is None:
        return {}
    told.heard = span.get_span_context()
    return told.attributes


def message(span: ReadableSpan) -> str | None:
    """Return the status message that the store is to have of a span that ends in this context."""
    told = _told_of(span)
    return told.message if told is not None and told.message is not None else span.status.description


def _told_of(span: ReadableSpan) -> _Told | None:
    scope = span.instrumentation_scope
    return _whole.get() if scope is not None and scope.name == SCOPE else None


@contextmanager
def _told_whole(told: _Told) -> Iterator[None]:
    token = _whole.set(told)
    try:
        yield
    finally:
        _whole.reset(token)


def record(session: Session, span: OwnSpan, *, is_root: bool, **ended: Any) -> None:
    """Write the span into the store as it stands; a root's says how the process was started."""
    attributes = {**span.attributes, **(session.run_attributes() if is_root else {})}
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
            attributes=marks.marked(span.trace_id, attributes, process=is_root),
            **ended,
        )
    )


def end(session: Session, span: OwnSpan, *, error: BaseException | None = None) -> None:
    """End the span once, in the store and wherever the provider exports to."""
    if span.ended:
        return
    span.ended = True
    session.work.pop(span.context.span_id, None)
    message = None if error is None else f"{type(error).__name__}: {session.redactor.error(str(error))}"
    if span.sdk is not None:
        span.sdk.set_attributes(exported(span.attributes, session.settings.content_limit))
        if message is not None:
            said = exported_message(message, session.settings.content_limit)
            span.sdk.set_status(Status(StatusCode.ERROR, said))
        told = _Told(span.attributes, message)
        with _told_whole(told):
            if guarded.end(span.sdk) or told.heard is not None:
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
    return beneath(span.sdk if span.sdk is not None else NonRecordingSpan(span.context))


def beneath(span: trace.Span) -> Parent:
    """Return any span as a parent, in the current context."""
    return Parent(trace.set_span_in_context(span, otel_context.get_current()), span.get_span_context())


def opened(session: Session, context: SpanContext, found: Callable[[], Parent | None]) -> None:
    """Keep a piece of work that began here, as long as `found` gives it; not more of them than a few."""
    if len(session.work) < _WORK:
        session.work[context.span_id] = found


def only_work(session: Session) -> Parent | None:
    """Return the one piece of work that is open in this process; None for none, or for several."""
    alone: Parent | None = None
    for span_id, found in list(session.work.items()):
        parent = found()
        if parent is None:
            session.work.pop(span_id, None)
        elif alone is not None:
            return None
        else:
            alone = parent
    return alone


def current_here() -> tuple[Context, SpanContext | None]:
    """Return what is current in this thread or task: OTel's context, and a span of ours that it has not."""
    return otel_context.get_current(), _own_parent.get()


def put_here(current: tuple[Context, SpanContext | None]) -> Callable[[], None]:
    """Make that current, until the result is called in the same thread or task."""
    token, own = otel_context.attach(current[0]), _own_parent.set(current[1])

    def back() -> None:
        otel_context.detach(token)
        _own_parent.reset(own)

    return back


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
