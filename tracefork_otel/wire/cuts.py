"""Where a body is cut for a tape file: one message, tool or server-sent event a piece."""

from __future__ import annotations

import base64
import itertools
import json
import re

from .json_places import places
from .sse import is_sse

_EVENT = re.compile(rb".*?\n\n", re.DOTALL)

# The key of a line tells which bytes stand before its JSON value: so a message stands in the file as the JSON
# that it is, and messages that follow each other stay neighbours (a comma on its own line would part them).
_SEPARATORS = (b", ", b",", b"")


def cut(body: bytes) -> list[bytes]:
    """Return the pieces of a body, in order: joined they are the body, byte for byte."""
    if is_sse(body, None):
        return _cut_events(body)
    if body.startswith(b"{") and _is_json(body):
        return _cut_at(body, _message_positions(body))
    return [body] if body else []


def encode_piece(piece: bytes) -> bytes:
    """Return the line of a tape that holds this piece: as JSON where it is JSON, else as text or base64."""
    for separator in _SEPARATORS:
        value = piece[len(separator) :]
        if piece.startswith(separator) and value[:1] in (b"{", b"[") and _fits_a_line(value):
            return b'{"' + separator + b'json":' + value + b"}"
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return b'{"base64":"' + base64.b64encode(piece) + b'"}'
    return b'{"text":' + json.dumps(text, ensure_ascii=False).encode() + b"}"


def decode_piece(line: bytes) -> bytes:
    """Return the piece that `encode_piece` made this line of; raise ValueError for any other line."""
    for separator in _SEPARATORS:
        key = b'{"' + separator + b'json":'
        if line.startswith(key) and line.endswith(b"}"):
            return separator + line[len(key) : -1]
    value: object = json.loads(line.decode())
    if isinstance(value, dict) and len(value) == 1:  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(text := value.get("text"), str):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            return text.encode()
        if isinstance(coded := value.get("base64"), str):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            return base64.b64decode(coded, validate=True)
    raise ValueError("neither json, text nor base64")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _fits_a_line(value: bytes) -> bool:
    return b"\n" not in value and b"\r" not in value and _is_json(value)


def _cut_events(body: bytes) -> list[bytes]:
    pieces = _EVENT.findall(body)
    rest = body[sum(map(len, pieces)) :]
    return [*pieces, rest] if rest else pieces


def _cut_at(body: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *positions, len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges) if b > a]


def _message_positions(body: bytes) -> list[int]:
    """Return the starts of the objects in the arrays of the outermost object, and the ends of those arrays.

    All objects of an array but its first start with the comma before them.
    """
    positions: list[int] = []
    text = body.decode("latin-1")  # so that a character is a byte
    objects, end = False, 0
    for place in places(text, depth=2):
        if place is None or place.kind == "key":
            continue
        if len(place.path) == 1 and objects:
            positions.append(place.end - 1)
            objects = False
        elif len(place.path) == 2 and isinstance(place.path[1], int):
            if text[place.start] == "{":
                positions.append(text.index(",", end, place.start) if objects else place.start)
                objects = True
            end = place.end
    return positions
