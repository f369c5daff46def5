"""JSON paths, and the paths at which two JSON values differ."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias, cast

from ..errors import UsageError

PathTokens: TypeAlias = tuple[str | int, ...]

ABSENT = "(absent)"
"""Stands for the value of a JSON path that one of the two sides does not have."""

ANY = "*"
"""Stands for every element or member; as a token of a path it is no other name."""
DEEP = "**"
"""Stands for any number of steps."""
_IGNORED = "(ignored)"
_PATH_TOKEN = re.compile(r"\.?([^.\[\]\"]+)|\[(\d{1,18}|\*)\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w-]*\Z")


def parse_path(path: str) -> PathTokens:
    """Return the tokens of a JSON path as `messages[*].content`; `*` stands for every element or member."""
    tokens: list[str | int] = []
    why = UsageError(f"{path!r} is not a JSON path: write it like messages[0].content or messages[*].id")
    rest = path.strip().removeprefix("$")
    at = 0
    for found in _PATH_TOKEN.finditer(rest):
        if found.start() != at:
            break
        name, index, quoted = found.groups()
        if index is not None:
            tokens.append(ANY if index == "*" else int(index))
        else:
            try:
                tokens.append(name if name is not None else cast("str", json.loads(f'"{quoted}"')))
            except ValueError:
                raise why from None
        at = found.end()
    if at != len(rest) or not tokens:
        raise why
    return tuple(tokens)


def remove(value: Any, path: PathTokens) -> None:
    """Leave out the value at the path: a member is deleted, an element is replaced by a mark."""
    token, rest = path[0], path[1:]
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        for key in [*members] if token == ANY else [name for name in members if name == token]:
            if rest:
                remove(members[key], rest)
            else:
                del members[key]
    elif isinstance(value, list):
        elements = cast("list[Any]", value)
        for index in range(len(elements)) if token == ANY else [token]:
            if isinstance(index, int) and index < len(elements):
                if rest:
                    remove(elements[index], rest)
                else:
                    elements[index] = _IGNORED


def shown(value: Any) -> str:
    """Return the value as text: a string as it is, anything else as JSON."""
    if isinstance(value, _Absent):
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Absent:
    """The value of a path that is not there."""


_NOTHING = _Absent()


def walk(a: Any, b: Any, path: PathTokens, found: list[tuple[PathTokens, Any, Any]]) -> None:
    """Add every path that differs to `found`, in the order in which the recorded body has them."""
    if isinstance(a, dict) and isinstance(b, dict):
        left, right = cast("dict[str, Any]", a), cast("dict[str, Any]", b)
        for key in left | right:
            walk(left.get(key, _NOTHING), right.get(key, _NOTHING), (*path, key), found)
    elif isinstance(a, list) and isinstance(b, list) and not reordered(a, b):
        ours, theirs = cast("list[Any]", a), cast("list[Any]", b)
        for index in range(max(len(ours), len(theirs))):
            walk(
                ours[index] if index < len(ours) else _NOTHING,
                theirs[index] if index < len(theirs) else _NOTHING,
                (*path, index),
                found,
            )
    elif type(cast("object", a)) is not type(cast("object", b)) or a != b:
        found.append((path, cast("object", a), cast("object", b)))


def reordered(a: Any, b: Any) -> bool:
    """Return whether both are lists of the same elements in another order."""
    if not (isinstance(a, list) and isinstance(b, list)):
        return False
    ours, theirs = cast("list[Any]", a), cast("list[Any]", b)
    if len(ours) != len(theirs) or ours == theirs:
        return False
    apart = next(one for one, other in zip(ours, theirs, strict=True) if one != other)
    if apart not in theirs:  # nearly always so, and spelling all of a long conversation is dear
        return False
    spelled = [sorted(json.dumps(one, sort_keys=True) for one in side) for side in (ours, theirs)]
    return spelled[0] == spelled[1]


def format_path(path: PathTokens) -> str:
    """Return the path as a person writes it, such as `messages[2].content[0].text`."""
    text = ""
    for token in path:
        if isinstance(token, int):
            text += f"[{token}]"
        elif _PLAIN_NAME.match(token):
            text += f".{token}" if text else token
        else:
            text += f"[{json.dumps(token, ensure_ascii=False)}]"
    return text or "(the whole body)"
