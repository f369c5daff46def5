"""How the time of a pattern grows with the length of a text, and how much of it one text may take.

Python's `re` cannot be interrupted, so this is known before: from the pattern, what repeats in it and can run
over the same characters; from the text, how long its stretches of such characters are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import factorial

from .positions import Positions, Unjudged, positions

STEPS = 2_500_000
"""What patterns that are not linear may take for one body: some 0.03 s at 10 ns a step. Of random patterns on
random texts a few took seven times what was foreseen."""
_ENDLESS = 2**16
_WORK = 20_000
"""How many states the search for two ways through a pattern may look at."""
_UNJUDGED = 4
"""The power that is assumed of a pattern that could not be judged."""
_SAMPLE = "".join(map(chr, range(128))) + "éßªσ²٣Ⅷ\xa0\u2003\u200b中😀ſKİı"
_TRIED = 512
"""How many characters of its own a pattern that is judged adds to the sample: 0.7 s with 400 of them."""
_FAR = 32
"""Characters over which the ways through a pattern are counted."""
_SHORT = 16
"""Texts up to this length are not looked into before a pattern is."""


class Explodes(Exception):
    """The pattern takes exponential time on some texts."""


@dataclass(slots=True)
class Budget:
    """What is left of the steps that one body, or one text, may take."""

    left: int = STEPS


class _Letters(dict[int, str]):
    """What a character is to a pattern: one that may begin a match, one within it, or neither."""

    def __init__(self, first: Iterable[str], within: Iterable[str]) -> None:
        super().__init__()
        self._first = _any(first)
        self._within = _any(within)

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = "s" if self._first.match(letter) else "x" if self._within.match(letter) else "\n"
        self[code] = kind
        return kind


@dataclass(frozen=True)
class Growth:
    """How a pattern's time grows: for each start with this power of the length of the stretch that it is in.

    Where the power is 0, no start is tried over what another one was.
    """

    power: int
    factor: int
    reach: int
    """The longest match, or so much as no text has."""
    prefix: str
    literals: tuple[str, ...]
    """The texts without which there is no match."""
    first: tuple[str, ...]
    within: tuple[str, ...]
    anchors: tuple[str, ...] = ()
    """Texts of which one stands in each match, if any are given."""
    sign: re.Pattern[str] | None = None
    """What is found in each text in which the pattern is, if it is given."""

    @cached_property
    def _letters(self) -> _Letters:
        return _Letters(self.first, self.within)

    @cached_property
    def _overlapping(self) -> int:
        """How often the prefix may begin within itself: counting finds but those that stand side by side."""
        size = len(self.prefix)
        period = next(at for at in range(1, size + 1) if self.prefix.startswith(self.prefix[at:]))
        return -(-size // period)

    @property
    def linear(self) -> bool:
        """Whether any text takes time in proportion to its length."""
        return self.power == 0 and self.factor <= 8

    def may_match(self, text: str) -> bool:
        """Return whether all is in the text that each match has."""
        return all(one in text for one in self.literals) and self.is_anchored(text)

    def is_anchored(self, text: str) -> bool:
        """Return whether one of the anchors is in the text, and the sign, which JSON writes as they are."""
        return (not self.anchors or any(one in text for one in self.anchors)) and (
            self.sign is None or self.sign.search(text) is not None
        )

    @cached_property
    def letters(self) -> frozenset[str]:
        """The characters without which there is no match, as JSON writes them, but for `\\u`."""
        return frozenset(letter for one in self.literals for letter in one if " " < letter <= "~")

    def steps(self, text: str) -> int:
        """Return how many steps beyond its length the text can take, at most."""
        size = len(text)
        if self.linear or size < 2:
            return 0
        if size <= _SHORT and not self.prefix:
            return self._cost(size, size)
        runs = text.translate(self._letters).split("\n")
        longest = max(map(len, runs))
        if self.prefix:
            return self._cost(text.count(self.prefix) * self._overlapping, longest)
        rough = self._cost(size, longest)
        if rough <= size:
            return rough
        return sum(self._cost(run.count("s"), len(run)) * times for run, times in Counter(runs).items())

    def _cost(self, starts: int, length: int) -> int:
        return (
            starts * self.factor * min(length, self.reach) ** max(self.power, 1) // factorial(self.power + 1)
        )


def anchored(anchors: tuple[str, ...], sign: re.Pattern[str] | None = None) -> Growth:
    """Return the growth of a pattern known to be linear, with texts of which one stands in a match."""
    return Growth(0, 1, 0, "", (), (), (), anchors, sign)


def growth(regex: re.Pattern[str]) -> Growth:
    """Return how the pattern's time grows; raise Explodes for one that may take exponential time."""
    try:
        _Judged(positions(regex, endless=True)).power()
        made = positions(regex)
        judged = _Judged(made)
        power = judged.power()
    except Unjudged:
        return Growth(_UNJUDGED, 1, _ENDLESS**2, "", (), ("(?s:.)",), ("(?s:.)",))
    within = (made.takes[at] for at in range(len(made.takes)) if at not in judged.done)
    prefix = made.prefix if len(made.prefix) > 1 else ""
    return Growth(
        power,
        judged.factor(power),
        judged.reach(),
        prefix,
        made.literals,
        tuple(dict.fromkeys(made.takes[at] for at in made.first)),
        tuple(dict.fromkeys(within)),
    )


class _Judged:
    """A pattern's positions, and those of a search, over one character of each kind that it tells apart."""

    def __init__(self, made: Positions) -> None:
        size = len(made.takes)
        own = "".join(dict.fromkeys(c for takes in made.takes for c in takes))
        if len(own) > _TRIED:
            raise Unjudged("it has too many characters of its own")
        near = "".join(chr(min(ord(c) + 1, 0x10FFFF)) for c in own)
        takes = {one: re.compile(one) for one in (*made.takes, made.before or "(?s:.)")}
        kinds: dict[tuple[bool, ...], str] = {}
        for letter in dict.fromkeys(_SAMPLE + own + near):
            kinds.setdefault(tuple(one.match(letter) is not None for one in takes.values()), letter)
        bits = dict.fromkeys(takes, 0)
        for at, told in enumerate(kinds):
            for one, takes_it in zip(takes, told, strict=True):
                bits[one] |= takes_it << at
        before, every = bits[made.before or "(?s:.)"], (1 << len(kinds)) - 1
        # A search stands before the pattern, where a match may begin (`size`) or may not (`size + 1`).
        self.takes = [*(bits[one] for one in made.takes), before, every & ~before]
        around = {size: 1, size + 1: 1}
        self.follow = [*made.follow, {**made.first, **around}, around]
        self._letters = range(len(kinds))
        self._size = size
        self._made = made
        self._work = 0
        self._reached = self._closure()
        self.done = self._done()

    def _closure(self) -> list[set[int]]:
        """Return for each position those that can come after it."""
        reached: list[set[int]] = []
        for start in range(len(self.follow)):
            seen: set[int] = set()
            waiting = [start]
            while waiting:
                for one in self.follow[waiting.pop()]:
                    if one not in seen and self.takes[one]:
                        seen.add(one)
                        waiting.append(one)
            reached.append(seen)
        return reached

    def _done(self) -> frozenset[int]:
        """Return the positions from which a match can no longer fail, so that nothing else is tried."""
        if self._made.may_fail:
            return frozenset()
        last = self._made.last.keys()
        return frozenset(at for at in range(self._size) if at in last and self._reached[at] <= last)

    def reach(self) -> int:
        """Return the length of the longest match, or so much as no text has."""
        loops = any(at in self._reached[at] for at in range(self._size))
        return _ENDLESS**2 if loops else self._size

    def power(self) -> int:
        """Return with which power the ways through it grow for each start; raise Explodes if with none."""
        loops = [at for at in range(len(self.follow)) if at in self._reached[at] and at not in self.done]
        groups: list[list[int]] = []
        for at in loops:
            known = next(
                (one for one in groups if at in self._reached[one[0]] and one[0] in self._reached[at]), None
            )
            if known is None:
                groups.append([at])
            else:
                known.append(at)
        for group in groups:
            if group[0] < self._size and self._doubles(frozenset(group)):
                raise Explodes
        chains = {
            a: [b for b, other in enumerate(groups) if a != b and self._both(group, other)]
            for a, group in enumerate(groups)
        }

        def longest(at: int) -> int:
            return max((1 + longest(one) for one in chains[at]), default=0)

        if not any(chains.values()):
            return 0
        return 1 + max((longest(at) for at, group in enumerate(groups) if group[0] < self._size), default=0)

    def _doubles(self, group: frozenset[int]) -> bool:
        """Return whether some text leads from a position of the group back to it in two ways."""
        if any(ways > 1 for at in group for one, ways in self.follow[at].items() if one in group):
            return True
        before: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        waiting: list[tuple[int, ...]] = [(at, at) for at in group]
        seen = set(waiting)
        while waiting:
            pair = waiting.pop()
            for then in self._steps(pair):
                if group.issuperset(then):
                    before.setdefault(then, set()).add(pair)
                    if then not in seen:
                        seen.add(then)
                        waiting.append(then)
        back: set[tuple[int, ...]] = {(at, at) for at in group}
        waiting = [*back]
        while waiting:
            for pair in before.get(waiting.pop(), ()):
                if pair[0] != pair[1]:
                    return True
                if pair not in back:
                    back.add(pair)
                    waiting.append(pair)
        return False

    def _both(self, group: list[int], other: list[int]) -> bool:
        """Return whether some text leads from the group to itself, to the other, and from that to itself."""
        if other[0] not in self._reached[group[0]]:
            return False
        here, there = frozenset(group), frozenset(other)
        for p in group:
            for q in other:
                if self._meets(p, q, here, there):
                    return True
        return False

    def _meets(self, p: int, q: int, here: frozenset[int], there: frozenset[int]) -> bool:
        goal = (p, q, q)
        waiting: list[tuple[int, ...]] = [(p, p, q)]
        seen = set(waiting)
        while waiting:
            for then in self._steps(waiting.pop()):
                if then == goal:
                    return True
                x, y, z = then
                if then not in seen and x in here and z in there and (q == y or q in self._reached[y]):
                    seen.add(then)
                    waiting.append(then)
        return False

    def _steps(self, states: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield where the states can be after one more character, the same for all."""
        found: list[tuple[tuple[int, ...], int]] = [((), -1)]
        for state in states:
            found = [
                ((*one, then), bits & self.takes[then])
                for one, bits in found
                for then in self.follow[state]
                if bits & self.takes[then]
            ]
        self._work += len(found) + 1
        if self._work > _WORK:
            raise Unjudged("it is too tangled")
        return (one for one, _ in found)

    def factor(self, power: int) -> int:
        """Return how many times more ways through the pattern there are than its power says, at most."""
        most = 0
        for start in range(self._size):
            for letter in self._letters:
                alive, total = {start: 1}, 0
                for _ in range(_FAR):
                    after: dict[int, int] = {}
                    for at, ways in alive.items():
                        for then, more in self.follow[at].items():
                            if self.takes[then] >> letter & 1 and then not in self.done:
                                after[then] = after.get(then, 0) + ways * more
                    if not after:
                        break
                    alive = after
                    total += sum(alive.values())
                most = max(most, total)
        return max(1, most * factorial(power) // _FAR ** max(power, 1))


def _any(takes: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(takes) or "(?!)")
