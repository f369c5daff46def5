"""Taking in what a store's manifest does not name: it was lost, damaged, or is older than the segments."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TypeAlias, TypeVar

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.files import own_folder
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.rows import Rows

from ..spelling import counted
from . import compacting
from .snapshot import why_spoiled

KEPT = "kept"
"""The folder of a store with files whose recordings were taken in: nothing in it is ever deleted."""
_Record: TypeAlias = Exchange | SpanRecord | ProcessStarted | Note
_Key: TypeAlias = tuple[object, ...]
_One = TypeVar("_One", SpanRecord, ProcessStarted, Note)


def repair(store: Path) -> list[str]:
    """Let the manifest name every recording that the store's segments hold, each once.

    Return what was done, a line each. Nothing is deleted: a manifest that cannot be read, and files whose
    recordings are elsewhere now, are in the folder `kept`; files that cannot be read stay where they are.
    StoreError where a newer version wrote the manifest, it cannot be opened, or segments are being merged.
    """
    store = Path(store)
    with compacting.alone(store) as alone:
        if not alone:
            raise StoreError(f"{store}: there is no store, or its segments are being merged: try again")
        done: list[str] = []
        if manifest.is_damaged(store):
            name = f"{manifest.FILE}.{time.time_ns()}"
            _keep(store, {manifest.FILE: name})
            done.append(f"the manifest, which could not be read, is {store / KEPT / name} now")
        done += sealing.seal_dead(store)
        left = manifest.unnamed(store, manifest.load(store))
        known = _known(store) if left else set[_Key]()
        for segment_id in left:
            try:
                done.append(_taken_in(store, segment_id, known))
            except (StoreError, OSError, KeyError, TypeError, ValueError) as error:
                done.append(
                    f"segment {segment_id} stays as it is: {error}; restore it, or move it out of the store"
                )
    return done


def _known(store: Path) -> set[_Key]:
    """Return what the segments hold that the manifest names, as far as they can be read."""
    known: set[_Key] = set()
    for entry in manifest.load(store).segments:
        try:
            known.update(map(_key, segment.read_exchanges(store, entry)))
            for kind in segment.read_records(store, entry):
                known.update(map(_key, kind))
        except StoreError:
            continue
    return known


def _taken_in(store: Path, segment_id: str, known: set[_Key]) -> str:
    """Return what became of the segment's recordings; those not `known` are in a new one, and known now."""
    found = SegmentEntry(id=segment_id, exchanges=0, spans=0, bytes=0, started_ns=0, ended_ns=0)
    if why := why_spoiled(store, found):
        raise StoreError(why)
    rows, new, taken = Rows(), set[_Key](), 0
    for exchange in segment.read_exchanges(store, found):
        if _key(exchange) not in known:
            rows.exchange(exchange)
            new.add(_key(exchange))
            taken += 1
    spans, processes, notes = segment.read_records(store, found)
    rows.others(_without(known, spans), _without(known, processes), _without(known, notes))
    for kind in (spans, processes, notes):
        new.update(map(_key, kind))
    name = f"segment {segment_id}, which no manifest named"
    files = {
        f"segments/{segment_id}.{kind}.parquet": f"{segment_id}.{kind}.parquet" for kind in manifest.KINDS
    }
    if rows.empty:
        _keep(store, files)
        return f"{name}: all that it holds is in other segments; its files are in {store / KEPT} now"
    entry = segment.write_segment(store, rows)
    try:
        manifest.commit(store, add=[entry])
    except BaseException:
        manifest.discard(store, entry)
        raise
    known |= new
    _keep(store, files)
    return f"{name}: {counted(taken, 'exchange')} taken in; its files are in {store / KEPT} now"


def _without(known: set[_Key], records: list[_One]) -> list[_One]:
    return [record for record in records if _key(record) not in known]


def _keep(store: Path, files: dict[str, str]) -> None:
    """Move the files, of those that are there, into the folder of what is kept, under these names."""
    own_folder(store / KEPT)
    for path, name in files.items():
        if (store / path).exists():
            os.rename(store / path, store / KEPT / name)


def _key(record: _Record) -> _Key:
    if isinstance(record, ProcessStarted):
        return (record.process_id,)
    if isinstance(record, Note):
        told = json.dumps(record.attributes, sort_keys=True, default=str)
        return record.process_id, record.kind, record.time_ns, record.trace_id, told
    return record.process_id, record.trace_id, record.span_id
