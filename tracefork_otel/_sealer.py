"""A background thread that turns finished WALs into segments."""

from __future__ import annotations

import logging
import queue
import threading
from importlib.util import find_spec
from pathlib import Path

from . import _session

LOG = logging.getLogger("tracefork_otel")

_waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def seal_later(path: Path) -> None:
    """The WAL will be sealed in the background; without pyarrow, by whoever opens the store next."""
    global _thread
    if find_spec("pyarrow") is None:
        return
    _waiting.put(path)
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="tracefork-seal", daemon=True)
            _thread.start()


def _work() -> None:
    while True:
        path = _waiting.get()
        session = _session.current
        if session is None:
            continue
        try:
            from .segment import seal

            seal(session.settings.store, [path])
        except Exception as error:
            # The WAL stays, and whoever opens the store next tries again.
            LOG.warning("tracefork could not seal %s: %s", path, error)
