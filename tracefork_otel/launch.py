"""Start, end and undo of recording in a process; imports neither OTel nor a client."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .session import current
from .session.ending import end_recording, leave_sigterm, watch_sigterm
from .session.imports import is_being_imported, when_imported
from .settings import Settings
from .undo import Undo

# What records is loaded when something is: a program may bring the one line, and leave the recording off.
if TYPE_CHECKING:
    from .session.session import Session, Sink

CLIENTS = ("httpx2", "httpx")
SERVERS = (
    "uvicorn.config",
    "hypercorn.app_wrappers",
    "gunicorn.workers.base",
    "gunicorn.workers.gasgi",
    "werkzeug.serving",
    "waitress.server",
    "daphne.server",
    "granian.server.mp",
    "granian.server.mt",
    "wsgiref.simple_server",
)
"""Modules of the servers of web applications, by which these are recorded (see `session.servers`)."""
QUEUES = ("celery.signals", "rq.job", "dramatiq.broker", "huey.api", "arq.worker")
"""Modules of work queues, by which what their workers do is recorded (see `session.queues`)."""
_API, _SDK = "opentelemetry.trace", "opentelemetry.sdk.trace"

undo = Undo()
"""What recording has changed in this process, at the agent's word or for as long as nobody takes it back."""
_lasting = Undo()
"""What stays as long as a process that a command of ours started, also what its later imports change."""


def boot(via: str, settings: Settings | None = None, *, sink: Sink | None = None) -> Session | None:
    """Record, replay or fork in this process as its settings say; a second call changes nothing."""
    if current.session is None:
        settings = settings if settings is not None else Settings.from_env()
        if settings.mode == "off":
            return None
    from .session.opening import open_session

    session = open_session(via, settings, sink=sink)
    if session is None or session.capturing:
        if session is not None:
            session.paused = None
        return session
    if session.via in ("exporter", "processor"):
        session.via = via
    changes = _lasting if session.launched else undo
    _start(session, changes)
    if session.launched:
        if session.settings.imported is not None and os.environ.pop("TRACEFORK_IMPORTED", None):
            from .session.imported import tell_at_exit

            tell_at_exit(session.settings.imported)
        # The command that started us has to know that it was reached, even if no exchange follows.
        session.append(session.process())
    with_children = session.settings.mode == "replay" or session.launched
    _watch_connections(session, changes, with_children=with_children)
    if watch_sigterm():
        changes.add(leave_sigterm)
    return session


def shut(caller: str | None = None) -> None:
    """Stop recording, and put back whatever we replaced where ours still stands.

    In a process that a command of ours started, mode and store are the command's: nothing is recorded until
    the next `boot`, but what is asked meanwhile is noted, and a replay or fork goes on.
    """
    session = current.session
    if session is not None and (session.launched or session.player is not None):
        session.paused = caller or "somewhere"
        if session.launched:
            end_recording("uninstrument")
            undo.take_back()
        return
    end_recording("uninstrument")
    undo.take_back()
    if session is not None:
        from .session.opening import close_session

        close_session()


@contextlib.contextmanager
def importing(*, serves: bool = False) -> Generator[None]:
    """Within the block, in which the agent's module is imported, let calls be none of the run that is played.

    So while an application starts, if it `serves`. A run that is one call of a function, or one request, has
    only that on its tape. What its module asks before is answered from a copy, so that the import is what it
    was, goes into no store, and is noted.
    """
    session = current.session
    if session is None or session.player is None:
        yield
        return
    from .play.player import Player
    from .play.rehearsal import Rehearsal

    player = session.player
    if not isinstance(player, Player) or player.tape.start.calls is None:
        yield
        return
    sink, root = session.sink, session.root
    rehearsal: Any = Rehearsal(player, serves=serves)
    session.player, session.sink = rehearsal, _Notes(sink)
    try:
        yield
    finally:
        session.player, session.sink, session.root = player, sink, root
        if rehearsal.asked:
            session.note("import", {"why": rehearsal.why})


class _Notes:
    """Where records go of which the notes alone are kept: what leaves the machine then has left it."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def append(self, record: object) -> None:
        """Keep a note."""
        from .store.records import Note

        if isinstance(record, Note):
            self._sink.append(record)


@contextlib.contextmanager
def playing(settings: Settings, *, remote: tuple[int, int, int] | None = None) -> Generator[Session]:
    """Replay a tape inside the block, whatever this process does outside; `remote` is the replay's span.

    It holds for the whole process, other threads included, so there is one such block at a time.
    """
    from .session.session import Session

    before, changes = current.session, Undo()
    session = Session(settings, via="backend", remote=remote)
    _start(session, changes)
    _watch_connections(session, changes)
    try:
        yield session
    finally:
        end_recording("replayed")
        changes.take_back()
        session.close()
        current.session = before


def start_draws(session: Session, changes: Undo = undo) -> None:
    """Record what the agent draws from clocks and randomness, or serve it, until that is undone."""
    if session.draws is None:
        from .draws import drawing

        drawing.start(session)
        changes.add(lambda: _stop_draws(session))


def _start(session: Session, changes: Undo) -> None:
    outer = current.session
    session.capturing = True
    session.prepare()
    session.join()  # now: a parent that dies early leaves its run, but is nobody's parent any more
    if session.settings.mode in ("replay", "fork"):
        from .play.loading import load_player

        session.player = load_player(session.settings)
    current.session = session
    if session.player is not None:
        changes.add(when_imported("ssl", lambda module: _on_ssl(changes)))
    if session.settings.state:
        from .session.files import keep_files

        keep_files(session)
    if session.settings.private is not None:
        from .private.start import use_copies

        use_copies(session, changes)
    player = session.player
    if session.settings.draws or (player is not None and (player.draws or player.drew)):
        start_draws(session, changes)
    changes.add(when_imported(_SDK, lambda module: _on_sdk(module, session, changes)))
    _meet_trace(changes)
    if outer is None or outer is session or not outer.capturing:
        changes.add(_release_clients)
        for name in CLIENTS:
            changes.add(when_imported(name, _on_client))
        changes.add(when_imported("urllib3", _on_urllib3))
        changes.add(when_imported("aiohttp", _on_aiohttp))
        changes.add(when_imported("websockets.client", _on_websockets))
        for name in ("websockets.asyncio.client", "websockets.sync.client"):
            changes.add(when_imported(name, _on_websockets_client))
    if session.player is None:
        for name in SERVERS:
            changes.add(when_imported(name, lambda module: _on_server(module, changes)))
        for name in QUEUES:
            changes.add(when_imported(name, lambda module: _on_queue(module, changes)))


def _on_ssl(changes: Undo) -> None:
    from .seam import authorities

    authorities.put_off(changes)


def _on_client(module: ModuleType) -> None:
    from .seam import patch

    patch.install(module)


def _on_server(module: ModuleType, changes: Undo) -> None:
    from .session import servers

    servers.watch(module, changes)


def _on_queue(module: ModuleType, changes: Undo) -> None:
    from .session import queues

    queues.watch(module, changes)


def _on_urllib3(module: ModuleType) -> None:
    from .seam import pooled

    pooled.install(module)


def _on_aiohttp(module: ModuleType) -> None:
    from .seam import connected

    connected.install(module)


def _on_websockets(module: ModuleType) -> None:
    from .seam import socketed

    socketed.install(module)


def _on_websockets_client(module: ModuleType) -> None:
    from .seam import socketed

    socketed.install_client(module)


def _release_clients() -> None:
    for name in ("patch", "pooled", "connected", "socketed"):
        seam: Any = sys.modules.get(f"tracefork_otel.seam.{name}")
        if seam is not None:
            seam.uninstall()


def _meet_trace(changes: Undo) -> None:
    """Have `opentelemetry.trace` changed once it is there, and its SDK is not half there."""
    met = False

    def meet() -> None:
        nonlocal met
        if not met:
            met = True  # before the next import, which may bring in the SDK
            from .session import otel

            otel.patch(sys.modules[_API], changes)

    # The SDK may be the one that imports the API, and what we adopt providers with needs the SDK.
    changes.add(when_imported(_API, lambda module: None if is_being_imported(_SDK) else meet()))
    changes.add(when_imported(_SDK, lambda module: meet()))


def _on_sdk(module: ModuleType, session: Session, changes: Undo) -> None:
    from .session import calls, unsampled

    if session.player is not None:
        unsampled.patch(module, changes)
    else:
        calls.patch(module, changes)


def _watch_connections(session: Session, changes: Undo, *, with_children: bool = True) -> None:
    from .seam import children, leaks, sites, unseen

    leaks.watch(session)
    sites.begin()
    unseen.watch(changes)
    if with_children:
        children.hand_down(changes)


def _stop_draws(session: Session) -> None:
    if session.draws is not None:
        session.draws.stop()
        session.draws = None
