"""Which provider a span of ours goes to, and the root span of a process that has none of its own."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from .. import __version__
from .. import private_names as names
from . import spans, state

if TYPE_CHECKING:
    from .spans import OwnSpan, Parent
    from .state import Session


_adopt_lock = threading.Lock()
_adopted: list[Any] = []
"""A handful at most (one, in a program); kept alive, as not every provider can be referred to weakly."""
_tracer: tuple[Any, trace.Tracer] | None = None
"""The last provider and its tracer: to ask for one takes longer than to write a record."""
_given_provider: Any = None
"""The provider that `instrument(tracer_provider=…)` named."""


def use_provider(provider: Any) -> None:
    """Spans of ours go to this provider; None means the global one, whenever it comes."""
    global _given_provider
    _given_provider = provider
    if provider is not None:
        adopt(provider)


def given_provider() -> Any:
    """The provider that `use_provider` named, or None."""
    return _given_provider


def adopt(provider: Any) -> bool:
    """Whether the provider feeds our processor; it is added once."""
    if any(known is provider for known in _adopted):
        return True
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        return False
    with _adopt_lock:
        if not any(known is provider for known in _adopted):
            from .processor import TraceforkSpanProcessor

            add(TraceforkSpanProcessor())
            _adopted.append(provider)
    return True


def adopted() -> list[Any]:
    """The providers that feed our processor."""
    with _adopt_lock:
        return list(_adopted)


def provider() -> Any:
    """The provider that spans of ours go to, or None where there is none that would tell us of them."""
    chosen = _given_provider if _given_provider is not None else getattr(trace, names.GLOBAL_PROVIDER, None)
    session = state.current
    if chosen is None and session is not None and session.settings.provider:
        from . import stand_in

        chosen = stand_in.provider()
    if chosen is None:
        return None
    if adopt(chosen):
        return chosen
    spans.warn_once(
        "foreign",
        "the global TracerProvider (%s) takes no span processors: exchanges are stored, other spans are not",
        type(chosen).__name__,
    )
    return None


def tracer() -> trace.Tracer | None:
    """The tracer for spans of ours, or None where no provider records them."""
    global _tracer
    chosen = provider()
    if chosen is None:
        return None
    known = _tracer
    if known is None or known[0] is not chosen:
        known = _tracer = (chosen, chosen.get_tracer(spans.SCOPE, __version__))
    return known[1]


def parent_and_tracer(session: Session) -> tuple[Parent, trace.Tracer | None]:
    """What a new exchange is a child of (the process's root, if nothing else), and who records its span."""
    chosen = tracer()
    parent = spans.current_parent(session)
    if parent is None:
        parent = spans.under(_root_span(session, chosen))
    return parent, chosen


def context(session: Session) -> Any:
    """The context of the process's root, for a span that has no other parent."""
    return spans.under(_root_span(session, tracer())).context


def _root_span(session: Session, chosen: trace.Tracer | None) -> OwnSpan:
    span = session.root
    if span is not None and not span.ended:
        return span
    with session.root_lock:
        if session.root is None or session.root.ended:
            attributes: dict[str, Any] = {"process.pid": os.getpid(), "tracefork.root": True}
            span = spans.start(
                session, chosen, state.program(), spans.remote_parent(session), attributes, time_ns()
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
    """A span of ours is open and current here, until the returned function is called.

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
    """The root that this process made is ended; an exception that nobody caught makes it an error."""
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
    session = state.current
    if session is not None:
        session.flush()
        end_root(session, "atexit")
