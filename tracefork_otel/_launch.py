"""Start and end of recording in a process: boot, hooks, signals, exit. Imports neither OTel nor a client."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from types import FrameType, ModuleType
from typing import Any

from . import _session
from ._imports import forget, when_imported
from ._session import Session
from ._settings import Settings

LOG = logging.getLogger("tracefork_otel")
CLIENTS = ("httpx2", "httpx")
FLUSH_SECONDS = 2.0
"""A process that was told to end may spend this long on handing on what it knows."""

_replaced: list[tuple[Any, str, Any, Any]] = []
"""(owner, name, what stood there, what we put there): undone only where ours still stands."""


def boot(via: str, settings: Settings | None = None, *, sink: _session.Sink | None = None) -> Session | None:
    """This process records, replays or forks as its settings say; a second call changes nothing."""
    if _session.current is not None:
        return _session.current
    settings = settings if settings is not None else Settings.from_env()
    if settings.mode == "off":
        return None
    session = Session(settings, via=via, launched="TRACEFORK_MODE" in os.environ, sink=sink)
    if settings.seal:
        session.sealer = _seal
    if settings.mode in ("replay", "fork"):
        _take_tape(session)
    _session.current = session
    if session.launched:
        # The command that started us has to know that it was reached, even if no exchange follows.
        session.append(session.process())
    if settings.mode in ("replay", "fork") or via == "sitecustomize":
        from . import _audit

        _audit.watch(session)
    when_imported("opentelemetry.trace", _on_trace)
    for name in CLIENTS:
        when_imported(name, _on_client)
    _on_sigterm()
    atexit.register(_at_exit)
    return session


def shut() -> None:
    """Nothing is recorded any more, and whatever we replaced is back where it is still ours to put back."""
    session, seam = _session.current, sys.modules.get("tracefork_otel._seam")
    forget()
    if seam is not None:
        seam.uninstall()
    for owner, name, before, ours in reversed(_replaced):
        if getattr(owner, name, None) is ours:
            setattr(owner, name, before)
    _replaced.clear()
    with contextlib.suppress(ValueError, OSError):
        if signal.getsignal(signal.SIGTERM) is _sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if session is not None:
        _end("uninstrument")
        session.close()
        _session.current = None
    atexit.unregister(_at_exit)


def _take_tape(session: Session) -> None:
    from . import _serve

    session.player = _serve.load_player(session.settings)


def _on_client(module: ModuleType) -> None:
    from . import _seam

    _seam.install(module)


def _on_trace(module: ModuleType) -> None:
    from . import _private_names as names
    from . import _root

    before = module.set_tracer_provider

    @functools.wraps(before)
    def set_tracer_provider(tracer_provider: Any) -> None:
        before(tracer_provider)
        if _session.current is not None:
            _root.provider()

    _replace(module, "set_tracer_provider", set_tracer_provider)
    session = _session.current
    if session is not None and session.remote is not None and session.settings.mode in ("replay", "fork"):
        _default_context(session, names)
    _root.provider()


def _default_context(session: Session, names: Any) -> None:
    """Threads and tasks that attached nothing are children of the replay, by OTel's default context."""
    from contextvars import ContextVar

    import opentelemetry.context as api
    from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

    from . import _spans

    runtime = getattr(api, names.RUNTIME_CONTEXT, None)
    context = _spans.remote_parent(session).context
    if not isinstance(runtime, ContextVarsRuntimeContext) or not hasattr(runtime, names.CURRENT_CONTEXT):
        api.attach(context)
        LOG.warning(
            "tracefork: the runtime context is %s, so only the main thread's spans join the replay's trace",
            type(runtime).__name__,
        )
        return
    current = runtime.get_current()
    variable = ContextVar("current_context", default=context)
    if current:
        variable.set(current)
    _replace(runtime, names.CURRENT_CONTEXT, variable)


def _replace(owner: Any, name: str, ours: Any) -> None:
    _replaced.append((owner, name, getattr(owner, name), ours))
    setattr(owner, name, ours)


def _on_sigterm() -> None:
    with contextlib.suppress(ValueError, OSError):
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _sigterm)


def _sigterm(number: int, frame: FrameType | None) -> None:
    """The root is ended, everything handed on within a limit; then the process dies of the same signal."""
    # In a thread of its own, as the main thread may have been interrupted with any lock in its hands.
    thread = threading.Thread(target=_flush_all, args=("SIGTERM",), daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush_all(how: str) -> None:
    _end(how)
    root = sys.modules.get("tracefork_otel._root")
    if root is not None:
        for provider in root.adopted():
            with contextlib.suppress(Exception):
                provider.force_flush(int(FLUSH_SECONDS * 750))


def _end(how: str) -> None:
    session, root = _session.current, sys.modules.get("tracefork_otel._root")
    if session is not None:
        session.flush()
    if root is not None:
        root.end_root(how)


def _at_exit() -> None:
    session = _session.current
    if session is not None:
        session.flush()


def _seal(path: Any) -> None:
    from . import _sealer

    _sealer.seal_later(path)
