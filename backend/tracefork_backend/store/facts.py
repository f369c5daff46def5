"""Facts: what the provider modules read from each exchange, kept beside its segment for SQL."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import accumulate, chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange, Request, beside_body, held
from tracefork_otel.files import check_own, replacing
from tracefork_otel.store import columns, manifest, segment
from tracefork_otel.store.columns import FACTS_VERSION as VERSION
from tracefork_otel.store.manifest import FactsFile, SegmentEntry
from tracefork_otel.store.runs import Lists, Part
from tracefork_otel.wire.codings import decode_body, plain_request
from tracefork_otel.wire.counted import paid_of
from tracefork_otel.wire.growing import Growing, Grown

from .digests import not_parquet
from .price_list import is_newer, list_version

if TYPE_CHECKING:
    import pyarrow as pa

    from tracefork_otel.wire.messages import Facts, Message

Row: TypeAlias = dict[str, Any]
_LEVEL, LASTING_LEVEL = 9, 16
"""Of zstd: somebody waits for those that a store lacks when it is opened; a compacted one is to be small.

The second makes them 4 % smaller, and takes five times as long.
"""
_USUAL = 32
"""Times as long as a compressed body its text may be."""
_SPARE = 64 * 1024 * 1024
"""Bytes that texts of one segment may be longer together: those of bombs would take all memory."""


class _Told(NamedTuple):
    """A request whose messages have numbers."""

    trace_id: str
    numbers: int
    """Which list of them is its own."""
    system: int
    """So many of them are system."""
    ends: list[int]
    """How many of the others it has after none of its turns, after the first one, and so on."""


class Reader:
    """Reads exchanges into rows; a message that a run has often is kept once, and each row has its number."""

    def __init__(self) -> None:
        self._requests: Growing[_Told] = Growing()
        self._known: dict[tuple[str | None, ...], int] = {}
        self._messages: list[tuple[str, Row]] = []
        """What has a number, each with its run."""
        self._asked: set[int] = set()
        """Numbers of what stands in a request."""
        self._lists = Lists()
        self._spare = _SPARE

    def row(self, exchange: Exchange) -> Row | None:
        """Return the row of the exchange, None where no provider is known and the body reads as it is."""
        request, response = held(exchange.request), exchange.response
        text = None
        if (coding := request.header("content-encoding")) and self._plain(request.body, coding) is None:
            request = Request(body=b"", **beside_body(request))
        if response and (coding := response.header("content-encoding")):
            plain = self._plain(response.body, coding)
            if plain is None:
                response = replace(response, body=b"")
            else:
                text = _decoded_text(plain)
        exchange = replace(exchange, request=request, response=response)
        found = paid_of(exchange)
        if found is None and text is None:
            return None
        row: Row = {"trace_id": exchange.trace_id, "span_id": exchange.span_id, "response_text": text}
        if found is None:
            return row
        from .prices import exchange_price

        price = exchange_price(exchange, found)
        return row | {
            "provider": found.provider,
            "operation": found.operation,
            "model": found.model,
            "response_model": found.response_model,
            "finish_reason": found.finish_reason,
            "input_tokens": found.input_tokens,
            "output_tokens": found.output_tokens,
            "cached_tokens": found.cached_tokens,
            "cost_usd": price.usd,
            "cost_reason": price.reason,
            "stored_id": found.stored_id,
            "streamed": found.streamed,
            **({"list": self._list(exchange, found)} if found.form else {}),
        }

    def _plain(self, coded: bytes, encoding: str) -> bytes | None:
        """Return the body with its codings undone, None where that cannot be done, and for a bomb."""
        usual = _USUAL * len(coded)
        body = decode_body(coded, encoding, limit=usual + self._spare)
        if body is None:
            return None
        over = max(len(body) - usual, 0)
        if over >= self._spare:  # no more of it was looked at
            return None
        self._spare -= over
        return body

    def _list(self, exchange: Exchange, found: Facts) -> int:
        """Return which list has the numbers of what was asked and of what was said."""
        trace_id = exchange.trace_id

        def told(grown: Grown[_Told]) -> _Told:
            before, system = grown.before, self._numbered(trace_id, grown.system)
            if before is None or before.trace_id != trace_id:
                before = _Told(trace_id, self._lists.add(), 0, [0])
                kept = 0
            else:
                kept = grown.kept
            turns = [self._numbered(trace_id, turn) for turn in grown.turns[kept:]]
            repeated = Part(before.numbers, before.system, before.system + before.ends[kept])
            ends = before.ends[: kept + 1]
            ends.extend(accumulate(map(len, turns), initial=ends.pop()))
            self._asked.update(system, *turns)
            numbers = self._lists.add(system, repeated, list(chain.from_iterable(turns)))
            return _Told(trace_id, numbers, len(system), ends)

        asked = self._requests.read(found.form, plain_request(exchange.request), told)
        reply = self._numbered(trace_id, found.reply)
        if asked is None:
            return self._lists.add(reply)
        return self._lists.add(Part(asked.numbers, 0, asked.system + asked.ends[-1]), reply)

    def _numbered(self, trace_id: str, messages: Iterable[Message]) -> list[int]:
        found: list[int] = []
        for one in messages:
            key = (trace_id, one.role, one.kind, one.name, one.content)
            number = self._known.setdefault(key, len(self._messages))
            if number == len(self._messages):
                said = {"role": one.role, "kind": one.kind, "name": one.name, "content": one.content}
                self._messages.append((trace_id, said))
            found.append(number)
        return found

    def table(self, rows: Iterable[Row]) -> pa.Table:
        """Return some of the rows as a table, with all messages: rows left out may have told them."""
        traces = [trace_id for trace_id, _ in self._messages]
        # What requests have goes before replies that none repeats: so each row has few runs of numbers.
        order = sorted(range(len(traces)), key=lambda number: (traces[number], number not in self._asked))
        final = [0] * len(order)
        for place, number in enumerate(order):
            final[number] = place
        runs = self._lists.runs(final)
        empty: Row = {"messages": [], "first_no": 0, "said": []}
        told = [{**row, **empty, "messages": runs[row["list"]] if "list" in row else []} for row in rows]
        for trace_id, numbers in groupby(order, traces.__getitem__):
            said = list(numbers)
            messages = [self._messages[number][1] for number in said]
            told.append({**empty, "trace_id": trace_id, "first_no": final[said[0]], "said": messages})
        return table_of(sorted(told, key=itemgetter("trace_id")))


def _decoded_text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Return the rows as a table."""
    # By way of JSON: arrays made of Python lists import pandas where it is installed, which takes seconds.
    import pyarrow as pa
    from pyarrow import json as pa_json

    fields = segment.schema("facts")
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    if not lines:
        return pa.Table.from_batches([], fields)
    options = pa_json.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore")
    reading = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    return pa.Table.from_batches(
        pa_json.read_json(io.BytesIO(lines), parse_options=options, read_options=reading).to_batches(), fields
    )


def compute(store: Path, entry: SegmentEntry) -> pa.Table:
    """Return the facts of a segment, read from its bodies; raise StoreError if it cannot be read."""
    return of_exchanges(segment.read_exchanges(store, entry))


def of_exchanges(exchanges: Iterable[Exchange]) -> pa.Table:
    """Return the facts of these exchanges."""
    reader = Reader()
    rows = map(reader.row, exchanges)
    return reader.table([row for row in rows if row is not None])


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


def write(path: Path, table: pa.Table, *, level: int = _LEVEL) -> str:
    """Write the file whole, to disk, and return its sha256; raise StoreError if it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_own(path.parent)
        with replacing(path) as temporary:
            pq.write_table(
                table,
                temporary,
                row_group_size=segment.ROW_GROUP["exchanges"],
                compression="zstd",
                compression_level=level,
                store_schema=False,
                write_page_checksum=True,
            )
            return manifest.digest(temporary)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: the facts could not be written: {error}") from error


def file_of(table: pa.Table, sha256: str) -> FactsFile:
    """Return what a manifest says of these facts, in a file with that digest."""
    import pyarrow.compute as pc

    unpriced = bool(pc.call_function("any", [pc.call_function("is_valid", [table["cost_reason"]])]).as_py())
    return FactsFile(VERSION, sha256, list_version() if unpriced else None)


def may_be_priced(entry: SegmentEntry) -> bool:
    """Return whether calls in the segment's facts have no price, and a newer price list is installed now."""
    return entry.unpriced is not None and is_newer(list_version(), entry.unpriced)


def are_known(entry: SegmentEntry) -> bool:
    """Return whether the segment has a file of facts as this version reads them."""
    return entry.facts == VERSION


def are_whole(store: Path, entry: SegmentEntry) -> bool:
    """Return whether the segment's facts are those of this version, in a file that may be read."""
    return are_known(entry) and not_parquet(entry.file(store, "facts")) is None


def changed(store: Path, ids: Collection[str]) -> set[str]:
    """Return which of these segments have facts that are not as they were written."""
    named = [entry for entry in manifest.load(store).segments if entry.id in ids] if ids else []
    return {entry.id for entry in named if are_known(entry) and entry.why_changed(store, "facts")}


def ensure(store: Path, unfit: Collection[str] = ()) -> list[str]:
    """Give every segment that can be read facts of this version, if not a later one; return what failed.

    Those that are `unfit`, or whose file is gone or cut, get them anew: all that they say is in the bodies.
    So do those with calls that had no price, once a newer price list is installed.
    """
    problems: list[str] = []
    for entry in manifest.load(store).segments:
        later = entry.facts is not None and entry.facts > VERSION
        if later or entry.format > columns.FORMAT:
            continue
        if are_whole(store, entry) and entry.id not in unfit and not may_be_priced(entry):
            continue
        try:
            table = compute(store, entry)
            made = file_of(table, write(entry.file(store, "facts"), table))
        except StoreError as error:
            problems.append(str(error))
            continue
        try:
            manifest.commit(store, facts={entry.id: made})
        except StoreError:
            # Compaction replaced the segment meanwhile, and took care of the facts.
            if not manifest.names(store, entry.id):
                entry.file(store, "facts").unlink(missing_ok=True)
    return problems
