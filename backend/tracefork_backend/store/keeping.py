"""What tells one record from another, and where files stay whose recordings are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.exchange import Exchange
from tracefork_otel.files import check_own
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord

KEPT = "kept"
"""The folder of a store with files whose recordings were taken in: only runs that are removed go from it."""
Key: TypeAlias = tuple[object, ...]
_IN_FLIGHT = "in flight"


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
    """Return what no other record has; an exchange has another one as long as it is in flight."""
    if isinstance(record, ProcessStarted):
        return (record.process_id,)
    if isinstance(record, Note):
        told = json.dumps(record.attributes, sort_keys=True, default=str)
        return record.process_id, record.kind, record.time_ns, record.trace_id, told
    whose = record.process_id, record.trace_id, record.span_id
    return (*whose, _IN_FLIGHT) if isinstance(record, Exchange) and record.ended_ns is None else whose


def keys_of(record: Exchange | SpanRecord | ProcessStarted | Note) -> Iterator[Key]:
    """Yield what need not be kept beside the record: itself, and as it was before its end."""
    yield (key := key_of(record))
    if isinstance(record, Exchange) and record.ended_ns is not None:
        yield (*key, _IN_FLIGHT)


def ended_key(exchange: Exchange) -> Key:
    """Return the key that the exchange has once it has ended."""
    return exchange.process_id, exchange.trace_id, exchange.span_id
