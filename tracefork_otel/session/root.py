"""The root span of a process that has none of its own, and spans of ours below it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import current, spans
from .process import program
from .providers import tracer

if TYPE_CHECKING:
    from .own_span import OwnSpan
    from .session import Session
    from .spans import Parent


def parent_and_tracer(session: Session) -> tuple[Parent, trace.Tracer | None]:
    """Return the parent of a new exchange (the process's root, if nothing else), and who records its span."""
    chosen = tracer()
    parent = spans.current_parent(session)
    if parent is None:
        parent = spans.under(_root_span(session, chosen))
    return parent, chosen


def context(session: Session) -> Any:
    """Return the context of the process's root, for a span that has no other parent."""
    return spans.under(_root_span(session, tracer())).context


def _root_span(session: Session, chosen: trace.Tracer | None) -> OwnSpan:
    span = session.root
    if span is not None and not span.ended:
        return span
    with session.root_lock:
        if session.root is None or session.root.ended:
            attributes: dict[str, Any] = {"process.pid": os.getpid(), "tracefork.root": True}
            span = _started(session, chosen, program(), spans.remote_parent(session), attributes)
            session.root, session.root_pid = span, os.getpid()
            # Registered after the SDK's own hook, so it runs before the provider's shutdown.
            atexit.unregister(_end_at_exit)
            atexit.register(_end_at_exit)
        return session.root


def enter(
    session: Session, name: str, attributes: dict[str, Any], *, below_root: bool = False
) -> tuple[OwnSpan, Callable[[], None]]:
    """Open a span of ours and make it current, until the returned function is called.

    Where no span is current it is a root itself, or `below_root` a child of the process's root.
    """
    if below_root:
        parent, chosen = parent_and_tracer(session)
    else:
        chosen = tracer()
        parent = spans.current_parent(session) or spans.remote_parent(session)
    span = _started(session, chosen, name, parent, attributes)
    if span.sdk is None:
        return span, spans.make_current(span)
    token = otel_context.attach(trace.set_span_in_context(span.sdk))
    return span, lambda: otel_context.detach(token)


def _started(
    session: Session, chosen: trace.Tracer | None, name: str, parent: Parent, attributes: dict[str, Any]
) -> OwnSpan:
    span = spans.start(session, chosen, name, parent, attributes)
    if span.sdk is None and (parent.span is None or parent.span.is_remote):
        # So that a process that is killed leaves a readable run.
        spans.record(session, span, is_root=True)
    return span


def end_root(session: Session, how: str) -> None:
    """End the root that this process made, once; an exception that nobody caught makes it an error."""
    span = session.root
    if span is None or session.root_pid != os.getpid() or span.ended:
        return
    span.attributes["tracefork.end"] = how
    # A prompt, or a test runner, sets it for errors that end nothing.
    uncaught = how == "atexit" and not hasattr(sys, "ps1")
    error = getattr(sys, "last_value", None) if uncaught else None
    if error is not None:
        span.attributes["exception.type"] = type(error).__name__
        span.attributes["exception.message"] = str(error)
    spans.end(session, span, error=error)


def _end_at_exit() -> None:
    session = current.session
    if session is not None:
        session.flush()
        end_root(session, "atexit")
