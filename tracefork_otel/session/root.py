"""The root span of a process that has none of its own, and spans of ours below it."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import current, spans
from .calls import begins
from .cells import open_cell
from .own_span import Parent
from .process import program, resource_attributes
from .providers import tracer

if TYPE_CHECKING:
    from .own_span import OwnSpan
    from .session import Session


waiting: ContextVar[Callable[[Parent | None], OwnSpan | None] | None] = ContextVar(
    "tracefork_entry", default=None
)
"""What opens the span of the piece of work that this is part of, given what is current, at its first call."""


def parent_and_tracer(session: Session) -> tuple[Parent, trace.Tracer | None]:
    """Return the parent of a new exchange, and who records its span.

    It is the current span; where there is none (a thread, a callback), the one piece of work that is open in
    this process; else the process's root.
    """
    chosen = tracer()
    parent = _current(session)
    if parent is None:
        parent = spans.only_work(session) or _only_request(session)
    return parent or spans.under(_root_span(session, chosen)), chosen


def _only_request(session: Session) -> Parent | None:
    """Return the one request that is being answered, opened for a thread of its; None where it is not one.

    What the main thread does outside of a request is the program's own, which may be asking its own server.
    """
    if threading.current_thread() is threading.main_thread():
        return None
    opens = list(session.requests.values())
    entry = opens[0](None) if len(opens) == 1 else None
    return None if entry is None else spans.under(entry)


def _current(session: Session) -> Parent | None:
    """Return the current span as a parent, or that of the piece of work, opened for it; else None."""
    parent, opens = spans.current_parent(session), waiting.get()
    entry = None if opens is None else opens(parent)
    return spans.under(entry) if parent is None and entry is not None else parent


def open_entry(
    session: Session, name: str, attributes: dict[str, Any], parent: Parent | None
) -> OwnSpan | None:
    """Open the span of a piece of work that came from outside: below what is current, else a run."""
    try:
        begun = {**attributes, "process.pid": os.getpid()}
        above = parent or Parent(otel_context.Context(), None)
        span = _started(session, tracer(), name, above, begun)
        if parent is None:
            spans.opened(session, span.context, lambda: None if span.ended else spans.under(span))
        return span
    except Exception as error:
        session.lost("start of a request", error)
        return None


def run_of(session: Session, parent: Parent) -> str | None:
    """Return the run that an exchange with this parent is part of; None where that is the parent's trace.

    A script is one run, however many traces its spans are; what came to it from outside is one each.
    """
    if parent.span is None:
        return None
    trace_id, runs = parent.span.trace_id, session.runs
    run_id = runs.known(trace_id) or _decided(session, parent, trace_id)
    return None if run_id == f"{trace_id:032x}" else run_id


def _decided(session: Session, parent: Parent, trace_id: int) -> str:
    """Decide which run a trace is part of, as something is asked in it for the first time."""
    root, runs = session.root, session.runs
    if root is not None and trace_id == root.context.trace_id:
        return runs.share(trace_id)
    what = begins(session, parent)
    if what is not None and runs.is_whole:
        return runs.share(trace_id)
    if what is None or what == "entry":
        return runs.apart(trace_id)
    opens = waiting.get()
    if opens is not None and (request := opens(parent)) is not None:
        return runs.apart(trace_id, runs.of(request.context.trace_id))
    if what == "call":
        if runs.own is None:  # one call is no piece of work for others to be part of
            runs.share(_root_span(session, tracer()).context.trace_id)
        return runs.share(trace_id)
    if runs.serves and threading.current_thread() is not threading.main_thread():
        return runs.apart(trace_id)  # of which request it may be a part nobody knows
    open_cell(_end_of_cell)  # which ends what began in it
    return runs.share(trace_id)


def run_now(session: Session) -> str | None:
    """Return the run in which something happens here; None where it may be any of this process."""
    parent = spans.current_parent(session) or spans.only_work(session)
    if parent is not None and parent.span is not None:
        run_id = session.runs.known(parent.span.trace_id)
        if run_id is None and begins(session, parent) != "call":
            in_request = waiting.get() is not None or session.requests  # a run once something is asked in it
            run_id = None if in_request else run_of(session, parent)
            run_id = run_id or f"{parent.span.trace_id:032x}"
        if run_id is not None:
            return run_id
    return session.runs.own or (session.root.trace_id if session.root is not None else session.launch_id)


def context(session: Session) -> Any:
    """Return the context of the process's root, for a span that has no other parent."""
    return spans.under(_root_span(session, tracer())).context


def _root_span(session: Session, chosen: trace.Tracer | None) -> OwnSpan:
    span = session.root
    if span is not None and (session.leaving or not span.ended):
        return span  # what calls at exit is the same run, if after its root
    with session.root_lock:
        if session.root is None or session.root.ended:
            attributes: dict[str, Any] = {"process.pid": os.getpid(), "tracefork.root": True}
            name, more = open_cell(_end_of_cell) or (program(), {})
            span = _started(session, chosen, name, spans.remote_parent(session), {**attributes, **more})
            session.root, session.root_pid = span, os.getpid()
            # Registered after the SDK's own hook, so it runs before the provider's shutdown.
            atexit.unregister(_end_at_exit)
            atexit.register(_end_at_exit)
        return session.root


def enter(
    session: Session, name: str, attributes: dict[str, Any], *, below_root: bool = False
) -> tuple[OwnSpan, Callable[[], None]]:
    """Open a span of ours and make it current, until the returned function is called.

    Where no span is current it is a root itself, or `below_root` a child of the process's root. Unless
    `below_root` its trace is a run by itself.
    """
    if below_root:
        parent, chosen = parent_and_tracer(session)
    else:
        chosen = tracer()
        parent = _current(session) or spans.remote_parent(session)
    span = _started(session, chosen, name, parent, attributes)
    if parent.span is None or parent.span.is_remote:
        spans.opened(session, span.context, lambda: None if span.ended else spans.under(span))
    if not below_root:
        session.runs.called(span.context.trace_id)
    # The last that can fail, or what fails would leave the span current.
    if span.sdk is None:
        leave = spans.make_current(span)
    else:
        token = otel_context.attach(trace.set_span_in_context(span.sdk))
        leave = functools.partial(otel_context.detach, token)
    return span, leave


def _started(
    session: Session, chosen: trace.Tracer | None, name: str, parent: Parent, attributes: dict[str, Any]
) -> OwnSpan:
    span = spans.start(session, chosen, name, parent, attributes)
    if span.sdk is None and (parent.span is None or parent.span.is_remote):
        # So that a process that is killed leaves a readable run.
        spans.record(session, span, is_root=True)
        session.name_run(span.trace_id, resource_attributes())
    return span


def end_root(session: Session, how: str, error: BaseException | None = None) -> None:
    """End the root that this process made, once; an exception that nobody caught makes it an error."""
    span = session.root
    if span is None or session.root_pid != os.getpid() or span.ended:
        return
    span.attributes["tracefork.end"] = how
    # A prompt, or a test runner, sets it for errors that end nothing.
    if error is None and how == "atexit" and not hasattr(sys, "ps1"):
        error = getattr(sys, "last_value", None)
    if error is not None:
        span.attributes["exception.type"] = type(error).__name__
        span.attributes["exception.message"] = session.redactor.error(str(error))
    spans.end(session, span, error=error)


def _end_of_cell(result: Any) -> None:
    session = current.session
    if session is not None:
        session.flush()
        end_root(session, "cell", result.error_in_exec)
        session.runs.ended()


def _end_at_exit() -> None:
    session = current.session
    if session is not None:
        session.flush()
        end_root(session, "atexit")
        session.leaving = True
