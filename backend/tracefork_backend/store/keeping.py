"""What tells one record from another, and where files stay whose recordings are elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.exchange import Exchange
from tracefork_otel.files import check_own
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord

KEPT = "kept"
"""The folder of a store with files whose recordings were taken in: only runs that are removed go from it."""
Key: TypeAlias = tuple[object, ...]


class KeptEntry(SegmentEntry):
    """A segment whose files are in the folder of what is kept."""

    __slots__ = ()

    def file(self, store: Path, kind: str) -> Path:
        """Return the path of its file of a kind."""
        return store / KEPT / f"{self.id}.{kind}.parquet"


def bare(segment_id: str, of: type[SegmentEntry] = SegmentEntry) -> SegmentEntry:
    """Return an entry for a segment that no manifest names."""
    return of(id=segment_id, exchanges=0, spans=0, bytes=0, started_ns=0, ended_ns=0)


def kept_ids(store: Path) -> list[str]:
    """Return the ids of the segments of which files are kept; OSError if their folder cannot be read."""
    folder = store / KEPT
    if folder.exists() or folder.is_symlink():
        check_own(folder)
    return sorted({file.name.partition(".")[0] for file in folder.glob("*.parquet")})


def key_of(record: Exchange | SpanRecord | ProcessStarted | Note) -> Key:
    """Return what no other record has."""
    if isinstance(record, ProcessStarted):
        return (record.process_id,)
    if isinstance(record, Note):
        told = json.dumps(record.attributes, sort_keys=True, default=str)
        return record.process_id, record.kind, record.time_ns, record.trace_id, told
    return record.process_id, record.trace_id, record.span_id
