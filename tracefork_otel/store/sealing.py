"""From WALs to segments, and from many segments to one: each record ends up in exactly one segment."""

from __future__ import annotations

import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from ..errors import StoreError
from ..exchange import Exchange
from ..files import check_own
from . import manifest, segment, wal
from .manifest import SegmentEntry
from .records import Note, ProcessStarted, SpanRecord
from .rows import Rows, Storing
from .spool import is_of_bucket
from .wal_reading import CopiedLog, check, exchanges_of, read_wal

_LEFT_SECONDS = 3600
"""A half-written file that is older than this was left over from a crash."""
_TOGETHER = manifest.TRACES
"""So many WALs go into one segment: of more its runs would not be listed, and each is held open meanwhile."""
_TOGETHER_BYTES = 16 * 1024 * 1024
"""So many bytes of them: sealing takes a second or two then, as long as others wait to see them sealed."""


def seal(store: Path, wals: Sequence[Path]) -> str | None:
    """Put the records of the WALs into a committed segment, once, and remove the WALs.

    Return the segment's id; None if there was nothing to store, somebody holds a lock, or a bucket gets the
    WALs. All WALs of a process whose exchanges go on from one to the next come together. On StoreError they
    are as they were.
    """
    store = Path(store)
    if is_of_bucket(store):
        return None
    held: dict[Path, int] = {}
    try:
        for path in wals:
            fd = wal.take(path)
            if fd is not None:
                held[path] = fd
            elif path.exists():
                return None
        segments = manifest.load(store).segments
        stored = [entry for entry in segments if {path.name for path in held}.intersection(entry.wals)]
        fresh = [path for path in held if not any(path.name in entry.wals for entry in stored)]
        _check_stored(store, stored, [path for path in held if path not in fresh])
        entry = _sealed(store, fresh) if fresh else None
        made = stored if entry is None else [*stored, entry]
        try:
            _check_whole(store, made)
        except StoreError:
            live = {one.id for one in manifest.load(store).segments}
            if live.issuperset(one.id for one in made):
                raise
            return None  # it was merged meanwhile: whoever seals next finds the log in the merged one
        if entry is not None:
            _discard_left(store)
        for path in held:
            path.unlink(missing_ok=True)
    except StoreError:
        raise
    except Exception as error:
        # Whatever a record holds that a segment cannot: other WALs must not wait for it.
        names = ", ".join(path.name for path in wals)
        raise StoreError(f"{store}: {names} could not be sealed and stay as they are: {error!r}") from error
    finally:
        for fd in held.values():
            wal.let_go(fd)
    return entry.id if entry else None


def _check_whole(store: Path, entries: Sequence[SegmentEntry]) -> None:
    """Raise StoreError if a file of a segment is not what was written: a WAL of it is then the only copy."""
    for entry in entries:
        for kind in manifest.RECORDED:
            if changed := entry.why_changed(store, kind):
                raise StoreError(f"{changed}; what it was made from, {', '.join(entry.wals)}, is kept")


def _check_stored(store: Path, entries: Sequence[SegmentEntry], paths: Sequence[Path]) -> None:
    """Raise StoreError if one of these WALs, which the segments were made from, has more than they do.

    A copy of the store was sealed while the process went on, and its manifest was put back here.
    """
    if not paths:
        return
    told = exchanges_of([read_wal(path, keep=lambda record, side, body: b"") for path in paths])[0]
    ended = {(one.process_id, one.trace_id, one.span_id) for one in told if one.ended_ns is not None}
    for entry in entries:
        for one in segment.read_exchanges(store, entry):
            if one.ended_ns is not None:
                ended.discard((one.process_id, one.trace_id, one.span_id))
    if ended:
        names = ", ".join(map(str, paths))
        raise StoreError(
            f"{names}: the manifest has this as sealed, but no segment has all that it holds: a copy of it "
            "was sealed while its process went on; `doctor --repair` takes in what no other file holds"
        )


def _sealed(store: Path, paths: Sequence[Path]) -> SegmentEntry | None:
    rows = Rows()
    storing = Storing(rows)
    for path in paths:
        storing.read(path)
    storing.settle()
    if rows.empty:
        return None
    entry = segment.write_segment(store, rows, wals=[path.name for path in paths])
    try:
        manifest.commit(store, add=[entry])
    except BaseException:
        manifest.discard(store, entry.id)
        raise
    return entry


def _discard_left(store: Path) -> None:
    """Remove what a crash left of a sealing that no manifest named: its WALs are in other segments now."""
    current = manifest.load(store)
    sealed = current.wals
    for path in manifest.strays(store, current):
        if path.name.endswith(".spans.parquet") and (made_of := segment.wals_of(path)) and made_of <= sealed:
            manifest.discard(store, path.name.partition(".")[0])


def seal_dead(store: Path) -> list[str]:
    """Seal what processes that are gone left, and the finished WALs of those that live.

    Return why a WAL was left as it is: one message each, naming the file.
    """
    store = Path(store)
    problems: list[str] = []
    if is_of_bucket(store):
        return problems
    dead: list[list[Path]] = []
    for _, group in groupby(wal.wal_files(store), key=wal.process_of):
        paths = list(group)
        running = [at for at, path in enumerate(paths) if wal.is_live(path)]
        if not running:
            # Together: an exchange that one of them started can end in the next.
            dead.append(_readable(paths, problems))
            continue
        # Each alone; but not what comes after one that somebody is sealing, for the two may belong together.
        for at, path in enumerate(paths):
            if at not in running and at < max(running):
                _seal_each([[path]], store, problems)
    for batch in _batches(filter(None, dead)):
        _seal_each(batch, store, problems)
    _tidy(store)
    return problems


def _batches(processes: Iterable[list[Path]]) -> Iterator[list[list[Path]]]:
    """Yield as many processes together, by their WALs, as go into one segment: each costs its files."""
    batch: list[list[Path]] = []
    files = size = 0
    for paths in processes:
        more = sum(map(_size, paths))
        if batch and (files + len(paths) > _TOGETHER or size + more > _TOGETHER_BYTES):
            yield batch
            batch, files, size = [], 0, 0
        batch.append(paths)
        files, size = files + len(paths), size + more
    if batch:
        yield batch


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _seal_each(processes: Sequence[list[Path]], store: Path, problems: list[str]) -> None:
    """Seal what these processes left: in one segment, unless one of them fails or is being sealed."""
    why = None
    try:
        if seal(store, list(chain.from_iterable(processes))) is not None:
            return
    except StoreError as error:
        why = str(error)
    if len(processes) > 1:
        # One that fails keeps none of the others waiting, and what somebody else seals is left to them.
        free = [paths for paths in processes if not any(map(wal.is_live, paths))]
        for half in (free[: len(free) // 2], free[len(free) // 2 :]):
            if half:
                _seal_each(half, store, problems)
    elif why is not None:
        problems.append(why)


def _readable(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    readable: list[Path] = []
    for path in paths:
        try:
            check(path)
            readable.append(path)
        except CopiedLog:
            continue  # whoever reads the store says so
        except StoreError as error:
            # One that is gone was sealed by somebody else meanwhile.
            if path.exists():
                problems.append(str(error))
    return readable


def _tidy(store: Path) -> None:
    """Remove what crashes left half written, once nobody can be writing it any more.

    A whole file of a segment stays, named by a manifest or not: the manifest may be what was lost.
    """
    before = time.time() - _LEFT_SECONDS
    for folder in (store, store / "wal", store / "segments"):
        try:
            if folder != store:
                check_own(folder)
            for path in folder.glob(".*.tmp"):
                left = path.lstat()
                if stat.S_ISREG(left.st_mode) and left.st_mtime < before and not wal.is_live(path):
                    path.unlink(missing_ok=True)
        except OSError:
            continue


@dataclass(frozen=True, slots=True)
class Without:
    """What is left out of a segment: runs, and what processes that made nothing else said of themselves."""

    traces: Collection[str] = frozenset()
    processes: Collection[str] = frozenset()

    def spares(self, trace_id: str | None, process_id: str) -> bool:
        """Return whether a record of that process, about that trace if any, stays."""
        return trace_id not in self.traces and process_id not in self.processes


def merge(store: Path, entries: Sequence[SegmentEntry]) -> SegmentEntry:
    """Write a new segment that holds what those hold; no manifest names it until `commit` adds it.

    Damage that was recorded stays on its exchange. Raise StoreError if one of them cannot be read or has
    changed, or the new one cannot be written.
    """
    return copied(store, _rows_of(store, entries, Without()))


def rewritten(store: Path, entry: SegmentEntry, without: Without) -> SegmentEntry | None:
    """Write a new segment of what the entry holds, but for what is left out; None if nothing else is there.

    Raise StoreError as `merge` does.
    """
    rows = _rows_of(store, [entry], without)
    return None if rows.empty else copied(store, rows)


def copied(store: Path, rows: Rows) -> SegmentEntry:
    """Write a new segment of what other files hold, too; no manifest names it until `commit` adds it.

    Whatever ends us before that, nobody takes it for what a lost manifest named, and in time it goes.
    """
    manifest.commit(store, making=(segment_id := segment.new_id()))
    return segment.write_segment(store, rows, segment_id)


def records_but(
    store: Path, entry: SegmentEntry, without: Without
) -> tuple[list[Exchange], list[SpanRecord], list[ProcessStarted], list[Note]]:
    """Return what the entry holds, but for what is left out."""
    spans, processes, notes = segment.read_records(store, entry)
    return (
        [one for one in segment.read_exchanges(store, entry) if one.trace_id not in without.traces],
        [one for one in spans if one.trace_id not in without.traces],
        [one for one in processes if without.spares(one.launch_id, one.process_id)],
        [one for one in notes if without.spares(one.trace_id, one.process_id)],
    )


def _rows_of(store: Path, entries: Sequence[SegmentEntry], without: Without) -> Rows:
    rows = Rows()
    for entry in entries:
        for kind in manifest.RECORDED:
            # With a digest of its own the new file would vouch for what somebody changed.
            if changed := entry.why_changed(store, kind):
                raise StoreError(f"{changed}; see `doctor`")
        exchanges, spans, processes, notes = records_but(store, entry, without)
        for exchange in exchanges:
            rows.exchange(exchange)
        rows.others(spans, processes, notes)
    return rows
