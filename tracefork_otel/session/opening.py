"""Opening the session of this process, and what is done about it at exit."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..settings import Settings
from ..store import spool
from . import current
from .process import remote_parent
from .pushing import push_at_exit
from .sealer import Sealer, seal_at_exit
from .session import Session, Sink


def open_session(
    via: str,
    settings: Settings | None = None,
    *,
    store: str | Path | None = None,
    sink: Sink | None = None,
) -> Session | None:
    """Return this process's session, opened now unless there is one; None where recording is off."""
    if current.session is not None:
        return current.session
    settings = settings if settings is not None else Settings.from_env()
    if store is not None:
        settings = replace(settings, store=Path(store))
    if settings.mode == "off":
        return None
    if (url := spool.url_of(settings.store)) is not None:
        # Not sealed here: the bucket gets the WALs, and whoever compacts it seals them.
        settings = replace(settings, store=spool.spool(url), seal=False)
    with suppress(OSError):  # of an agent whose folder is gone nothing can be kept, and nothing fails
        settings = replace(settings, store=settings.store.absolute())  # it may change its folder
    launched = "TRACEFORK_MODE" in os.environ
    session = Session(settings, via=via, remote=remote_parent() if launched else None, sink=sink)
    session.launched = launched
    if settings.seal:
        session.sealer = Sealer()
    current.session = session
    atexit.register(_at_exit)
    return session


def close_session() -> None:
    """Close this process's session, if there is one: nothing is written any more."""
    if current.session is not None:
        current.session.close()
        current.session = None
    atexit.unregister(_at_exit)


def _at_exit() -> None:
    session = current.session
    if session is None:
        return
    # Not closed: hooks registered before us may still end spans, and the lock goes with the process.
    session.flush()
    if session.sealer is not None:
        session.sealer.leave()
    # A command of ours that started this process seals for all of its processes.
    if session.settings.seal and not session.launched:
        seal_at_exit(session.sink)
    if spool.bucket_of(session.settings.store) is not None:
        push_at_exit(session.settings.store, session.sink)
