"""Turning this process's finished WALs into segments: in the background, and at exit."""

from __future__ import annotations

import queue
import threading
from importlib.util import find_spec
from pathlib import Path

from ..log import LOG

EXIT_BYTES = 4 * 1024 * 1024
"""A WAL up to this size is sealed at exit: 0.2 s, most of it pyarrow's import. A larger one waits."""
EXIT_SECONDS = 10.0
"""A seal under way at exit may take this long: a thread cut off inside pyarrow can abort the process."""


class Sealer:
    """A background thread, begun by the first WAL that it is given; a forked child needs another."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False

    def seal_later(self, path: Path) -> None:
        """Seal the WAL in the background; without pyarrow, leave it to whoever opens the store next."""
        if self._stopped or find_spec("pyarrow") is None:
            return
        self._waiting.put(path)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracefork-seal", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while path := self._waiting.get():
            self._idle.clear()
            if not self._stopped:
                _seal(path)
            self._idle.set()

    def stop(self) -> None:
        """Begin no other seal: the rest is left to whoever opens the store next."""
        self._stopped = True
        self._waiting.put(None)

    def leave(self) -> None:
        """Stop, and wait for the seal under way."""
        self.stop()
        self._idle.wait(EXIT_SECONDS)


def seal_at_exit(sink: object) -> None:
    """Seal what this process recorded, so that any DuckDB reads it; a WAL that would take long stays."""
    from ..store.wal import Wal

    if not isinstance(sink, Wal) or sink.size > EXIT_BYTES or find_spec("pyarrow") is None:
        return
    path = sink.set_aside()
    if path is not None:
        _seal(path)


def _seal(path: Path) -> None:
    try:
        from ..store.sealing import seal

        seal(path.parents[1], [path])
    except Exception as error:
        # The WAL stays, and whoever opens the store next tries again.
        LOG.warning("tracefork could not seal %s: %s", path, error)
