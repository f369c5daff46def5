"""The rows of a segment as plain columns: bodies become chunks, everything nested becomes JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from ..exchange import Exchange, Request, Response
from .chunks import Chunks, runs
from .records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, SpanRecord
from .wal_reading import NAME, WalContents, read_wal

Columns: TypeAlias = dict[str, list[Any]]
"""Values by column, all of one length."""
_Message: TypeAlias = ExchangeStarted | ExchangeEnded

EXCHANGE_COLUMNS = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "process_id",
    "seq",
    "started_ns",
    "ended_ns",
    "method",
    "url",
    "request_headers",
    "status_code",
    "http_version",
    "response_headers",
    "outcome",
    "error_type",
    "error_message",
    "name",
    "service",
    "span_status",
    "attributes",
    "links",
    "replayed",
    "intervention",
    "served_span_id",
    "request_sha256",
    "request_length",
    "request_parts",
    "response_sha256",
    "response_length",
    "response_parts",
    "chunk_sizes",
    "chunk_offsets_us",
    "damage",
]
SPAN_COLUMNS = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "process_id",
    "name",
    "kind",
    "started_ns",
    "ended_ns",
    "status",
    "status_message",
    "service",
    "scope",
    "attributes",
    "events",
    "links",
]
PROCESS_FIELDS = ("pid", "ppid", "executable", "argv", "cwd", "mode", "via")
"""What the attributes of a `process` row hold beside the process's own attributes."""


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body that is chunks now."""

    sha256: bytes
    length: int
    chunks: list[int]


class Rows:
    """Collects what goes into one segment; bodies are let go as soon as they are chunks."""

    def __init__(self) -> None:
        self._chunks = Chunks()
        self._exchanges: list[tuple[Exchange, StoredBody, StoredBody | None]] = []
        self._spans: list[tuple[Any, ...]] = []

    def request(self, body: bytes, conversation: str) -> StoredBody:
        """The request body, stored."""
        return StoredBody(sha256(body).digest(), len(body), self._chunks.add(body, conversation))

    def response(self, body: bytes, conversation: str) -> StoredBody:
        """The response body, stored."""
        return StoredBody(sha256(body).digest(), len(body), self._chunks.add_alone(body, conversation))

    def exchange(
        self, exchange: Exchange, request: StoredBody | None = None, response: StoredBody | None = None
    ) -> None:
        """The exchange is a row; its own bodies are stored unless stored ones come with it."""
        if request is None:
            request = self.request(exchange.request.body, exchange.trace_id)
        if response is None and exchange.response is not None:
            response = self.response(exchange.response.body, exchange.trace_id)
        self._exchanges.append((exchange, request, response))

    def others(
        self, spans: Iterable[SpanRecord], processes: Iterable[ProcessStarted], notes: Iterable[Note]
    ) -> None:
        """Spans, processes and notes are rows of the spans file."""
        self._spans.extend(map(_span_row, spans))
        self._spans.extend(map(_process_row, processes))
        self._spans.extend(map(_note_row, notes))

    def columns(self) -> tuple[Columns, Columns, Columns]:
        """The columns of exchanges, chunks and spans, rows in order of trace and start."""
        data, final = self._chunks.settle()
        self._exchanges.sort(key=lambda row: (row[0].trace_id, row[0].started_ns, row[0].span_id))
        self._spans.sort(key=lambda row: (row[0], row[6], row[1]))
        exchanges = _columns(EXCHANGE_COLUMNS, (_exchange_row(*row, final) for row in self._exchanges))
        spans = _columns(SPAN_COLUMNS, self._spans)
        text = [piece if _is_text(piece) else None for piece in data]
        binary = [piece if kept is None else None for piece, kept in zip(data, text, strict=True)]
        return exchanges, {"no": list(range(len(data))), "text": text, "data": binary}, spans


def read_storing(
    paths: Sequence[Path], rows: Rows
) -> tuple[list[WalContents], dict[tuple[str, str, str], StoredBody]]:
    """The WALs without their bodies, which are stored in `rows`, by process, span id and side.

    So no more than a few bodies are in memory at once: restored from their deltas, those of one WAL can be
    gigabytes.
    """
    contents: list[WalContents] = []
    bodies: dict[tuple[str, str, str], StoredBody] = {}
    traces: dict[str, str] = {}
    for path in paths:
        name = NAME.fullmatch(path.name)
        process = name["process"] if name else ""

        def keep(record: _Message, side: str, body: bytes, process: str = process) -> bytes:
            key = process, record.span_id, side
            if isinstance(record, ExchangeStarted):
                traces[record.span_id] = record.trace_id
                if key in bodies:
                    return b""  # A copy that was carried over to the next WAL.
            store = rows.request if side == "request" else rows.response
            bodies[key] = store(body, traces.get(record.span_id, ""))
            return b""

        contents.append(read_wal(path, keep=keep))
    return contents, bodies


def _columns(names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Columns:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return dict(zip(names, columns or [[] for _ in names], strict=True))


def _is_text(piece: bytes) -> bool:
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _exchange_row(
    exchange: Exchange, request: StoredBody, response: StoredBody | None, final: list[int]
) -> tuple[Any, ...]:
    answer = exchange.response
    return (
        exchange.trace_id,
        exchange.span_id,
        exchange.parent_span_id,
        exchange.process_id,
        exchange.seq,
        exchange.started_ns,
        exchange.ended_ns,
        exchange.request.method,
        exchange.request.url,
        to_json(exchange.request.headers),
        answer.status if answer else None,
        answer.http_version if answer else None,
        to_json(answer.headers) if answer else None,
        exchange.outcome,
        exchange.error_type,
        exchange.error_message,
        exchange.name,
        exchange.service,
        exchange.span_status,
        to_json(exchange.attributes),
        to_json(exchange.links),
        exchange.replayed,
        exchange.intervention,
        exchange.served_span_id,
        request.sha256,
        request.length,
        runs(final[number] for number in request.chunks),
        response.sha256 if response else None,
        response.length if response else None,
        runs(final[number] for number in response.chunks) if response else None,
        answer.chunk_sizes if answer else None,
        answer.chunk_offsets_us if answer else None,
        exchange.damage,
    )


def _span_row(span: SpanRecord) -> tuple[Any, ...]:
    return (
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.process_id,
        span.name,
        span.kind,
        span.started_ns,
        span.ended_ns,
        span.status,
        span.status_message,
        span.service,
        span.scope,
        to_json(span.attributes),
        to_json(span.events),
        to_json(span.links),
    )


def _process_row(process: ProcessStarted) -> tuple[Any, ...]:
    attributes = {name: getattr(process, name) for name in PROCESS_FIELDS}
    attributes["attributes"] = process.attributes
    ids = (process.launch_id or "", process.process_id, None, process.process_id)
    times = (process.started_ns, None, "UNSET", None)
    return (*ids, "process", "process", *times, "", "", to_json(attributes), "[]", "[]")


def _note_row(note: Note) -> tuple[Any, ...]:
    ids = (note.trace_id or "", "", None, note.process_id)
    times = (note.time_ns, None, "UNSET", None)
    return (*ids, note.kind, "note", *times, "", "", to_json(note.attributes), "[]", "[]")


def exchange_of(row: Mapping[str, Any], read: Callable[[Sequence[int]], bytes], source: str) -> Exchange:
    """The exchange of a row, its bodies by `read` (LookupError: missing) from the file named `source`."""
    problems: list[str] = [row["damage"]] if row["damage"] else []

    def body(side: str) -> bytes:
        try:
            found = read(row[f"{side}_parts"])
        except LookupError as error:
            problems.append(f"the {side} body is not whole: {error}")
            return b""
        if sha256(found).digest() != row[f"{side}_sha256"]:
            problems.append(f"the {side} body does not match its sha256: {source} was changed")
        return found

    plain = {name: row[name] for name in _PLAIN_FIELDS}
    response = None
    if row["status_code"] is not None:
        response = Response(
            status=row["status_code"],
            headers=_headers(row["response_headers"]),
            body=body("response"),
            chunk_sizes=tuple(row["chunk_sizes"]),
            chunk_offsets_us=tuple(row["chunk_offsets_us"]),
            http_version=row["http_version"],
        )
    headers = _headers(row["request_headers"])
    return Exchange(
        request=Request(method=row["method"], url=row["url"], headers=headers, body=body("request")),
        response=response,
        attributes=json.loads(row["attributes"]),
        links=tuple(json.loads(row["links"])),
        damage="; ".join(problems) or None,
        **plain,
    )


_PLAIN_FIELDS = [
    name
    for name in EXCHANGE_COLUMNS
    if name in Exchange.__dataclass_fields__ and name not in ("attributes", "links", "damage")
]


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


def process_of(row: Mapping[str, Any]) -> ProcessStarted:
    """The process of a `process` row."""
    attributes = json.loads(row["attributes"])
    fields = {name: attributes[name] for name in PROCESS_FIELDS}
    fields["argv"] = tuple(fields["argv"])
    return ProcessStarted(
        process_id=row["process_id"],
        started_ns=row["started_ns"],
        launch_id=row["trace_id"] or None,
        attributes=attributes["attributes"],
        **fields,
    )


def note_of(row: Mapping[str, Any]) -> Note:
    """The note of a `note` row."""
    return Note(
        kind=row["name"],
        time_ns=row["started_ns"],
        trace_id=row["trace_id"] or None,
        attributes=json.loads(row["attributes"]),
        process_id=row["process_id"],
    )


def span_of(row: Mapping[str, Any]) -> SpanRecord:
    """The span of a row that is neither."""
    plain = {name: row[name] for name in SPAN_COLUMNS if name not in ("attributes", "events", "links")}
    return SpanRecord(
        attributes=json.loads(row["attributes"]),
        events=tuple(json.loads(row["events"])),
        links=tuple(json.loads(row["links"])),
        **plain,
    )


def to_json(value: object) -> str:
    """Compact JSON that any reader takes: no NaN, and no half of a surrogate pair."""
    if not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    try:
        text = _encode(value)
    except ValueError:
        value = _finite(value)
        text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _encode_ascii(value)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode
