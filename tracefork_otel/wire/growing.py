"""Requests of conversations, each of which repeats an earlier one and goes on."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .json_places import places
from .json_values import loads
from .messages import Asked, answering, call_names
from .registry import load, unless_failed

if TYPE_CHECKING:
    from .messages import Turn

_KEPT = 8
"""So many conversations may take turns with each other."""
_NEXT = re.compile(rb"[ \t\r\n]*(?:,[ \t\r\n]*(?=\{)|(?=\]))")
"""What stands between a turn and the next one, or the end of all."""


class _Read(NamedTuple):
    """A request as it was read."""

    form: str
    body: bytes
    system: Turn
    turns: tuple[Turn, ...]
    start: int
    """Where in the body the first turn may begin."""
    ends: list[int]
    """Where each turn ends; empty where that cannot be told."""


class Growing:
    """Reads requests one after the other; a turn that an earlier one had at its place is not read again.

    So a conversation costs what it is long, however often it is sent.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: deque[_Read] = deque(maxlen=_KEPT)

    def messages(self, form: str, body: bytes) -> Turn:
        """Return a request of that form as messages, system first; empty if it is not understood."""
        return unless_failed(form, lambda: self._messages(form, body)) or ()

    def _messages(self, form: str, body: bytes) -> Turn:
        known = self._repeated(form, body)
        read = (known and _gone_on(known, body)) or _whole(form, body)
        if read is None:
            return ()
        if read.ends:
            self._known.append(read)
        return Asked(read.system, read.turns).messages

    def _repeated(self, form: str, body: bytes) -> _Read | None:
        """Return the earlier request of which this one repeats most turns, cut to those."""
        best: _Read | None = None
        for known in [one for one in self._known if one.form == form]:
            count = len(known.ends)
            if not body.startswith(known.body[: known.ends[-1]]):
                count = bisect_left(known.ends, True, key=lambda end: not body.startswith(known.body[:end]))
            if count > len(best.ends if best else ()):
                best = known._replace(turns=known.turns[:count], ends=known.ends[:count])
            if count == len(known.ends):
                self._known.remove(known)
        return best


def _whole(form: str, body: bytes) -> _Read | None:
    """Return the request, read from its first turn on; None if it is not understood."""
    asked = _asked(form, body)
    if asked is None:
        return None
    start, ends = _places(form, body)
    return _Read(form, body, *asked, start, ends if len(ends) == len(asked.turns) else [])


def _gone_on(known: _Read, body: bytes) -> _Read | None:
    """Return the request, read from where it leaves the known one; None if it must be read whole."""
    between = _NEXT.match(body, known.ends[-1])
    if between is None:
        return None
    rest = body[: known.start] + body[between.end() :]
    asked, (start, ends) = _asked(known.form, rest), _places(known.form, rest)
    if asked is None or start != known.start or len(ends) != len(asked.turns):
        return None
    names = call_names(known.turns)
    passed = between.end() - start
    return known._replace(
        body=body,
        system=asked.system,
        turns=(*known.turns, *answering(asked.turns, names)),
        ends=[*known.ends, *(end + passed for end in ends)],
    )


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
