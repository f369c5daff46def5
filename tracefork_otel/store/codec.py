"""How a record looks in a WAL: a compact JSON header, then raw body bytes."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from operator import attrgetter
from struct import Struct
from sys import intern
from typing import Any, NamedTuple, cast

from ..exchange import Request, Response
from .columns import EXCHANGES, LONG, OBJECT, SPANS, TEXT, TEXTS, Column, Parts, Type, nullable
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


_DEEPEST = 60
_MOST = 10_000
"""How deep and how many values are kept of an attribute of which no JSON can be made: it may hold itself."""


def _kept(value: object, room: list[int], depth: int = 0) -> object:
    """Return what of the value is JSON, anything else of it as text or in words, in the `room` for values."""
    if depth <= 2:  # a record's field, or an attribute in it
        room = [_MOST]
    room[0] -= 1
    try:
        if isinstance(value, int) and value.bit_length() > 64:
            return hex(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if depth > _DEEPEST or room[0] < 0:
            return f"a {type(value).__name__} that is nested too deep, or too large"
        plain = _plain(value)
        if isinstance(plain, dict):
            items = cast("dict[object, object]", plain).items()
            return {str(name): _kept(one, room, depth + 1) for name, one in items}
        if isinstance(plain, list):
            return [_kept(one, room, depth + 1) for one in cast("list[object]", plain)]
        return plain
    except Exception as error:  # from the value's own methods
        return f"a {type(value).__name__} that cannot be read: {type(error).__name__}"


# What contains itself ends in a RecursionError all the same.
_encode = json.JSONEncoder(separators=(",", ":"), default=_plain, check_circular=False).encode


class _Key(NamedTuple):
    """A key of a header."""

    name: str
    paths: tuple[str, ...]
    """The attributes of a record that are its value: one, or several that are a list."""
    default: object
    """The value at which it is left out."""
    places: list[tuple[str, _Field]]
    """The part of which its value is a field, and the field; several for a list."""


class _Field(NamedTuple):
    """A field of a record, and what it may hold."""

    name: str
    type: Type
    nullable: bool
    repeats: bool = False
    """Whether many records have the same, which is then in memory once."""

    def fitted(self, value: Any, odd: dict[str, str]) -> Any:
        """Return the value as the record has it; what cannot be is left out, and `odd` says what it was."""
        if value is None and self.nullable:
            return None
        try:
            found = self.type.fit(value)
            return intern(found) if self.repeats and type(found) is str else found
        except (ValueError, TypeError, OverflowError, RecursionError):
            plain = isinstance(value, str | int | float | None)
            odd[self.name] = repr(value)[:80] if plain else f"a {type(value).__name__}"
            return None if self.nullable else self.type.empty


def _defaults(cls: type) -> dict[str, object]:
    # A field without a default is always written: no value equals MISSING.
    return {
        spec.name: spec.default if spec.default_factory is MISSING else spec.default_factory()
        for spec in fields(cls)
    }


def _keys(cls: type, key_of: Callable[[Column], str], defaults: Mapping[str, object]) -> list[_Key]:
    """Return the keys of a header, by the columns of exchanges that it has."""
    keyed: dict[str, list[Column]] = {}
    for column in sorted(filter(key_of, EXCHANGES), key=lambda column: key_of(column).partition(".")[2]):
        keyed.setdefault(key_of(column).partition(".")[0], []).append(column)
    keys: list[_Key] = []
    may_lack = {part: nullable(of) for part, of in (("", cls), ("request", Request), ("response", Response))}
    for name, columns in keyed.items():
        values = tuple(defaults.get(column.name, MISSING) for column in columns)
        paths = tuple(column.path or column.name for column in columns)
        places = [
            (part, _Field(leaf, column.type, leaf in may_lack[part]))
            for column in columns
            for part, leaf in (column.at,)
        ]
        keys.append(_Key(name, paths, values if len(columns) > 1 else values[0], places))
    return keys


class _Told:
    """Reads all keys of a record at once: one by one is a third of the time of a write."""

    __slots__ = ("_keys", "_read")

    def __init__(self, keys: Sequence[_Key]) -> None:
        self._keys = [(key.name, len(key.paths), key.default) for key in keys]
        self._read = attrgetter(*(path for key in keys for path in key.paths))

    def told(self, record: Record) -> dict[str, object]:
        """Return the values that are not the keys' defaults."""
        values = self._read(record)
        told: dict[str, object] = {}
        at = 0
        for name, size, default in self._keys:
            value = values[at] if size == 1 else values[at : at + size]
            at += size
            if value is not default and value != default:
                told[name] = value
        return told


_ASKED_FOR = ("name", "span_status")
"""What every response has in its header, whatever its value, for earlier versions ask for it."""
_START = _keys(ExchangeStarted, lambda column: column.start, {"span_trace_id": None, "hidden": ()})
_END = _keys(
    ExchangeEnded,
    lambda column: column.ends,
    {
        **{name: value for name, value in _defaults(ExchangeEnded).items() if name not in _ASKED_FOR},
        **dict.fromkeys(("reason_phrase", "stream_id")),
    },
)
_UNANSWERED = [key for key in _END if key.places[0][0] != "response"]
"""The keys of an end to which no response came."""
_START_OF, _END_OF, _UNANSWERED_OF = map(_Told, (_START, _END, _UNANSWERED))
_KINDS: dict[type, str] = {ProcessStarted: "process", SpanRecord: "span", Note: "note", Rotated: "rotated"}
"""Records without bodies, which have their fields in the header."""
_CLASSES: dict[str, type] = {kind: cls for cls, kind in _KINDS.items()}
_FIELDS = {kind: _defaults(cls) for cls, kind in _KINDS.items()}
_TYPES: dict[str, dict[str, Type]] = {
    "process": {"pid": LONG, "ppid": LONG, "started_ns": LONG, "argv": TEXTS, "attributes": OBJECT},
    "span": {column.name: column.type for column in SPANS},
    "note": {"time_ns": LONG, "attributes": OBJECT},
    "rotated": {"carried": TEXTS},
}
"""What their fields may hold where that is not a text."""
_REPEATED = {kind: {one.name for one in SPANS if one.repeats and kind == "span"} for kind in _FIELDS}
_PLACES = {
    kind: [
        _Field(name, _TYPES[kind].get(name, TEXT), name in nullable(cls), name in _REPEATED[kind])
        for name in _FIELDS[kind]
    ]
    for cls, kind in _KINDS.items()
}


def encode(record: Record, delta: Delta) -> list[bytes]:
    """Return the buffers of the record, to be written by one call; `delta` is that of a request's body."""
    header: dict[str, object]
    bodies: list[bytes] = []
    if isinstance(record, ExchangeStarted):
        body = record.request.body
        bodies.append(body[delta.prefix : len(body) - delta.suffix] if delta.base >= 0 else body)
        header = {"t": "request", **_START_OF.told(record)}
        header["whole"] = record.request_complete
        header["body"] = (delta.base, delta.prefix, delta.suffix, len(bodies[0]), delta.target)
    elif isinstance(record, ExchangeEnded):
        header = {"t": "response", **(_UNANSWERED_OF if record.response is None else _END_OF).told(record)}
        if record.response is not None:
            bodies.append(record.response.body)
            header["body"] = len(record.response.body)
        if record.request_body is not None:
            bodies.append(record.request_body)
            header["request"] = len(record.request_body)
    else:
        kind = _KINDS[type(record)]
        header = {"t": kind}
        for name, default in _FIELDS[kind].items():
            value = getattr(record, name)
            if value != default:
                header[name] = value
    return _framed(header, bodies)


def _framed(header: Mapping[str, object], bodies: Sequence[bytes]) -> list[bytes]:
    try:
        text = _encode(header).encode("ascii")
    except Exception:  # a span's attributes may be anything, and raise anything
        text = _encode(_kept(header, [])).encode("ascii")
    head = HEADER.pack(len(text)) + text
    length, crc = len(head), zlib.crc32(head)
    for body in bodies:
        length += len(body)
        crc = zlib.crc32(body, crc)
    return [FRAME.pack(length, crc) + head, *bodies]


def decode(
    text: bytes, bodies: memoryview, slots: dict[int, bytes], odd: dict[str, str]
) -> tuple[Record, bool]:
    """Return the record, and whether it lacks its body because the base of its delta is not in `slots`.

    A value that its field cannot hold is kept as text where that may be, else left out and told in `odd`, by
    field. ValueError for what is no record.
    """
    try:
        header = json.loads(text)
        kind = header["t"]
        if kind == "request":
            return _decode_start(header, bodies, slots, odd)
        if kind == "response":
            return _decode_end(header, bodies, odd), False
        told = [field for field in _PLACES[kind] if field.name in header]
        return _CLASSES[kind](**{field.name: field.fitted(header[field.name], odd) for field in told}), False
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{error!r}"[:200]) from error


def _parts(header: Mapping[str, Any], keys: Iterable[_Key], odd: dict[str, str]) -> Parts:
    parts: Parts = {"": {}, "request": {}, "response": {}}
    for name, _, _, places in keys:
        if name not in header:
            continue
        values = (header[name],) if len(places) == 1 else header[name]
        for (part, field), value in zip(places, values, strict=True):
            parts[part][field.name] = field.fitted(value, odd)
    return parts


_whole = LONG.fit


def _decode_start(
    header: dict[str, Any], bodies: memoryview, slots: dict[int, bytes], odd: dict[str, str]
) -> tuple[ExchangeStarted, bool]:
    base, prefix, suffix, middle, target = map(_whole, header["body"])
    body = b""
    lost = base >= 0 and base not in slots
    if lost:
        slots.pop(target, None)
    else:
        before = slots.get(base, b"")
        if min(prefix, suffix, middle) < 0 or middle > len(bodies) or prefix + suffix > len(before):
            raise ValueError("its body is not what it says")
        body = restore(before, prefix, suffix, bytes(bodies[:middle]))
        if target >= 0:
            slots[target] = body
    parts = _parts(header, _START, odd)
    request = Request(body=body, **parts["request"])
    return ExchangeStarted(request=request, request_complete=header["whole"] is True, **parts[""]), lost


def _decode_end(header: dict[str, Any], bodies: memoryview, odd: dict[str, str]) -> ExchangeEnded:
    parts = _parts(header, _END, odd)
    answered, asked_for = bool(parts["response"]), "request" in header
    size = _whole(header["body"]) if answered else 0
    more = _whole(header["request"]) if asked_for else 0
    if min(size, more) < 0 or size + more > len(bodies):
        raise ValueError("its bodies are not what it says")
    response = Response(body=bytes(bodies[:size]), **parts["response"]) if answered else None
    asked = bytes(bodies[size : size + more]) if asked_for else None
    return ExchangeEnded(response=response, request_body=asked, **parts[""])
