"""Which files of segments are as they were written, without reading one twice that nobody touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tracefork_otel.files import open_whole
from tracefork_otel.store import manifest
from tracefork_otel.store.manifest import SegmentEntry

PARQUET = b"PAR1"
"""How every Parquet file begins and ends."""


class Digests:
    """The files that were found to be as they were written."""

    def __init__(self) -> None:
        self._sound: set[tuple[str, int, int, int]] = set()
        """Path, inode, size and time of each."""

    def first_changed(
        self, store: Path, chosen: Callable[[SegmentEntry], bool], kinds: Iterable[str]
    ) -> str | None:
        """Return how the first file of the chosen segments that has changed shows it; None if none has."""
        for entry in filter(chosen, manifest.load(store).segments):
            for kind in kinds:
                if changed := self._changed(store, entry, kind):
                    return changed
        return None

    def _changed(self, store: Path, entry: SegmentEntry, kind: str) -> str | None:
        path = entry.file(store, kind)
        try:
            status = path.stat()
        except OSError:
            return entry.why_changed(store, kind)
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if key in self._sound:
            return None
        changed = entry.why_changed(store, kind)
        if changed is None:
            self._sound.add(key)
        return changed


def not_parquet(path: Path) -> str | None:
    """Return how a file shows that it is no whole Parquet file; None where it may be one."""
    try:
        with open_whole(path) as file:
            if not (head := file.read(len(PARQUET))):
                return f"{path}: the file of a segment is empty"
            file.seek(-len(PARQUET), os.SEEK_END)
            if head == PARQUET and file.read() == PARQUET:
                return None
    except OSError as error:
        return f"{path}: the file of a segment cannot be read: {error.strerror or error}"
    return f"{path}: the file of a segment is truncated or is not Parquet"
