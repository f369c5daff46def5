"""Reading WALs: records with their bodies restored, and what they tell when joined."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit
from zlib import crc32

from ..errors import StoreError, newer_format
from ..exchange import Body, Ending, Exchange, beside_body, request_of
from ..files import open_whole
from ..wire.registry import port_of
from . import codec as form
from .records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, Record, Rotated, SpanRecord
from .started_programs import unrecorded

NAME = re.compile(r"(?P<process>[0-9A-Za-z][0-9A-Za-z_-]*)-(?P<index>0|[1-9]\d{0,8})\.wal")
"""The name of a WAL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalContents:
    """What a WAL holds."""

    path: Path
    process_id: str
    index: int
    process: ProcessStarted | None
    """None if its first record is not whole."""
    records: list[Record]
    """All whole records in order, the first one among them."""
    torn_bytes: int = 0
    """Bytes after the last whole record: a write that the process did not live to acknowledge."""
    rotated: Rotated | None = None
    damage: tuple[str, ...] = ()
    """Each record that was written whole and cannot be read any more, by its place."""
    lost_bodies: Mapping[str, str] = field(default_factory=dict[str, str])
    """Exchanges (by span id) whose request body hung on a damaged record, and why."""
    odd: Mapping[tuple[str, str], Odd] = field(default_factory=dict[tuple[str, str], "Odd"])
    """Values that were left out because their fields cannot hold them, by trace and field."""


@dataclass(slots=True)
class Odd:
    """Values of one field of a run that were left out."""

    first: str
    """The first of them, as Python shows it."""
    count: int = 0


Keep: TypeAlias = Callable[[ExchangeStarted | ExchangeEnded, str, bytes], bytes | Body]


class CopiedLog(StoreError):
    """A WAL that has another process's name: what it tells may be told by the log it was copied from."""


def read_wal(path: Path, *, keep: Keep | None = None, copied: bool = False) -> WalContents:
    """Return what a WAL holds; `keep(record, "request" | "response", body)` says what stays of each body:
    bytes, or of a request that starts also what puts them together.

    Raise StoreError naming the file if it is no WAL, and CopiedLog if its name is not that of the process
    which wrote it, unless `copied`.
    """
    wal = OpenWal(path, keep=keep, copied=copied)
    records = list(wal.more())
    process = next((record for record in records if isinstance(record, ProcessStarted)), None)
    return WalContents(
        path=wal.path,
        process_id=wal.process_id,
        index=wal.index,
        process=process,
        records=records,
        torn_bytes=wal.torn_bytes,
        rotated=next((record for record in reversed(records) if isinstance(record, Rotated)), None),
        damage=tuple(wal.damage),
        lost_bodies=wal.lost_bodies,
        odd=wal.odd,
    )


class OpenWal:
    """A WAL that is read on from where it was left: no record twice, whoever still writes into it."""

    def __init__(self, path: Path, *, keep: Keep | None = None, copied: bool = False) -> None:
        """`keep` and `copied` are what they are to `read_wal`; raises as it does."""
        self.path = Path(path)
        self.process_id, self.index = check(self.path, copied=copied)
        self.torn_bytes = 0
        """Bytes after the last whole record, when it was read last."""
        self.damage: list[str] = []
        self.lost_bodies: dict[str, str] = {}
        self.odd: dict[tuple[str, str], Odd] = {}
        self._keep = keep
        self._slots: dict[int, bytes] = {}
        self._read = 0
        """So many bytes of it are read."""

    def more(self) -> Iterator[Record]:
        """Yield the records that came since it was read last; what is still being written is left to then."""
        try:
            with open_whole(self.path) as file:
                file.seek(self._read)
                data = file.read()
        except OSError as error:
            raise StoreError(f"{self.path}: the WAL cannot be read: {error.strerror or error}") from error
        before, name, self.torn_bytes = self._read, self.path.name, 0
        if not before and _is_torn(data, len(form.MAGIC)):
            # It had its name only once its first record was in it.
            self.damage.append(
                f"{name}: {len(data)} bytes are left of it, less than a log begins with: what it held is "
                "lost (a failure of power, or somebody cut it)"
            )
            return
        for at, end, header, bodies in _frames(data, 0 if before else len(form.MAGIC)):
            if header is None:
                if end == len(data) and _is_torn(data, at):
                    self.torn_bytes = end - at
                    return
                self.damage.append(
                    f"{name}: {end - at} bytes from byte {before + at} on do not match their checksum"
                )
                self._slots.clear()
            else:
                yield from self._decoded(header, bodies, before + at)
            self._read = before + end

    def _decoded(self, header: bytes, bodies: memoryview, at: int) -> Iterator[Record]:
        strange: dict[str, str] = {}
        try:
            record, without_body = form.decode(header, bodies, self._slots, strange)
        except ValueError as error:
            self.damage.append(f"{self.path.name}: the record at byte {at} has an unknown form ({error})")
            # What it put into a slot is not known, so no body may hang on it.
            self._slots.clear()
            return
        for field_name, shown in strange.items():
            key = getattr(record, "trace_id", None) or "", field_name
            self.odd.setdefault(key, Odd(shown)).count += 1
        if without_body:
            why = f"the request body hung on a damaged record of {self.path.name}"
            self.lost_bodies[record.span_id] = why  # type: ignore[union-attr]
        yield record if self._keep is None or without_body else _kept(record, self._keep)


def check(path: Path, *, copied: bool = False) -> tuple[str, int]:
    """Return the process that wrote a WAL, and its index; raise StoreError naming the file if it is none.

    Raise CopiedLog if the name is not that of the process, unless `copied`.
    """
    try:
        with open_whole(path) as file:
            start = file.readline(len(form.MAGIC) + 8)
            writer = _writer(file) if start == form.MAGIC else None
    except OSError as error:
        raise StoreError(f"{path}: the WAL cannot be read: {error.strerror or error}") from error
    name = NAME.fullmatch(path.name)
    newer = form.MAGIC_LINE.fullmatch(start)
    if newer is not None and int(newer[1]) > form.FORMAT:
        raise StoreError(newer_format(path, "WAL", int(newer[1]), form.FORMAT))
    if name is None or not form.MAGIC.startswith(start):
        raise StoreError(f"{path}: this is not a WAL of tracefork-otel; move it out of the store")
    if writer in (None, name["process"]):
        return name["process"], int(name["index"])
    if not copied:
        raise CopiedLog(
            f"{path}: this is the log of process {writer}, copied or renamed, so it is not read beside it; "
            "`doctor --repair` takes in what no other file holds"
        )
    return writer, int(name["index"])


def _writer(file: BinaryIO) -> str | None:
    """Return the process that begins a WAL by describing itself; None if that cannot be read."""
    before = file.read(form.FRAME.size)
    if len(before) < form.FRAME.size:
        return None
    first = before + file.read(min(form.FRAME.unpack(before)[0], os.fstat(file.fileno()).st_size))
    for _, _, header, bodies in _frames(first, 0):
        try:
            record, _ = form.decode(header or b"", bodies, {}, {})
        except ValueError:
            return None
        told = record.process_id if isinstance(record, ProcessStarted) else ""
        return told if NAME.fullmatch(f"{told}-0.wal") else None
    return None


def _frames(data: bytes, at: int) -> Iterator[tuple[int, int, bytes | None, memoryview]]:
    view = memoryview(data)
    size = len(data)
    while at < size:
        found = _record_at(view, at)
        if found is not None:
            end, header_end = found
            yield at, end, data[at + form.FRAME.size + form.HEADER.size : header_end], view[header_end:end]
            at = end
            continue
        end = _next_record(data, view, at)
        yield at, end, None, view[at:end]
        at = end


def _record_at(view: memoryview, at: int) -> tuple[int, int] | None:
    """Return where the record ends and where its header does; None if there is no whole record."""
    start = at + form.FRAME.size
    if start > len(view):
        return None
    length, crc = form.FRAME.unpack_from(view, at)
    end = start + length
    if length < form.HEADER.size or end > len(view) or crc32(view[start:end]) != crc:
        return None
    header_end = start + form.HEADER.size + form.HEADER.unpack_from(view, start)[0]
    return (end, header_end) if header_end <= end else None


def _next_record(data: bytes, view: memoryview, at: int) -> int:
    before = form.FRAME.size + form.HEADER.size
    found = data.find(form.FIRST_KEY, at + before + 1)
    while found >= 0:
        if _record_at(view, found - before) is not None:
            return found - before
        found = data.find(form.FIRST_KEY, found + 1)
    return len(data)


def _is_torn(data: bytes, at: int) -> bool:
    """Return whether what begins at `at` never was a whole record, as against one that changed later."""
    if len(data) - at < form.FRAME.size:
        return True
    length, _ = form.FRAME.unpack_from(data, at)
    return at + form.FRAME.size + length > len(data) or not data[at:].strip(b"\0")


def _kept(record: Record, keep: Keep) -> Record:
    if isinstance(record, ExchangeStarted):
        body = keep(record, "request", record.request.body)
        return replace(record, request=request_of(body=body, **beside_body(record.request)))
    if isinstance(record, ExchangeEnded):
        told = record
        if record.response is not None:
            body = keep(told, "response", record.response.body)
            record = replace(record, response=replace(record.response, body=body))
        if record.request_body is not None:
            record = replace(record, request_body=keep(told, "request", record.request_body))
    return record


def exchanges_of(
    contents: Sequence[WalContents],
) -> tuple[list[Exchange], list[SpanRecord], list[ProcessStarted], list[Note]]:
    """Return what the WALs tell, each exchange and span once, in order of trace and start.

    An exchange without its end is `in_flight`; one that was carried over to a WAL which is not among
    `contents` is left to that WAL. A process is told by its first WAL alone.
    """
    names = {content.path.name for content in contents}
    told = _Joined()
    for content in sorted(contents, key=lambda content: (content.process_id, content.index)):
        goes_on = content.rotated is not None and content.rotated.to not in names
        left = content.rotated.carried if content.rotated is not None and goes_on else ()
        told.add(content, left)
    return told.result()


_Key: TypeAlias = tuple[str, str, str]
"""Process, trace and span id."""


class _Joined:
    """Records of many WALs, by what they tell of."""

    def __init__(self) -> None:
        self._trace: dict[tuple[str, str], str] = {}
        """By process and span id, the trace of the span that started last: ids can repeat in other traces."""
        self._started: dict[_Key, ExchangeStarted] = {}
        self._ended: dict[_Key, ExchangeEnded] = {}
        self._damage: dict[_Key, str] = {}
        self._spans: dict[_Key, SpanRecord] = {}
        self._processes: dict[str, ProcessStarted] = {}
        self._heads: dict[str, ProcessStarted] = {}
        """By process, how it describes itself, also where its first WAL is not among these."""
        self._notes: list[Note] = []
        self._own: set[tuple[str, str]] = set()
        """By process, the places at which the run's own processes turned out to listen."""

    def add(self, content: WalContents, left: Collection[str]) -> None:
        """Add the records of one WAL but those that `left` names, which another WAL tells."""
        process = content.process_id
        if content.process is not None:
            self._heads[process] = content.process
        for record in content.records:
            if isinstance(record, ExchangeStarted):
                self._trace[process, record.span_id] = record.trace_id
                key = (process, record.trace_id, record.span_id)
                self._start(key, record, content.lost_bodies.get(record.span_id))
            elif isinstance(record, ExchangeEnded):
                self._ended[self._last(process, record.span_id)] = record
            elif isinstance(record, SpanRecord):
                self._trace[process, record.span_id] = record.trace_id
                key = (process, record.trace_id, record.span_id)
                known = self._spans.get(key)
                if known is None or record.ended_ns is not None:
                    # The end leaves out what the start has told.
                    attributes = (
                        record.attributes if known is None else {**known.attributes, **record.attributes}
                    )
                    self._spans[key] = replace(record, process_id=process, attributes=attributes)
            elif isinstance(record, ProcessStarted):
                if content.index == 0:
                    self._processes[record.process_id] = record
            elif isinstance(record, Note):
                if record.kind == "own":
                    self._own.add((process, str(record.attributes.get("place"))))
                self._notes.append(replace(record, process_id=process))
        for span_id in left:
            self._started.pop(self._last(process, span_id), None)
            self._spans.pop(self._last(process, span_id), None)
        at = content.process.started_ns if content.process else 0
        for why in content.damage:
            note = Note(kind="lost", time_ns=at, process_id=process, attributes={"why": why, "count": 1})
            self._notes.append(note)
        for (trace_id, name), one in content.odd.items():
            told = {"field": name, "first": one.first, "count": one.count}
            where = {"trace_id": trace_id or None, "process_id": process}
            self._notes.append(Note(kind="odd", time_ns=at, attributes=told, **where))

    def _last(self, process: str, span_id: str) -> _Key:
        return process, self._trace.get((process, span_id), ""), span_id

    def _start(self, key: _Key, record: ExchangeStarted, damage: str | None) -> None:
        # A copy that was carried over to the next WAL counts only if the first one is damaged.
        if key in self._started and (key not in self._damage or damage is not None):
            return
        self._started[key] = record
        self._damage.pop(key, None)
        if damage is not None:
            self._damage[key] = damage

    def result(self) -> tuple[list[Exchange], list[SpanRecord], list[ProcessStarted], list[Note]]:
        """Return everything joined, and a note for each end without its start."""
        # An end that stands before its start finds it now.
        self._ended = {
            key if key[1] else self._last(key[0], key[2]): ended for key, ended in self._ended.items()
        }
        for (process, trace_id, span_id), ended in self._ended.items():
            if (process, trace_id, span_id) not in self._started:
                why = f"the start record of exchange {span_id} is missing"
                attributes = {"why": why, "count": 1, "span_id": span_id}
                note = Note(kind="lost", time_ns=ended.ended_ns, process_id=process, attributes=attributes)
                self._notes.append(note)
        exchanges = [
            joined(started, self._ended.get(key), process_id=key[0], damage=self._damage.get(key))
            for key, started in self._started.items()
        ]
        exchanges = [one for one in exchanges if not self._is_own(one)]
        exchanges.sort(key=lambda exchange: (exchange.trace_id, exchange.started_ns, exchange.span_id))
        spans = [span for key, span in self._spans.items() if key not in self._started]
        spans.sort(key=lambda span: (span.trace_id, span.started_ns, span.span_id))
        processes = list(self._processes.values())
        return exchanges, spans, processes, unrecorded(self._notes, self._heads, processes)

    def _is_own(self, exchange: Exchange) -> bool:
        """Return whether it was one with a service of the run's own that was yet to start, and no model's.

        Refused, or answered as the service began to listen after it was looked for.
        """
        if not self._own:
            return False
        try:
            url = urlsplit(exchange.request.url)
            place = f"{url.hostname}:{port_of(url)}"
        except ValueError:
            return False
        plain = exchange.name == f"{exchange.request.method} {url.hostname}"
        return plain and (exchange.process_id, place) in self._own


def joined(
    started: ExchangeStarted, ended: ExchangeEnded | None, *, process_id: str, damage: str | None = None
) -> Exchange:
    """Return the exchange that its two records tell; without its end it is `in_flight`."""
    request = started.request
    told: dict[str, Any] = {"name": started.name, "ended_ns": None}
    if ended is not None:
        told = {name: getattr(ended, name) for name in _ENDING}
        told["name"] = ended.name or started.name
        if ended.request_body is not None:
            request, damage = replace(request, body=ended.request_body), None
    elif not started.request_complete:
        damage = damage or "the request was still being sent"
    return Exchange(
        trace_id=started.trace_id,
        span_id=started.span_id,
        parent_span_id=started.parent_span_id,
        process_id=process_id,
        seq=started.seq,
        started_ns=started.started_ns,
        request=request,
        service=started.service,
        span_trace_id=started.span_trace_id,
        damage=damage,
        **{**told, "replayed": started.replayed or told.get("replayed", False)},
    )


_ENDING = ("ended_ns", "outcome", *(field.name for field in fields(Ending)))
"""What an end tells."""
