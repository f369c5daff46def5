"""Segments: the immutable Parquet files that WALs become. The only module that uses pyarrow.

pyarrow is imported inside functions, which run in a background thread or in the backend: its import costs too
much for the application's thread. Arrays are made from buffers, because `pa.array(list)` imports pandas (up
to two seconds) where pandas is installed.
"""

from __future__ import annotations

import json
import secrets
import time
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import StoreError
from ..exchange import Exchange
from ..files import open_whole, own_folder, replacing, sync_directory
from . import pieces
from .columns import DIGEST, TABLES, Type, unlike
from .manifest import TRACE_DIGITS, TRACES, SegmentEntry, digest
from .records import Note, ProcessStarted, SpanRecord
from .rows import Columns, Rows, exchange_of, note_of, process_of, span_of

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = {"exchanges": 4_096, "spans": 10_000, "chunks": 4_096}
"""Rows of a row group: what a reader of one run decodes at least; of chunks also what zstd sees together."""
_LEVEL = 12
"""zstd, by measurement on files of ids, headers and JSON."""
_CHUNK_LEVEL, _LARGE_CHUNK_LEVEL, _LARGE = 16, 9, 4 * 1024 * 1024
"""16 saves another 4 % of text at 5 MB/s of it: worth it until sealing takes a second."""
# One page for a row group of chunks: zstd finds repetitions within a page only.
_PAGE_BYTES = 8 * 1024 * 1024
_STATISTICS = {"exchanges": ["trace_id", "started_ns"], "spans": ["trace_id", "started_ns"], "chunks": ["no"]}


def schema(kind: str) -> pa.Schema:
    """Return the schema of a segment's file of that kind (`exchanges`, `chunks`, `spans`, `facts`)."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name, _arrow(column.type)) for column in TABLES[kind]])


def _arrow(of: Type) -> pa.DataType:
    import pyarrow as pa

    if of.texts:
        kind = pa.struct([(name, pa.string()) for name in of.texts])
    else:
        kind = pa.binary(32) if of is DIGEST else pa.type_for_alias(of.arrow)
    return pa.list_(kind) if of.many else kind


def tables_of(rows: Rows) -> dict[str, pa.Table]:
    """Return the rows collected as tables of exchanges, chunks and spans."""
    return {kind: _table(kind, columns) for kind, columns in rows.columns().items()}


def _table(kind: str, columns: Columns) -> pa.Table:
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


_WALS = "tracefork.wals"
_TYPE_CODES = {"int16": "h", "int32": "i", "int64": "q"}


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    name, size, nulls = str(kind), len(values), values.count(None)
    buffers: list[Any] = [_bits(value is not None for value in values) if nulls else None]
    children: list[pa.Array] | None = None
    if name in _TYPE_CODES:
        numbers = [0 if value is None else value for value in values] if nulls else values
        buffers.append(array(_TYPE_CODES[name], numbers))
    elif name == "bool":
        buffers.append(_bits(values))
    elif name.startswith("fixed_size_binary"):
        buffers.append(b"".join(bytes(32) if value is None else value for value in values))
    else:
        sized = _sized(values)
        buffers.append(array("i", accumulate((len(value or ()) for value in sized), initial=0)))
        if name.startswith("list"):
            items = list(chain.from_iterable(value or () for value in values))
            children = [_array(items, cast("Any", kind).value_type)]
        else:
            buffers.append(b"".join(value or b"" for value in sized))
    held = [None if one is None else pa.py_buffer(one) for one in buffers]
    return pa.Array.from_buffers(kind, size, held, nulls, children=children)


def _sized(values: Sequence[Any]) -> list[Any]:
    # What is not valid UTF-8 (half of a surrogate pair) becomes a question mark rather than a lost segment.
    return [value.encode("utf-8", "replace") if isinstance(value, str) else value for value in values]


def _bits(values: Iterable[Any]) -> bytes:
    digits = "".join("1" if value else "0" for value in values)
    return int(digits[::-1] or "0", 2).to_bytes((len(digits) + 7) // 8 or 1, "little")


def new_id() -> str:
    """Return an id that no segment has; ids sort by the time at which they were made."""
    made_ms = max(time.time_ns() // 1_000_000, 0)  # a clock before 1970 gives no id of that form
    return f"{made_ms:013d}-{secrets.token_hex(3)}"


def write_segment(
    store: Path, rows: Rows, segment_id: str | None = None, *, wals: Sequence[str] = ()
) -> SegmentEntry:
    """Write the files of a new segment whole, named by no manifest yet; raise StoreError if that fails.

    `wals` are the names of the logs whose every record is in it.
    """
    directory = Path(store) / "segments"
    segment_id = segment_id or new_id()
    written: list[Path] = []
    digests: dict[str, str] = {}
    extents = {"exchanges": _Extent(), "spans": _Extent()}
    try:
        own_folder(directory)
        for kind, parts in rows.parts(ROW_GROUP):
            path = directory / f"{segment_id}.{kind}.parquet"
            looked_at = extents[kind].of(parts) if kind in extents else parts
            digests[kind] = _write_file(path, (_table(kind, part) for part in looked_at), kind, wals)
            written.append(path)
        sync_directory(directory)
        size = sum(path.stat().st_size for path in written)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"{directory}: segment {segment_id} could not be written: {error}") from error
        raise
    exchanges, spans = extents["exchanges"], extents["spans"]
    # As they were written.
    readable = {one.encode("utf-8", "replace").decode() for one in exchanges.traces | spans.traces}
    listed = sorted({trace_id[:TRACE_DIGITS] for trace_id in readable})
    return SegmentEntry(
        id=segment_id,
        exchanges=exchanges.rows,
        spans=spans.rows,
        bytes=size,
        started_ns=min(exchanges.started + spans.started, default=0),
        ended_ns=max(exchanges.ended + spans.ended, default=0),
        traces=tuple(listed) if len(listed) <= TRACES else None,
        wals=tuple(wals),
        sha256=digests,
    )


class _Extent:
    """Which traces and moments the rows of a table are of, as they pass by."""

    def __init__(self) -> None:
        self.rows = 0
        self.started: list[int] = []
        """The first moment of each part."""
        self.ended: list[int] = []
        """And the last one."""
        self.traces: set[str] = set()

    def of(self, parts: Iterable[Columns]) -> Iterator[Columns]:
        """Yield the parts, each looked at."""
        for part in parts:
            self.rows += len(part["span_id"])
            started, ended = (list(filter(None, part[name])) for name in ("started_ns", "ended_ns"))
            if started:
                self.started.append(min(started))
            if started or ended:
                self.ended.append(max((*started, *ended)))
            self.traces.update(filter(None, part["trace_id"]))
            yield part


def wals_of(spans: Path) -> frozenset[str]:
    """Return the logs whose records are all in the segment of that file; empty where it does not say so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_whole(spans) as file:
            told: dict[bytes, bytes] = pq.read_metadata(file).metadata or {}
            found = json.loads(told.get(_WALS.encode(), b"[]"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return frozenset()
    return (
        frozenset(name for name in found if isinstance(name, str)) if isinstance(found, list) else frozenset()
    )


def _write_file(path: Path, tables: Iterable[pa.Table], kind: str, wals: Sequence[str]) -> str:
    """Write the file to the disk, a row group or more of each table, and return its sha256."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    level = _LEVEL
    if kind == "chunks":
        tables = list(tables)
        level = _CHUNK_LEVEL if sum(table.nbytes for table in tables) <= _LARGE else _LARGE_CHUNK_LEVEL
    try:
        with replacing(path) as temporary:
            with pq.ParquetWriter(
                temporary,
                schema(kind),
                compression="zstd",
                compression_level=level,
                use_dictionary=cast("Any", [column.name for column in TABLES[kind] if column.repeats]),
                column_encoding=_encodings(kind),
                write_statistics=cast("Any", _STATISTICS[kind]),
                data_page_size=_PAGE_BYTES,
                store_schema=False,
                write_page_checksum=True,
            ) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=ROW_GROUP[kind])
                if wals:
                    writer.add_key_value_metadata({_WALS: json.dumps(list(wals))})
            return digest(temporary)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def _encodings(kind: str) -> dict[str, str]:
    return {
        column.name + (".list.element" if column.type.many else ""): column.type.encoding
        for column in TABLES[kind]
        if column.type.encoding and not column.repeats
    }


def read_exchanges(
    store: Path,
    entry: SegmentEntry,
    *,
    trace_ids: Collection[str] | None = None,
    span_ids: Collection[str] | None = None,
) -> Iterator[Exchange]:
    """Yield the exchanges of a segment, in order of trace and start; all, or those of these traces and spans.

    A body that is not what was recorded leaves `damage` on its exchange, naming the file; a file that cannot
    be read at all raises StoreError. Requests of long conversations are put together when they are asked for.
    """
    rows = _read_rows(store, entry, "exchanges", trace_ids, span_ids)
    path = entry.file(store, "exchanges")
    with _of_records(path):
        chunks = _chunks(entry.file(store, "chunks"), rows)
        late = sum(row["request_length"] for row in rows) > pieces.AT_ONCE
    for row in rows:
        with _of_records(path):
            exchange = exchange_of(row, chunks, late=late)
        yield exchange


def read_records(
    store: Path, entry: SegmentEntry, *, trace_ids: Collection[str] | None = None
) -> tuple[list[SpanRecord], list[ProcessStarted], list[Note]]:
    """Return what the spans file holds: spans, processes and notes."""
    found = _read_rows(store, entry, "spans", trace_ids)
    with _of_records(entry.file(store, "spans")):
        rows = list(map(span_of, found))
        spans = [row for row in rows if row.kind not in ("process", "note")]
        processes = [process_of(row) for row in rows if row.kind == "process"]
        return spans, processes, [note_of(row) for row in rows if row.kind == "note"]


@contextmanager
def _of_records(path: Path) -> Iterator[None]:
    """Let values that no record has be damage of the file that they stand in."""
    try:
        yield
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        why = f"its rows are not those of records ({type(error).__name__}: {error})"
        raise StoreError(f"{path}: the file of the segment cannot be read: {why}; see `doctor`") from error


def _read_rows(
    store: Path,
    entry: SegmentEntry,
    kind: str,
    trace_ids: Collection[str] | None,
    span_ids: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    import pyarrow as pa

    if newer := entry.why_newer(store):
        raise StoreError(newer)
    path = entry.file(store, kind)
    wanted = None if trace_ids is None else frozenset(trace_ids)
    rows: list[dict[str, Any]] = []
    try:
        with _opened(path, kind) as file:
            for group in range(file.metadata.num_row_groups):
                if wanted is not None and not _may_hold(file.metadata.row_group(group), wanted):
                    continue
                table = file.read_row_group(group)
                for run in _parts(table, "trace_id", wanted):
                    for part in _parts(run, "span_id", span_ids):
                        rows.extend(part.to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:  # texts and bounds that are no UTF-8
        raise StoreError(f"{path}: the file of the segment cannot be read: {error}; see `doctor`") from error
    return rows


def _may_hold(group: Any, wanted: frozenset[str]) -> bool:
    statistics = group.column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= trace_id <= statistics.max for trace_id in wanted)


def _parts(table: pa.Table, column: str, wanted: Collection[str] | None) -> Iterator[pa.Table]:
    """Yield the runs of rows that have one of these in the column; those of one trace stand together."""
    if wanted is None:
        yield table
        return
    start = -1
    for at, found in enumerate([*table.column(column).to_pylist(), None]):
        if found in wanted:
            start = at if start < 0 else start
        elif start >= 0:
            yield table.slice(start, at - start)
            start = -1


def _opened(path: Path, kind: str) -> Any:
    """Return the file, opened; OSError if its columns are not those of its kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_whole(path).close()
    # What is read comes from malloc, which gives it back: Arrow's own pool keeps some 30 MB.
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except ValueError as error:  # names of columns that are no text, and pyarrow's own errors
        raise OSError(str(error)) from error
    finally:
        pa.set_memory_pool(pool)
    if wrong := unlike(kind, {field.name: field.type for field in file.schema_arrow}, _arrow):
        file.close()
        raise OSError(wrong)
    return file


def _chunks(path: Path, rows: Sequence[dict[str, Any]]) -> pieces.Pieces:
    """Return the chunks that some rows need."""
    import pyarrow as pa

    try:
        file = _opened(path, "chunks")
    except (OSError, pa.ArrowException) as error:
        return pieces.Pieces(name=path.name, unread=f"{path.name} cannot be read: {error}")
    read: dict[int, tuple[array[int], memoryview]] = {}
    broken: dict[int, str] = {}
    with file:
        groups = range(file.metadata.num_row_groups)
        starts = list(accumulate((file.metadata.row_group(group).num_rows for group in groups), initial=0))
        for group in sorted(pieces.groups_of(starts, chain.from_iterable(map(_parts_of, rows)))):
            try:
                read[group] = _joined(file.read_row_group(group, columns=["text", "data"]))
            except (OSError, IndexError, ValueError, pa.ArrowException) as error:
                broken[group] = f"chunks {starts[group]} and on of {path.name}: {error}"
    return pieces.Pieces(name=path.name, starts=starts, groups=read, broken=broken)


def _parts_of(row: dict[str, Any]) -> tuple[Sequence[int], Sequence[int]]:
    return row["request_parts"], row["response_parts"] or ()


def _joined(table: pa.Table) -> tuple[array[int], memoryview]:
    """Return where the chunks of a row group begin and the last ends, and their bytes."""
    import pyarrow as pa

    column = table.column("text").combine_chunks()
    if column.null_count:
        from pyarrow import compute

        data = table.column("data").combine_chunks()
        column = cast("Any", compute).coalesce(column.cast(pa.binary()), data)
    _, edges, content = column.buffers()
    return array("i", edges.to_pybytes()), memoryview(content or b"")
