"""Taking in what a store's manifest does not name: it was lost, damaged, or is older than the segments."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tracefork_otel.errors import StoreError
from tracefork_otel.files import own_folder
from tracefork_otel.store import manifest, sealing, segment, wal
from tracefork_otel.store.held import Held
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.rows import Rows
from tracefork_otel.store.wal_reading import check, exchanges_of, read_wal

from ..spelling import counted
from . import compacting, healing
from .keeping import KEPT, KeptEntry, Key, bare, kept_ids, key_of, keys_of
from .snapshot import why_spoiled

_One = TypeVar("_One", SpanRecord, ProcessStarted, Note)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to."""

    done: bool
    """Whether something was done; else it stays as it was."""
    text: str


def repair(store: Path) -> list[Repaired]:
    """Let the manifest name every recording that the store's segments hold, each once.

    A damaged segment is made anew of what is intact in it and in copies, where there is something to gain.
    Return what was done and what stays, one by one. Nothing is deleted: a manifest that cannot be read, and
    files whose recordings are elsewhere now, are in the folder `kept`; files that cannot be read stay where
    they are. StoreError where a newer version wrote the manifest, it cannot be opened, or segments are being
    merged.
    """
    store = Path(store)
    with compacting.by_itself(store):
        done: list[Repaired] = []
        if manifest.is_damaged(store):
            name = f"{manifest.FILE}.{time.time_ns()}"
            _keep(store, {manifest.FILE: name})
            said = f"the manifest, which could not be read, is {store / KEPT / name} now"
            done.append(Repaired(True, said))
        unsealed = sealing.seal_dead(store)
        damaged, holding = healing.hurt(store)
        logs = _left_logs(store)
        named = [str(path) for log in logs for path in log.paths]
        done += (Repaired(False, why) for why in unsealed if not any(path in why for path in named))
        left = manifest.unnamed(store, listed := manifest.load(store))
        # What took their place may be lost since; those of runs that were removed go at once.
        replaced = [item.id for item in listed.retired if item.at_ns and _is_whole(store, item.id)]
        for copy in _copies(store, left, replaced) if damaged else ():
            healing.collect(damaged, copy, holding)
        for log in logs:
            healing.collect(damaged, log.told, holding)
        for one in damaged:
            try:
                if said := healing.heal(store, one):
                    done.append(Repaired(True, said))
            except (StoreError, OSError) as error:
                holding.difference_update(one.found)
                done.append(Repaired(False, f"segment {one.entry.id} stays as it is: {error}"))
        for segment_id in (*left, *replaced):
            try:
                if segment_id in replaced and not _misses(store, segment_id, holding):
                    continue
                done.append(Repaired(True, _taken_in(store, segment_id, holding)))
            except (StoreError, OSError, KeyError, TypeError, ValueError) as error:
                why = f"segment {segment_id} stays as it is: {error}; restore it, or move it out of the store"
                done.append(Repaired(False, why))
        done += (_log_taken_in(store, log, holding) for log in logs)
    return done


@dataclass(frozen=True, slots=True)
class _LeftLog:
    """Logs of one process that sealing leaves: copies, and what a copy of was sealed."""

    paths: tuple[Path, ...]
    told: healing.Sound


def _left_logs(store: Path) -> list[_LeftLog]:
    """Return the logs that sealing has left although they can be read, those of a process together."""
    names = manifest.load(store).wals
    by_process: dict[str, list[Path]] = {}
    for path in wal.wal_files(store):
        with contextlib.suppress(StoreError):
            process_id = check(path, copied=True)[0]
            if path.name in names or process_id != wal.process_of(path):
                by_process.setdefault(process_id, []).append(path)
    found: list[_LeftLog] = []
    for paths in by_process.values():
        held = Held()
        with contextlib.suppress(StoreError):
            contents = [read_wal(path, keep=held.keep, copied=True) for path in paths]
            exchanges, *others = exchanges_of(contents)
            records = [*chain.from_iterable(others)]
            told = healing.Sound(entry=bare(""), spoiled={}, exchanges=exchanges, records=records)
            found.append(_LeftLog(tuple(paths), told))
    return found


def _log_taken_in(store: Path, log: _LeftLog, known: set[Key]) -> Repaired:
    """Return what became of the logs; what is not `known` of them is in a segment now, and they are gone."""
    name = ", ".join(map(str, log.paths))
    writers = {one.process_id for one in (*log.told.exchanges, *log.told.records)}
    if any(wal.is_live(path) for path in wal.wal_files(store) if wal.process_of(path) in writers):
        return Repaired(False, f"{name}: stays until the process that wrote it has ended: repair again then")
    try:
        taken = _stored(store, log.told, known)
    except (StoreError, OSError) as error:
        return Repaired(False, f"{name} stays as it is: {error}")
    for path in log.paths:
        path.unlink(missing_ok=True)
    into = f"{counted(taken, 'exchange')} taken in" if taken else "all that it holds is in segments"
    return Repaired(
        True, f"{name}: a log that was copied or put back: {into}, and it is gone as sealed logs are"
    )


def _stored(store: Path, told: healing.Sound, known: set[Key]) -> int:
    """Put what is not `known` into a segment that is read back; return how many exchanges these were."""
    rows = Rows()
    exchanges = [one for one in told.exchanges if key_of(one) not in known]
    for exchange in exchanges:
        rows.exchange(exchange)
    records = [one for one in told.records if key_of(one) not in known]
    rows.others(
        [one for one in records if isinstance(one, SpanRecord)],
        [one for one in records if isinstance(one, ProcessStarted)],
        [one for one in records if isinstance(one, Note)],
    )
    if not rows.empty:
        entry = sealing.copied(store, rows)
        try:
            if why := why_spoiled(store, entry):
                raise StoreError(why)
            manifest.commit(store, add=[entry])
        except BaseException:
            manifest.discard(store, entry.id)
            raise
    for one in (*exchanges, *records):
        known.update(keys_of(one))
    return len(exchanges)


def _copies(store: Path, left: Sequence[str], replaced: Sequence[str]) -> Iterator[healing.Sound]:
    """Yield what is sound in segments that no manifest names, and in those that are kept."""
    entries = [bare(segment_id) for segment_id in (*left, *replaced)]
    with contextlib.suppress(OSError):
        entries += [bare(segment_id, KeptEntry) for segment_id in kept_ids(store)]
    for entry in entries:
        with contextlib.suppress(StoreError):
            yield healing.sound(store, entry)


def _is_whole(store: Path, segment_id: str) -> bool:
    return all(bare(segment_id).file(store, kind).is_file() for kind in manifest.RECORDED)


def _misses(store: Path, segment_id: str, known: set[Key]) -> bool:
    """Return whether a segment that was replaced holds what no other does."""
    try:
        return held_alone(store, segment_id, known) > 0
    except StoreError:
        return False  # it was replaced because it could not be read


def held_alone(store: Path, segment_id: str, known: set[Key]) -> int:
    """Return how many records of a segment that no manifest names are not known from others."""
    found, count = bare(segment_id), 0
    if found.file(store, "exchanges").exists():
        count += sum(key_of(exchange) not in known for exchange in segment.read_exchanges(store, found))
    if found.file(store, "spans").exists():
        count += sum(key_of(one) not in known for kind in segment.read_records(store, found) for one in kind)
    return count


def _taken_in(store: Path, segment_id: str, known: set[Key]) -> str:
    """Return what became of the segment's recordings; those not `known` are in a new one, and known now."""
    found = bare(segment_id)
    if why := why_spoiled(store, found):
        raise StoreError(why)
    rows, new, taken = Rows(), set[Key](), 0
    for exchange in segment.read_exchanges(store, found):
        if key_of(exchange) not in known:
            rows.exchange(exchange)
            new.update(keys_of(exchange))
            taken += 1
    spans, processes, notes = segment.read_records(store, found)
    rows.others(_without(known, spans), _without(known, processes), _without(known, notes))
    for kind in (spans, processes, notes):
        new.update(map(key_of, kind))
    name = f"segment {segment_id}, which no manifest named"
    files = {
        f"segments/{segment_id}.{kind}.parquet": f"{segment_id}.{kind}.parquet" for kind in manifest.KINDS
    }
    if rows.empty:
        _keep(store, files)
        return f"{name}: all that it holds is in other segments; its files are in {store / KEPT} now"
    entry = sealing.copied(store, rows)
    try:
        manifest.commit(store, add=[entry])
    except BaseException:
        manifest.discard(store, entry.id)
        raise
    known |= new
    _keep(store, files)
    return f"{name}: {counted(taken, 'exchange')} taken in; its files are in {store / KEPT} now"


def _without(known: set[Key], records: list[_One]) -> list[_One]:
    return [record for record in records if key_of(record) not in known]


def _keep(store: Path, files: dict[str, str]) -> None:
    """Move the files, of those that are there, into the folder of what is kept, under these names."""
    own_folder(store / KEPT)
    for path, name in files.items():
        if (store / path).exists():
            os.rename(store / path, store / KEPT / name)
