"""What this process's own environment is given for as long as programs are being started with it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping


class Lending:
    """Variables that are there until the last of overlapping starts is over; what others set since stays."""

    def __init__(self) -> None:
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # another thread may hold the lock just then

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._lent: dict[str, tuple[str, str | None]] = {}
        """By name, the value that was lent, and the one that stood there."""

    @contextlib.contextmanager
    def of(self, missing: Callable[[], Mapping[str, str]]) -> Iterator[None]:
        """Have what is missing in the environment within the block."""
        with self._lock:
            for name, value in missing().items():
                self._lent[name] = value, os.environ.get(name)
                os.environ[name] = value
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._take_back()

    def _take_back(self) -> None:
        for name, (lent, before) in self._lent.items():
            if os.environ.get(name) != lent:
                continue
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
        self._lent.clear()
