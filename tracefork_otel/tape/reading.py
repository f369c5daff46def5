"""A tape's file, read: every sum checked, and every value of the shape that it is to have."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ..errors import TapeError, newer_format
from ..exchange import Exchange
from ..shapes import Shape
from ..store.columns import EXCHANGES, assembled
from ..store.pieces import AT_ONCE, Pieces, Stored
from ..store.records import Note
from ..wire.cuts import decode_piece
from ..wire.dumps import dumps
from .digest import FORMAT, FORMATS, chain, chain_start, remember
from .file import CALLED, check_of, end_line
from .reads import TOOL_FORMS, Draw, ToolCall, ToolForm
from .shape import DRAWS, EXCHANGE, MANIFEST, TOOL
from .start import BESIDE, HowStarted

MOST_BYTES = 8 << 30
"""Of all bodies of a tape, each of which a digest may read: 5,000 calls that grow to 1.1 MB have 3 GB."""

MOST_HELD = 1 << 30
"""Of answers that differ, all of which are in memory: a short tape may name a line of its own often."""


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
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{where}: not a tape that this version can read: {error}") from error


def _unchecked(line: bytes) -> Any:
    """Return what stands on a line that `checked` made, or None if the checksum does not match."""
    body = line[: -len(check_of(b""))]
    return json.loads(line) if line == body + check_of(body) else None


def _tool_call(record: Mapping[str, Any]) -> ToolCall:
    form: ToolForm | None = next((form for form in TOOL_FORMS if form in record), None)
    if form is None:
        raise ValueError(f"it has none of {', '.join(TOOL_FORMS)}")
    return ToolCall(
        name=record["tool"],
        arguments=dumps(record["arguments"]),
        by_text=record.get("by_text", ()),
        form=form,
        result=record[form] if form == "text" else dumps(record[form]),
        exchanges=record.get("exchanges", 0),
        inside=record.get("inside"),
        **{name: record[name] for name in CALLED},
    )


def _values(record: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Return the record's values by column."""
    values = {**record, **record.get("response", {})}
    values |= {"trace_id": record.get("trace_id", run_id), "status_code": record.get("status")}
    return {
        column.name: column.type.restored(values[column.name])
        for column in EXCHANGES
        if column.tape != "never" and column.name in values
    }


def _manifest_of(line: bytes, where: str) -> dict[str, Any]:
    try:
        version: Any = json.loads(line.decode())["tracefork_tape"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise TapeError(
            f"{where}: not a tape: line 1 is no manifest; make one with `tracefork-otel tape export`"
        ) from None
    if isinstance(version, int) and version > FORMAT:
        raise TapeError(newer_format(where, "tape", version, FORMAT))
    manifest = _unchecked(line)
    if manifest is None or type(version) is not int or version not in FORMATS:
        raise TapeError(f"{where}: line 1: the manifest was changed: its checksum does not match")
    try:
        return MANIFEST(manifest)
    except ValueError as error:
        raise TapeError(f"{where}: line 1: the manifest of no tape: {error}") from None


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a tape file, 1-based; the chunks are lines 2 to `chunks` + 1."""

    where: str
    lines: Sequence[bytes]
    chunks: int
    size: list[int] = field(default_factory=lambda: [0])
    """Bytes of bodies so far."""
    held: dict[tuple[str | int, ...], bytes] = field(default_factory=dict[tuple[str | int, ...], bytes])
    """Answers by what is told of them: one that came often is in memory once."""
    held_size: list[int] = field(default_factory=lambda: [0])
    """Bytes of these."""

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the tape, every sum checked.

        Requests that are many bytes together are put together when they are asked for.
        """
        tools = len(self.lines) - 1 - manifest.get("tools", 0)
        draws = tools - manifest.get("draws", 0)
        if draws - 2 != self.chunks + manifest["exchanges"]:
            raise TapeError(
                f"{self.where}: line 1 promises another number of chunks and exchanges than there are"
            )
        exchanges: list[Exchange] = []
        links: list[bytes] = []
        form, bodies = manifest["tracefork_tape"], self._bodies()
        link = chain_start(form)
        for number in range(self.chunks + 2, draws):
            exchange, link = self._exchange(number, manifest, link, bodies)
            exchanges.append(exchange)
            links.append(link)
        beside: dict[str, Any] = {name: manifest.get(name) for name in BESIDE}
        found: dict[str, Any] = {
            "format": form,
            "run_id": manifest["run_id"],
            "name": manifest["name"],
            "exchanges": tuple(exchanges),
            "start": HowStarted(**manifest["start"], **beside),
            "mark": manifest.get("mark"),
            "files": {name: b64decode(data) for name, data in manifest.get("files", {}).items()},
            "cut_short": manifest.get("cut_short"),
            "left_ns": manifest.get("left_ns"),
            "notes": tuple(Note(**note) for note in manifest["notes"]),
            "draws": tuple(self._draws(range(draws, tools))),
            "tools": tuple(self._tool(number) for number in range(tools, len(self.lines) - 1)),
        }
        if link.hex() != manifest["digest"]:
            raise self._error(1, "the digest is not that of the exchanges: the file was changed")
        if self.lines[-2] != end_line(self.lines[:-2], self.chunks, len(exchanges)):
            last = len(self.lines) - 1
            raise self._error(last, "the checksum of the file does not match: it was changed")
        remember(found["exchanges"], form, tuple(links))
        return found

    def _exchange(
        self, number: int, manifest: Mapping[str, Any], link: bytes, bodies: Pieces
    ) -> tuple[Exchange, bytes]:
        """Return the exchange on that line, and the link of the digest after it."""
        which = " (its URL, status, headers, chunk cuts or outcome)"
        record = self._record(number, EXCHANGE, "an exchange", which)
        if ("status" in record) != ("response" in record):
            raise self._error(number, "not an exchange: it has a status or a response without the other")
        try:
            exchange = assembled(
                _values(record, manifest["run_id"]),
                self._request(number, record, bodies),
                lambda: self._answer(number, record, bodies),
            )
            response = exchange.response
            if response is not None and sum(response.chunk_sizes) != len(response.body):
                raise ValueError("the chunk sizes do not add up to the body")
        except ValueError as error:
            raise self._error(number, f"not an exchange: {error}") from error
        link = chain(link, exchange, manifest["tracefork_tape"])
        if link.hex() != record["chain"]:
            raise self._error(number, f"step {record['step']} breaks the digest")
        return exchange, link

    def _draws(self, numbers: Sequence[int]) -> Iterator[Draw]:
        for number in numbers:
            record = self._record(number, DRAWS, "a draw")
            for source, site, line, value in record["draws"]:
                yield Draw(
                    process=record["process"],
                    lane=record["lane"],
                    source=source,
                    site=site,
                    line=line,
                    value=value,
                )

    def _tool(self, number: int) -> ToolCall:
        try:
            return _tool_call(self._record(number, TOOL, "a tool call"))
        except ValueError as error:
            raise self._error(number, f"not a tool call: {error}") from error

    def _record(self, number: int, shape: Shape, what: str, which: str = "") -> dict[str, Any]:
        try:
            record = _unchecked(self.lines[number - 1])
            if record is not None:
                return shape(record)
        except (ValueError, RecursionError) as error:
            raise self._error(number, f"not {what}: {error}") from None
        raise self._error(number, f"{what} was changed{which}: its checksum does not match")

    def _request(self, number: int, record: Mapping[str, Any], bodies: Pieces) -> bytes | Stored:
        """Return the body of the request, checked; once there are many, what puts it together."""
        if self.size[0] + record["request"]["bytes"] <= AT_ONCE:
            return self._body(number, record, "request", bodies)
        body = self._stored(number, record, "request", bodies)
        if body.digest().hex() != record["request"]["sha256"]:
            raise self._changed(number, record, "request")
        return body

    def _answer(self, number: int, record: Mapping[str, Any], bodies: Pieces) -> bytes:
        """Return the body of the response, checked; that of an earlier response where it is the same."""
        part = record["response"]
        told = (part["sha256"], part["bytes"], *(end for ends in part["lines"] for end in ends))
        known = self.held.get(told)
        if known is not None:
            self._count(number, len(known))
            return known
        self.held_size[0] += part["bytes"]
        if self.held_size[0] > MOST_HELD:
            raise self._error(number, f"its answers have more than {MOST_HELD} bytes: no tape of ours has")
        body = self.held[told] = self._body(number, record, "response", bodies)
        return body

    def _body(self, number: int, record: Mapping[str, Any], side: str, bodies: Pieces) -> bytes:
        body = self._stored(number, record, side, bodies)()
        if sha256(body).hexdigest() != record[side]["sha256"]:
            raise self._changed(number, record, side)
        return body

    def _stored(self, number: int, record: Mapping[str, Any], side: str, bodies: Pieces) -> Stored:
        """Return a body of no more pieces than it has bytes: a line may be named often."""
        part = record[side]
        self._count(number, part["bytes"])
        flat: list[int] = []
        length = 0
        for first, last in part["lines"]:
            if not 2 <= first <= last <= self.chunks + 1:
                raise ValueError(f"lines {first}-{last} are not chunks")
            run = (first - 2, last - 2)
            flat += run
            length += bodies.size(run)
            if length > part["bytes"]:
                raise self._error(number, f"the {side} body is longer than its {part['bytes']} bytes")
        if length < part["bytes"]:
            raise self._changed(number, record, side)
        return Stored(bodies, flat)

    def _count(self, number: int, size: int) -> None:
        self.size[0] += size
        if self.size[0] > MOST_BYTES:
            raise self._error(number, f"its bodies have more than {MOST_BYTES} bytes: no tape of ours has")

    def _changed(self, number: int, record: Mapping[str, Any], side: str) -> TapeError:
        lines = ", ".join(f"{first}-{last}" for first, last in record[side]["lines"])
        return self._error(
            number,
            f"the {side} body of step {record['step']} (lines {lines}) does not match its sha256: "
            "the file was changed",
        )

    def _bodies(self) -> Pieces:
        """Return the chunks, one after the other."""
        return Pieces.of(self.where, [self._chunk(line) for line in range(2, self.chunks + 2)])

    def _chunk(self, line: int) -> bytes:
        try:
            return decode_piece(self.lines[line - 1])
        except (ValueError, RecursionError) as error:
            raise self._error(line, f"not a chunk of a tape: {error}") from error

    def _error(self, line: int, what: str) -> TapeError:
        return TapeError(f"{self.where}: line {line}: {what}")
