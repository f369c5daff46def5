"""The file of a tape: JSON lines, checked byte for byte when they are read.

Line 1 is the manifest; then the unique chunks of all bodies, one message, tool or event a line; then one
line for each exchange, its bodies given as ranges of lines; the last line is the end marker with the file's
sha256.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from ..errors import TapeError, newer_format
from ..exchange import Exchange, Request, Response
from ..store.chunks import runs
from ..store.columns import EXCHANGES, parts_of
from ..store.records import Note
from ..wire.cuts import cut, decode_piece, encode_piece
from ..wire.dumps import dumps
from .digest import CHAIN_START, chain, digest_of
from .reads import TOOL_FORMS, Draw, ToolCall, ToolForm
from .start import HowStarted

FORMAT = 1

_SET, _ALWAYS, _PLACED = (
    [column for column in EXCHANGES if column.tape == how] for how in ("set", "always", "placed")
)


class Contents(Protocol):
    """The fields of a tape that its file holds."""

    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def exchanges(self) -> tuple[Exchange, ...]: ...  # noqa: D102
    @property
    def start(self) -> HowStarted: ...  # noqa: D102
    @property
    def notes(self) -> tuple[Note, ...]: ...  # noqa: D102
    @property
    def draws(self) -> tuple[Draw, ...]: ...  # noqa: D102
    @property
    def tools(self) -> tuple[ToolCall, ...]: ...  # noqa: D102


def encode(tape: Contents) -> bytes:
    """Return the bytes of the tape's file; raise TapeError for an exchange that is not whole."""
    cuts = [_bodies(exchange) for exchange in tape.exchanges]
    chunks, ranges = _number([pair[0] for pair in cuts], [pair[1] for pair in cuts])
    lines = [_checked(_manifest(tape, len(chunks))), *map(encode_piece, chunks)]
    link = CHAIN_START
    for step, exchange in enumerate(tape.exchanges):
        response = exchange.response
        if exchange.damage or (response and sum(response.chunk_sizes) != len(response.body)):
            why = exchange.damage or "its chunk sizes do not add up to its body"
            raise TapeError(f"step {step} of run {tape.run_id} is damaged: {why}")
        link = chain(link, exchange)
        record = _exchange_record(step, exchange, tape.run_id, ranges[step])
        lines.append(_checked({**record, "chain": link.hex()}))
    lines += [_checked(record) for record in draw_records(tape.draws)]
    lines += [_checked(_tool_record(call)) for call in tape.tools]
    return b"\n".join([*lines, _end_line(lines, len(chunks), len(tape.exchanges)), b""])


def decode(data: bytes, where: str) -> dict[str, Any]:
    """Return the fields of the tape; raise TapeError naming `where` and the line if a byte was changed."""
    lines = data.split(b"\n")
    manifest = _read_manifest(lines[0], where)
    if len(lines) < 3 or lines[-1] != b"" or not lines[-2].startswith(b'{"end":true,'):
        raise TapeError(
            f"{where}: truncated: the end marker is missing after line {len(lines) - 1}; export it again"
        )
    try:
        return _decode_lines(lines, manifest, where)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TapeError(f"{where}: not a tape that this version can read: {error!r}") from error


def _decode_lines(lines: Sequence[bytes], manifest: Mapping[str, Any], where: str) -> dict[str, Any]:
    chunks: int = manifest["chunks"]
    draws: int = manifest.get("draws", 0)
    tools: int = manifest.get("tools", 0)
    ends = len(lines) - 1 - draws - tools
    if ends - 2 != chunks + manifest["exchanges"]:
        raise TapeError(f"{where}: line 1 promises another number of chunks and exchanges than there are")
    body = _Lines(where, lines, chunks)
    exchanges: list[Exchange] = []
    link = CHAIN_START
    for number in range(chunks + 2, ends):
        exchange, link = body.exchange(number, manifest["run_id"], link)
        exchanges.append(exchange)
    drawn = tuple(body.draws(ends, ends + draws))
    called = tuple(body.tools(ends + draws, ends + draws + tools))
    if link.hex() != manifest["digest"]:
        raise TapeError(f"{where}: line 1: the digest is not that of the exchanges: the file was changed")
    if lines[-2] != _end_line(lines[:-2], chunks, len(exchanges)):
        raise TapeError(
            f"{where}: line {len(lines) - 1}: the checksum of the file does not match: it was changed"
        )
    return {
        "run_id": manifest["run_id"],
        "name": manifest["name"],
        "exchanges": tuple(exchanges),
        "start": _read_start(manifest["start"]),
        "notes": tuple(Note(**note) for note in manifest["notes"]),
        "draws": drawn,
        "tools": called,
    }


def _manifest(tape: Contents, chunks: int) -> dict[str, Any]:
    start = tape.start
    return {
        "tracefork_tape": FORMAT,
        "run_id": tape.run_id,
        "name": tape.name,
        "created_ns": tape.exchanges[0].started_ns if tape.exchanges else 0,
        "digest": digest_of(tape.exchanges),
        "chunks": chunks,
        "exchanges": len(tape.exchanges),
        **({"draws": len(draw_records(tape.draws))} if tape.draws else {}),
        **({"tools": len(tape.tools)} if tape.tools else {}),
        "start": {
            "command": start.command,
            "cwd": start.cwd,
            "environment": dict(sorted(start.environment.items())),
            "withheld": start.withheld,
            "entrypoint": start.entrypoint,
            "arguments": start.arguments,
            "git_commit": start.git_commit,
            "versions": dict(sorted(start.versions.items())),
            "exit_status": start.exit_status,
        },
        "notes": [
            {"kind": note.kind, "time_ns": note.time_ns, "trace_id": note.trace_id}
            | {"attributes": dict(note.attributes), "process_id": note.process_id}
            for note in tape.notes
        ],
    }


def draw_records(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return one record for each run of draws by one lane of one process, in the order of the draws."""
    records: list[dict[str, Any]] = []
    for draw in draws:
        if not records or (records[-1]["process"], records[-1]["lane"]) != (draw.process, draw.lane):
            records.append({"process": draw.process, "lane": draw.lane, "draws": []})
        records[-1]["draws"].append([draw.source, draw.site, draw.line, draw.value])
    return records


def _tool_record(call: ToolCall) -> dict[str, Any]:
    """Return a call of a tool as its line says it: JSON as JSON, so that a person and git can read it."""
    record: dict[str, Any] = {"tool": call.name, "arguments": json.loads(call.arguments)}
    record[call.form] = call.result if call.form == "text" else json.loads(call.result)
    record |= {"by_text": call.by_text} if call.by_text else {}
    record |= {"exchanges": call.exchanges} if call.exchanges else {}
    record |= {"inside": call.inside} if call.inside else {}
    return record | {
        "span_id": call.span_id,
        "process_id": call.process_id,
        "started_ns": call.started_ns,
        "ended_ns": call.ended_ns,
    }


def _tool_call(record: Mapping[str, Any]) -> ToolCall:
    form: ToolForm = next(form for form in TOOL_FORMS if form in record)
    return ToolCall(
        name=record["tool"],
        arguments=dumps(record["arguments"]),
        by_text=tuple(record.get("by_text", ())),
        form=form,
        result=record[form] if form == "text" else dumps(record[form]),
        exchanges=record.get("exchanges", 0),
        inside=record.get("inside"),
        **{key: record[key] for key in ("span_id", "process_id", "started_ns", "ended_ns")},
    )


def _bodies(exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
    return cut(exchange.request.body), cut(exchange.response.body if exchange.response else b"")


def _number(
    requests: Sequence[list[bytes]], responses: Sequence[list[bytes]]
) -> tuple[list[bytes], list[tuple[list[list[int]], list[list[int]]]]]:
    """Return the unique chunks in file order, and the line ranges of each exchange's two bodies.

    Requests that share a beginning are numbered one after the other, so that each body of a growing
    conversation is a few ranges, however many agents take turns.
    """
    seen: dict[bytes, int] = {}
    first_seen = [[seen.setdefault(piece, len(seen)) for piece in pieces] for pieces in requests]
    numbers: dict[bytes, int] = {}
    for index in sorted(range(len(requests)), key=first_seen.__getitem__):
        for piece in requests[index]:
            numbers.setdefault(piece, len(numbers) + 2)
    for pieces in responses:
        for piece in pieces:
            numbers.setdefault(piece, len(numbers) + 2)
    ranges = [
        (_ranges([numbers[piece] for piece in request]), _ranges([numbers[piece] for piece in response]))
        for request, response in zip(requests, responses, strict=True)
    ]
    return list(numbers), ranges


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    flat = runs(numbers)
    return [list(ends) for ends in zip(flat[::2], flat[1::2], strict=True)]


def _exchange_record(
    step: int, exchange: Exchange, run_id: str, ranges: tuple[list[list[int]], list[list[int]]]
) -> dict[str, Any]:
    request, response = exchange.request, exchange.response
    record: dict[str, Any] = {"step": step, "method": request.method, "url": request.url}
    if response:
        record["status"] = response.status
    record |= {
        "outcome": exchange.outcome,
        "request": {"lines": ranges[0], "bytes": len(request.body), "sha256": request.sha256},
        "request_headers": request.headers,
    }
    if response:
        record["response"] = {
            "lines": ranges[1],
            "bytes": len(response.body),
            "sha256": response.sha256,
            "chunk_sizes": response.chunk_sizes,
            "chunk_offsets_us": response.chunk_offsets_us,
            "http_version": response.http_version,
        }
        record["response_headers"] = response.headers
    record |= {
        column.name: value for column in _SET if (value := getattr(exchange, column.name)) not in (None, "")
    }
    record |= {"trace_id": exchange.trace_id} if exchange.trace_id != run_id else {}
    record |= {"replayed": True} if exchange.replayed else {}
    return record | {column.name: getattr(exchange, column.name) for column in _ALWAYS}


def _placed(record: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Return the record's values by column."""
    values = {**record, **record.get("response", {})}
    values |= {"trace_id": record.get("trace_id", run_id), "status_code": record.get("status")}
    return {
        column.name: column.type.restored(values[column.name])
        for column in (*_SET, *_ALWAYS, *_PLACED)
        if column.name in values
    }


def _compact(value: object) -> bytes:
    return dumps(value, separators=(",", ":")).encode()


def _checked(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record, ending with the checksum of what precedes it."""
    line = _compact(record)[:-1]
    return line + b',"check":"' + sha256(line).hexdigest()[:16].encode() + b'"}'


def _unchecked(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line that `_checked` made, or None if the checksum does not match."""
    tail = len(b',"check":"0123456789abcdef"}')
    body = line[:-tail]
    if line[-tail:] != b',"check":"' + sha256(body).hexdigest()[:16].encode() + b'"}':
        return None
    return json.loads(line)


def _end_line(lines: Sequence[bytes], chunks: int, exchanges: int) -> bytes:
    whole = sha256(b"\n".join(lines)).hexdigest()
    return _compact({"end": True, "chunks": chunks, "exchanges": exchanges, "sha256": whole})


def _read_manifest(line: bytes, where: str) -> dict[str, Any]:
    try:
        version: Any = json.loads(line.decode())["tracefork_tape"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TapeError(
            f"{where}: not a tape: line 1 is no manifest; make one with `tracefork-otel tape export`"
        ) from None
    if isinstance(version, int) and version > FORMAT:
        raise TapeError(newer_format(where, "tape", version, FORMAT))
    manifest = _unchecked(line)
    if manifest is None or version != FORMAT:
        raise TapeError(f"{where}: line 1: the manifest was changed: its checksum does not match")
    return manifest


def _read_start(record: Mapping[str, Any]) -> HowStarted:
    fields = dict(record)
    command = fields.pop("command")
    withheld = fields.pop("withheld")
    return HowStarted(command=None if command is None else tuple(command), withheld=tuple(withheld), **fields)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a tape file, 1-based; the chunks are lines 2 to `chunks` + 1."""

    where: str
    lines: Sequence[bytes]
    chunks: int

    def exchange(self, number: int, run_id: str, link: bytes) -> tuple[Exchange, bytes]:
        """Return the exchange on that line and the link of the digest after it, every sum checked."""
        record = self._record(
            number, "an exchange was changed (its URL, status, headers, chunk cuts or outcome)"
        )
        try:
            exchange = self._decode(number, run_id, record)
        except (KeyError, TypeError, ValueError) as error:
            raise TapeError(f"{self.where}: line {number}: not an exchange: {error!r}") from error
        link = chain(link, exchange)
        if link.hex() != record["chain"]:
            raise TapeError(f"{self.where}: line {number}: step {record['step']} breaks the digest")
        return exchange, link

    def draws(self, first: int, end: int) -> Iterator[Draw]:
        """Yield the draws on the lines from `first` to before `end`."""
        for number in range(first, end):
            record = self._record(number, "a draw was changed")
            whose = {"process": record["process"], "lane": record["lane"]}
            for source, site, line, value in record["draws"]:
                yield Draw(**whose, source=source, site=site, line=line, value=value)

    def tools(self, first: int, end: int) -> Iterator[ToolCall]:
        """Yield the calls of tools on the lines from `first` to before `end`."""
        for number in range(first, end):
            yield _tool_call(self._record(number, "a tool call was changed"))

    def _record(self, number: int, changed: str) -> dict[str, Any]:
        record = _unchecked(self.lines[number - 1])
        if record is None:
            raise TapeError(f"{self.where}: line {number}: {changed}: its checksum does not match")
        return record

    def _decode(self, number: int, run_id: str, record: Mapping[str, Any]) -> Exchange:
        parts = parts_of(EXCHANGES, _placed(record, run_id))
        response: Response | None = None
        if "response" in record:
            response = Response(body=self._body(number, record, "response"), **parts["response"])
            if sum(response.chunk_sizes) != len(response.body):
                raise ValueError("the chunk sizes do not add up to the body")
        request = Request(body=self._body(number, record, "request"), **parts["request"])
        return Exchange(request=request, response=response, **parts[""])

    def _body(self, number: int, record: Mapping[str, Any], side: str) -> bytes:
        part = record[side]
        body = b"".join(self._chunk(line) for first, last in part["lines"] for line in range(first, last + 1))
        if sha256(body).hexdigest() != part["sha256"] or len(body) != part["bytes"]:
            lines = ", ".join(f"{first}-{last}" for first, last in part["lines"])
            raise TapeError(
                f"{self.where}: line {number}: the {side} body of step {record['step']} (lines {lines}) "
                "does not match its sha256: the file was changed"
            )
        return body

    def _chunk(self, line: int) -> bytes:
        if not 2 <= line <= self.chunks + 1:
            raise ValueError(f"line {line} is not a chunk")
        try:
            return decode_piece(self.lines[line - 1])
        except (ValueError, RecursionError) as error:
            raise TapeError(f"{self.where}: line {line}: not a chunk of a tape: {error}") from error
