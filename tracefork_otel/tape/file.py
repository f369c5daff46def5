"""The file of a tape: JSON lines, checked byte for byte when they are read.

Line 1 is the manifest; then the unique chunks of all bodies, one message, tool or event a line; then one
line for each exchange, its bodies given as ranges of lines; then draws and calls of tools; the last line is
the end marker with the file's sha256.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any

from ..errors import TapeError, newer_format
from ..exchange import Exchange
from ..store.chunks import runs
from ..store.columns import EXCHANGES, assembled
from ..store.records import Note
from ..wire.cuts import cut, decode_piece, encode_piece
from ..wire.dumps import dumps
from .digest import CHAIN_START, chain
from .reads import TOOL_FORMS, Draw, ToolCall, ToolForm
from .start import HowStarted

FORMAT = 1

_SET, _ALWAYS, _PLACED = (
    [column for column in EXCHANGES if column.tape == how] for how in ("set", "always", "placed")
)
_CALLED = ("span_id", "process_id", "started_ns", "ended_ns")
"""What the line of a tool call has as the call has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a tape holds."""

    run_id: str
    exchanges: tuple[Exchange, ...]
    name: str = ""
    start: HowStarted = field(default_factory=HowStarted)
    notes: tuple[Note, ...] = ()
    draws: tuple[Draw, ...] = ()
    """What the agent read from clocks and randomness, process by process, in order; not part of `digest`."""
    tools: tuple[ToolCall, ...] = ()
    """The calls of its local tools, in the order of their start; not part of `digest` either."""


def encode(tape: Contents) -> bytes:
    """Return the bytes of the tape's file; raise TapeError for an exchange that is not whole."""
    cuts = [
        (cut(exchange.request.body), cut(exchange.response.body if exchange.response else b""))
        for exchange in tape.exchanges
    ]
    numbers = _numbers(cuts)
    exchanges: list[bytes] = []
    link = CHAIN_START
    for step, (exchange, pieces) in enumerate(zip(tape.exchanges, cuts, strict=True)):
        response = exchange.response
        if exchange.damage or (response and sum(response.chunk_sizes) != len(response.body)):
            why = exchange.damage or "its chunk sizes do not add up to its body"
            raise TapeError(f"step {step} of run {tape.run_id} is damaged: {why}")
        link = chain(link, exchange)
        ranges = [_ranges([numbers[piece] for piece in side]) for side in pieces]
        record = _exchange_record(step, exchange, tape.run_id, ranges)
        exchanges.append(_checked({**record, "chain": link.hex()}))
    draws = _draw_records(tape.draws)
    manifest = {
        "tracefork_tape": FORMAT,
        "run_id": tape.run_id,
        "name": tape.name,
        "created_ns": tape.exchanges[0].started_ns if tape.exchanges else 0,
        "digest": link.hex(),
        "chunks": len(numbers),
        "exchanges": len(exchanges),
        **({"draws": len(draws)} if draws else {}),
        **({"tools": len(tape.tools)} if tape.tools else {}),
        "start": {
            **_told(tape.start),
            "environment": dict(sorted(tape.start.environment.items())),
            "versions": dict(sorted(tape.start.versions.items())),
        },
        "notes": [{**_told(note), "attributes": dict(note.attributes)} for note in tape.notes],
    }
    lines = [_checked(manifest), *map(encode_piece, numbers), *exchanges, *map(_checked, draws)]
    lines += [_checked(_tool_record(call)) for call in tape.tools]
    return b"\n".join([*lines, _end_line(lines, len(numbers), len(exchanges)), b""])


def decode(data: bytes, where: str) -> dict[str, Any]:
    """Return the fields of the tape; raise TapeError naming `where` and the line if a byte was changed."""
    lines = data.split(b"\n")
    manifest = _manifest_of(lines[0], where)
    if len(lines) < 3 or lines[-1] != b"" or not lines[-2].startswith(b'{"end":true,'):
        raise TapeError(
            f"{where}: truncated: the end marker is missing after line {len(lines) - 1}; export it again"
        )
    try:
        return _Lines(where, lines, manifest["chunks"]).contents(manifest)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TapeError(f"{where}: not a tape that this version can read: {error!r}") from error


def _told(value: HowStarted | Note) -> dict[str, Any]:
    return {spec.name: getattr(value, spec.name) for spec in fields(value)}


def _draw_records(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return one record for each run of draws by one lane of one process, in the order of the draws."""
    records: list[dict[str, Any]] = []
    for draw in draws:
        if not records or (records[-1]["process"], records[-1]["lane"]) != (draw.process, draw.lane):
            records.append({"process": draw.process, "lane": draw.lane, "draws": []})
        records[-1]["draws"].append([draw.source, draw.site, draw.line, draw.value])
    return records


def _tool_record(call: ToolCall) -> dict[str, Any]:
    """Return a call of a tool as its line says it: JSON as JSON, so that a person and git can read it."""
    optional = {"by_text": call.by_text, "exchanges": call.exchanges, "inside": call.inside}
    return {
        "tool": call.name,
        "arguments": json.loads(call.arguments),
        call.form: call.result if call.form == "text" else json.loads(call.result),
        **{name: value for name, value in optional.items() if value},
        **{name: getattr(call, name) for name in _CALLED},
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
        **{name: record[name] for name in _CALLED},
    )


def _numbers(cuts: Sequence[tuple[list[bytes], list[bytes]]]) -> dict[bytes, int]:
    """Return the unique chunks of requests and responses in file order, and the line of each.

    Requests that share a beginning are numbered one after the other, so that each body of a growing
    conversation is a few ranges, however many agents take turns.
    """
    seen: dict[bytes, int] = {}
    first_seen = [[seen.setdefault(piece, len(seen)) for piece in request] for request, _ in cuts]
    order = sorted(range(len(cuts)), key=first_seen.__getitem__)
    numbers: dict[bytes, int] = {}
    for pieces in (*(cuts[at][0] for at in order), *(response for _, response in cuts)):
        for piece in pieces:
            numbers.setdefault(piece, len(numbers) + 2)
    return numbers


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    flat = runs(numbers)
    return [list(ends) for ends in zip(flat[::2], flat[1::2], strict=True)]


def _exchange_record(
    step: int, exchange: Exchange, run_id: str, ranges: Sequence[list[list[int]]]
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


def _values(record: Mapping[str, Any], run_id: str) -> dict[str, Any]:
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


def _sum(line: bytes) -> bytes:
    return b',"check":"' + sha256(line).hexdigest()[:16].encode() + b'"}'


def _checked(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record, ending with the checksum of what precedes it."""
    line = _compact(record)[:-1]
    return line + _sum(line)


def _unchecked(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line that `_checked` made, or None if the checksum does not match."""
    body = line[: -len(_sum(b""))]
    return json.loads(line) if line == body + _sum(body) else None


def _end_line(lines: Sequence[bytes], chunks: int, exchanges: int) -> bytes:
    whole = sha256(b"\n".join(lines)).hexdigest()
    return _compact({"end": True, "chunks": chunks, "exchanges": exchanges, "sha256": whole})


def _manifest_of(line: bytes, where: str) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a tape file, 1-based; the chunks are lines 2 to `chunks` + 1."""

    where: str
    lines: Sequence[bytes]
    chunks: int

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the tape, every sum checked."""
        tools = len(self.lines) - 1 - manifest.get("tools", 0)
        draws = tools - manifest.get("draws", 0)
        if draws - 2 != self.chunks + manifest["exchanges"]:
            raise TapeError(
                f"{self.where}: line 1 promises another number of chunks and exchanges than there are"
            )
        exchanges: list[Exchange] = []
        link = CHAIN_START
        for number in range(self.chunks + 2, draws):
            exchange, link = self._exchange(number, manifest["run_id"], link)
            exchanges.append(exchange)
        start: dict[str, Any] = manifest["start"]
        command = start["command"]
        found = {
            "run_id": manifest["run_id"],
            "name": manifest["name"],
            "exchanges": tuple(exchanges),
            "start": HowStarted(
                **{
                    **start,
                    "command": None if command is None else tuple(command),
                    "withheld": tuple(start["withheld"]),
                }
            ),
            "notes": tuple(Note(**note) for note in manifest["notes"]),
            "draws": tuple(self._draws(range(draws, tools))),
            "tools": tuple(
                _tool_call(self._record(number, "a tool call"))
                for number in range(tools, len(self.lines) - 1)
            ),
        }
        if link.hex() != manifest["digest"]:
            raise self._error(1, "the digest is not that of the exchanges: the file was changed")
        if self.lines[-2] != _end_line(self.lines[:-2], self.chunks, len(exchanges)):
            last = len(self.lines) - 1
            raise self._error(last, "the checksum of the file does not match: it was changed")
        return found

    def _exchange(self, number: int, run_id: str, link: bytes) -> tuple[Exchange, bytes]:
        """Return the exchange on that line, and the link of the digest after it."""
        record = self._record(number, "an exchange", " (its URL, status, headers, chunk cuts or outcome)")
        try:
            exchange = assembled(_values(record, run_id), lambda side: self._body(number, record, side))
            response = exchange.response
            if response is not None and sum(response.chunk_sizes) != len(response.body):
                raise ValueError("the chunk sizes do not add up to the body")
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(number, f"not an exchange: {error!r}") from error
        link = chain(link, exchange)
        if link.hex() != record["chain"]:
            raise self._error(number, f"step {record['step']} breaks the digest")
        return exchange, link

    def _draws(self, numbers: Sequence[int]) -> Iterator[Draw]:
        for number in numbers:
            record = self._record(number, "a draw")
            for source, site, line, value in record["draws"]:
                yield Draw(
                    process=record["process"],
                    lane=record["lane"],
                    source=source,
                    site=site,
                    line=line,
                    value=value,
                )

    def _record(self, number: int, what: str, which: str = "") -> dict[str, Any]:
        record = _unchecked(self.lines[number - 1])
        if record is None:
            raise self._error(number, f"{what} was changed{which}: its checksum does not match")
        return record

    def _body(self, number: int, record: Mapping[str, Any], side: str) -> bytes:
        part = record[side]
        body = b"".join(self._chunk(line) for first, last in part["lines"] for line in range(first, last + 1))
        if sha256(body).hexdigest() != part["sha256"] or len(body) != part["bytes"]:
            lines = ", ".join(f"{first}-{last}" for first, last in part["lines"])
            raise self._error(
                number,
                f"the {side} body of step {record['step']} (lines {lines}) does not match its sha256: "
                "the file was changed",
            )
        return body

    def _chunk(self, line: int) -> bytes:
        if not 2 <= line <= self.chunks + 1:
            raise ValueError(f"line {line} is not a chunk")
        try:
            return decode_piece(self.lines[line - 1])
        except (ValueError, RecursionError) as error:
            raise self._error(line, f"not a chunk of a tape: {error}") from error

    def _error(self, line: int, what: str) -> TapeError:
        return TapeError(f"{self.where}: line {line}: {what}")
