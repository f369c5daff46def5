"""The root span of a process that has none of its own, and spans of ours below it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import current, spans
from .process import program
from .providers import tracer

if TYPE_CHECKING:
    from .session import Session
    from .spans import OwnSpan, Parent


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
            span = spans.start(
                session, chosen, program(), spans.remote_parent(session), attributes, time_ns()
            )
            if span.sdk is None:
                span.record(session, extras=session.run_attributes())
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
    span = spans.start(session, chosen, name, parent, attributes, time_ns())
    if span.sdk is None:
        if parent.span is None or parent.span.is_remote:
            span.record(session, extras=session.run_attributes())
        return span, spans.make_current(span)
    token = otel_context.attach(trace.set_span_in_context(span.sdk))
    return span, lambda: otel_context.detach(token)


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
    span.end(session, error=error)


def _end_at_exit() -> None:
    session = current.session
    if session is not None:
        session.flush()
        end_root(session, "atexit")
