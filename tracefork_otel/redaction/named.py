"""Which of several JSON paths name a place, asked of all places of a text in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..wire.paths import ANY, DEEP, PathTokens

if TYPE_CHECKING:
    from ..wire.json_places import Opened, Place

_States: TypeAlias = frozenset[tuple[int, int]]
"""How far each path is fitted: the path, and how many of its tokens."""


class Named:
    """The paths, and how far each is fitted by what is open; each step down is taken once."""

    def __init__(self, paths: Sequence[PathTokens]) -> None:
        self._paths = paths
        self._names = {token for path in paths for token in path} - {ANY, DEEP}
        self._begun = self._closed((at, 0) for at in range(len(paths)))
        self._open: dict[Opened, _States] = {}
        self._after: dict[tuple[_States, str | int | None], tuple[_States, int | None]] = {}

    def by(self, place: Place) -> int | None:
        """Return the number of the first path that names the place, None if none does or it is a key."""
        if place.kind == "key":
            return None
        if place.within is None:
            return self._first(self._begun)
        return self._step(self._within(place.within), place.token)[1]

    def _within(self, opened: Opened) -> _States:
        states = self._open.get(opened)
        if states is None:
            above: list[Opened] = []
            at: Opened | None = opened
            while at is not None and at not in self._open:
                above.append(at)
                at = at.within
            states = self._begun if at is None else self._open[at]
            for one in reversed(above):
                states = states if one.within is None else self._step(states, one.token)[0]
                self._open[one] = states
        return states

    def _step(self, states: _States, token: str | int) -> tuple[_States, int | None]:
        key = (states, token if token in self._names else None)
        after = self._after.get(key)
        if after is None:
            moved = self._closed(self._moved(states, token))
            after = self._after[key] = moved, self._first(moved)
        return after

    def _moved(self, states: _States, token: str | int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for path, at in states:
            wanted = self._paths[path][at] if at < len(self._paths[path]) else None
            if wanted == DEEP:
                found.append((path, at))
            elif wanted in (ANY, token):
                found.append((path, at + 1))
        return found

    def _closed(self, states: Iterable[tuple[int, int]]) -> _States:
        """Return the states, and those that `**` reaches with no step."""
        found: set[tuple[int, int]] = set()
        for path, begun in states:
            at = begun
            found.add((path, at))
            while at < len(self._paths[path]) and self._paths[path][at] == DEEP:
                at += 1
                found.add((path, at))
        return frozenset(found)

    def _first(self, states: _States) -> int | None:
        return min((path for path, at in states if at == len(self._paths[path])), default=None)
