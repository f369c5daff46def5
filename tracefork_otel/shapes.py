"""What a value out of a file may be: declared once, checked when the file is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

Shape: TypeAlias = Callable[[object], Any]
"""Gives the value as it is kept, or raises ValueError that says what it is not."""


def parsed(data: bytes | str) -> Any:
    """Return what a file of JSON says; ValueError for what is no JSON, or nested too deep to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def parsed_pairs(data: bytes | str) -> tuple[Any, list[tuple[str, Any]]]:
    """Return what a file of JSON says, and each member of its outermost object, those given twice too."""
    outermost: list[tuple[str, Any]] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs  # an object is told after those that are in it
        return dict(pairs)

    try:
        return json.loads(data, object_pairs_hook=noted), outermost
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def text(pattern: str = r"[\s\S]*", called: str = "a text") -> Shape:
    """Return the shape of a text that is valid Unicode and matches all of the pattern."""
    whole = re.compile(pattern)

    def check(value: object) -> str:
        if not isinstance(value, str) or not whole.fullmatch(value) or not _is_unicode(value):
            raise ValueError(f"{_shown(value)} is not {called}")
        return value

    return check


def string(*, without: str = "") -> Shape:
    """Return the shape of any text, valid Unicode or not, that has none of these characters."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{_shown(value)} is not a text")
        if any(one in value for one in without):
            raise ValueError(f"{_shown(value)} has a character that cannot be in it")
        return value

    return check


def tree(kind: type | None = None, *, depth: int = 200) -> Shape:
    """Return the shape of anything in JSON, or of one kind of it, that is not nested deeper than that.

    What is much deeper can be read, and then not be written again.
    """

    def check(value: object) -> Any:
        if kind is not None and not isinstance(value, kind):
            raise ValueError(f"{_shown(value)} is not {_CALLED[kind]}")
        level = [value]
        for _ in range(depth):
            level = [inner for one in level for inner in _inside(one)]
            if not level:
                return value
        raise ValueError(f"{_shown(value)} is nested more than {depth} deep")

    return check


_CALLED = {dict: "an object", list: "a list"}


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def number(least: int = 0, most: int = 2**63 - 1) -> Shape:
    """Return the shape of a whole number between those, both included."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{_shown(value)} is not a whole number from {least} to {most}")
        return value

    return check


def boolean(value: object) -> bool:
    """The shape of true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is not true or false")
    return value


def amount(value: object) -> float:
    """The shape of a number that is not negative and has an end."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{_shown(value)} is not a number from 0 on")
    return value


def plain(value: object) -> Any:
    """The shape of a value that holds no others."""
    if isinstance(value, list | dict):
        raise ValueError(f"{_shown(value)} is not a single value")
    return value


def anything(value: object) -> Any:
    """The shape of what is looked at where it is used."""
    return value


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


def row(*each: Shape) -> Shape:
    """Return the shape of a list of so many values, each of its own shape, which is kept as a tuple."""

    def check(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(cast("list[object]", value)) != len(each):
            raise ValueError(f"{_shown(value)} is not a list of {len(each)}")
        return tuple(shape(one) for shape, one in zip(each, cast("list[object]", value), strict=True))

    return check


def named(shape: Shape, names: Shape = string()) -> Shape:
    """Return the shape of an object whose values are these, under any names, or under names of a shape."""

    def check(value: object) -> dict[str, Any]:
        return {names(name): shape(one) for name, one in _object(value).items()}

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
