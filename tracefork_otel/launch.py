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
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from .session import state
from .session.imports import forget, when_imported
from .session.state import Session, remote_parent
from .settings import Settings

LOG = logging.getLogger("tracefork_otel")
CLIENTS = ("httpx2", "httpx")
FLUSH_SECONDS = 2.0
"""A process that was told to end may spend this long on handing on what it knows."""

_replaced: list[tuple[Any, str, Any, Any]] = []
"""(owner, name, what stood there, what we put there): undone only where ours still stands."""


def boot(via: str, settings: Settings | None = None, *, sink: state.Sink | None = None) -> Session | None:
    """This process records, replays or forks as its settings say; a second call changes nothing."""
    session = open_session(via, settings, sink=sink)
    if session is None or session.capturing:
        return session
    if session.via in ("exporter", "processor"):
        session.via = via
    _start(session)
    if session.launched:
        # The command that started us has to know that it was reached, even if no exchange follows.
        session.append(session.process())
    if session.settings.mode == "replay" or session.launched:
        from .seam import leaks

        leaks.watch(session)
    _on_sigterm()
    return session


def open_session(
    via: str,
    settings: Settings | None = None,
    *,
    store: str | Path | None = None,
    sink: state.Sink | None = None,
) -> Session | None:
    """This process has a store to write into, the one that it had if it had one; None where that is off."""
    if state.current is not None:
        return state.current
    settings = settings if settings is not None else Settings.from_env()
    if store is not None:
        settings = replace(settings, store=Path(store))
    if settings.mode == "off":
        return None
    launched = "TRACEFORK_MODE" in os.environ
    session = Session(settings, via=via, remote=remote_parent() if launched else None, sink=sink)
    session.launched = launched
    if settings.seal:
        session.sealer = _seal
    state.current = session
    atexit.register(_at_exit)
    return session


def shut() -> None:
    """Nothing is recorded any more, and whatever we replaced is back where it is still ours to put back."""
    session, seam = state.current, sys.modules.get("tracefork_otel.seam.patch")
    forget()
    if seam is not None:
        seam.uninstall()
    _put_back(0)
    with contextlib.suppress(ValueError, OSError):
        if signal.getsignal(signal.SIGTERM) is _sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if session is not None:
        _end("uninstrument")
        _stop_draws(session)
        session.close()
        state.current = None
    atexit.unregister(_at_exit)


@contextlib.contextmanager
def playing(settings: Settings, *, remote: tuple[int, int, int] | None = None) -> Generator[Session]:
    """Inside the block this process replays a tape, whatever it does outside; `remote` is the replay's span.

    It holds for the whole process, other threads included, so there is one such block at a time.
    """
    before, replaced = state.current, len(_replaced)
    session = Session(settings, via="backend", remote=remote)
    _start(session)
    from .seam import leaks

    leaks.watch(session)
    try:
        yield session
    finally:
        _end("replayed")
        _stop_draws(session)
        session.close()
        state.current = before
        _put_back(replaced)
        seam = sys.modules.get("tracefork_otel.seam.patch")
        if before is None and seam is not None:
            seam.uninstall()


def _start(session: Session) -> None:
    session.capturing = True
    session.prepare()
    session.join()  # now: a parent that dies early leaves its run, but is nobody's parent any more
    if session.settings.mode in ("replay", "fork"):
        from .seam import playing

        session.player = playing.load_player(session.settings)
    state.current = session
    if session.settings.draws or getattr(getattr(session.player, "tape", None), "draws", ()):
        from .draws import draws

        draws.start(session)
    when_imported("opentelemetry.trace", _on_trace)
    for name in CLIENTS:
        when_imported(name, _on_client)


def _on_client(module: ModuleType) -> None:
    from .seam import patch

    patch.install(module)


def _on_trace(module: ModuleType) -> None:
    from . import private_names as names
    from .session import root as roots

    before = module.set_tracer_provider

    @functools.wraps(before)
    def set_tracer_provider(tracer_provider: Any) -> None:
        before(tracer_provider)
        if state.current is not None:
            roots.provider()

    _replace(module, "set_tracer_provider", set_tracer_provider)
    session = state.current
    if session is not None and session.settings.provider:
        from .session import stand_in

        before_us = getattr(module.ProxyTracer, names.PROXY_TRACER)
        _replace(module.ProxyTracer, names.PROXY_TRACER, stand_in.instead(before_us))
    if session is not None and session.remote is not None and session.settings.mode in ("replay", "fork"):
        _default_context(session, names)
    roots.provider()


def _default_context(session: Session, names: Any) -> None:
    """Threads and tasks that attached nothing are children of the replay, by OTel's default context."""
    from contextvars import ContextVar

    import opentelemetry.context as api
    from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

    from .session import spans

    runtime = getattr(api, names.RUNTIME_CONTEXT, None)
    context = spans.remote_parent(session).context
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


def _put_back(down_to: int) -> None:
    while len(_replaced) > down_to:
        owner, name, before, ours = _replaced.pop()
        if getattr(owner, name, None) is ours:
            setattr(owner, name, before)


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
    root = sys.modules.get("tracefork_otel.session.root")
    if root is not None:
        for provider in root.adopted():
            with contextlib.suppress(Exception):
                provider.force_flush(int(FLUSH_SECONDS * 750))


def _end(how: str) -> None:
    session, root = state.current, sys.modules.get("tracefork_otel.session.root")
    if session is not None:
        session.flush()
        if root is not None:
            root.end_root(session, how)


def _stop_draws(session: Session) -> None:
    if session.draws is not None:
        session.draws.stop()
        session.draws = None


def _at_exit() -> None:
    session, sealer = state.current, sys.modules.get("tracefork_otel.session.sealer")
    if session is not None:
        # Not closed: hooks registered before us may still end spans, and the lock goes with the process.
        session.flush()
    if sealer is not None:
        sealer.leave()
    if session is not None and session.settings.seal and not session.launched:
        # A command of ours that started this process seals for all of its processes.
        from .session import sealer as sealers

        sealers.seal_at_exit(session)


def _seal(path: Any) -> None:
    from .session import sealer as sealers

    sealers.seal_later(path)
