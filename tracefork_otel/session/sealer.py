"""A background thread that turns finished WALs into segments."""

from __future__ import annotations

import os
import queue
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..log import LOG
from ..store.wal import Wal
from . import current

if TYPE_CHECKING:
    from .session import Session

_waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
_thread: threading.Thread | None = None
_lock = threading.Lock()
_idle = threading.Event()
_idle.set()
_leaving = False
EXIT_BYTES = 4 * 1024 * 1024
"""A WAL up to this size is sealed at exit: 0.2 s, most of it pyarrow's import. A larger one waits."""
EXIT_SECONDS = 10.0
"""A seal under way at exit may take this long: a thread cut off inside pyarrow can abort the process."""


def seal_later(path: Path) -> None:
    """Seal the WAL in the background; without pyarrow, leave it to whoever opens the store next."""
    global _thread
    if _leaving or find_spec("pyarrow") is None:
        return
    _waiting.put(path)
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="tracefork-seal", daemon=True)
            _thread.start()


def _work() -> None:
    while True:
        path = _waiting.get()
        session = current.session
        if session is None:
            continue
        _idle.clear()
        if _leaving:
            _idle.set()
            return
        try:
            _seal(session, path)
        finally:
            _idle.set()


def _seal(session: Session, path: Path) -> None:
    try:
        from ..store.sealing import seal

        seal(session.settings.store, [path])
    except Exception as error:
        # The WAL stays, and whoever opens the store next tries again.
        LOG.warning("tracefork could not seal %s: %s", path, error)


def leave() -> None:
    """Wait for the seal under way and begin no other: the rest is left to whoever opens the store next."""
    global _leaving
    _leaving = True
    _idle.wait(EXIT_SECONDS)


def seal_at_exit(session: Session) -> None:
    """Seal what this process recorded, so that any DuckDB reads it; a WAL that would take long stays."""
    sink = session.sink
    if not isinstance(sink, Wal) or sink.size > EXIT_BYTES or find_spec("pyarrow") is None:
        return
    path = sink.set_aside()
    if path is not None:
        _seal(session, path)


def _after_fork_in_child() -> None:
    global _thread, _lock, _waiting
    _thread, _lock, _waiting = None, threading.Lock(), queue.SimpleQueue()
    _idle.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
