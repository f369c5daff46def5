"""How a record looks in a WAL: a compact JSON header, then raw body bytes."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from operator import attrgetter
from struct import Struct
from typing import Any, TypeAlias, cast

from ..exchange import Request, Response
from .columns import EXCHANGES, Column, Parts
from .delta import Delta, restore
from .records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, Record, Rotated, SpanRecord

FORMAT = 1
MAGIC = b"tracefork wal %d\n" % FORMAT
"""The first line of a WAL."""
MAGIC_LINE = re.compile(rb"tracefork wal (\d{1,9})\n")
"""The first line of a WAL of any format."""
FRAME = Struct("<II")
"""Length and CRC-32 of what follows."""
HEADER = Struct("<I")
"""Length of the JSON header, which the bodies follow."""
FIRST_KEY = b'{"t":"'
"""Every JSON header begins so: by it the reader finds the next record after a damaged one."""


def _plain(value: object) -> object:
    # Attributes come from other people's spans: what is not JSON is kept as text, never an error.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, Sequence | set | frozenset):
        return list(cast("Sequence[Any]", value))
    return str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def frame(header: Mapping[str, object], bodies: Sequence[bytes] = ()) -> list[bytes]:
    """Return the buffers of one record, to be written by one call."""
    text = _encode(header).encode("ascii")
    head = HEADER.pack(len(text)) + text
    length, crc = len(head), zlib.crc32(head)
    for body in bodies:
        length += len(body)
        crc = zlib.crc32(body, crc)
    return [FRAME.pack(length, crc) + head, *bodies]


_Key: TypeAlias = tuple[str, Callable[[Any], Any], object]
"""A key of a header, what reads its value from a record, and the value at which it is left out."""
_Place: TypeAlias = tuple[str, str, Callable[[Any], Any]]
"""The part and the name of the field that a value of a header is, and what restores it."""


def _defaults(cls: type) -> dict[str, object]:
    # A field without a default is always written: no value equals MISSING.
    return {
        spec.name: spec.default if spec.default_factory is MISSING else spec.default_factory()
        for spec in fields(cls)
    }


def _keyed(key_of: Callable[[Column], str]) -> dict[str, list[Column]]:
    """The columns of exchanges that a header has, by key; those of a list in its order."""
    keys: dict[str, list[Column]] = {}
    for column in sorted(filter(key_of, EXCHANGES), key=lambda column: key_of(column).partition(".")[2]):
        keys.setdefault(key_of(column).partition(".")[0], []).append(column)
    return keys


def _layout(keyed: Mapping[str, Sequence[Column]], defaults: Mapping[str, object]) -> list[_Key]:
    layout: list[_Key] = []
    for key, columns in keyed.items():
        # One attribute is read as its value, several as a tuple; so are their defaults.
        values = tuple(defaults.get(column.name, MISSING) for column in columns)
        read = attrgetter(*(column.path or column.name for column in columns))
        layout.append((key, read, values if len(columns) > 1 else values[0]))
    return layout


_ASKED_FOR = ("name", "span_status")
"""What every response has in its header, whatever its value, for earlier versions ask for it."""
_STARTS = _keyed(lambda column: column.start)
_ENDS = _keyed(lambda column: column.ends)
_START_KEYS = _layout(_STARTS, {})
_END_KEYS = _layout(
    {key: columns for key, columns in _ENDS.items() if columns[0].at[0] != "response"},
    {name: value for name, value in _defaults(ExchangeEnded).items() if name not in _ASKED_FOR},
)
_RESPONSE_KEYS = _layout(
    {key: columns for key, columns in _ENDS.items() if columns[0].at[0] == "response"}, {}
)
_START_PLACES, _END_PLACES = (
    [(key, [(*column.at, column.type.restored) for column in columns]) for key, columns in keyed.items()]
    for keyed in (_STARTS, _ENDS)
)


def start_header(record: ExchangeStarted, delta: Delta, middle: int) -> dict[str, object]:
    """Return the header of a request whose new part has `middle` bytes."""
    header: dict[str, object] = {"t": "request"}
    for key, read, _ in _START_KEYS:
        header[key] = read(record)
    header["whole"] = record.request_complete
    header["body"] = (delta.base, delta.prefix, delta.suffix, middle, delta.target)
    return header


def end_header(record: ExchangeEnded) -> dict[str, object]:
    """Return the header of a response; both bodies follow it whole."""
    header: dict[str, object] = {"t": "response"}
    for key, read, default in _END_KEYS:
        value = read(record)
        if value != default:
            header[key] = value
    if record.response is not None:
        for key, read, _ in _RESPONSE_KEYS:
            header[key] = read(record)
        header["body"] = len(record.response.body)
    if record.request_body is not None:
        header["request"] = len(record.request_body)
    return header


def other_header(record: ProcessStarted | SpanRecord | Note | Rotated) -> dict[str, object]:
    """Return the header of a record without bodies: its fields by name, defaults left out."""
    kind = _KINDS[type(record)]
    header: dict[str, object] = {"t": kind}
    for name, default in _FIELDS[kind].items():
        value = getattr(record, name)
        if value != default:
            header[name] = value
    return header


_KINDS: dict[type, str] = {ProcessStarted: "process", SpanRecord: "span", Note: "note", Rotated: "rotated"}
_CLASSES: dict[str, type] = {kind: cls for cls, kind in _KINDS.items()}
_FIELDS = {kind: _defaults(cls) for cls, kind in _KINDS.items()}


def decode(header: dict[str, Any], bodies: memoryview, slots: dict[int, bytes]) -> tuple[Record, bool]:
    """Return the record, and whether it lacks its body because the base of its delta is not in `slots`."""
    kind = header["t"]
    if kind == "request":
        return _decode_start(header, bodies, slots)
    if kind == "response":
        return _decode_end(header, bodies), False
    known = {name: header[name] for name in _FIELDS[kind] if name in header}
    for name in ("argv", "carried", "events", "links"):
        if name in known:
            known[name] = tuple(known[name])
    return _CLASSES[kind](**known), False


def _read(header: Mapping[str, Any], keyed: Iterable[tuple[str, list[_Place]]]) -> Parts:
    parts: Parts = {"": {}, "request": {}, "response": {}}
    for key, places in keyed:
        if key not in header:
            continue
        values = (header[key],) if len(places) == 1 else header[key]
        for (part, leaf, restored), value in zip(places, values, strict=True):
            parts[part][leaf] = restored(value)
    return parts


def _decode_start(
    header: dict[str, Any], bodies: memoryview, slots: dict[int, bytes]
) -> tuple[ExchangeStarted, bool]:
    base, prefix, suffix, middle, target = header["body"]
    body = b""
    lost = base >= 0 and base not in slots
    if lost:
        slots.pop(target, None)
    else:
        body = restore(slots.get(base, b""), prefix, suffix, bytes(bodies[:middle]))
        if target >= 0:
            slots[target] = body
    parts = _read(header, _START_PLACES)
    request = Request(body=body, **parts["request"])
    return ExchangeStarted(request=request, request_complete=header["whole"], **parts[""]), lost


def _decode_end(header: dict[str, Any], bodies: memoryview) -> ExchangeEnded:
    parts = _read(header, _END_PLACES)
    response, size = None, 0
    if parts["response"]:
        size = header["body"]
        response = Response(body=bytes(bodies[:size]), **parts["response"])
    asked = bytes(bodies[size : size + header["request"]]) if "request" in header else None
    return ExchangeEnded(response=response, request_body=asked, **parts[""])
