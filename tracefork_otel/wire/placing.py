"""Where a request has its system prompt and its tools, in words that all forms share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from .json_values import dumps, mapping, string


class Placed(NamedTuple):
    """A text of the system prompt, or a tool by its name, and where a request has it."""

    what: str
    path: str
    holders: tuple[str, ...]
    """What goes with it, innermost first: each goes where all goes that is placed in it."""
    size: int = 0
    """How many characters of the request it is."""


class Tools(NamedTuple):
    """The tools of a request."""

    offered: tuple[Placed, ...] = ()
    chosen: tuple[Placed, ...] = ()
    """Where the request names one of them beside that, as one that is to be called, or may be."""
    beside: tuple[str, ...] = ()
    """Members that say something of tools, and nothing without any."""


def texts_at(value: Any, path: str, *holders: str, key: str = "text") -> list[Placed]:
    """Return the texts of a value that is one, or blocks that have them, each at its path."""
    if isinstance(value, str):
        return [Placed(value, path, holders or (path,), len(value))]
    found: list[Placed] = []
    for index, block in enumerate(value if isinstance(value, list) else ()):
        at = f"{path}[{index}]"
        if isinstance(block, str):
            found.append(Placed(block, at, (at, *(holders or (path,))), len(block)))
        elif (text := string(mapping(block).get(key))) is not None:
            found.append(Placed(text, f"{at}.{key}", (at, *(holders or (path,))), len(text)))
    return found


def system_turns(turns: Any, path: str, roles: Collection[str]) -> list[Placed]:
    """Return the texts of those turns that are the system's."""
    return [
        placed
        for index, turn in enumerate(turns if isinstance(turns, list) else ())
        if mapping(turn).get("role") in roles
        for placed in texts_at(turn.get("content"), f"{path}[{index}].content", f"{path}[{index}]")
    ]


def named_at(values: Any, path: str, *keys: str, holders: Sequence[str] = ()) -> list[Placed]:
    """Return what a list names, each by the first of the keys that it has; a key may be two, with a dot."""
    found: list[Placed] = []
    for index, value in enumerate(values if isinstance(values, list) else ()):
        name = named(value, *keys)
        if name is not None:
            at = f"{path}[{index}]"
            found.append(Placed(name, at, (at, *(holders or (path,))), len(dumps(value))))
    return found


def named(value: Any, *keys: str) -> str | None:
    """Return the name that a value has at the first of these keys."""
    for key in keys:
        outer, _, inner = key.partition(".")
        found = mapping(value).get(outer)
        name = string(mapping(found).get(inner) if inner else found)
        if name:
            return name
    return None


def one_at(name: str | None, path: str) -> list[Placed]:
    """Return that name at its path; nothing where there is none."""
    return [] if name is None else [Placed(name, path, (path,))]
