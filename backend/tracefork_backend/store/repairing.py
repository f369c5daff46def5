"""Taking in what a store's manifest does not name: it was lost, damaged, or is older than the segments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.rows import Rows

from ..spelling import counted

_Key = tuple[object, ...]


def repair(store: Path) -> list[str]:
    """Let the manifest name every recording that the store's segments hold, each once.

    Return what was done, a line each. A manifest that cannot be read is kept beside the new one; so are files
    that cannot be read. StoreError where a newer version wrote the manifest.
    """
    done: list[str] = []
    try:
        manifest.load(store)
    except StoreError:
        kept = manifest.set_aside(store)
        done.append(f"{kept}: what stood in the manifest's place is kept here")
    done += sealing.seal_dead(store)
    for segment_id in manifest.unnamed(store):
        try:
            done.append(_taken_in(store, segment_id))
        except StoreError as error:
            done.append(f"{error}; it is kept as it is")
    return done + [_dropped(store, entry) for entry in _replaced(store)]


def _replaced(store: Path) -> list[SegmentEntry]:
    """Return the segments all of whose files are gone and whose traces are in others: an older manifest's."""
    entries = manifest.load(store).segments
    gone = [one for one in entries if not any(one.file(store, kind).exists() for kind in manifest.RECORDED)]
    held = {trace for one in entries if one not in gone for trace in one.traces or ()}
    return [one for one in gone if one.traces and held.issuperset(one.traces)]


def _dropped(store: Path, entry: SegmentEntry) -> str:
    manifest.commit(store, remove=[entry.id])
    return f"segment {entry.id}, whose files are gone: its runs are in others; it is named no more"


def _taken_in(store: Path, segment_id: str) -> str:
    """Return what became of the segment's recordings; what no other segment holds is in a new one."""
    found = SegmentEntry(id=segment_id, exchanges=0, spans=0, bytes=0, started_ns=0, ended_ns=0)
    known: set[_Key] = set()
    for entry in manifest.load(store).segments:
        try:
            known.update(_keys(store, entry))
        except StoreError:
            continue
    rows, taken = Rows(), 0
    for exchange in segment.read_exchanges(store, found):
        if (exchange.process_id, exchange.trace_id, exchange.span_id) not in known:
            rows.exchange(exchange)
            taken += 1
    spans, processes, notes = segment.read_records(store, found)
    rows.others(
        [span for span in spans if _key(span) not in known],
        [process for process in processes if _key(process) not in known],
        [note for note in notes if _key(note) not in known],
    )
    name = f"segment {segment_id}, which no manifest named"
    if rows.empty:
        manifest.commit(store, retire=[segment_id])
        return f"{name}: all that it holds is in other segments"
    entry = segment.write_segment(store, rows)
    manifest.commit(store, add=[entry], retire=[segment_id])
    return f"{name}: {counted(taken, 'exchange')} taken in, now in segment {entry.id}"


def _keys(store: Path, entry: SegmentEntry) -> Iterator[_Key]:
    for exchange in segment.read_exchanges(store, entry):
        yield exchange.process_id, exchange.trace_id, exchange.span_id
    for kind in segment.read_records(store, entry):
        yield from map(_key, kind)


def _key(record: SpanRecord | ProcessStarted | Note) -> _Key:
    if isinstance(record, SpanRecord):
        return record.process_id, record.trace_id, record.span_id
    if isinstance(record, ProcessStarted):
        return (record.process_id,)
    told = json.dumps(record.attributes, sort_keys=True, default=str)
    return record.process_id, record.kind, record.time_ns, record.trace_id, told
