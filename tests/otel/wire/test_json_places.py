"""Where values stand in a JSON text: all of them, those that an edit replaces, and one of a long body."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.json_places import decoded, outermost_string, places
from tracefork_otel.wire.paths import format_path, parse_path

NAMES = st.sampled_from(["model", '"model', '\\"model', "x", "{", "é", "", "a b", "*", "0"]) | st.text(
    max_size=4
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["model", '"model": "', "\\", '\\"', "{[", "}", "\ud83c"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
INDENTS = st.sampled_from([None, 1])


def paths_of(value: Any, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values in the value, a container after what is in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in paths_of(inner, (*above, key))] + [above]


def at_path(value: Any, path: tuple[str | int, ...]) -> Any:
    """The value at the path."""
    for token in path:
        value = value[token]
    return value


@given(VALUES, INDENTS, st.booleans(), st.sampled_from([None, 0, 1, 2, 9]))
def test_every_value_stands_where_it_says(
    value: Any, indent: int | None, ascii_only: bool, depth: int | None
) -> None:
    """The part of the text at each place is the JSON of the value at its path; keys stand before values."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = [place for place in places(text, depth=depth) if place]
    values = [place for place in found if place.kind != "key"]
    wanted = [path for path in paths_of(value) if depth is None or len(path) <= depth]
    assert [place.path for place in values] == wanted
    for place in found:
        token = text[place.start : place.end]
        meant = place.path[-1] if place.kind == "key" else at_path(value, place.path)
        assert json.dumps(json.loads(token)) == json.dumps(meant)
        if place.kind in ("key", "string"):
            assert decoded(token) == meant


@given(VALUES, st.text(max_size=3), st.text(max_size=3))
def test_a_part_of_a_text_is_read_like_a_text(value: Any, before: str, after: str) -> None:
    """Places between two edges are those of the text between them, moved."""
    text = json.dumps(value)
    whole = f"{before}{text}{after}"
    shift = len(before)
    assert [
        (p.path, p.start - shift, p.end - shift) for p in places(whole, shift, shift + len(text)) if p
    ] == [(p.path, p.start, p.end) for p in places(text) if p]


@given(VALUES, st.data())
def test_the_beginning_of_a_text_counts(value: Any, data: st.DataObject) -> None:
    """A text that is cut anywhere gives the values that it has, with the same beginnings."""
    text = json.dumps(value)
    part = text[: data.draw(st.integers(0, len(text)))]
    starts = {(place.path, place.start) for place in places(text) if place and place.kind != "key"}
    # A minus or half a word is none yet.
    found = {
        (place.path, place.start) for place in places(part) if place and place.kind not in ("key", "word")
    }
    assert found <= starts


@given(st.text(max_size=60) | st.text('{}[]",:\\1a ', max_size=30))
def test_no_text_makes_it_raise(text: str) -> None:
    """Whatever the text, there are places, and they stand within it."""
    for place in places(text):
        if place is not None:
            assert 0 <= place.start <= place.end <= len(text)
            decoded(text[place.start : place.end])


@given(VALUES, VALUES, INDENTS, st.data())
def test_an_edit_is_an_edit_of_the_parsed_value(
    value: Any, new: Any, indent: int | None, data: st.DataObject
) -> None:
    """Setting any path in the text, or adding a member, gives the text of the value that is set by hand."""
    text = json.dumps(value, indent=indent)
    paths = [path for path in paths_of(value) if path and "*" not in path]
    if isinstance(value, dict):
        paths.append(("added",))
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    edits = [(format_path(path), new)]
    if any(word in json.dumps(new) for word in ("NaN", "Infinity")):
        with pytest.raises(UsageError, match="is no JSON value"):
            apply_edits(text.encode(), edits)
        return
    made = apply_edits(text.encode(), edits)
    at_path(value, path[:-1])[path[-1]] = new
    assert json.dumps(json.loads(made)) == json.dumps(value)


def test_of_names_that_stand_twice_the_last_is_edited() -> None:
    """An edit reaches the member that a parser of the body sees, and a new one goes behind the last."""
    body = b'{"b": 0, "a": {"x": 1, "y": 2}, "a": {"x": 3}}'
    assert apply_edits(body, [("a.x", 9)]) == b'{"b": 0, "a": {"x": 1, "y": 2}, "a": {"x": 9}}'
    assert apply_edits(body, [("a.y", 9)]) == b'{"b": 0, "a": {"x": 1, "y": 2}, "a": {"x": 3, "y": 9}}'
    assert apply_edits(body, [("c", 9)]) == body[:-1] + b', "c": 9}'
    assert apply_edits(b'{"a":{"x":1},"a":2}', [("a", 9)]) == b'{"a":{"x":1},"a":9}'


@given(st.lists(st.integers(0, 99) | NAMES.filter(lambda name: name != "*"), min_size=1, max_size=5))
@example(["$", 0])
def test_a_path_is_read_as_it_is_written(tokens: list[str | int]) -> None:
    """Any tokens, written as a path, are read as the same."""
    path = tuple(tokens)
    assert parse_path(format_path(path)) == path


@given(
    st.dictionaries(st.sampled_from(["model", "messages", "tools", '"model', 'a"']), VALUES, max_size=5),
    st.booleans(),
    INDENTS,
    st.integers(0, 3),
)
def test_the_key_of_the_outermost_object_is_found(
    body: dict[str, object], ascii_only: bool, indent: int | None, filler: int
) -> None:
    """However keys and texts named like it nest, the string found is that of a full parse, or none."""
    names = list(body)
    for position in range(filler):
        # Long parts push the key out of reach of the start, of the end, or of both.
        body = {**body, f"long{position}": ['"model": "no" \\ {[' * 400]}
        names.insert(position * len(names), f"long{position}")
    body = {name: body[name] for name in dict.fromkeys(names)}
    raw = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    model = json.loads(raw).get("model")
    found = outermost_string(raw, "model")
    assert found in (None, model if isinstance(model, str) else None)
    if len(raw) <= 4096 and b'\\"model"' not in raw:
        assert found is not None or not isinstance(model, str)


@given(st.binary(max_size=80))
def test_no_request_makes_the_search_raise(body: bytes) -> None:
    """Whatever the bytes, with or without the key in them, the answer is a string or None."""
    for raw in (body, b'{"model":' + body, body + b'"model":"m"}', b'{"model":"m"' + body + b"}"):
        assert isinstance(outermost_string(raw, "model"), str | None)


def test_a_typical_request_is_not_read_through_for_its_model() -> None:
    """With the model before or after a megabyte of messages, as clients have it, it is found in a moment."""
    messages = [{"role": "user", "content": 'He said "model": "x" \\ and {' * 20}] * 2000
    bodies = [
        {"max_tokens": 1, "messages": messages, "model": "m-1", "tools": [{"model": "x"}]},
        {"model": "m-1", "messages": messages},
    ]
    for body in bodies:
        raw = json.dumps(body).encode()
        assert len(raw) > 1_000_000
        begun = time.perf_counter()
        assert outermost_string(raw, "model") == "m-1"
        found = time.perf_counter() - begun
        begun = time.perf_counter()
        json.loads(raw)
        assert found < (time.perf_counter() - begun) / 2
