"""JSON paths of a body set to other values, every other byte of it left as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from ..errors import UsageError
from .codings import Unreadable, coded, undone
from .dumps import dumps
from .json_places import Place, places
from .paths import ANY, PathTokens, format_path, parse_path

_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}")
# How many paths of a body are compared with one that it lacks, and how many of those are named.
_COMPARED = 5000
_NAMED = 3
_AT_TOP = 8
_KINDS = {"{": "an object", "[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}


REMOVED: dict[str, str] = {"tracefork.removed": ""}
"""As a value, it takes out what stands at the path; a member that only looks so is JSON like any other's."""


class _Member(NamedTuple):
    """Where a member of an object stands, or an element of an array."""

    at: int
    """Of an object, where its key begins."""
    colon: int
    """Where the key ends, -1 without one."""
    start: int
    end: int


class _Splice(NamedTuple):
    """A part of the text, and what stands before the new value that takes its place."""

    at: int
    end: int
    lead: str = ""


def apply_edits(body: bytes, edits: Iterable[tuple[str, object]]) -> bytes:
    """Return the body with the value at each path replaced, in order; a last member that is new is added.

    Raises UsageError naming the path that does not exist, and the paths nearest to it.
    """
    edits = tuple(edits)
    if not edits:
        return body
    try:
        text = body.decode()
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot edit a request whose body is not JSON ({error})") from None
    for path, value in edits:
        text = _edited(text, path, value)
    return text.encode()


def edited(body: bytes, content_encoding: str | None, edits: Iterable[tuple[str, object]]) -> bytes:
    """Return what `apply_edits` makes of the body below its content codings, in those again."""
    try:
        plain = undone(body, content_encoding).body
    except Unreadable as error:
        raise UsageError(f"cannot edit a request whose body cannot be read: {error}") from None
    return coded(apply_edits(plain, edits), content_encoding)


def _edited(text: str, path: str, value: object) -> str:
    tokens = parse_path(path)
    edited = _Edited(text)
    if value == REMOVED:
        return edited.without(tokens)
    try:
        spelled = edited.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the value for {path} is no JSON value: {error}") from None
    splices = list(edited.splices(tokens, edited.whole))
    if not splices:
        raise UsageError(f"{path} matches nothing in the request")
    for splice in reversed(splices):
        text = f"{text[: splice.at]}{splice.lead}{spelled}{text[splice.end :]}"
    return text


class _Edited:
    """A JSON text: where its values stand, and how it spells them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.whole = _Member(0, -1, len(text) - len(text.lstrip()), len(text.rstrip()))
        self._escapes = text.isascii() and _ESCAPE.search(text) is not None
        # Compact, as the SDKs send it, where the outermost value shows nothing.
        members = [*self._members(self.whole).values()]
        self._between = self._before(members[1]) if len(members) > 1 else ","
        keyed = bool(members) and members[0].colon >= 0
        self._colon = text[members[0].colon : members[0].start] if keyed else ":"
        spaced = " " in self._colon or ("\n" not in self._between and " " in self._between)
        self._separators = (", ", ": ") if spaced else (",", ":")

    def _members(self, above: _Member) -> dict[str | int, _Member]:
        """Return what the value holds, in order; of names that stand twice the last, as a parser would."""
        found: dict[str | int, _Member] = {}
        key: Place | None = None
        for place in places(self._text, above.start, above.end, depth=1):
            if place is None or not place.path:
                continue
            if place.kind == "key":
                key = place
                continue
            (token,) = place.path
            found.pop(token, None)
            at, colon = (key.start, key.end) if key else (place.start, -1)
            found[token] = _Member(at, colon, place.start, place.end)
        return found

    def _before(self, member: _Member) -> str:
        """Return the comma before the member, and the space round it."""
        return self._text[len(self._text[: member.at].rstrip().removesuffix(",").rstrip()) : member.at]

    def dumps(self, value: object) -> str:
        """Return the value as this text spells values."""
        return dumps(value, separators=self._separators, escaped=self._escapes, finite=True)

    def splices(self, rest: PathTokens, value: _Member, above: PathTokens = ()) -> Iterator[_Splice]:
        """Yield the parts that the path `rest` names below the value, which is at `above`, in order."""
        if not rest:
            yield _Splice(value.start, value.end)
            return
        token, below = rest[0], rest[1:]
        opening = self._text[value.start]
        wanted = str if opening == "{" else int
        if opening not in "{[" or not (token == ANY or isinstance(token, wanted)):
            raise self._missing((*above, *rest), f"{_named(above)} is {_KINDS.get(opening, 'a number')}")
        members = self._members(value)
        for name, member in members.items():
            if token in (ANY, name):
                yield from self.splices(below, member, (*above, name))
        if token == ANY or token in members:
            return
        if opening == "[":
            has = f"{_named(above)} has {len(members)} element{'' if len(members) == 1 else 's'}"
            raise self._missing((*above, *rest), f"{has}, counted from 0")
        if below:
            raise self._missing((*above, *rest), f"{_named(above)} has no {token!r}")
        yield self._added(value, [*members.values()], token)

    def without(self, path: PathTokens) -> str:
        """Return the text without the member or element at the path, and the comma that goes with it."""
        above = self.whole
        for depth, token in enumerate(path):
            members = self._members(above) if self._text[above.start] in "{[" else {}
            if token not in members:
                raise self._missing(path, f"{_named(path[:depth])} has no {token!r}")
            if depth < len(path) - 1:
                above = members[token]
                continue
            order = list(members)
            at = order.index(token)
            if at + 1 < len(order):
                return self._text[: members[token].at] + self._text[members[order[at + 1]].at :]
            start = members[order[at - 1]].end if at else members[token].at
            return self._text[:start] + self._text[members[token].end :]
        return self._text

    def _added(self, value: _Member, members: list[_Member], name: str | int) -> _Splice:
        """Return where a further member of the object goes, and what leads up to its value."""
        key = f"{self.dumps(name)}{self._colon}"
        if not members:
            return _Splice(value.start + 1, value.start + 1, key)
        between = self._before(members[-1]) if len(members) > 1 else self._between
        return _Splice(members[-1].end, members[-1].end, between + key)

    def _missing(self, path: PathTokens, why: str) -> UsageError:
        from difflib import get_close_matches  # a mistake's cost, not every start's

        wanted = format_path(path)
        near = get_close_matches(wanted, _paths(json.loads(self._text)), n=_NAMED, cutoff=0.5)
        known = f"; near it are {', '.join(near)}" if near else _at_top(json.loads(self._text))
        return UsageError(f"the request has no {wanted}: {why}{known}")


def _at_top(body: object) -> str:
    """Return what to choose among where nothing is near what was typed."""
    if not isinstance(body, dict) or not body:
        return ""
    names = [str(name) for name in cast("dict[object, object]", body)]
    more = ", …" if len(names) > _AT_TOP else ""
    return f"; at its top are {', '.join(names[:_AT_TOP])}{more}"


def _named(path: PathTokens) -> str:
    return format_path(path) if path else "the body"


def _paths(value: Any) -> list[str]:
    """Return the paths in the value, outer ones first, up to so many."""
    level: list[tuple[PathTokens, Any]] = [((), value)]
    found: list[str] = []
    while level and len(found) < _COMPARED:
        below: list[tuple[PathTokens, Any]] = []
        for path, one in level:
            items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
            below += [((*path, token), item) for token, item in items]
        found += [format_path(path) for path, _ in below[: _COMPARED - len(found)]]
        level = below
    return found
