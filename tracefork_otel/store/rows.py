"""The rows of a segment as plain columns: bodies become chunks, everything nested becomes JSON text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..exchange import Exchange, Request, Response
from .chunks import Chunked, Chunks
from .columns import BODY_COLUMNS, EXCHANGES, PLAIN, SPANS, assembled, nullable
from .pieces import Pieces, Stored
from .records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, SpanRecord
from .wal_reading import WalContents, check, exchanges_of, read_wal

Columns: TypeAlias = dict[str, list[Any]]
"""Values by column, all of one length."""
Message: TypeAlias = ExchangeStarted | ExchangeEnded
_T = TypeVar("_T")
Look: TypeAlias = Callable[[Message, str], None]
"""Is shown a record with its bodies, once for its `request` and once for its `response`."""

PROCESS_FIELDS = ("pid", "ppid", "executable", "argv", "cwd", "mode", "via")
"""What the attributes of a `process` row hold beside the process's own attributes."""


class Rows:
    """Collects what goes into one segment; bodies are let go as soon as they are chunks."""

    def __init__(self) -> None:
        self._chunks = Chunks()
        self._exchanges: list[tuple[Exchange, Chunked, Chunked | None]] = []
        self._spans: list[SpanRecord] = []

    def store(self, side: str, body: bytes, conversation: str) -> Chunked:
        """Store the body of a `request` or a `response`."""
        add = self._chunks.add if side == "request" else self._chunks.add_alone
        return add(body, conversation)

    def exchange(
        self, exchange: Exchange, request: Chunked | None = None, response: Chunked | None = None
    ) -> None:
        """Add the exchange; its own bodies are stored unless stored ones come with it."""
        if request is None:
            request = self.store("request", exchange.request.body, exchange.trace_id)
        if response is None and exchange.response is not None:
            response = self.store("response", exchange.response.body, exchange.trace_id)
        self._exchanges.append((exchange, request, response))

    def others(
        self, spans: Iterable[SpanRecord], processes: Iterable[ProcessStarted], notes: Iterable[Note]
    ) -> None:
        """Add spans, and processes and notes as rows among them."""
        self._spans += [*spans, *map(_process_row, processes), *map(_note_row, notes)]

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not (self._exchanges or self._spans)

    def columns(self) -> dict[str, Columns]:
        """Return the columns of chunks, exchanges and spans, rows in order of trace and start."""
        return {**self._of_exchanges(), "spans": self._of_spans(0, len(self._spans))}

    def parts(self, rows: Mapping[str, int]) -> Iterator[tuple[str, Iterator[Columns]]]:
        """Yield each table by its kind, as `columns` has it, in parts of so many rows; none is one part.

        No more of the spans are laid out at once: those of a trace of a million would be there thrice.
        """
        for kind, columns in self._of_exchanges().items():
            step, size = rows[kind], len(next(iter(columns.values())))
            yield (
                kind,
                (
                    {name: held[at : at + step] for name, held in columns.items()}
                    for at in _starts(size, step)
                ),
            )
        step = rows["spans"]
        yield "spans", (self._of_spans(at, at + step) for at in _starts(len(self._spans), step))

    def _of_spans(self, start: int, end: int) -> Columns:
        if start == 0:
            self._spans.sort(key=lambda span: (span.trace_id, span.started_ns, span.span_id))
        found = self._spans[start:end]
        return {column.name: column.type.held(column.values(found)) for column in SPANS}

    def _of_exchanges(self) -> dict[str, Columns]:
        """Return the columns of chunks and exchanges, which belong together."""
        data, runs = self._chunks.settle()
        self._exchanges.sort(key=lambda row: (row[0].trace_id, row[0].started_ns, row[0].span_id))
        bodies = [
            _told("request", request, runs) | (_told("response", response, runs) if response else {})
            for _, request, response in self._exchanges
        ]
        exchanges: Columns = {}
        for column in EXCHANGES:
            if column.name in BODY_COLUMNS:
                exchanges[column.name] = [body.get(column.name) for body in bodies]
            else:
                exchanges[column.name] = column.type.held(column.values([row[0] for row in self._exchanges]))
        text = [piece if _is_text(piece) else None for piece in data]
        binary = [piece if kept is None else None for piece, kept in zip(data, text, strict=True)]
        chunks: Columns = {"no": list(range(len(data))), "text": text, "data": binary}
        return {"chunks": chunks, "exchanges": exchanges}


class Storing:
    """Reads WALs into rows; each body is stored as it comes by, and shown to `look` before.

    So no more than a few bodies are in memory at once: restored from their deltas, those of one WAL can be
    gigabytes.
    """

    def __init__(self, rows: Rows, look: Look | None = None) -> None:
        self._rows = rows
        self._look = look
        self._contents: list[WalContents] = []
        self._bodies: dict[tuple[str, str, str], Chunked] = {}
        """By process, span id and side."""
        self._traces: dict[str, str] = {}

    def read(self, path: Path) -> WalContents:
        """Return what a WAL holds without its bodies; raise StoreError if it is none."""
        process, _ = check(path)

        def keep(record: Message, side: str, body: bytes) -> bytes:
            key = process, record.span_id, side
            if isinstance(record, ExchangeStarted):
                self._traces[record.span_id] = record.trace_id
            if self._look is not None:
                self._look(record, side)
            # A copy may have been carried over to the next WAL.
            if not (isinstance(record, ExchangeStarted) and key in self._bodies):
                self._bodies[key] = self._rows.store(side, body, self._traces.get(record.span_id, ""))
            return b""

        self._contents.append(read_wal(path, keep=keep))
        return self._contents[-1]

    def settle(self) -> list[Exchange]:
        """Add what the WALs tell together to the rows; return the exchanges, without bodies."""
        exchanges, spans, processes, notes = exchanges_of(self._contents)
        self._contents.clear()  # their records are as large again
        for one in exchanges:
            request, response = (
                self._bodies.get((one.process_id, one.span_id, side)) for side in ("request", "response")
            )
            self._rows.exchange(one, request, response)
        self._rows.others(spans, processes, notes)
        return exchanges


def _starts(size: int, step: int) -> range:
    return range(0, max(size, 1), step)


def _told(side: str, body: Chunked, runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return what the columns of a body hold."""
    parts = runs[body.number]
    return {f"{side}_sha256": body.sha256, f"{side}_length": body.length, f"{side}_parts": parts}


def _is_text(piece: bytes) -> bool:
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


_MAY_LACK = {
    part: nullable(of) for part, of in (("", Exchange), ("request", Request), ("response", Response))
}
_SPAN_MAY_LACK = nullable(SpanRecord)


_READERS = {column.name: column.type.read for column in PLAIN if column.type.reads}
_OPTIONAL = {column.name for column in PLAIN if column.at[1] in _MAY_LACK[column.at[0]]}


def exchange_of(row: Mapping[str, Any], chunks: Pieces, *, late: bool) -> Exchange:
    """Return a row's exchange, its bodies checked; with `late` the request's is read when it is asked for."""
    problems: list[str] = [row["damage"]] if row["damage"] else []

    def whole(side: str, read: Callable[[], tuple[_T, bytes]], lacking: _T) -> _T:
        try:
            found, digest = read()
        except LookupError as error:
            problems.append(f"the {side} body is not whole: {error}")
            return lacking
        if digest != row[f"{side}_sha256"]:
            problems.append(f"the {side} body does not match its sha256: {chunks.name} was changed")
        return found

    def sent() -> tuple[bytes | Stored, bytes]:
        body = Stored(chunks, row["request_parts"])
        return body if late else body(), body.digest()

    def received() -> tuple[bytes, bytes]:
        body = chunks.body(row["response_parts"])
        return body, sha256(body).digest()

    values: dict[str, Any] = {}
    answered = row["status_code"] is not None
    for column in PLAIN:
        name = column.name
        if name in row and (answered or column.at[0] != "response"):
            held = row[name]
            if held is not None:
                values[name] = _READERS[name](held) if name in _READERS else held
            elif name in _OPTIONAL:
                values[name] = None
            else:
                values[name] = column.type.empty
                problems.append(f"its {name} is missing")
    exchange = assembled(values, whole("request", sent, b""), partial(whole, "response", received, b""))
    return replace(exchange, damage="; ".join(problems)) if problems else exchange


def span_of(row: Mapping[str, Any]) -> SpanRecord:
    """Return the span of a row; a process and a note are told by their own functions from it."""
    found = {column.name: column.type.read(row[column.name]) for column in SPANS}
    for column in SPANS:
        if found[column.name] is None and column.name not in _SPAN_MAY_LACK:
            found[column.name] = column.type.empty
    return SpanRecord(**found)


def _process_row(process: ProcessStarted) -> SpanRecord:
    attributes = {name: getattr(process, name) for name in PROCESS_FIELDS}
    return SpanRecord(
        trace_id=process.launch_id or "",
        span_id=process.process_id,
        parent_span_id=None,
        process_id=process.process_id,
        name="process",
        kind="process",
        started_ns=process.started_ns,
        attributes={**attributes, "attributes": process.attributes},
    )


def process_of(row: SpanRecord) -> ProcessStarted:
    """Return the process that a row of kind `process` tells."""
    attributes: Any = row.attributes
    fields = {name: attributes[name] for name in PROCESS_FIELDS}
    return ProcessStarted(
        process_id=row.process_id,
        started_ns=row.started_ns,
        launch_id=row.trace_id or None,
        attributes=attributes["attributes"],
        **{**fields, "argv": tuple(fields["argv"])},
    )


def _note_row(note: Note) -> SpanRecord:
    return SpanRecord(
        trace_id=note.trace_id or "",
        span_id="",
        parent_span_id=None,
        process_id=note.process_id,
        name=note.kind,
        kind="note",
        started_ns=note.time_ns,
        attributes=note.attributes,
    )


def note_of(row: SpanRecord) -> Note:
    """Return the note that a row of kind `note` tells."""
    return Note(
        kind=row.name,
        time_ns=row.started_ns,
        trace_id=row.trace_id or None,
        attributes=row.attributes,
        process_id=row.process_id,
    )
