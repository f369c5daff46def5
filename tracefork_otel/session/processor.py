"""Spans of an adopted provider go into the store: their start where a run may begin, their end always."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from ..store.records import SpanRecord
from ..tape import marks
from . import current, spans
from .calls import began, is_call
from .events import link_record, service_of
from .opening import open_session

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from .own_span import Parent
    from .session import Session

_REMEMBERED = 8192
"""Ended spans whose ids are kept, so that one that also comes through an exporter is stored once: four times
the default queue of a BatchSpanProcessor."""
_stored: OrderedDict[int, None] = OrderedDict()
"""The ids of the spans that were stored last, oldest first."""
_URL_ATTRIBUTES = ("url.full", "http.url", "http.target", "url.query")


class TraceforkSpanProcessor(SpanProcessor):
    """A span processor that writes into the WAL of this process, until the process ends.

    >>> provider.add_span_processor(TraceforkSpanProcessor(store="runs"))
    """

    def __init__(self, store: str | Path | None = None) -> None:
        """Use the store that this process records into already, else the given or the environment's."""
        open_session("processor", store=store)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Write down the start of what may begin a run: a process that is killed leaves a readable one."""
        session = current.session
        if session is None:
            return
        try:
            began(span)
            if not is_exchange(span.attributes) and (span.parent is None or span.parent.is_remote):
                _link_to_fork(session, span)
                context = span.get_span_context()
                if context is None:
                    return
                if span.parent is None:
                    session.roots[context.trace_id] = span
                if is_call(span):
                    return  # it begins no run
                if _is_work(span):
                    spans.opened(session, context, _while_open(span))
                if session.append(span_record(session, span)):
                    session.told.add(context.span_id)
        except Exception as error:
            session.lost("start of a span", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Write the span down; an exchange's own is left to the seam, which has the bodies."""
        session = current.session
        if session is not None:
            context = span.get_span_context()
            if context is not None:
                session.work.pop(context.span_id, None)
            store_span(session, span)
            if context is not None and span.parent is None:
                session.roots.pop(context.trace_id, None)

    def shutdown(self) -> None:
        """Do nothing: spans that end later are stored as well."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """End the exchanges whose response was dropped; every span is in the WAL already."""
        session = current.session
        if session is not None:
            session.flush()
        return True


def _while_open(span: Span) -> Callable[[], Parent | None]:
    held = weakref.ref(span)  # one that is dropped without an end is over as well

    def found() -> Parent | None:
        span = held()
        return spans.beneath(span) if span is not None and span.is_recording() else None

    return found


def _is_work(span: Span) -> bool:
    """Return whether the span may hold what other threads do meanwhile: no single call, not our own root."""
    attributes = span.attributes or {}
    operation = attributes.get("gen_ai.operation.name", "invoke_agent")
    return (
        span.kind not in (SpanKind.CLIENT, SpanKind.PRODUCER)
        and operation in ("invoke_agent", "invoke_workflow")
        and "tracefork.root" not in attributes
    )


def store_span(session: Session, span: ReadableSpan) -> None:
    """Store the ended span once, whether a processor or an exporter brings it."""
    try:
        session.reap()
        context = span.get_span_context()
        if context is None:
            return
        session.name_run(session.runs.of(context.trace_id), span.attributes, span.resource.attributes)
        if is_exchange(span.attributes):
            exchange = session.open.get(context.span_id)
            if exchange is not None:
                exchange.seen = span
            return
        if context.span_id not in _stored:
            _stored[context.span_id] = None
            if len(_stored) > _REMEMBERED:
                _stored.popitem(last=False)
            told = context.span_id in session.told
            session.told.discard(context.span_id)
            session.append(span_record(session, span, told=told))
    except Exception as error:
        session.lost("end of a span", error)


def is_exchange(attributes: Mapping[str, Any] | None) -> bool:
    """Return whether these are the attributes of an exchange span of ours."""
    return bool(attributes) and "tracefork.exchange" in attributes  # pyright: ignore[reportOperatorIssue]


def span_record(session: Session, span: ReadableSpan, *, told: bool = False) -> SpanRecord:
    """Return the span as the store keeps it, secrets replaced; a run's root says how it was started.

    That is long, so an end leaves it out where the start has `told` it: whoever reads the two joins them.
    """
    context = span.get_span_context()
    assert context is not None
    parent = span.parent
    own = spans.whole(span)
    attributes: dict[str, Any] = {**(span.attributes or {}), **own}
    for name in _URL_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str):
            attributes[name] = session.redactor.url(value)
    attributes = session.redactor.attributes(attributes)
    root = parent is None or (session.remote is not None and parent.span_id == session.remote[1])
    process = root and not told and not is_call(span)
    if process:
        attributes.update(session.run_attributes())
    call = "tracefork.entrypoint" in own  # anybody may have put on a span what stands on ours
    trace_id = f"{context.trace_id:032x}"
    scope = span.instrumentation_scope
    return SpanRecord(
        trace_id=trace_id,
        span_id=f"{context.span_id:016x}",
        parent_span_id=None if parent is None else f"{parent.span_id:016x}",
        name=span.name,
        kind=_name_of(span.kind),
        started_ns=span.start_time or 0,
        ended_ns=span.end_time,
        status=_name_of(span.status.status_code),
        status_message=spans.message(span),
        service=service_of(span) or session.service,
        scope=scope.name if scope is not None else "",
        attributes=marks.marked(trace_id, attributes, process=process, call=call),
        events=tuple(
            {
                "name": event.name,
                "time_ns": event.timestamp,
                "attributes": session.redactor.attributes(event.attributes or {}),
            }
            for event in span.events
        ),
        links=tuple(link_record(link) for link in span.links),
    )


def _name_of(member: Any) -> str:
    """Return an enumeration's name for its member; an application may have given the SDK anything."""
    return member.name if isinstance(member, Enum) else member


def _link_to_fork(session: Session, span: Span) -> None:
    """Link a root that lies outside of the replay's trace to the replay."""
    remote = session.remote
    if remote is None or session.settings.mode not in ("replay", "fork"):
        return
    context = span.get_span_context()
    if context.trace_id != remote[0]:
        target = SpanContext(remote[0], remote[1], is_remote=True, trace_flags=TraceFlags(remote[2]))
        span.add_link(target, {"tracefork.link": "fork"})
