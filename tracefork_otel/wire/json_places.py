"""Where in a JSON text its values stand, so that one can be read or replaced and every other byte stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from .paths import PathTokens

Kind: TypeAlias = Literal["string", "key", "number", "word", "container"]

# A colon is passed over like space: what stands before it is known for a key.
_TOKEN = re.compile(
    r'[ \t\r\n:]*(?:("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|(-?\d[\d.eE+-]*)|([{}\[\],])|(-?[a-zA-Z]+))', re.S
)
_KINDS: dict[int, Kind] = {1: "string", 2: "number", 4: "word"}
_MARK = 3
_DECODER = json.JSONDecoder(strict=False)
_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_NEAR = 4096
"""How far from the start a key is looked for: clients put short members before or after the long ones."""
_TRIES = 64
"""How often a key may stand within other values: what a hostile body can cost."""


class Place(NamedTuple):
    """A value of a JSON text, or the key of one: where it stands in the text, and in what."""

    within: Opened | None
    """The object or array that it is in."""
    token: str | int
    """Its key or index there."""
    start: int
    end: int
    kind: Kind

    @property
    def path(self) -> PathTokens:
        """The path to it from the outermost value, made anew each time: as long as the value is deep."""
        path: list[str | int] = []
        token, within = self.token, self.within
        while within is not None:
            path.append(token)
            token, within = within.token, within.within
        return tuple(reversed(path))


@dataclass(slots=True, eq=False)
class Opened:
    """An object or array that has begun."""

    within: Opened | None
    token: str | int
    """Its key or index in what it is within."""
    depth: int
    start: int
    keyed: bool
    next: str | int
    """The key or index of what comes next in it."""


def places(
    text: str, start: int = 0, end: int | None = None, *, depth: int | None = None
) -> Iterator[Place | None]:
    """Yield each value between `start` and `end`, a container after what is in it.

    None comes last if that is no JSON; the beginning of a JSON text, as a broken connection leaves it, counts
    as one. What has a path of more than `depth` steps is left out.
    """
    at, size = start, len(text) if end is None else end
    top: Opened | None = None
    expects_key = False
    while at < size:
        found = _TOKEN.match(text, at, size)
        if found is None:
            if text[at:size].strip(" \t\r\n:"):
                yield None
            break
        group = found.lastindex or 0
        start, at = found.span(group)
        mark = text[start] if group == _MARK else ""
        token = top.next if top is not None else ""
        if mark == ",":
            if top is not None:
                expects_key = top.keyed
                if isinstance(token, int):
                    top.next = token + 1
        elif not mark:
            if expects_key and group == 1 and top is not None:
                token = top.next = decoded(found[1])
            yield Place(top, token, start, at, "key" if expects_key and group == 1 else _KINDS[group])
            expects_key = False
        elif mark in "{[":
            within = 0 if top is None else top.depth + 1
            if within == depth and (skipped := _end(text, start)):
                yield Place(top, token, start, at := skipped, "container")
                continue
            expects_key = mark == "{"
            top = Opened(top, token, within, start, expects_key, "" if expects_key else 0)
        elif top is None:
            yield None
            return
        else:
            yield Place(top.within, top.token, top.start, at, "container")
            top = top.within
            expects_key = False
    while top is not None:
        yield Place(top.within, top.token, top.start, size, "container")
        top = top.within


def _end(text: str, start: int) -> int:
    """Return where the container ends, 0 if it is not whole."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return 0


def decoded(token: str) -> str:
    """Return the string that a JSON string token stands for; its end may be missing."""
    if "\\" not in token and len(token) > 1 and token[-1] == '"':
        return token[1:-1]
    for end in (token, *(token[: len(token) - cut] + '"' for cut in range(7))):
        try:
            return _DECODER.decode(end)
        except ValueError:
            continue
    return token[1:]


# --- one member, where a body is too long to be looked through ---


def outermost_string(body: bytes, key: str) -> str | None:
    """Return the string at a key of the outermost object of valid JSON, None where it is not found cheaply.

    In valid JSON the bytes `"key"` with no backslash before them are a whole string token, so only the depth
    of each such key has to be known, and brackets count from the end as well as from the start. Of keys that
    stand there twice, either answers.
    """
    token = b'"' + key.encode() + b'"'
    found = _from_front(body, token) or _from_back(body, token)
    return None if found is None else decoded(found.decode("utf-8", "replace"))


def _from_front(body: bytes, token: bytes) -> bytes | None:
    """Return the string after the outermost token near the start, None where that is not certain."""
    start, depth, seek = 0, 0, 0
    while (at := body.find(token, seek, _NEAR)) >= 0:
        change = _depth_change(body[start:at])
        if change is None:
            return None
        depth += change
        value = _VALUE.match(body, at + len(token))
        if depth == 1 and value is not None:
            return value[1]
        start, seek = at, at + 1
    return None


def _from_back(body: bytes, token: bytes) -> bytes | None:
    """Return the string after the last outermost token, None where it is not certain or far from the end."""
    end, depth = len(body), 0
    floor = min(len(body) // 2, len(body) - _NEAR)
    for _ in range(_TRIES):
        at = body.rfind(token, max(floor, 0), end)
        change = None if at < 0 else _depth_change(body[at:end])
        if change is None or body[at - 1 : at] == b"\\":
            return None
        depth -= change
        value = _VALUE.match(body, at + len(token))
        if depth == 1 and value is not None:
            return value[1]
        end = at
    return None


def _depth_change(part: bytes) -> int | None:
    """Return how many more brackets the part opens than it closes, None where it ends inside a string."""
    if b"\\" in part:
        part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
    pieces = part.split(b'"')
    if len(pieces) % 2 == 0:
        return None
    outside = b"".join(pieces[::2])
    opened = outside.count(b"{") + outside.count(b"[")
    return opened - outside.count(b"}") - outside.count(b"]")
