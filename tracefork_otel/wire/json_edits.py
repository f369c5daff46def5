"""JSON paths of a body set to other values, every other byte of it left as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .paths import PathTokens, format_path, parse_path

_ANY = "*"
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}")
_DECODER = json.JSONDecoder()
# How many paths of a body are compared with one that it lacks, and how many of those are named.
_COMPARED = 5000
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a member of an object, or an element of an array, stands in the text."""

    token: str | int
    key_at: int
    key_end: int
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class _Splice:
    """A part of the text, and what stands before the new value that takes its place."""

    at: int
    end: int
    lead: str = ""


def apply_edits(body: bytes, edits: Iterable[tuple[str, object]]) -> bytes:
    """The body with the value at each path replaced, in order; a last member that is new is added.

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


def _edited(text: str, path: str, value: object) -> str:
    tokens = parse_path(path)
    style = _Style(text)
    try:
        spelled = style.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the value for {path} is no JSON value: {error}") from None
    splices = list(_places(text, _SPACE.match(text).end(), tokens, (), style))  # type: ignore[union-attr]
    if not splices:
        raise UsageError(f"{path} matches nothing in the request")
    for splice in reversed(splices):
        text = f"{text[: splice.at]}{splice.lead}{spelled}{text[splice.end :]}"
    return text


def _places(text: str, at: int, rest: PathTokens, above: PathTokens, style: _Style) -> Iterator[_Splice]:
    """The parts of the text that the path names below the value at `at`, in order."""
    if not rest:
        yield _Splice(at, _DECODER.raw_decode(text, at)[1])
        return
    token, below = rest[0], rest[1:]
    opening = text[at]
    holds = str if opening == "{" else int
    if opening not in "{[" or not (token == _ANY or isinstance(token, holds)):
        raise _missing(text, (*above, *rest), f"{_named(above)} is {_kind(text, at)}")
    members = list(_members(text, at))
    # Of names that stand twice the last one counts, as it does for whoever parses the body.
    last = {member.token: member for member in members}
    chosen = list(last.values()) if token == _ANY else [last[token]] if token in last else []
    for member in sorted(chosen, key=lambda member: member.at):
        yield from _places(text, member.at, below, (*above, member.token), style)
    if chosen or token == _ANY:
        return
    if opening == "[":
        has = f"{_named(above)} has {len(members)} element{'' if len(members) == 1 else 's'}"
        raise _missing(text, (*above, *rest), f"{has}, counted from 0")
    if below:
        raise _missing(text, (*above, *rest), f"{_named(above)} has no {token!r}")
    yield style.new_member(text, at, members, str(token))


def _members(text: str, at: int) -> Iterator[_Member]:
    """The members of the object, or the elements of the array, that begins at `at`."""
    keyed = text[at] == "{"
    closing = "}" if keyed else "]"
    here = _after_space(text, at + 1)
    number = 0
    while text[here] != closing:
        token: str | int = number
        key_at = key_end = here
        if keyed:
            token, key_end = _DECODER.raw_decode(text, here)
            here = _after_space(text, _after_space(text, key_end) + 1)
        _, end = _DECODER.raw_decode(text, here)
        yield _Member(token, key_at, key_end, here, end)
        number += 1
        here = _after_space(text, end)
        if text[here] == ",":
            here = _after_space(text, here + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


class _Style:
    """How a body spells JSON: its separators, and whether characters beyond ASCII are escaped."""

    def __init__(self, text: str) -> None:
        """Read off the outermost value; compact, as the SDKs send it, where that shows nothing."""
        members: list[_Member] = []
        at = _after_space(text, 0)
        if text[at] in "{[":
            for member in _members(text, at):
                members.append(member)
                if len(members) == 2:
                    break
        keyed = bool(members) and text[at] == "{"
        self.between = text[members[0].end : members[1].key_at] if len(members) == 2 else ","
        self.colon = text[members[0].key_end : members[0].at] if keyed else ":"
        spaced = " " in self.colon or ("\n" not in self.between and " " in self.between)
        self._separators = (", ", ": ") if spaced else (",", ":")
        self._escapes = text.isascii() and _ESCAPE.search(text) is not None

    def dumps(self, value: object) -> str:
        """The value in this style; half a character, which UTF-8 cannot hold, is always escaped."""
        spelled = self._dumps(value, escapes=self._escapes)
        try:
            spelled.encode()
        except UnicodeEncodeError:
            return self._dumps(value, escapes=True)
        return spelled

    def _dumps(self, value: object, *, escapes: bool) -> str:
        return json.dumps(value, separators=self._separators, ensure_ascii=escapes, allow_nan=False)

    def new_member(self, text: str, at: int, members: list[_Member], name: str) -> _Splice:
        """Where a further member of the object at `at` goes, and what leads up to its value."""
        key = f"{self.dumps(name)}{self.colon}"
        if not members:
            return _Splice(at + 1, at + 1, key)
        between = text[members[-2].end : members[-1].key_at] if len(members) > 1 else self.between
        return _Splice(members[-1].end, members[-1].end, between + key)


def _named(path: PathTokens) -> str:
    return format_path(path) if path else "the body"


def _kind(text: str, at: int) -> str:
    names = {"{": "an object", "[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}
    return names.get(text[at], "a number")


def _missing(text: str, path: PathTokens, why: str) -> UsageError:
    from difflib import get_close_matches  # a mistake's cost, not every start's

    wanted = format_path(path)
    near = get_close_matches(wanted, _paths(json.loads(text), ()), n=_NAMED, cutoff=0.5)
    known = f"; near it are {', '.join(near)}" if near else ""
    return UsageError(f"the request has no {wanted}: {why}{known}")


def _paths(value: Any, above: PathTokens) -> list[str]:
    """The paths in the value, outer ones first, up to so many."""
    level: list[tuple[PathTokens, Any]] = [(above, value)]
    found: list[str] = []
    while level and len(found) < _COMPARED:
        below: list[tuple[PathTokens, Any]] = []
        for path, one in level:
            items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
            below += [((*path, token), item) for token, item in items]
        found += [format_path(path) for path, _ in below[: _COMPARED - len(found)]]
        level = below
    return found
