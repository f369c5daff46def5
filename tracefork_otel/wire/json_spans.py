"""Where in a JSON text its values stand, so that one can be replaced and every other byte stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .paths import PathTokens

ValueKind: TypeAlias = Literal["string", "key", "number", "word", "container"]

_TOKEN = re.compile(
    r'[ \t\r\n]*(?:("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|(-?\d[\d.eE+-]*)|([{}\[\]:,])|([a-z]+))', re.S
)
_ANY, _DEEP = "*", "**"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a JSON text: where it stands in it, and by which path."""

    path: PathTokens
    start: int
    end: int
    kind: ValueKind


def values(text: str) -> Iterator[Value | None]:
    """Each value of the text, a container after what is in it; None at the end if the text is not JSON.

    The beginning of a JSON text, as a broken connection leaves it, counts as one.
    """
    stack: list[
        tuple[int, PathTokens, list[Any]]
    ] = []  # where it opened, its path, [key or index, is object]
    at, size = 0, len(text)
    expects_key = False
    while at < size:
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at:].strip():
                yield None
            break
        string, number, mark, word = found.groups()
        start, at = found.start(found.lastindex or 0), found.end()
        path = (*stack[-1][1], stack[-1][2][0]) if stack else ()
        if mark is None:
            if string is not None and expects_key:
                stack[-1][2][0] = decoded(string)
                yield Value((*stack[-1][1], stack[-1][2][0]), start, at, "key")
                expects_key = False
                continue
            yield Value(path, start, at, "string" if string else "number" if number else "word")
            assert word is None or word
        elif mark in "{[":
            stack.append((start, path, ["" if mark == "{" else 0, mark == "{"]))
            expects_key = mark == "{"
        elif mark in "}]":
            if not stack:
                yield None
                return
            opened, above, _ = stack.pop()
            expects_key = False
            yield Value(above, opened, at, "container")
        elif mark == "," and stack:
            inner = stack[-1][2]
            expects_key = inner[1]
            if not inner[1]:
                inner[0] += 1
    for opened, above, _ in reversed(stack):
        yield Value(above, opened, size, "container")


_decode = json.JSONDecoder(strict=False).decode


def decoded(token: str) -> str:
    """The string that a JSON string token stands for, also one whose end is missing."""
    if "\\" not in token and len(token) > 1 and token[-1] == '"':
        return token[1:-1]
    try:
        return _decode(token)
    except ValueError:
        pass
    # Its end is missing: as much of it as can be read.
    for cut in range(7):
        try:
            return _decode(token[: len(token) - cut] + '"')
        except ValueError:
            continue
    return token[1:]


def fits(pattern: PathTokens, path: PathTokens) -> bool:
    """Whether a path is one that the pattern means: `*` stands for one step of it, `**` for any number."""
    if not pattern:
        return not path
    first, rest = pattern[0], pattern[1:]
    if first == _DEEP:
        return any(fits(rest, path[skipped:]) for skipped in range(len(path) + 1))
    return bool(path) and (first in (_ANY, path[0])) and fits(rest, path[1:])
