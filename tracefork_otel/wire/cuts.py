"""Where a body is cut for a tape file: one message, tool or server-sent event a piece."""

from __future__ import annotations

import base64
import itertools
import json
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from operator import attrgetter, itemgetter
from typing import NamedTuple

from .json_places import places
from .sse import is_sse

_EVENT = re.compile(rb".*?\n\n", re.DOTALL)

_KEPT = 8
"""So many conversations may take turns with each other."""

# The key of a line tells which bytes stand before its JSON value: so a message stands in the file as the JSON
# that it is, and messages that follow each other stay neighbours (a comma on its own line would part them).
_SEPARATORS = (b", ", b",", b"")


class _Cut(NamedTuple):
    """A place where a JSON body is cut: in front of an object of an array, or of an array's end."""

    at: int
    end: int
    """Where the object ends; 0 for the end of an array."""
    array: int
    """Of the arrays with objects, which one this is."""


class _Known(NamedTuple):
    """A body that was cut, by its number."""

    number: int
    body: bytes
    cuts: list[_Cut]


class Pieced(NamedTuple):
    """The pieces of a body: so many that an earlier body begins with, and its own after them."""

    earlier: int
    """The number of that body among those that were cut before, -1 without one."""
    kept: int
    new: list[bytes]


class Cutter:
    """Cuts one body after the other; what one repeats of an earlier one is not read again."""

    __slots__ = ("_known", "_number")

    def __init__(self) -> None:
        self._known: deque[_Known] = deque(maxlen=_KEPT)
        self._number = -1
        """Of the last body."""

    def cut(self, body: bytes) -> Pieced:
        """Return the pieces of a body, in order: joined they are the body, byte for byte."""
        self._number += 1
        if is_sse(body, None):
            return Pieced(-1, 0, _cut_events(body))
        if not body.startswith(b"{"):
            return Pieced(-1, 0, [body] if body else [])
        alike = [(count, one) for one in self._known if (count := _alike(one, body))]
        count, known = max(alike, key=itemgetter(0)) if alike else (0, _Known(-1, b"", []))
        cuts, kept = _going_on(known, count, body) or (_cuts(body), 0)
        edges = [cuts[kept - 1].at if kept else 0, *(one.at for one in cuts[kept:]), len(body)]
        new = [body[a:b] for a, b in itertools.pairwise(edges)]
        if kept and count == len(known.cuts):
            self._known.remove(known)
        if cuts:
            self._known.append(_Known(self._number, body, cuts))
        return Pieced(known.number if kept else -1, kept, new)


def _alike(known: _Known, body: bytes) -> int:
    """Return how many cuts the body begins with that the known one has."""
    content, cuts = memoryview(known.body), known.cuts
    low, high, alike = 0, len(cuts), 0
    while low < high:
        middle = (low + high + 1) // 2
        end = cuts[middle - 1].end or cuts[middle - 1].at
        if body.startswith(content[alike:end], alike):
            low, alike = middle, end
        else:
            high = middle - 1
    return low


def _going_on(known: _Known, count: int, body: bytes) -> tuple[list[_Cut], int] | None:
    """Return where the body is cut, and how many pieces are the known one's; None: it must be read whole."""
    cuts = known.cuts
    first, last = max(
        _arrays(cuts, count), key=lambda ends: cuts[ends[1]].end - cuts[ends[0]].end, default=(0, 0)
    )
    if first == last:
        return None
    # Both stand after an object of one array, so that what is between them says nothing of what follows.
    start, end = cuts[first].end, cuts[last].end
    found = _cuts(body[:start] + body[end:])
    if found[: first + 1] != cuts[: first + 1]:
        return None
    passed = end - start
    after = [one._replace(at=one.at + passed, end=one.end and one.end + passed) for one in found[first + 1 :]]
    return [*cuts[: last + 1], *after], last + 1


def _arrays(cuts: list[_Cut], count: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last object of each array among so many cuts, the last array first."""
    while count:
        first = bisect_left(cuts, cuts[count - 1].array, key=attrgetter("array"))
        last = count - 1 if cuts[count - 1].end else count - 2
        yield first, last
        count = first


def cut(body: bytes) -> list[bytes]:
    """Return the pieces of a body alone."""
    return Cutter().cut(body).new


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


def _cuts(body: bytes) -> list[_Cut]:
    """Return the starts of the objects in the arrays of the outermost object, and the ends of those arrays.

    All objects of an array but its first start with the comma before them.
    """
    found: list[_Cut] = []
    if not _is_json(body):
        return found
    text = body.decode("latin-1")  # so that a character is a byte
    objects, end, array = False, 0, 0
    for place in places(text, depth=2):
        if place is None or place.kind == "key":
            continue
        if len(place.path) == 1 and objects:
            found.append(_Cut(place.end - 1, 0, array))
            objects = False
            array += 1
        elif len(place.path) == 2 and isinstance(place.path[1], int):
            if text[place.start] == "{":
                start = text.index(",", end, place.start) if objects else place.start
                found.append(_Cut(start, place.end, array))
                objects = True
            end = place.end
    return found
