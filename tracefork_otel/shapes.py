"""What a value out of a file may be: declared once, checked when the file is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

Shape: TypeAlias = Callable[[object], Any]
"""Gives the value as it is kept, or raises ValueError that says what it is not."""


def text(pattern: str = r"[\s\S]*", called: str = "a text") -> Shape:
    """Return the shape of a text that is valid Unicode and matches all of the pattern."""
    whole = re.compile(pattern)

    def check(value: object) -> str:
        if not isinstance(value, str) or not whole.fullmatch(value) or not _is_unicode(value):
            raise ValueError(f"{_shown(value)} is not {called}")
        return value

    return check


def number(least: int = 0, most: int = 2**63 - 1) -> Shape:
    """Return the shape of a whole number between those, both included."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{_shown(value)} is not a whole number from {least} to {most}")
        return value

    return check


def optional(shape: Shape) -> Shape:
    """Return the shape of what may also be null."""
    return lambda value: None if value is None else shape(value)


def many(shape: Shape) -> Shape:
    """Return the shape of a list of these, which is kept as a tuple."""

    def check(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{_shown(value)} is not a list")
        return tuple(map(shape, cast("list[object]", value)))

    return check


def named(shape: Shape) -> Shape:
    """Return the shape of an object whose values, under any names, are these."""

    def check(value: object) -> dict[str, Any]:
        return {name: shape(one) for name, one in _object(value).items()}

    return check


def record(required: Mapping[str, Shape], others: Mapping[str, Shape] | None = None) -> Shape:
    """Return the shape of an object with those names; names that are in neither are left out."""
    others = others or {}

    def check(value: object) -> dict[str, Any]:
        found = _object(value)
        if missing := [name for name in required if name not in found]:
            raise ValueError(f"{_shown(value)} has no {missing[0]!r}")
        kept: dict[str, Any] = {}
        for name, shape in (*required.items(), *others.items()):
            if name in found:
                try:
                    kept[name] = shape(found[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        return kept

    return check


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not an object")
    return cast("dict[str, object]", value)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Return the beginning of the value in ASCII; of a container, which may be deep, the kind."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    shown = ascii(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number of many digits"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
