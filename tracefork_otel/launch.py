"""Start, end and undo of recording in a process; imports neither OTel nor a client."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from types import ModuleType

from .session import current
from .session.ending import end_recording, leave_sigterm, watch_sigterm
from .session.imports import when_imported
from .session.opening import close_session, open_session
from .session.session import Session, Sink
from .settings import Settings
from .undo import Undo

CLIENTS = ("httpx2", "httpx")

undo = Undo()
"""Everything that recording has changed in this process."""


def boot(via: str, settings: Settings | None = None, *, sink: Sink | None = None) -> Session | None:
    """Record, replay or fork in this process as its settings say; a second call changes nothing."""
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
        _watch_connections(session)
    if watch_sigterm():
        undo.add(leave_sigterm)
    return session


def shut() -> None:
    """Stop recording, and put back whatever we replaced where ours still stands."""
    end_recording("uninstrument")
    undo.take_back()
    close_session()


@contextlib.contextmanager
def playing(settings: Settings, *, remote: tuple[int, int, int] | None = None) -> Generator[Session]:
    """Replay a tape inside the block, whatever this process does outside; `remote` is the replay's span.

    It holds for the whole process, other threads included, so there is one such block at a time.
    """
    before, changes = current.session, len(undo)
    session = Session(settings, via="backend", remote=remote)
    _start(session)
    _watch_connections(session)
    try:
        yield session
    finally:
        end_recording("replayed")
        undo.take_back(changes)
        session.close()
        current.session = before


def start_draws(session: Session) -> None:
    """Record what the agent draws from clocks and randomness, or serve it, until all is undone."""
    if session.draws is None:
        from .draws import drawing

        drawing.start(session)
        undo.add(lambda: _stop_draws(session))


def _start(session: Session) -> None:
    outer = current.session
    session.capturing = True
    session.prepare()
    session.join()  # now: a parent that dies early leaves its run, but is nobody's parent any more
    if session.settings.mode in ("replay", "fork"):
        from .play.loading import load_player

        session.player = load_player(session.settings)
    current.session = session
    if session.settings.draws or (session.player is not None and session.player.draws):
        start_draws(session)
    undo.add(when_imported("opentelemetry.trace", _on_trace))
    if outer is None or outer is session or not outer.capturing:
        undo.add(_release_clients)
        for name in CLIENTS:
            undo.add(when_imported(name, _on_client))


def _on_client(module: ModuleType) -> None:
    from .seam import patch

    patch.install(module)


def _release_clients() -> None:
    patch = sys.modules.get("tracefork_otel.seam.patch")
    if patch is not None:
        patch.uninstall()


def _on_trace(module: ModuleType) -> None:
    from .session import otel

    otel.patch(module, undo)


def _watch_connections(session: Session) -> None:
    from .seam import leaks

    leaks.watch(session)


def _stop_draws(session: Session) -> None:
    if session.draws is not None:
        session.draws.stop()
        session.draws = None
