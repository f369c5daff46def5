"""Lists of numbers as runs: those of a conversation go on from each other, and none is written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """What a list takes over from an earlier one: its numbers from place `start` up to `end`."""

    of: int
    start: int
    end: int


class Lists:
    """Lists of numbers, each told by what is new in it, so that all together cost what is new in them."""

    __slots__ = ("_parts", "_sizes")

    def __init__(self) -> None:
        self._parts: list[tuple[Part | list[int], ...]] = []
        self._sizes: list[int] = []

    def add(self, *parts: Part | list[int]) -> int:
        """Add the list that these make one after the other; return its own number."""
        self._parts.append(tuple(p for p in parts if not isinstance(p, Part) or p.start < p.end))
        self._sizes.append(sum(p.end - p.start if isinstance(p, Part) else len(p) for p in parts))
        return len(self._parts) - 1

    def size(self, number: int) -> int:
        """Return the length of a list."""
        return self._sizes[number]

    def runs(self, final: Sequence[int]) -> list[list[int]]:
        """Return each list as `runs` does, `final` standing for its numbers."""
        found: list[list[int]] = []
        for parts in self._parts:
            flat: list[int] = []
            for part in parts:
                if isinstance(part, Part):
                    pairs = between(found[part.of], part.start, part.end)
                else:
                    pairs = _pairs(runs(map(final.__getitem__, part)))
                for first, last in pairs:
                    if flat and flat[-1] == first - 1:
                        flat[-1] = last
                    else:
                        flat += (first, last)
            found.append(flat)
        return found


def runs(numbers: Iterable[int]) -> list[int]:
    """Return the first and the last of each run of numbers that follow each other, flat."""
    flat: list[int] = []
    last = -2
    for number in numbers:
        if number - 1 != last:
            flat += (last, number)
        last = number
    # Each first number came with the last of the run before it; before the first run there is none.
    return [*flat[1:], last] if flat else flat


def between(flat: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of the numbers from place `start` to `end`, which is later."""
    at = 0
    for first, last in _pairs(flat):
        after = at + last - first + 1
        if after > start:
            yield first + max(start - at, 0), min(last, first + end - at - 1)
        if after >= end:
            return
        at = after


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many numbers two lists begin with alike, both given as runs."""
    count = 0
    for (first, last), (also_first, also_last) in zip(_pairs(one), _pairs(other), strict=False):
        if first != also_first:
            break
        count += min(last, also_last) - first + 1
        if last != also_last:
            break
    return count


def _pairs(flat: Sequence[int]) -> Iterator[tuple[int, int]]:
    each = iter(flat)
    return zip(each, each, strict=True)
