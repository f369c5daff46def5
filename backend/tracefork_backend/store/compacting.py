"""Fewer segments: many small ones become one, old ones are dropped, while others write and read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tracefork_otel.errors import StoreError
from tracefork_otel.files import open_lock
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry

from . import facts
from .snapshot import why_spoiled

if TYPE_CHECKING:
    import pyarrow as pa

LIMIT = 100
"""Segments above which opening a store merges them: each costs every query three files more."""
BOUND = 64 * 1024 * 1024
"""Bytes of files that are merged into one: it takes seconds then, and what is larger is worth its files."""
LOCK = ".compact.lock"


def compact(store: Path, *, bound: int | None = None) -> str | None:
    """Make one segment of many, the smallest first and up to `bound` bytes of them.

    Return its id; None if there are not two to merge, or another process is merging. A segment that cannot
    be read is left as it is. Readers of the old ones have ten minutes to finish.
    """
    with alone(store) as is_alone:
        if not is_alone:
            return None
        known = [entry for entry in manifest.load(store).segments if not entry.why_newer(store)]
        chosen = _chosen(known, bound)
        try:
            return _merged(store, chosen)
        except StoreError:
            readable = [entry for entry in chosen if why_spoiled(store, entry) is None]
            if len(readable) == len(chosen):
                raise
            return _merged(store, readable)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is of a store's segments and logs."""

    segments: int
    files: int
    bytes: int


def extent(store: Path) -> Extent:
    """Return how much there is now, with what is left of earlier segments."""
    sizes: list[int] = []
    if store.exists() and not store.is_dir():
        raise StoreError(f"{store}: this is a file; a store is a directory")
    for file in chain.from_iterable((store / folder).glob("*") for folder in ("wal", "segments")):
        with suppress(OSError):
            sizes.append(file.lstat().st_size)
    return Extent(len(manifest.load(store).segments), len(sizes), sum(sizes))


def pack(store: Path) -> list[str]:
    """Make as few segments as hold `BOUND` bytes each, and let the files of those that were replaced go now.

    So do all that merges and removals left, unless a segment is damaged, of which they may be the last good
    copy. Return why a segment stays as it is. StoreError where another process is merging, or nothing can be
    written.
    """
    with by_itself(store):
        left: list[str] = []
        sound: list[SegmentEntry] = []
        for entry in manifest.load(store).segments:
            if why := why_spoiled(store, entry):
                left.append(why)
            else:
                sound.append(entry)
        replaced = {entry.id for group in _groups(sound) if _merged(store, group) for entry in group}
        manifest.commit(store, at_once=replaced if left else True)
        manifest.commit(store)  # with which the files go
        return left


def _groups(entries: Sequence[SegmentEntry]) -> Iterator[list[SegmentEntry]]:
    """Yield the segments in order of time, as many together as have no more than `BOUND` bytes."""
    group: list[SegmentEntry] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: entry.started_ns):
        if size + entry.bytes > BOUND:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.bytes
    yield group


def drop_before(store: Path, when: datetime) -> tuple[str, ...]:
    """Drop segments in which everything ended before that time, UTC if naive; return their ids.

    Whole segments only, so newer runs keep older ones that were sealed or merged with them.
    """
    moment = when if when.tzinfo else when.replace(tzinfo=UTC)
    before = int(moment.timestamp() * 1e9)
    old = tuple(entry.id for entry in manifest.load(store).segments if entry.ended_ns < before)
    if old:
        manifest.commit(store, remove=old)
    return old


def _chosen(entries: Sequence[SegmentEntry], bound: int | None) -> list[SegmentEntry]:
    chosen: list[SegmentEntry] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: entry.bytes):
        size += entry.bytes
        if bound is not None and size > bound:
            break
        chosen.append(entry)
    return sorted(chosen, key=lambda entry: entry.started_ns)


def _merged(store: Path, entries: Sequence[SegmentEntry]) -> str | None:
    if len(entries) < 2:
        return None
    merged = sealing.merge(store, entries)
    try:
        if spoiled := why_spoiled(store, merged):
            raise StoreError(spoiled)
        table = _facts_of(store, entries, merged)
        merged = facts.file_of(
            table, facts.write(merged.file(store, "facts"), table, level=facts.LASTING_LEVEL)
        ).of(merged)
        manifest.commit(store, add=[merged], remove=[entry.id for entry in entries])
    except BaseException:
        manifest.discard(store, merged.id)
        raise
    return merged.id


def _facts_of(store: Path, entries: Sequence[SegmentEntry], merged: SegmentEntry) -> pa.Table:
    """Return the facts of the merged segment: those that its parts have, else read from its bodies."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if any(
        not facts.are_known(entry) or facts.may_be_priced(entry) or entry.why_changed(store, "facts")
        for entry in entries
    ):
        return facts.compute(store, merged)
    try:
        return facts.joined(
            pq.read_table(entry.file(store, "facts"), schema=segment.schema("facts")) for entry in entries
        )
    except (OSError, pa.ArrowException):
        return facts.compute(store, merged)


@contextmanager
def alone(store: Path) -> Iterator[bool]:
    """Whether there is a store and nobody else is merging in it; the lock goes with the process."""
    try:
        fd = open_lock(store / LOCK)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise StoreError(f"{store} cannot be written: {error.strerror or error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)


@contextmanager
def by_itself(store: Path) -> Iterator[None]:
    """Nobody else merges in the store meanwhile; StoreError where somebody does, or there is none."""
    with alone(store) as is_alone:
        if not is_alone:
            why = "its segments are being merged: try again" if store.is_dir() else "there is no store"
            raise StoreError(f"{store}: {why}")
        yield
