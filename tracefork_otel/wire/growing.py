"""Requests of conversations, each of which repeats an earlier one and goes on."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .json_places import places
from .json_values import loads
from .messages import Asked, answering
from .registry import load, unless_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .messages import Turn

T = TypeVar("T")
_KEPT = 8
"""So many conversations may take turns with each other."""
_NEXT = re.compile(rb"[ \t\r\n]*(?:,[ \t\r\n]*(?=\{)|(?=\]))")
"""What stands between a turn and the next one, or the end of all."""


class Grown(NamedTuple, Generic[T]):
    """A request, and what it repeats of an earlier one."""

    system: Turn
    turns: tuple[Turn, ...]
    kept: int
    """So many of the turns, from the first one on, are those of the earlier request."""
    before: T | None
    """What was made of that one; None where there is none."""


class _Read(NamedTuple, Generic[T]):
    """A request as it was read."""

    form: str
    body: bytes
    system: Turn
    turns: tuple[Turn, ...]
    start: int
    """Where in the body the first turn may begin."""
    ends: list[int]
    """Where each turn ends; empty where that cannot be told."""
    made: T | None = None


class Growing(Generic[T]):
    """Reads requests one after the other; a turn that an earlier one had at its place is not read again.

    So a conversation costs what it is long, however often it is sent: what is made of a request is handed to
    whoever makes the same of one that goes on from there.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: deque[_Read[T]] = deque(maxlen=_KEPT)

    def read(self, form: str, body: bytes, make: Callable[[Grown[T]], T]) -> T | None:
        """Return what is made of a request of that form; None if it is not understood."""
        return unless_failed(form, lambda: self._read(form, body, make))

    def _read(self, form: str, body: bytes, make: Callable[[Grown[T]], T]) -> T | None:
        known = self._repeated(form, body)
        read = known and _gone_on(known, body)
        if known is None or read is None:
            known, read = None, _whole(form, body)
        if read is None:
            return None
        kept, before = (0, None) if known is None else (len(known.turns), known.made)
        made = make(Grown(read.system, read.turns, kept, before))
        if read.ends:
            self._known.append(read._replace(made=made))
        return made

    def _repeated(self, form: str, body: bytes) -> _Read[T] | None:
        """Return, for itself, the earlier request of which this one repeats most turns, cut to those."""
        best: _Read[T] | None = None
        for known in [one for one in self._known if one.form == form]:
            count = _alike(known, body)
            is_whole = count == len(known.ends)
            if count > len(best.ends if best else ()):
                best = known if is_whole else _cut(known, count)
            if is_whole:
                self._known.remove(known)
        return best


def _cut(known: _Read[T], count: int) -> _Read[T]:
    """Return the request up to so many of its turns."""
    return known._replace(turns=known.turns[:count], ends=known.ends[:count])


def _alike(known: _Read[Any], body: bytes) -> int:
    """Return how many turns the body has as the known one has them."""
    content, ends = memoryview(known.body), known.ends
    # What is found alike is not compared again, so all of it costs one or two looks at the body.
    low, high, middle, alike = 0, len(ends), len(ends), 0
    while low < high:
        end = ends[middle - 1]
        if body.startswith(content[alike:end], alike):
            low, alike = middle, end
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low


def _whole(form: str, body: bytes) -> _Read[Any] | None:
    """Return the request, read from its first turn on; None if it is not understood."""
    found = _asked(form, body)
    if found is None:
        return None
    start, ends = _places(form, body)
    return _Read(form, body, *found, start, ends if len(ends) == len(found.turns) else [])


def _gone_on(known: _Read[T], body: bytes) -> _Read[T] | None:
    """Return the request, read from where it leaves the known one; None if it must be read whole."""
    between = _NEXT.match(body, known.ends[-1])
    if between is None:
        return None
    rest = body[: known.start] + body[between.end() :]
    found, (start, ends) = _asked(known.form, rest), _places(known.form, rest)
    if found is None or start != known.start or len(ends) != len(found.turns):
        return None
    passed = between.end() - start
    turns = (*known.turns, *answering(found.turns, known.turns))
    known.ends.extend([end + passed for end in ends])  # copied with each call it would be the square of them
    return _Read(known.form, body, found.system, turns, start, known.ends, known.made)


def _asked(form: str, body: bytes) -> Asked | None:
    """Return what a request asks, None if it is not understood."""
    request = loads(body)
    return load(form).read_request(request) if isinstance(request, dict) else None


def _places(form: str, body: bytes) -> tuple[int, list[int]]:
    """Return where the turns of a request begin and where each ends; no ends where that cannot be told."""
    key = getattr(load(form), "TURNS", None)  # a package's form may say nothing
    text = body.decode("latin-1")  # so that a character is a byte
    found = [] if key is None else list(places(text, depth=2))
    arrays = [one for one in found if one and one.path == (key,) and one.kind != "key"]
    turns = [one for one in found if one and len(one.path) == 2 and one.path[0] == key]
    if len(arrays) != 1 or None in found or any(text[one.start] != "{" for one in turns):
        return -1, []
    return arrays[0].start + 1, [one.end for one in turns]
