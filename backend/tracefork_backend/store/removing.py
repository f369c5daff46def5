"""Runs removed from a store: the one way in which a recording goes."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.store import manifest, sealing, wal
from tracefork_otel.store.manifest import SegmentEntry

from ..spelling import counted, run_name
from . import compacting, kept, states
from .database import Row
from .snapshot import why_spoiled
from .store import Store

_NAMED = 5
"""So many files are named where some are in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What would go, and what of it would stay."""

    runs: tuple[Row, ...]
    """Each with run_id, name, kind, started_at, steps and bytes."""
    made: tuple[str, ...]
    """Runs that were made of them (forks, replays, trials), which stay, and hold text of theirs."""
    experiments: tuple[str, ...]
    """Experiments about them, whose results stay and quote them."""
    beside: tuple[str, ...]
    """Runs that stay, of commands that made the others too."""
    without: sealing.Without
    """What no segment holds afterwards."""

    @property
    def steps(self) -> int:
        """The exchanges that go."""
        return sum(row["steps"] for row in self.runs)

    @property
    def bytes(self) -> int:
        """The bytes of their requests and responses."""
        return sum(row["bytes"] for row in self.runs)


def planned(store: Store, run_ids: Collection[str], *, forks: bool = False) -> Removal:
    """Return what the removal of these runs takes and leaves; with `forks` it takes what was made of them."""
    ids = set(run_ids)
    made = {row["run_id"] for row in store.ask("made_of_runs", run_ids=list(ids))}
    if forks:
        ids |= made
    named = {"run_ids": list(ids)}
    experiments = store.ask("experiments_of_runs", **named)
    told = (*store.ask("launches_of_runs_alone", **named), *store.ask("other_traces_of_runs", **named))
    traces = {*ids, *(row["trace_id"] for row in told)}
    if forks:
        traces |= {row["trace_id"] for row in experiments}
    return Removal(
        runs=tuple(store.ask("removable", **named)),
        made=() if forks else tuple(sorted(made)),
        experiments=() if forks else tuple(sorted({row["experiment_id"] for row in experiments})),
        beside=tuple(sorted(row["run_id"] for row in store.ask("beside_runs", **named))),
        without=sealing.Without(
            frozenset(traces),
            frozenset(row["process_id"] for row in store.ask("processes_of_runs_alone", **named)),
        ),
    )


def remove(store: Store, removal: Removal) -> int:
    """Remove the runs, all or none of them; return how many bytes of files went with them.

    Raises StoreError naming a file that keeps that from being done, and UsageError while a process that
    writes one of the runs is at work.
    """
    try:
        return _removed(store, removal)
    except StoreError as error:
        if not _is_of_a_full_disk(error):
            raise
    try:
        return _removed(store, removal, make_room=True)
    except StoreError as error:
        if not _is_of_a_full_disk(error):
            raise
        raise StoreError(
            f"nothing was removed: {store.path}: the disk is full, and what stays of the segments that hold "
            "these runs is written anew before they go: make room for that on the disk, or remove with them "
            "the runs that were recorded beside them, for a segment of which nothing stays takes no room"
        ) from error


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            return True
        error = error.__cause__
    return False


def _removed(store: Store, removal: Removal, *, make_room: bool = False) -> int:
    path = store.path
    with compacting.by_itself(path):
        _check(store, removal)
        gone: list[SegmentEntry] = []
        new: list[SegmentEntry] = []
        try:
            stay: list[SegmentEntry] = []
            for entry in manifest.load(path).segments:
                if _holds(entry, removal.without.traces):
                    if make_room:  # what stays is written anew first; facts can be computed anew
                        with suppress(OSError):
                            entry.file(path, "facts").unlink(missing_ok=True)
                    gone.append(entry)
                    new += filter(None, [_rewritten(path, entry, removal.without)])
                else:
                    stay.append(entry)
            if spoiled := next(filter(None, (why_spoiled(path, entry) for entry in new)), None):
                raise StoreError(f"nothing was removed: {spoiled}")
            # What merges left of the runs goes too. The rest of it has its grace: where a segment turns out
            # damaged it is the last good copy.
            old = _left_of(path, removal.without)
            at_once = {entry.id for entry in gone} | old
            # All that can fail has been done; whatever ends us between the copies and the commit, the runs
            # are whole.
            freed = _drop(kept.to_drop(path, removal.without, [*stay, *new]))
            manifest.commit(path, add=new, remove=[entry.id for entry in gone], at_once=at_once)
        except BaseException:
            for entry in new:
                manifest.discard(path, entry.id)
            raise
        # With which the files go.
        left = {item.id for item in manifest.commit(path).retired} & at_once
        if left:
            listed = ", ".join(f"{path / 'segments' / segment_id}.*" for segment_id in sorted(left))
            raise StoreError(
                f"the runs are gone from the store, but files that hold them could not be deleted: {listed}: "
                "delete them, or let them be deleted: tracefork-otel compact"
            )
    freed += states.sweep(store)
    return freed + sum(entry.bytes for entry in gone) - sum(entry.bytes for entry in new)


def _holds(entry: SegmentEntry, traces: Collection[str]) -> bool:
    return any(entry.may_hold(trace_id) for trace_id in traces)


def _left_of(path: Path, without: sealing.Without) -> set[str]:
    """Return the replaced segments whose files hold something that goes, or cannot be read."""
    return {
        item.id
        for item in manifest.load(path).retired
        if any(_may_have(manifest.file_of(path, item.id, kind), without) for kind in ("spans", "exchanges"))
    }


def _may_have(file: Path, without: sealing.Without) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    traces, processes = set(without.traces), set(without.processes)
    told = {"trace_id": traces, "span_trace_id": traces, "process_id": processes}
    try:
        with pq.ParquetFile(file) as opened:
            names = [name for name in told if name in opened.schema_arrow.names]
            table = opened.read(columns=names)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, pa.ArrowException):
        return True
    return any(not told[name].isdisjoint(table.column(name).unique().to_pylist()) for name in names)


def _rewritten(path: Path, entry: SegmentEntry, without: sealing.Without) -> SegmentEntry | None:
    """Return a new segment of what stays; None if nothing does."""
    whole = {trace_id[: manifest.TRACE_DIGITS] for trace_id in without.traces}
    try:
        # What others have in it may come back with the file: a damaged body that was written anew would not.
        if spoiled := why_spoiled(path, entry):
            raise StoreError(spoiled)
        return sealing.rewritten(path, entry, without)
    except StoreError as error:
        # What cannot be read may go with the rest where all of it goes.
        if entry.traces is not None and whole.issuperset(entry.traces):
            return None
        raise StoreError(
            f"nothing was removed: {error}; move segment {entry.id} out, or restore it"
        ) from error


def _check(store: Store, removal: Removal) -> None:
    """Raise where something else than segments that can be read may hold one of the runs."""
    store.current(anew=True)
    left = [path for path in (store.path / "wal").glob(".*.tmp") if not wal.is_live(path)]
    # Also those of this moment: a crash may have left them, and the log that they were made from comes back.
    if left := [*left, *_without_lone_facts(manifest.strays(store.path, manifest.load(store.path)))]:
        listed = ", ".join(sorted(path.name for path in left[:_NAMED]))
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        raise StoreError(
            f"nothing was removed: {left[0].parent}: {listed}{more}: no manifest names it, and it may hold "
            "it too; either it is being written: try again in a minute; or a crash left it: tracefork-otel "
            "doctor --repair, and move out what is there afterwards"
        )
    if not store.writable:
        raise StoreError(f"nothing was removed: {store.path} cannot be written")
    unsealed = {
        row["process_id"] for row in store.ask("unsealed_processes", traces=list(removal.without.traces))
    }
    for file in wal.wal_files(store.path):
        if wal.process_of(file) not in unsealed:
            continue
        if not wal.is_live(file):
            why = "; ".join(store.met) or "it could not be sealed"
            raise StoreError(
                f"nothing was removed: {file}: its process has ended, but it is not sealed: {why}"
            )
        raise UsageError(
            f"nothing was removed: {file}: process {wal.process_of(file)} is at work and writes what "
            "would go: wait until it has ended"
        )
    for why in store.problems:
        if f"{store.path / 'wal'}/" in why:
            raise StoreError(f"nothing was removed: {why}: it may hold it too; move it out, or restore it")


def _without_lone_facts(strays: Sequence[Path]) -> list[Path]:
    """Return the files but for facts without the segment that they were read from, which are deleted."""
    parts = {path: path.name.removesuffix(".parquet").rpartition(".") for path in strays}
    recorded = {segment_id for segment_id, _, kind in parts.values() if kind in manifest.RECORDED}
    lone = [
        path
        for path, (segment_id, _, kind) in parts.items()
        if kind == "facts" and segment_id not in recorded
    ]
    for path in lone:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return [path for path in strays if path not in lone or os.path.lexists(path)]


def _drop(files: Sequence[Path]) -> int:
    """Remove the files; return how many bytes that were."""
    freed = 0
    for file in files:
        try:
            size = file.stat().st_size
            file.unlink()
        except OSError as error:
            raise StoreError(f"no run was removed: {file}: {error.strerror or error}") from error
        freed += size
    return freed


def sentences(removal: Removal) -> list[str]:
    """Return what a person should know of what stays, a sentence each."""
    told: list[str] = []
    if removal.made:
        count = counted(len(removal.made), "run")
        told.append(f"{count} made of them (forks, replays, trials) stay, and hold their text: --forks")
    if removal.experiments:
        count = counted(len(removal.experiments), "experiment")
        told.append(f"the results of {count} about them stay, and quote them: --forks")
    if removal.beside:
        listed = ", ".join(run_name(run_id) for run_id in removal.beside[:5])
        told.append(f"of the same command stay runs {listed}, whose replay lacks what goes")
    return told
