"""Damaged segments made anew of what is intact in them and in copies that are elsewhere in the store."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.files import own_folder
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.rows import Rows

from ..spelling import counted
from .keeping import KEPT, Key, ended_key, key_of, keys_of
from .snapshot import spoiled_files, why_spoiled

_Record: TypeAlias = SpanRecord | ProcessStarted | Note


@dataclass(slots=True, kw_only=True)
class Sound:
    """What of a segment is as it was written."""

    entry: SegmentEntry
    spoiled: dict[str, str]
    """Why, by kind of file."""
    exchanges: list[Exchange]
    """Damaged ones, too; none where their file is spoiled."""
    records: list[_Record]
    """Spans, processes and notes."""
    found: dict[Key, Exchange | _Record] = field(default_factory=dict[Key, "Exchange | _Record"])
    """What copies have of it."""

    @property
    def keys(self) -> set[Key]:
        """What is intact."""
        whole = (one for one in self.exchanges if not one.damage)
        return {*map(key_of, self.records), *chain.from_iterable(map(keys_of, whole))}

    @property
    def damaged(self) -> set[Key]:
        """The exchanges of which it has a body that is not what was recorded, or not the end."""
        return {ended_key(one) for one in self.exchanges if one.damage or one.ended_ns is None}

    def lacks(self, record: Exchange | _Record) -> bool:
        """Return whether the segment may have held the record, which cannot be read in it."""
        if isinstance(record, Exchange):
            if "exchanges" in self.spoiled:
                return self.entry.may_hold(record.trace_id)
            return key_of(record) in self.damaged
        if "spans" not in self.spoiled:
            return False
        if isinstance(record, SpanRecord) or (isinstance(record, Note) and record.trace_id):
            return self.entry.may_hold(record.trace_id or "")
        return record.process_id in {one.process_id for one in self.exchanges}


def sound(store: Path, entry: SegmentEntry) -> Sound:
    """Return what of the segment is as it was written."""
    spoiled = spoiled_files(store, entry)
    told = Sound(entry=entry, spoiled=spoiled, exchanges=[], records=[])
    if "format" in spoiled:
        return told
    try:
        if "exchanges" not in spoiled:
            told.exchanges += segment.read_exchanges(store, entry)
    except StoreError as error:
        spoiled["exchanges"] = str(error)
    try:
        if "spans" not in spoiled:
            for kind in segment.read_records(store, entry):
                told.records += kind
    except StoreError as error:
        spoiled["spans"] = str(error)
    return told


def hurt(store: Path) -> tuple[list[Sound], set[Key]]:
    """Return the segments of the manifest of which something is damaged, and what is intact in all."""
    found: list[Sound] = []
    known: set[Key] = set()
    for entry in manifest.load(store).segments:
        one = sound(store, entry)
        known |= one.keys
        if "format" not in one.spoiled and (one.spoiled or one.damaged):
            found.append(one)
    return found, known


def collect(ones: Sequence[Sound], copy: Sound, known: set[Key]) -> None:
    """Let each of these segments have what it lacks and the copy has; that is known then."""
    intact = (one for one in copy.exchanges if not one.damage)
    for record in (*intact, *copy.records):
        if (key := key_of(record)) not in known and (one := next((o for o in ones if o.lacks(record)), None)):
            one.found[key] = record
            known.update(keys_of(record))


def heal(store: Path, one: Sound) -> str | None:
    """Put a new segment in the place of a damaged one, if there is something to gain; return what was done.

    Files of the damaged one that say more than the new one are in the folder of what is kept.
    """
    lost = "spans" in one.spoiled and "exchanges" not in one.spoiled
    if not (one.found or lost):
        return None
    rows, left = Rows(), 0
    own = {ended_key(exchange): exchange for exchange in one.exchanges}
    exchanges = {ended_key(record): record for record in one.found.values() if isinstance(record, Exchange)}
    for exchange in (own | exchanges).values():
        left += exchange.damage is not None
        rows.exchange(exchange)
    records = [*one.records, *(record for record in one.found.values() if not isinstance(record, Exchange))]
    if "spans" in one.spoiled and (note := _note(one, len(records))):
        records.append(note)
    rows.others(
        [record for record in records if isinstance(record, SpanRecord)],
        [record for record in records if isinstance(record, ProcessStarted)],
        [record for record in records if isinstance(record, Note)],
    )
    kinds = ["spans"] if "spans" in one.spoiled else []
    if left or "exchanges" in one.spoiled:
        kinds += ["exchanges", "chunks"]
    _kept(store, one.entry, kinds)
    made = sealing.copied(store, rows)
    try:
        if why := why_spoiled(store, made):
            raise StoreError(why)
        manifest.commit(store, add=[made], remove=[one.entry.id])
    except BaseException:
        manifest.discard(store, made.id)
        raise
    name = f"segment {one.entry.id}, which was damaged"
    healed = f"{counted(len(one.found), 'record')} of it came from intact copies" if one.found else ""
    stay = f"what could be read of it is in a new one; its files of {', '.join(kinds)}, where they are "
    stay += f"there, are in {store / KEPT} too"
    return f"{name}: {'; '.join(filter(None, [healed, stay if kinds else '']))}"


def _note(one: Sound, have: int) -> Note | None:
    """Return the note of what is lost with the file of spans."""
    count = one.entry.spans - have
    if count <= 0 or not one.exchanges:
        return None
    why = f"{one.entry.id}.spans.parquet was lost or damaged: names, starts, tools and notes of its runs"
    return Note(
        kind="lost",
        time_ns=time.time_ns(),
        process_id=one.exchanges[0].process_id,
        attributes={"count": count, "why": why},
    )


def _kept(store: Path, entry: SegmentEntry, kinds: Sequence[str]) -> None:
    """Have a second name for these files of the segment in the folder of what is kept."""
    if kinds:
        own_folder(store / KEPT)
    for kind in kinds:
        file = entry.file(store, kind)
        second = store / KEPT / file.name
        if not file.is_file() or second.exists():
            continue
        try:
            os.link(file, second, follow_symlinks=False)
        except OSError:  # where files cannot have two names
            shutil.copy2(file, second, follow_symlinks=False)
