"""Facts: what the provider modules read from each exchange, kept beside its segment for SQL."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.files import replacing
from tracefork_otel.store import columns, manifest, segment
from tracefork_otel.store.manifest import SegmentEntry

if TYPE_CHECKING:
    import pyarrow as pa

    from tracefork_otel.wire.messages import Message

VERSION = 5
"""Grows when what is read from the same bytes changes: older facts files are then written anew."""
_READ_BY_SQL = frozenset({"anthropic", "openai_chat", "openai_responses", "gemini"})
"""The forms whose plain bodies the view `messages` reads itself; for others the facts have the messages."""


def row_of(exchange: Exchange) -> dict[str, Any] | None:
    """The row of the exchange, or None where no provider is known and the body reads as it is."""
    from tracefork_otel.wire.facts import facts_of, recorded_body, request_messages

    response, found = exchange.response, facts_of(exchange)
    encoding = response.header("content-encoding") if response else None
    body = recorded_body(response) if response and encoding else None
    text = _decoded_text(body) if encoding else None
    if found is None and text is None:
        return None
    row: dict[str, Any] = {"trace_id": exchange.trace_id, "span_id": exchange.span_id, "response_text": text}
    if found is None:
        return row
    by_sql = found.form in _READ_BY_SQL
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
        # A plain JSON reply is read by the view from the body itself: kept here too, it would stand twice
        # in the store, a quarter of its size.
        "reply": None if by_sql and text is None and not found.streamed else _rows(found.reply),
        "asked": None if by_sql else _rows(request_messages(found.form, exchange.request.body)),
    }


def _rows(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return the messages as they stand in a row."""
    return [
        {"role": said.role, "kind": said.kind, "name": said.name, "content": said.content}
        for said in messages
    ]


def _decoded_text(body: bytes | None) -> str | None:
    if body is None:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _cost(exchange: Exchange, found: Any) -> float | None:
    # What a tape answered cost nothing; where the usage never came (an error, a cut), nothing is known.
    if exchange.replayed:
        return 0.0
    from .prices import cost_of

    return cost_of(found, asked_tokens=None, at=datetime.fromtimestamp(exchange.started_ns / 1e9, UTC))


def table_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """The rows as a table."""
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
    """The facts of a segment, read from its bodies; raises StoreError if it cannot be read."""
    return table_of(
        row for exchange in segment.read_exchanges(store, entry) if (row := row_of(exchange)) is not None
    )


def write(path: Path, table: pa.Table) -> str:
    """The file is whole and on disk; its sha256. Raises StoreError if it could not be written."""
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


def missing(entries: Iterable[SegmentEntry]) -> list[SegmentEntry]:
    """Return the segments that can be read and have no facts, or those of an older version."""
    return [
        entry
        for entry in entries
        if (entry.facts is None or entry.facts < VERSION) and entry.format <= columns.FORMAT
    ]


def ensure(store: Path) -> list[str]:
    """Every segment that can be read has facts of this version; says which have not, and why."""
    problems: list[str] = []
    for entry in missing(manifest.load(store).segments):
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
