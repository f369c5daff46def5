"""Opening the session of this process, and what is done about it at exit."""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import replace
from pathlib import Path

from ..settings import Settings
from . import current
from .process import remote_parent
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
    launched = "TRACEFORK_MODE" in os.environ
    session = Session(settings, via=via, remote=remote_parent() if launched else None, sink=sink)
    session.launched = launched
    if settings.seal:
        session.sealer = _seal
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
    session, sealer = current.session, sys.modules.get("tracefork_otel.session.sealer")
    if session is not None:
        # Not closed: hooks registered before us may still end spans, and the lock goes with the process.
        session.flush()
    if sealer is not None:
        sealer.leave()
    if session is not None and session.settings.seal and not session.launched:
        # A command of ours that started this process seals for all of its processes.
        from . import sealer as sealers

        sealers.seal_at_exit(session)


def _seal(path: Path) -> None:
    from . import sealer as sealers

    sealers.seal_later(path)
