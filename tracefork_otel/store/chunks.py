"""Bodies as numbered chunks, each stored once: a conversation that repeats itself costs its new text only.

A body is compared with an earlier one of its conversation; what both share keeps its chunks, and only the new
middle is cut: in front of messages and of the keys around them, and by its content where no such place comes.
Nothing depends on the body being JSON: any bytes are the concatenation of their chunks.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

from .delta import Recent
from .hashing import Hash
from .runs import Lists, Part

# Places where the wire formats of model providers begin something that later requests repeat or drop whole.
_STRUCTURE = re.compile(
    rb'[\[,]\s*\{\s*"(?:role|parts)"'  # a message: Anthropic, OpenAI chat, Gemini
    rb'|[\[,]\s*\{\s*"type"\s*:\s*"(?:message|reasoning|[a-z_]+_call(?:_output)?)"'  # OpenAI Responses
    rb'|(?<="\}),\s*\{\s*"content"'  # a message with its keys sorted
    rb'|\]\s*,\s*"(?:model|system|tools|tool_choice|messages|temperature|max_tokens|stream|metadata|thinking'
    rb'|stop_sequences|top_p|generationConfig|store|input|instructions)"'
    rb'|,\s*"(?:model|system|tools|messages|instructions)"\s*:|,\s*"input"\s*:\s*\['
)
_CLOSING = re.compile(rb"\]\s{0,9}\}\s{0,9}\Z")
"""The end of a request whose messages come last: the next one has more of them before it."""
LARGEST = 16 * 1024
"""A longer piece is cut by its content, so that a change inside it costs a part of it."""
_SMALLEST = 1024
# About every four kilobytes of text, base64 or random bytes: three bytes of rare enough low halves in a row.
# A search by the regex engine is the fastest rolling hash that the standard library has.
_CONTENT = re.compile(
    b"".join(b"[" + b"".join(b"\\x%x%x" % (high, low) for high in range(16)) + b"]" for low in (3, 0, 7))
)
# More conversations than this may interleave in one segment only at the price of cutting whole bodies again.
_SLOTS = 16

# A response and the request that repeats its text must not be further apart than zstd finds repetitions, so
# the requests and responses of a conversation alternate in stretches of this many bytes.
_REACH = 256 * 1024

_Place: TypeAlias = tuple[int, int, bool, int]
"""Where a chunk goes: its conversation, the stretch of it, whether a response brought it, its line."""


class Chunked(NamedTuple):
    """A body that is chunks: its number among the bodies, its length, and the digest of all of it."""

    number: int
    length: int
    sha256: bytes


@dataclass(slots=True)
class _Known:
    """The body in a slot."""

    number: int = -1
    chunks: list[int] = field(default_factory=list[int])
    edges: list[int] = field(default_factory=lambda: [0])
    """Where each chunk begins and the last ends."""
    line: int = 0
    hashed: int = 0
    """So many of its bytes went into `state`."""
    state: Hash = field(default_factory=sha256)


def cut(body: bytes) -> list[bytes]:
    """Return the chunks of a body taken alone; joined they are the body."""
    edges = [0, *(match.start() for match in _STRUCTURE.finditer(body)), len(body)]
    pieces: list[bytes] = []
    for start, end in pairwise(edges):
        if end - start > LARGEST:
            pieces.extend(_cut_by_content(body, start, end))
        elif end > start:
            pieces.append(body[start:end])
    return pieces


def _cut_by_content(body: bytes, start: int, end: int) -> list[bytes]:
    pieces: list[bytes] = []
    while end - start > LARGEST:
        found = _CONTENT.search(body, start + _SMALLEST, start + LARGEST)
        at = found.end() if found else start + LARGEST
        # A character of UTF-8 stays whole, so that text stays text.
        limit = min(at + 3, end)
        while at < limit and 0x80 <= body[at] < 0xC0:
            at += 1
        pieces.append(body[start:at])
        start = at
    pieces.append(body[start:end])
    return pieces


class Chunks:
    """The chunks of many bodies: numbered as they come, and once more when all are there."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        # Requests and responses apart: a piece that both hold would tear the runs of one of them.
        self._numbers: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        self._places: list[_Place] = []
        self._sizes: dict[int, int] = {}
        """Bytes of all chunks of a conversation."""
        self._conversations: dict[str, int] = {}
        self._recent = Recent(_SLOTS)
        self._known: dict[int, _Known] = {}
        """By slot."""
        self._bodies = Lists()
        self._left: set[int] = set()
        """Chunks that the next request did not repeat."""
        self._lines = 0

    def add(self, body: bytes, conversation: str) -> Chunked:
        """Store a body that others may repeat."""
        delta = self._recent.choose(body, conversation)
        base = self._known.get(delta.base) or _Known()
        goes_on = delta.base >= 0 and delta.base == delta.target
        if not goes_on:
            self._lines += 1
        line = base.line if goes_on else self._lines
        place = self._place(conversation, line, response=False)
        edges, had = base.edges, len(base.chunks)
        kept = bisect_right(edges, delta.prefix) - 1
        # Chunks from number `rest` on lie wholly in the suffix, and not in what the prefix already took.
        rest = max(kept, bisect_left(edges, edges[-1] - delta.suffix))
        if goes_on:
            self._left.update(base.chunks[kept:rest])
        middle = cut(body[edges[kept] : len(body) - edges[-1] + edges[rest]])
        if rest == had and middle and (end := _CLOSING.search(middle[-1], max(len(middle[-1]) - 20, 1))):
            middle[-1:] = middle[-1][: end.start()], middle[-1][end.start() :]
        new = [self._number(piece, place) for piece in middle]
        number = self._bodies.add(Part(base.number, 0, kept), new, Part(base.number, rest, had))
        state, digest = _hashed(base, delta.prefix, body)
        if delta.target >= 0:
            self._recent.keep(delta, body, conversation)
            new = new + base.chunks[rest:]
            sizes = map(len, map(self._data.__getitem__, new))
            # The lists of a body that this one takes the place of are changed, not copied.
            chunks = base.chunks if goes_on else base.chunks[:kept]
            edges = edges if goes_on else edges[: kept + 1]
            chunks[kept:] = new
            edges[kept:] = list(accumulate(sizes, initial=edges[kept]))
            self._known[delta.target] = _Known(number, chunks, edges, line, delta.prefix, state)
        return Chunked(number, len(body), digest)

    def add_alone(self, body: bytes, conversation: str) -> Chunked:
        """Store a body that nothing will repeat from its start, such as a response."""
        place = self._place(conversation, 0, response=True)
        numbers = [self._number(piece, place) for piece in cut(body)]
        return Chunked(self._bodies.add(numbers), len(body), sha256(body).digest())

    def settle(self) -> tuple[list[bytes], list[list[int]]]:
        """Return the chunks in their final order, and the runs of each body, by its number.

        What follows each other in a conversation gets numbers that do, so that a body is a few runs of
        numbers, however many conversations and responses came in between.
        """
        places, left = self._places, self._left
        order = sorted(range(len(self._data)), key=lambda number: (*places[number], number in left))
        final = [0] * len(order)
        for number, old in enumerate(order):
            final[old] = number
        return [self._data[old] for old in order], self._bodies.runs(final)

    def _place(self, conversation: str, line: int, *, response: bool) -> _Place:
        number = self._conversations.setdefault(conversation, len(self._conversations))
        return number, self._sizes.get(number, 0) // _REACH, response, line

    def _number(self, piece: bytes, place: _Place) -> int:
        key = blake2b(piece, digest_size=16).digest()
        numbers = self._numbers[place[2]]
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = len(self._data)
            self._data.append(piece)
            self._places.append(place)
            self._sizes[place[0]] = self._sizes.get(place[0], 0) + len(piece)
        self._left.discard(number)
        return number


def _hashed(base: _Known, prefix: int, body: bytes) -> tuple[Hash, bytes]:
    """Return the state of a hash after the prefix that the body shares with a base, and the body's digest."""
    content = memoryview(body)
    known = base.hashed <= prefix
    state = base.state.copy() if known else sha256()
    state.update(content[base.hashed if known else 0 : prefix])
    whole = state.copy()
    whole.update(content[prefix:])
    return state, whole.digest()
