"""Facts: what the provider modules read from each exchange, kept beside its segment for SQL."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.files import replacing
from tracefork_otel.store import columns, manifest, segment
from tracefork_otel.store.columns import FACTS_VERSION as VERSION
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.wire.facts import facts_of, recorded_body
from tracefork_otel.wire.growing import Growing

if TYPE_CHECKING:
    import pyarrow as pa

    from tracefork_otel.wire.messages import Facts, Message

Row: TypeAlias = dict[str, Any]


class Reader:
    """Reads exchanges into rows; a message that was in an earlier row of the same run stands there alone."""

    def __init__(self) -> None:
        self._requests = Growing()
        self._numbers: dict[tuple[str | None, ...], int] = {}
        self._messages: list[tuple[str, Row]] = []
        """What has a number, each with its run."""

    def row(self, exchange: Exchange) -> Row | None:
        """Return the row of the exchange, None where no provider is known and the body reads as it is."""
        response, found = exchange.response, facts_of(exchange)
        encoding = response.header("content-encoding") if response else None
        body = recorded_body(response) if response and encoding else None
        text = _decoded_text(body) if encoding else None
        if found is None and text is None:
            return None
        row: Row = {"trace_id": exchange.trace_id, "span_id": exchange.span_id, "response_text": text}
        if found is None:
            return row | self._said(exchange.trace_id, ())
        asked = self._requests.messages(found.form, exchange.request.body)
        return row | {
            "provider": found.provider,
            "operation": found.operation,
            "model": found.model,
            "response_model": found.response_model,
            "finish_reason": found.finish_reason,
            "input_tokens": found.input_tokens,
            "output_tokens": found.output_tokens,
            "cached_tokens": found.cached_tokens,
            "cost_usd": _cost(exchange, found),
            "streamed": found.streamed,
            **self._said(exchange.trace_id, (*asked, *found.reply)),
        }

    def _said(self, trace_id: str, messages: Iterable[Message]) -> Row:
        """Return the columns that tell the messages: by numbers, and what has none yet in full."""
        numbers, known, first, pairs = self._numbers, self._messages, len(self._messages), list[int]()
        for one in messages:
            number = numbers.setdefault((trace_id, one.role, one.kind, one.name, one.content), len(known))
            if number == len(known):
                said = {"role": one.role, "kind": one.kind, "name": one.name, "content": one.content}
                known.append((trace_id, said))
            if pairs and pairs[-1] == number - 1:
                pairs[-1] = number
            else:
                pairs += (number, number)
        return {"messages": pairs, "first_no": first, "said": [said for _, said in known[first:]]}

    def table(self, rows: Iterable[Row]) -> pa.Table:
        """Return some of the rows as a table that has all messages: those that told them may be left out."""
        told: list[Row] = []
        for trace_id, messages in groupby(enumerate(self._messages), lambda one: one[1][0]):
            numbered = list(messages)
            said = [one for _, (_, one) in numbered]
            told.append({"trace_id": trace_id, "messages": [], "first_no": numbered[0][0], "said": said})
        return table_of([*({**row, "said": []} for row in rows), *told])


def _decoded_text(body: bytes | None) -> str | None:
    if body is None:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _cost(exchange: Exchange, found: Facts) -> float | None:
    # What a tape answered cost nothing; where the usage never came (an error, a cut), nothing is known.
    if exchange.replayed:
        return 0.0
    from .prices import cost_of

    return cost_of(found, asked_tokens=None, at=datetime.fromtimestamp(exchange.started_ns / 1e9, UTC))


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Return the rows as a table."""
    # By way of JSON: arrays made of Python lists import pandas where it is installed, which takes seconds.
    import pyarrow as pa
    from pyarrow import json as pa_json

    fields = segment.schema("facts")
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    if not lines:
        return fields.empty_table()
    options = pa_json.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore")
    reading = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    return pa.Table.from_batches(
        pa_json.read_json(io.BytesIO(lines), parse_options=options, read_options=reading).to_batches(), fields
    )


def compute(store: Path, entry: SegmentEntry) -> pa.Table:
    """Return the facts of a segment, read from its bodies; raise StoreError if it cannot be read."""
    rows = map(Reader().row, segment.read_exchanges(store, entry))
    return table_of(row for row in rows if row is not None)


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the facts of several segments as those of one, messages by numbers that follow on each other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[pa.Table] = []
    taken = 0
    for table in tables:
        lists, first, said = (
            cast("Any", table.column(name).combine_chunks()) for name in ("messages", "first_no", "said")
        )
        pairs, first = (
            pc.call_function("add", [one, pa.scalar(taken, pa.int32())]) for one in (lists.flatten(), first)
        )
        moved = {"messages": pa.ListArray.from_arrays(lists.offsets, pairs), "first_no": first}
        columns = [moved.get(name, table.column(name)) for name in table.column_names]
        parts.append(pa.table(columns, schema=table.schema))
        taken += len(said.flatten())
    return pa.concat_tables(parts).sort_by([("trace_id", "ascending"), ("span_id", "ascending")])


def write(path: Path, table: pa.Table) -> str:
    """Write the file whole, to disk, and return its sha256; raise StoreError if it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with replacing(path) as temporary:
            pq.write_table(
                table,
                temporary,
                row_group_size=segment.ROW_GROUP["exchanges"],
                compression="zstd",
                compression_level=16,
                store_schema=False,
                write_page_checksum=True,
            )
            return manifest.digest(temporary)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: the facts could not be written: {error}") from error


def are_known(entry: SegmentEntry) -> bool:
    """Return whether the segment has a file of facts as this version reads them."""
    return entry.facts == VERSION


def ensure(store: Path) -> list[str]:
    """Give every segment that can be read facts of this version, if not a later one; return what failed."""
    problems: list[str] = []
    for entry in manifest.load(store).segments:
        if (entry.facts is not None and entry.facts >= VERSION) or entry.format > columns.FORMAT:
            continue
        try:
            sha256 = write(entry.file(store, "facts"), compute(store, entry))
        except StoreError as error:
            problems.append(str(error))
            continue
        try:
            manifest.commit(store, facts={entry.id: (VERSION, sha256)})
        except StoreError:
            # Compaction replaced the segment meanwhile, and took care of the facts.
            continue
    return problems
