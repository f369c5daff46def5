"""The file of a tape: JSON lines, checked byte for byte when they are read (`reading.py`).

Line 1 is the manifest; then the unique chunks of all bodies, one message, tool or event a line; then one
line for each exchange, its bodies given as ranges of lines; then draws and calls of tools; the last line is
the end marker with the file's sha256.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from ..errors import TapeError
from ..exchange import Exchange
from ..store.columns import EXCHANGES
from ..store.records import Note
from ..wire.cuts import encode_piece
from ..wire.dumps import dumps
from .digest import FORMAT, digest_of, links_of
from .layout import Layout
from .reads import Draw, ToolCall
from .start import BESIDE, HowStarted

_SET, _ALWAYS = ([column for column in EXCHANGES if column.tape == how] for how in ("set", "always"))
CutShort: TypeAlias = Literal["running", "killed", "interrupted"]
"""Why a recording ends before its agent had: it went on, was killed, or somebody pressed Ctrl-C."""

ANSWERED = ("reason_phrase", "stream_id")
"""What the line of an exchange has of its response where that is known."""
CALLED = ("span_id", "process_id", "started_ns", "ended_ns")
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
    cut_short: CutShort | None = None
    """Why the tape ends before its agent had; None if it does not."""
    left_ns: int | None = None
    """When the recorded command ended, if a process that it left was still at work then."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What was kept of the agent's files, by digest, where the tape carries it; `start.state` says what."""
    mark: str | None = None
    """Who says how it was started: see `marks.py`."""
    format: int = FORMAT
    """By which its digest is taken: that of its file, where it was read from one."""


def encode(tape: Contents) -> bytes:
    """Return the bytes of the tape's file; raise TapeError for an exchange that is not whole."""
    layout = Layout(first_line=2)
    requests = [layout.request(exchange.request.body) for exchange in tape.exchanges]
    responses = [layout.response(one.response.body if one.response else b"") for one in tape.exchanges]
    chunks, lines_of = layout.settle()
    exchanges: list[bytes] = []
    links = links_of(tape.exchanges, tape.format)
    for step, (exchange, *bodies) in enumerate(zip(tape.exchanges, requests, responses, strict=True)):
        response = exchange.response
        if exchange.damage or (response and sum(response.chunk_sizes) != len(response.body)):
            why = exchange.damage or "its chunk sizes do not add up to its body"
            raise TapeError(f"step {step} of run {tape.run_id} is damaged: {why}")
        ranges = [_pairs(lines_of[body]) for body in bodies]
        record = _exchange_record(step, exchange, tape.run_id, ranges)
        exchanges.append(checked({**record, "chain": links[step].hex()}))
    draws = _draw_records(tape.draws)
    manifest = {
        "tracefork_tape": tape.format,
        "run_id": tape.run_id,
        "name": tape.name,
        "created_ns": tape.exchanges[0].started_ns if tape.exchanges else 0,
        "digest": digest_of(tape.exchanges, tape.format),
        "chunks": len(chunks),
        "exchanges": len(exchanges),
        **({"draws": len(draws)} if draws else {}),
        **({"tools": len(tape.tools)} if tape.tools else {}),
        **({"cut_short": tape.cut_short} if tape.cut_short else {}),
        **({"left_ns": tape.left_ns} if tape.left_ns is not None else {}),
        # Beside the start, in which earlier versions take no other names.
        **({"mark": tape.mark} if tape.mark else {}),
        **(
            {"files": {name: b64encode(data).decode() for name, data in tape.files.items()}}
            if tape.files
            else {}
        ),
        **{name: value for name in BESIDE if (value := getattr(tape.start, name))},
        "start": {
            **{name: value for name, value in _told(tape.start).items() if name not in BESIDE},
            "environment": dict(sorted(tape.start.environment.items())),
            "versions": dict(sorted(tape.start.versions.items())),
        },
        "notes": [{**_told(note), "attributes": dict(note.attributes)} for note in tape.notes],
    }
    lines = [checked(manifest), *map(encode_piece, chunks), *exchanges, *map(checked, draws)]
    lines += [checked(tool_record(call)) for call in tape.tools]
    return b"\n".join([*lines, end_line(lines, len(chunks), len(exchanges)), b""])


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


def tool_record(call: ToolCall) -> dict[str, Any]:
    """Return a call of a tool as its line says it: JSON as JSON, so that a person and git can read it."""
    optional = {"by_text": call.by_text, "exchanges": call.exchanges, "inside": call.inside}
    return {
        "tool": call.name,
        "arguments": json.loads(call.arguments),
        call.form: call.result if call.form == "text" else json.loads(call.result),
        **{name: value for name, value in optional.items() if value},
        **{name: getattr(call, name) for name in CALLED},
    }


def _pairs(flat: Sequence[int]) -> list[list[int]]:
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
        "request": {"lines": ranges[0], "bytes": request.length, "sha256": request.sha256},
        "request_headers": request.headers,
        **({"hidden": request.hidden} if request.hidden else {}),
    }
    if response:
        record["response"] = {
            "lines": ranges[1],
            "bytes": len(response.body),
            "sha256": response.sha256,
            "chunk_sizes": response.chunk_sizes,
            "chunk_offsets_us": response.chunk_offsets_us,
            "http_version": response.http_version,
            **{name: value for name in ANSWERED if (value := getattr(response, name)) is not None},
        }
        record["response_headers"] = response.headers
    record |= {
        column.name: value for column in _SET if (value := getattr(exchange, column.name)) not in (None, "")
    }
    record |= {"trace_id": exchange.trace_id} if exchange.trace_id != run_id else {}
    record |= {"replayed": True} if exchange.replayed else {}
    return record | {column.name: getattr(exchange, column.name) for column in _ALWAYS}


def _compact(value: object) -> bytes:
    return dumps(value, separators=(",", ":")).encode()


def check_of(line: bytes) -> bytes:
    """Return the end of a line with the checksum of what precedes it."""
    return b',"check":"' + sha256(line).hexdigest()[:16].encode() + b'"}'


def checked(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record, ending with the checksum of what precedes it."""
    line = _compact(record)[:-1]
    return line + check_of(line)


def end_line(lines: Sequence[bytes], chunks: int, exchanges: int) -> bytes:
    """Return the last line of a file."""
    whole = sha256(b"\n".join(lines)).hexdigest()
    return _compact({"end": True, "chunks": chunks, "exchanges": exchanges, "sha256": whole})
