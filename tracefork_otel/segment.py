"""Segments: the immutable Parquet files that WALs become. The only module that uses pyarrow.

pyarrow is imported inside functions, which run in a background thread or in the backend: its import costs too much
for the application's thread. Arrays are made from buffers, because `pa.array(list)` imports pandas (up to two seconds) where
pandas is installed.
"""

from __future__ import annotations

import os
import secrets
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import _rows, manifest, wal
from ._errors import StoreError
from .exchange import Exchange
from .manifest import TRACE_DIGITS, TRACES, SegmentEntry, sync_directory
from .records import Note, ProcessStarted, SpanRecord

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = {"exchanges": 10_000, "spans": 10_000, "chunks": 4_096}
"""Rows of a row group: what a reader of one run decodes at least."""
_LEVEL = {"exchanges": 9, "spans": 9, "chunks": 9}
"""zstd levels by measurement: higher ones gain under 3 % and halve the speed of sealing."""
# One page for a row group of chunks: zstd finds repetitions within a page only.
_PAGE_BYTES = 8 * 1024 * 1024
_STATISTICS = {"exchanges": ["trace_id", "started_ns"], "spans": ["trace_id", "started_ns"], "chunks": ["no"]}
_DICTIONARY = {
    "exchanges": [
        "trace_id",
        "parent_span_id",
        "process_id",
        "method",
        "url",
        "status_code",
        "http_version",
        "outcome",
        "error_type",
        "error_message",
        "name",
        "service",
        "span_status",
        "links",
        "intervention",
    ],
    "spans": [
        "trace_id",
        "parent_span_id",
        "process_id",
        "name",
        "kind",
        "status",
        "status_message",
        "service",
        "scope",
        "links",
    ],
    "chunks": [],
}
_ENCODING = {
    "exchanges": {
        "seq": "DELTA_BINARY_PACKED",
        "started_ns": "DELTA_BINARY_PACKED",
        "ended_ns": "DELTA_BINARY_PACKED",
        "request_length": "DELTA_BINARY_PACKED",
        "response_length": "DELTA_BINARY_PACKED",
        "request_parts.list.element": "DELTA_BINARY_PACKED",
        "response_parts.list.element": "DELTA_BINARY_PACKED",
        "chunk_sizes.list.element": "DELTA_BINARY_PACKED",
        "chunk_offsets_us.list.element": "DELTA_BINARY_PACKED",
    },
    "spans": {"started_ns": "DELTA_BINARY_PACKED", "ended_ns": "DELTA_BINARY_PACKED"},
    "chunks": {"no": "DELTA_BINARY_PACKED", "text": "DELTA_LENGTH_BYTE_ARRAY"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTables:
    """A segment in memory."""

    exchanges: pa.Table
    chunks: pa.Table
    spans: pa.Table


def schema(kind: str) -> pa.Schema:
    """The schema of a segment's file of that kind (`exchanges`, `chunks`, `spans`)."""
    import pyarrow as pa

    short, integer, long, text = pa.int16(), pa.int32(), pa.int64(), pa.string()
    special: dict[str, pa.DataType] = {
        "seq": integer,
        "started_ns": long,
        "ended_ns": long,
        "status_code": short,
        "replayed": pa.bool_(),
        "request_sha256": pa.binary(32),
        "request_length": long,
        "request_parts": pa.list_(integer),
        "response_sha256": pa.binary(32),
        "response_length": long,
        "response_parts": pa.list_(integer),
        "chunk_sizes": pa.list_(integer),
        "chunk_offsets_us": pa.list_(long),
        "no": integer,
        "data": pa.binary(),
    }
    names = {
        "exchanges": _rows.EXCHANGE_COLUMNS,
        "spans": _rows.SPAN_COLUMNS,
        "chunks": ["no", "text", "data"],
    }[kind]
    return pa.schema([pa.field(name, special.get(name, text)) for name in names])


def encode(
    exchanges: Iterable[Exchange],
    spans: Iterable[SpanRecord],
    processes: Iterable[ProcessStarted],
    notes: Iterable[Note],
) -> SegmentTables:
    """The tables of a segment that holds all of these."""
    rows = _rows.Rows()
    for exchange in exchanges:
        rows.exchange(exchange)
    rows.others(spans, processes, notes)
    return tables_of(rows)


def tables_of(rows: _rows.Rows) -> SegmentTables:
    """The rows collected, as tables."""
    exchanges, chunks, spans = rows.columns()
    return SegmentTables(
        exchanges=_table("exchanges", exchanges),
        chunks=_table("chunks", chunks),
        spans=_table("spans", spans),
    )


def _table(kind: str, columns: _rows.Columns) -> pa.Table:
    import pyarrow as pa

    fields = schema(kind)
    size, step = len(next(iter(columns.values()))), ROW_GROUP[kind]
    # In batches: the offsets of one array hold no more than two gigabytes of text.
    batches = [
        pa.RecordBatch.from_arrays(
            [_array(columns[field.name][at : at + step], field.type) for field in fields], schema=fields
        )
        for at in range(0, size, step)
    ]
    return pa.Table.from_batches(batches, schema=fields)


_TYPE_CODES = {"int16": "h", "int32": "i", "int64": "q"}


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    nulls = values.count(None)
    valid = pa.py_buffer(_bits(value is not None for value in values)) if nulls else None
    name, size = str(kind), len(values)
    if name in _TYPE_CODES:
        numbers = array(
            _TYPE_CODES[name], [0 if value is None else value for value in values] if nulls else values
        )
        return pa.Array.from_buffers(kind, size, [valid, pa.py_buffer(numbers)], nulls)
    if name == "bool":
        return pa.Array.from_buffers(kind, size, [valid, pa.py_buffer(_bits(values))], nulls)
    if name.startswith("fixed_size_binary"):
        data = b"".join(bytes(32) if value is None else value for value in values)
        return pa.Array.from_buffers(kind, size, [valid, pa.py_buffer(data)], nulls)
    offsets = pa.py_buffer(array("i", accumulate((len(value or ()) for value in _sized(values)), initial=0)))
    if name.startswith("list"):
        items = _array(
            list(chain.from_iterable(value or () for value in values)), cast("Any", kind).value_type
        )
        return pa.Array.from_buffers(kind, size, [valid, offsets], nulls, children=[items])
    data = pa.py_buffer(b"".join(value or b"" for value in _sized(values)))
    return pa.Array.from_buffers(kind, size, [valid, offsets, data], nulls)


def _sized(values: Sequence[Any]) -> list[Any]:
    # What is not valid UTF-8 (half of a surrogate pair) becomes a question mark rather than a lost segment.
    return [value.encode("utf-8", "replace") if isinstance(value, str) else value for value in values]


def _bits(values: Iterable[Any]) -> bytes:
    digits = "".join("1" if value else "0" for value in values)
    return int(digits[::-1] or "0", 2).to_bytes((len(digits) + 7) // 8 or 1, "little")


def new_id() -> str:
    """An id for a segment; ids sort by the time at which they were made."""
    return f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(3)}"


def write_segment(store: Path, tables: SegmentTables, segment_id: str) -> SegmentEntry:
    """The segment's files are whole and on disk, but in no manifest; raises StoreError if they could not be written."""
    directory = Path(store) / "segments"
    written: list[Path] = []
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        for kind in ("chunks", "exchanges", "spans"):
            path = directory / f"{segment_id}.{kind}.parquet"
            _write_file(path, getattr(tables, kind), kind)
            written.append(path)
        sync_directory(directory)
        size = sum(path.stat().st_size for path in written)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise StoreError(f"{directory}: segment {segment_id} could not be written: {error}") from error
    started = [
        value for table in (tables.exchanges, tables.spans) for value in _integers(table, "started_ns")
    ]
    ended = [
        value for table in (tables.exchanges, tables.spans) for value in _integers(table, "ended_ns") if value
    ]
    traces = sorted(
        {
            value[:TRACE_DIGITS]
            for table in (tables.exchanges, tables.spans)
            for value in table.column("trace_id").to_pylist()
            if value
        }
    )
    return SegmentEntry(
        id=segment_id,
        exchanges=tables.exchanges.num_rows,
        spans=tables.spans.num_rows,
        bytes=size,
        started_ns=min(started, default=0),
        ended_ns=max((*started, *ended), default=0),
        traces=tuple(traces) if len(traces) <= TRACES else None,
    )


def _integers(table: pa.Table, name: str) -> list[int]:
    return table.column(name).to_pylist()


def _write_file(path: Path, table: pa.Table, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pq.write_table(
            table,
            temporary,
            row_group_size=ROW_GROUP[kind],
            compression="zstd",
            compression_level=_LEVEL[kind],
            use_dictionary=_DICTIONARY[kind],
            column_encoding=_ENCODING[kind],
            write_statistics=cast("Any", _STATISTICS[kind]),
            data_page_size=_PAGE_BYTES,
            store_schema=False,
            write_page_checksum=True,
        )
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.chmod(temporary, 0o600)
        os.rename(temporary, path)
    except pa.ArrowException as error:
        temporary.unlink(missing_ok=True)
        raise OSError(str(error)) from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentContents:
    """Everything in a segment but its facts."""

    exchanges: list[Exchange]
    spans: list[SpanRecord]
    processes: list[ProcessStarted]
    notes: list[Note]


def read_exchanges(
    store: Path, entry: SegmentEntry, *, trace_ids: Collection[str] | None = None
) -> list[Exchange]:
    """The exchanges of a segment with their bodies, in order of trace and start.

    A body that is not what was recorded leaves `damage` on its exchange, naming the file; a file that cannot be read at
    all raises StoreError.
    """
    rows = _read_rows(entry.file(store, "exchanges"), trace_ids)
    chunks = _ChunkFile(entry.file(store, "chunks"), rows)
    return [_rows.exchange_of(row, chunks.body, chunks.name) for row in rows]


def read_spans(
    store: Path, entry: SegmentEntry, *, trace_ids: Collection[str] | None = None
) -> list[SpanRecord]:
    """The spans of a segment, without those of exchanges; raises StoreError if the file cannot be read."""
    return read_records(store, entry, trace_ids=trace_ids)[0]


def read_records(
    store: Path, entry: SegmentEntry, *, trace_ids: Collection[str] | None = None
) -> tuple[list[SpanRecord], list[ProcessStarted], list[Note]]:
    """What the spans file holds: spans, processes and notes."""
    rows = _read_rows(entry.file(store, "spans"), trace_ids)
    spans = [_rows.span_of(row) for row in rows if row["kind"] not in ("process", "note")]
    processes = [_rows.process_of(row) for row in rows if row["kind"] == "process"]
    return spans, processes, [_rows.note_of(row) for row in rows if row["kind"] == "note"]


def _read_rows(path: Path, trace_ids: Collection[str] | None) -> list[dict[str, Any]]:
    import pyarrow as pa

    wanted = None if trace_ids is None else frozenset(trace_ids)
    rows: list[dict[str, Any]] = []
    try:
        with _opened(path) as file:
            for group in range(file.metadata.num_row_groups):
                statistics = file.metadata.row_group(group).column(0).statistics
                if wanted is not None and statistics is not None and statistics.has_min_max:
                    if not any(statistics.min <= trace_id <= statistics.max for trace_id in wanted):
                        continue
                table = file.read_row_group(group)
                for part in _parts(table, wanted):
                    rows.extend(part.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: the file of the segment cannot be read: {error}; see `doctor`") from error
    return rows


def _parts(table: pa.Table, wanted: frozenset[str] | None) -> Iterator[pa.Table]:
    """The runs of rows whose trace is wanted; rows of one trace stand together."""
    if wanted is None:
        yield table
        return
    start = -1
    for at, trace_id in enumerate([*table.column("trace_id").to_pylist(), None]):
        if trace_id in wanted:
            start = at if start < 0 else start
        elif start >= 0:
            yield table.slice(start, at - start)
            start = -1


def _opened(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, page_checksum_verification=True)


class _ChunkFile:
    """The chunks that some rows need, in memory."""

    def __init__(self, path: Path, rows: Sequence[dict[str, Any]]) -> None:
        import pyarrow as pa

        self.name = path.name
        self._groups: dict[int, Callable[[int, int], bytes]] = {}
        self._broken: dict[int, str] = {}
        size = ROW_GROUP["chunks"]
        needed: set[int] = set()
        for row in rows:
            for parts in (row["request_parts"], row["response_parts"] or ()):
                for first, last in zip(parts[::2], parts[1::2], strict=True):
                    needed.update(range(first // size, last // size + 1))
        if not needed:
            return
        try:
            file = _opened(path)
        except (OSError, pa.ArrowException) as error:
            self._broken = dict.fromkeys(needed, f"{path.name} cannot be read: {error}")
            return
        with file:
            for group in sorted(needed):
                try:
                    self._groups[group] = _slicer(file.read_row_group(group, columns=["text", "data"]))
                except (OSError, IndexError, ValueError, pa.ArrowException) as error:
                    self._broken[group] = (
                        f"chunks from {group * size} on in {path.name} cannot be read: {error}"
                    )

    def body(self, parts: Sequence[int]) -> bytes:
        """The body of these runs of chunks; raises LookupError saying what is missing."""
        size = ROW_GROUP["chunks"]
        pieces: list[bytes] = []
        for first, last in zip(parts[::2], parts[1::2], strict=True):
            for group in range(first // size, last // size + 1):
                if group in self._broken:
                    raise LookupError(self._broken[group])
                start = max(first - group * size, 0)
                pieces.append(self._groups[group](start, min(last - group * size, size - 1)))
        return b"".join(pieces)


def _slicer(table: pa.Table) -> Callable[[int, int], bytes]:
    """A function that gives the bytes of the chunks from one to another of a row group."""
    import pyarrow as pa

    text = table.column("text").combine_chunks()
    data = table.column("data").combine_chunks()
    columns = [
        (array("i", column.buffers()[1].to_pybytes()), column.buffers()[2] or pa.py_buffer(b""))
        for column in (text, data)
    ]
    (text_ends, text_bytes), (data_ends, data_bytes) = columns
    all_text = text.null_count == 0
    valid = [] if all_text else text.is_valid().to_pylist()

    def piece(first: int, last: int) -> bytes:
        if last + 1 >= len(text_ends):
            raise LookupError(f"chunk {last} of a row group of {len(text_ends) - 1} is missing")
        if all_text:
            return memoryview(text_bytes)[text_ends[first] : text_ends[last + 1]].tobytes()
        return b"".join(
            memoryview(text_bytes if valid[at] else data_bytes)[
                (text_ends if valid[at] else data_ends)[at] : (text_ends if valid[at] else data_ends)[at + 1]
            ]
            for at in range(first, last + 1)
        )

    return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class SealReport:
    """What became of the WALs of a store."""

    sealed: tuple[str, ...] = ()
    """Ids of the segments made."""
    live: tuple[str, ...] = ()
    """Names of WALs whose process runs, or that somebody else is sealing."""
    problems: tuple[str, ...] = ()
    """Why a WAL was left as it is: one message each, naming the file."""


def seal(store: Path, wals: Sequence[Path]) -> str | None:
    """The records of the WALs (all of one process) are in a committed segment, once, and the WALs are gone.

    Returns the segment's id; None if there was nothing to store, or somebody holds a lock. On StoreError the WALs are
    as they were.
    """
    store = Path(store)
    held: list[tuple[Path, int]] = []
    try:
        for path in wals:
            fd = wal.take(path)
            if fd is not None:
                held.append((path, fd))
            elif path.exists():
                return None
        stored = manifest.load(store).wals
        fresh = [path for path, _ in held if path.name not in stored]
        entry = _sealed(store, fresh) if fresh else None
        for path, _ in held:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{store}: the WALs could not be sealed, they are kept: {error}") from error
    finally:
        for _, fd in held:
            os.close(fd)
    return entry.id if entry else None


def _sealed(store: Path, paths: Sequence[Path]) -> SegmentEntry | None:
    rows = _rows.Rows()
    contents, bodies = _rows.read_storing(paths, rows)
    exchanges, spans, processes, notes = wal.exchanges_of(contents)
    if not (exchanges or spans or processes or notes):
        return None
    for exchange in exchanges:
        key = exchange.process_id, exchange.span_id
        rows.exchange(exchange, bodies.get((*key, "request")), bodies.get((*key, "response")))
    rows.others(spans, processes, notes)
    segment_id = new_id()
    entry = write_segment(store, tables_of(rows), segment_id)
    entry = replace(entry, wals=tuple(path.name for path in paths))
    try:
        manifest.commit(store, add=[entry])
    except StoreError:
        for kind in manifest.KINDS:
            entry.file(store, kind).unlink(missing_ok=True)
        raise
    return entry


def seal_dead(store: Path) -> SealReport:
    """What processes that are gone left is sealed, and so are the finished WALs of those that live."""
    store = Path(store)
    sealed: list[str] = []
    live: list[str] = []
    problems: list[str] = []
    for _, group in groupby(wal.wal_files(store), key=wal.process_of):
        paths = list(group)
        running = [path for path in paths if wal.is_live(path)]
        live.extend(path.name for path in running)
        # Together if all are finished: an exchange that one of them started can end in the next.
        for batch in [[path] for path in paths if path not in running] if running else [paths]:
            try:
                segment_id = seal(store, batch)
            except StoreError as error:
                problems.append(str(error))
                continue
            if segment_id is not None:
                sealed.append(segment_id)
    return SealReport(sealed=tuple(sealed), live=tuple(live), problems=tuple(problems))
