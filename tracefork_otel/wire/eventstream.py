"""The AWS event stream (`application/vnd.amazon.eventstream`): binary messages of headers and a payload.

A message is its length and that of its headers (4 bytes each), the CRC32 of both, the headers, the payload,
and the CRC32 of all before. Numbers are big-endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from .framing import Event, event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PRELUDE, _CRC = struct.Struct(">III"), struct.Struct(">I")
# The smallest message: a prelude and the CRC of the whole.
_LEAST = _PRELUDE.size + _CRC.size
# The bytes of a header's value by its type; a text or bytes (6, 7) begin with their length.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_COUNTED = (6, 7)
_TEXT = 7


class Frame(NamedTuple):
    """One message: its headers that are text, its payload, and all its bytes."""

    headers: Mapping[str, str]
    payload: bytes
    spelled: bytes


class AwsEventStream:
    """Events that a header names and that carry JSON; an exception is an event of its own name."""

    name = "an AWS event stream"
    content_type = "application/vnd.amazon.eventstream"

    def holds(self, body: bytes, content_type: str | None) -> bool:
        """Return whether the type says so, or the body begins with a sound prelude."""
        told = content_type is not None and self.content_type in content_type.lower()
        return told or _length(body, 0) is not None

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield the event of each whole message; one that tells of an error says `message`."""
        for one in frames(body):
            kind = one.headers.get(":message-type")
            if kind == "error":
                said = {"message": one.headers.get(":error-message", "")}
                yield event(said, _exception(one.headers.get(":error-code", "error")))
            else:
                name = one.headers.get(":exception-type" if kind == "exception" else ":event-type")
                yield Event(name, one.payload)

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return a message for each event."""
        return [_message(one) for one in events]

    def cut(self, body: bytes) -> Sequence[bytes]:
        """Return the messages as they are; what follows the last whole one is a chunk of its own."""
        found = [one.spelled for one in frames(body)]
        rest = body[sum(map(len, found)) :]
        return [*found, rest] if rest else found


def frames(body: bytes) -> Iterator[Frame]:
    """Yield the whole messages of a stream, up to where it is cut or damaged."""
    at = 0
    while (length := _length(body, at)) is not None and len(body) - at >= length:
        spelled = body[at : at + length]
        if _CRC.unpack(spelled[-_CRC.size :])[0] != crc32(spelled[: -_CRC.size]):
            return
        start = _PRELUDE.size + _PRELUDE.unpack_from(spelled)[1]
        yield Frame(_headers(spelled[_PRELUDE.size : start]), spelled[start : -_CRC.size], spelled)
        at += length


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return the bytes of a message."""
    spelled = b"".join(_header(name, value) for name, value in headers.items())
    lengths = struct.pack(">II", _LEAST + len(spelled) + len(payload), len(spelled))
    message = b"".join((lengths, _CRC.pack(crc32(lengths)), spelled, payload))
    return message + _CRC.pack(crc32(message))


def is_exception(one: Event) -> bool:
    """Return whether an event tells of an error that ended the stream."""
    return one.name is not None and one.name.endswith("Exception")


def _exception(code: str) -> str:
    """Return an error's code as the name of an exception."""
    return code if code.endswith("Exception") else f"{code}Exception"


def _message(one: Event) -> bytes:
    """Return the message of one event."""
    kind = "exception" if is_exception(one) else "event"
    headers = {
        f":{kind}-type": one.name or "",
        ":content-type": "application/json",
        ":message-type": kind,
    }
    return frame(headers, one.data)


def _length(body: bytes, at: int) -> int | None:
    """Return how long the message is that begins there, None where no sound prelude does."""
    if len(body) - at < _PRELUDE.size:
        return None
    length, headers, crc = _PRELUDE.unpack_from(body, at)
    sound = crc == crc32(body[at : at + 8]) and length >= _LEAST + headers
    return length if sound else None


def _header(name: str, value: str) -> bytes:
    """Return a header whose value is text."""
    key, text = name.encode(), value.encode()
    return struct.pack(f">B{len(key)}sBH", len(key), key, _TEXT, len(text)) + text


def _headers(spelled: bytes) -> dict[str, str]:
    """Return the headers that are text, as far as they can be read."""
    found: dict[str, str] = {}
    at = 0
    while at + 1 < len(spelled):
        start = at + 1 + spelled[at]
        name, kind = spelled[at + 1 : start], spelled[start : start + 1]
        if not kind:
            break
        start += 1
        size = _SIZES.get(kind[0])
        if kind[0] in _COUNTED:
            size = int.from_bytes(spelled[start : start + 2], "big")
            start += 2
        if size is None:
            break
        if kind[0] == _TEXT:
            found[name.decode("utf-8", "replace")] = spelled[start : start + size].decode("utf-8", "replace")
        at = start + size
    return found
