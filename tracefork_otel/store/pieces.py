"""Bodies put together from chunks; those of a conversation are checked as they grow, each chunk once."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

from .hashing import Hash
from .runs import between, shared

AT_ONCE = 16 * 1024 * 1024
"""Bytes of requests that may be held at once: those of a conversation grow with the square of its calls."""
_KEPT = 16
"""Eight conversations may take turns with each other, each of which goes on or asks once more."""
_FEW = 16
"""So many chunks are hashed sooner than a body is looked for that shares them."""


class _Checked(NamedTuple):
    """A body whose digest was taken, and the state of the hash after the first so many of its chunks."""

    before: bytes
    """What was taken in before the body."""
    parts: Sequence[int]
    read: int
    state: Hash


@dataclass(slots=True, kw_only=True)
class Pieces:
    """The chunks of some row groups of a file, in memory."""

    name: str
    """Of the file."""
    starts: Sequence[int] = (0,)
    """The first chunk of each row group, and the number of all chunks."""
    groups: Mapping[int, tuple[array[int], memoryview]] = field(default_factory=dict)
    """Where the chunks of a row group begin and the last ends, and their bytes."""
    broken: Mapping[int, str] = field(default_factory=dict)
    """Row groups that cannot be read, and why."""
    unread: str = ""
    """Why nothing of the file can be read."""
    _checked: tuple[_Checked, ...] = ()

    @classmethod
    def of(cls, name: str, chunks: Sequence[bytes]) -> Pieces:
        """Return these chunks as one row group."""
        edges = array("q", accumulate(map(len, chunks), initial=0))
        return cls(name=name, starts=(0, len(chunks)), groups={0: (edges, memoryview(b"".join(chunks)))})

    def body(self, parts: Sequence[int]) -> bytes:
        """Return the body of these runs of chunks; raise LookupError saying what is missing."""
        return b"".join(self._between(parts))

    def digest(self, parts: Sequence[int], before: bytes = b"") -> bytes:
        """Return the sha256 of `before` and that body; raise LookupError as `body` does."""
        checked = self._checked  # other threads take digests too: it is replaced, never changed
        known, count = _begun(checked, parts, before)
        state = sha256(before) if known is None else known.state.copy()
        for piece in self._between(parts, known.read if known else 0, count):
            state.update(piece)
        # The one found stays: what comes next may share less with this body, as after a request asked twice.
        others = [one for one in checked if one is not known]
        found = (known,) if known and known.read < count else ()
        self._checked = (*others, *found, _Checked(before, parts, count, state))[-_KEPT:]
        whole = state.copy()
        for piece in self._between(parts, count):
            whole.update(piece)
        return whole.digest()

    def size(self, parts: Sequence[int]) -> int:
        """Return how many bytes that body has; raise LookupError as `body` does."""
        return sum(map(len, self._between(parts)))

    def _between(self, parts: Sequence[int], start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Yield the bytes of the chunks of these runs, from place `start` up to `end`."""
        if self.unread:
            raise LookupError(self.unread)
        size = _count(parts)
        if parts and max(parts) >= self.starts[-1]:
            raise LookupError(f"{self.name} holds no chunk {max(parts)}")
        until = size if end is None else end
        for first, last in between(parts, start, until) if start < until else ():
            for group in range(bisect_right(self.starts, first) - 1, bisect_right(self.starts, last)):
                if group in self.broken:
                    raise LookupError(self.broken[group])
                edges, content = self.groups[group]
                begins, ends = self.starts[group], self.starts[group + 1]
                yield content[edges[max(first, begins) - begins] : edges[min(last + 1, ends) - begins]]


def _begun(checked: Sequence[_Checked], parts: Sequence[int], before: bytes) -> tuple[_Checked | None, int]:
    """Return the body of which most that these chunks begin with was hashed, and how many both begin with."""
    first, enough = parts[:1], _count(parts) - _FEW
    best, most, alike = None, -1, 0
    for one in reversed(checked):
        if one.read <= most or one.before != before or one.parts[:1] != first:
            continue
        count = shared(one.parts, parts)
        if 0 < count >= one.read:
            best, most, alike = one, one.read, count
            if most >= enough:
                break
    return best, alike


def _count(parts: Sequence[int]) -> int:
    """Return how many chunks these runs have."""
    return sum(parts[1::2]) - sum(parts[::2]) + len(parts) // 2


@dataclass(frozen=True, slots=True)
class Stored:
    """A body of these runs of chunks, put together each time it is called."""

    chunks: Pieces
    parts: Sequence[int]

    def __call__(self) -> bytes:
        """Return its bytes."""
        return self.chunks.body(self.parts)

    def __len__(self) -> int:
        """Return how many they are, reading none."""
        return self.chunks.size(self.parts)

    def digest(self, before: bytes = b"") -> bytes:
        """Return the sha256 of `before` and the body after it; what bodies begin with alike is read once."""
        return self.chunks.digest(self.parts, before)


def groups_of(starts: Sequence[int], bodies: Iterable[Sequence[int]]) -> set[int]:
    """Return the row groups that these bodies have chunks in."""
    last = len(starts) - 2
    if last <= 0:
        return {0} if last == 0 else set()
    found: set[int] = set()
    for parts in bodies:
        for first, until in zip(parts[::2], parts[1::2], strict=True):
            found.update(
                range(bisect_right(starts, first) - 1, min(bisect_right(starts, until) - 1, last) + 1)
            )
            if len(found) > last:
                return found
    return found
