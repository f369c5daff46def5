"""Results, arguments and exceptions of tools survive as text, or are said not to."""

from __future__ import annotations

import enum
import json
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel import ToolFailed, UsageError
from tracefork_otel.decorators.values import (
    arguments_text,
    error_of,
    error_text,
    exact,
    is_exact,
    result_text,
    was_cancelled,
)

ANY_TEXT = st.text(st.characters(), max_size=8)
"""Halves of surrogate pairs included."""
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


class Colour(enum.IntEnum):
    """A number that JSON would give back as another type."""

    RED = 1


class Point(NamedTuple):
    """A tuple that JSON would give back as a list."""

    x: int


@dataclass
class Query:
    """An argument that is told apart by its fields."""

    city: str


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal and of the same types, signs of zeros included."""
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and repr(a) == repr(b)


@given(JSON_VALUES)
def test_any_json_value_comes_back(value: object) -> None:
    """Whatever JSON can hold is kept by value, in text that UTF-8 can hold, and comes back the same."""
    text = exact(value)
    assert text is not None
    text.encode()
    assert same(json.loads(text), value)
    form, told = result_text(value)
    told.encode()
    assert same(told if form == "string" else json.loads(told), value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((1, 2), "[1, 2]"),
        ([(1,)], "[[1]]"),
        ({1: 2}, '{"1": 2}'),
        (OrderedDict(a=1), '{"a": 1}'),
        (Colour.RED, "1"),
        (Point(1), "[1]"),
        ({3}, "{3}"),
        (b"ab", "b'ab'"),
        (Query("Lima"), "Query(city='Lima')"),
        (object(), "<object object>"),
    ],
)
def test_what_json_would_change_is_kept_by_text(value: object, told: str) -> None:
    """A value that JSON gives back as something else is no exact one; what can be read of it is kept."""
    assert exact(value) is None
    assert result_text(value) == ("text", told)


def test_a_value_that_holds_itself_is_kept_by_text() -> None:
    """Neither a cycle nor a depth that no recursion reaches is an error."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert (result_text(cycle), result_text(deep)[0]) == (("text", "[[...]]"), "text")
    assert result_text(10**5000) == ("text", "<int object>")
    assert exact(float("nan")) == "NaN"


def test_arguments_are_equal_where_their_values_are() -> None:
    """Addresses, the order of sets and a method's object do not count; what is by text is named."""

    def text(**given: object) -> tuple[str, tuple[str, ...]]:
        return arguments_text(given)

    assert text(self=object(), a=(1, "x"), b={3, 1, 2}) == ('{"a": [1, "x"], "b": [1, 2, 3]}', ())
    assert text(a=1, other=object()) == ('{"a": 1, "other": "<object object>"}', ("other",))
    assert text(q=Query("Lima"), m={"k": object}) == (
        """{"q": {"city": "Lima"}, "m": {"k": "<class 'object'>"}}""",
        ("m",),
    )
    assert text(self={"a": 1}) == ('{"self": {"a": 1}}', ())

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert (
        text(a=Silent())[0].startswith('{"a": "<test_tool_values') or "Silent object" in text(a=Silent())[0]
    )


class Odd(Exception):
    """An exception whose arguments are not those that its type takes."""

    def __init__(self, city: str, code: int = 5) -> None:
        super().__init__(f"no {city}")
        self.code = code


class Told(Exception):
    """An exception whose message is made of something that is no JSON."""

    def __init__(self, what: object) -> None:
        self.what = what

    def __str__(self) -> str:
        return f"told {self.what}"


class Twice(Exception):
    """An exception that cannot be made without what it was made of."""

    def __new__(cls, first: object, second: object) -> Twice:
        """Takes two."""
        return super().__new__(cls, first, second)

    def __init__(self, first: object, second: object) -> None:
        super().__init__(f"{first}")


def again(error: BaseException) -> BaseException:
    """The exception after it was recorded."""
    return error_of(error_text(error))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError("a", 1, None),
        FileNotFoundError(2, "No such file or directory", "gone.txt"),
        Odd("Lima"),
        SystemExit(3),
        TimeoutError(),
        json.JSONDecodeError("bad", "doc", 1),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        Told({1}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back_as_their_type(error: BaseException) -> None:
    """An `except` clause finds the same type; message, simple attributes and exit status are there."""
    found = again(error)
    assert isinstance(found, type(error))
    assert type(found).__name__ == type(error).__name__
    assert str(found) == str(error)
    assert getattr(found, "code", None) == getattr(error, "code", None)
    assert getattr(found, "filename", None) == getattr(error, "filename", None)


def test_what_cannot_be_made_again_is_a_tool_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that is gone, or cannot be made, is named by the error that stands in for it; nothing is run."""
    for error in (Twice(object(), 2), ExceptionGroup("many", [ValueError()])):
        found = again(error)
        assert isinstance(found, ToolFailed)
        assert type(error).__qualname__ in str(found)
    text = error_text(Odd("Lima")).replace(__name__, "not_loaded_here")
    found = error_of(text)
    assert (type(found), found.args) == (ToolFailed, ("not_loaded_here.Odd: no Lima",))
    assert "not_loaded_here" not in sys.modules
    assert str(error_of(error_text(found))) == str(found)
    hostile = {"module": "os", "name": "system", "message": "x", "args": ["exit 1"]}
    assert isinstance(error_of(json.dumps(hostile)), ToolFailed)
    hostile |= {"module": "builtins", "name": "GeneratorExit"}
    assert isinstance(error_of(json.dumps(hostile)), ToolFailed)


def test_a_cancellation_is_told_apart() -> None:
    """What somebody else ended is no failure of the tool."""
    import asyncio

    assert was_cancelled(error_text(asyncio.CancelledError()))
    assert not was_cancelled(error_text(SystemExit(1)))
    assert not was_cancelled(error_text(UsageError("x")))
    assert is_exact([{"a": None}])
