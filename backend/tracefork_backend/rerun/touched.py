"""The user's own files beside their copies: whether anything changed them while an agent ran."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.state.keeping import FILES
from tracefork_otel.state.kept import BESIDE, SHARED

_NOBODYS = ("__pycache__",)
"""Folders that an interpreter fills for itself."""
_Seen: TypeAlias = dict[str, tuple[int, int, int]]


class Originals:
    """What was at these paths, and is below them, when this was made."""

    def __init__(self, paths: Iterable[str], *, spared: Iterable[Path]) -> None:
        """What is in the `spared` folders, which are ours, does not count."""
        self._paths = tuple(paths)
        self._spared = {os.path.realpath(folder) for folder in spared}
        self._before = {path: self._seen(path) for path in self._paths}

    def changed(self) -> tuple[str, ...]:
        """Return the files that are others now, or are gone, or were not there."""
        found: dict[str, None] = {}
        for path in self._paths:
            before, now = self._before[path], self._seen(path)
            found |= dict.fromkeys(sorted(one for one in before | now if before.get(one) != now.get(one)))
        return tuple(found)

    def _seen(self, path: str) -> _Seen:
        found: _Seen = {}
        for one in (path, *(path + end for end in BESIDE)):
            self._see(one, found)
        if os.path.isdir(path):
            for file in self._files(path):
                if len(found) > FILES:
                    break
                self._see(file, found)
        return found

    def _files(self, folder: str) -> Iterator[str]:
        for place, folders, files in os.walk(folder):
            folders[:] = [
                name
                for name in folders
                if name not in _NOBODYS and os.path.realpath(os.path.join(place, name)) not in self._spared
            ]
            yield from (os.path.join(place, name) for name in files if not name.endswith(SHARED))

    @staticmethod
    def _see(path: str, found: _Seen) -> None:
        with suppress(OSError):
            told = os.stat(path)
            # A folder's own times are those of what is made in it, which is seen itself.
            found[path] = (
                (told.st_ino, 0, 0) if os.path.isdir(path) else (told.st_ino, told.st_mtime_ns, told.st_size)
            )
