"""An intervention survives its file, and edits change nothing of a body but what they name."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import TapeError, UsageError
from tracefork_otel.exchange import Response
from tracefork_otel.play.intervention import BREAKS, KINDS, TAILS, Intervention
from tracefork_otel.wire.json_edits import apply_edits

TEXT = st.text(max_size=12)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """Any response whose chunks add up."""
    chunks = draw(st.lists(st.binary(max_size=20), max_size=4))
    return Response(
        status=draw(st.integers(100, 599)),
        headers=tuple(draw(st.lists(st.tuples(TEXT, TEXT), max_size=3))),
        body=b"".join(chunks),
        chunk_sizes=tuple(map(len, chunks)),
        chunk_offsets_us=tuple(range(len(chunks))),
        http_version=draw(st.sampled_from(["HTTP/1.1", "HTTP/2"])),
        reason_phrase=draw(st.sampled_from([None, "NOT FOUND"])),
        stream_id=draw(st.sampled_from([None, 1])),
    )


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    """Any intervention, sensible or not."""
    return Intervention(
        kind=draw(st.sampled_from(KINDS)),
        step=draw(st.integers(0, 10_000)),
        label=draw(st.text(st.characters(), max_size=12)),
        tail=draw(st.sampled_from(TAILS)),
        response=draw(st.none() | responses()),
        error=draw(st.none() | st.sampled_from(BREAKS)),
        edits=tuple(draw(st.lists(st.tuples(TEXT, JSON_VALUES), max_size=3))),
        fork_id=draw(st.none() | TEXT),
        parent_run_id=draw(st.none() | TEXT),
        experiment_id=draw(st.none() | TEXT),
    )


@given(interventions())
def test_a_file_gives_back_what_was_put_in(intervention: Intervention) -> None:
    """Whatever an intervention holds, its JSON text gives an equal one."""
    assert Intervention.from_json(intervention.to_json()) == intervention


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """A dump makes one file that only its owner reads, replaces what was there, and loads equal."""
    path = tmp_path / "intervention.json"
    path.write_text("old")
    intervention = Intervention(kind="noop", step=3, label="noop", fork_id="f" * 32)
    intervention.dump(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Intervention.load(path) == intervention
    assert [one.name for one in tmp_path.iterdir()] == ["intervention.json"]


def test_only_edits_and_resamples_go_live() -> None:
    """The forked request itself goes over the network for a request edit, a resample and another agent."""
    live = {kind for kind in KINDS if Intervention(kind=kind, step=0, label=kind).goes_live}
    assert live == {"request", "resample", "agent"}


GOOD = json.loads(
    Intervention(
        kind="text", step=1, label="text", response=Response(status=200, body=b"ab", chunk_sizes=(2,))
    ).to_json()
)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": "tracefork intervention 2"}, "this version reads"),
        ({"kind": "magic"}, "'magic' is not one of text, response"),
        ({"step": True}, "True is no int"),
        ({"tail": None}, "is not one of live, recorded, offline"),
        ({"error": "flood"}, "not one of timeout, disconnect"),
        ({"edits": [["a"]]}, "damaged"),
        ({"response": {**GOOD["response"], "chunk_sizes": [3]}}, "add up"),
        ({"response": {**GOOD["response"], "body": "!"}}, "damaged"),
        ({"response": {}}, "KeyError: 'status'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    """A file that is no intervention of this version raises TapeError with its name and what is wrong."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**GOOD, **members}))
    with pytest.raises(TapeError, match=message) as caught:
        Intervention.load(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    """No file, no JSON and no folder each raise TapeError naming the path."""
    with pytest.raises(TapeError, match=r"gone\.json: No such file"):
        Intervention.load(tmp_path / "gone.json")
    (tmp_path / "half.json").write_text(json.dumps(GOOD)[:-9])
    with pytest.raises(TapeError, match=r"half\.json is no intervention"):
        Intervention.load(tmp_path / "half.json")
    with pytest.raises(TapeError, match="cannot write"):
        Intervention(kind="noop", step=0, label="").dump(tmp_path / "no" / "x.json")


BODY = (
    b'{"model":"m","messages":[{"role":"user","content":"gr\xc3\xbc\xc3\x9fe \\/ \\ud83d"},'
    b'{"role":"assistant","content":[{"type":"text","text":"b"}]}],"temperature":1.0e-1,"big":12345678901234567890123}'
)


def edit(path: str, value: object, body: bytes = BODY) -> bytes:
    """The body after one edit."""
    return apply_edits(body, [(path, value)])


def test_an_edit_leaves_every_other_byte() -> None:
    """Only the value's own bytes change: floats, escapes, big numbers and order stay as they were spelled."""
    assert edit("model", "n") == BODY.replace(b'"m"', b'"n"')
    assert edit("messages[1].content[0].text", "ü") == BODY.replace(b'"b"', '"ü"'.encode())
    assert edit("messages[0]", {"a": [1, None]}).startswith(
        b'{"model":"m","messages":[{"a":[1,null]},{"role"'
    )
    assert apply_edits(BODY, []) == BODY


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1,"b":2}', b'{"a":1,"b":2,"t":[0,1]}'),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2, "t": [0, 1]}'),
        (b'{\n  "a": 1,\n  "b": 2\n}', b'{\n  "a": 1,\n  "b": 2,\n  "t": [0, 1]\n}'),
        (b'{"a": 1}', b'{"a": 1,"t": [0, 1]}'),
        (b" {} ", b' {"t":[0,1]} '),
    ],
)
def test_a_new_member_is_spelled_like_the_others(body: bytes, expected: bytes) -> None:
    """A parameter that the request lacked stands last, with the body's own separators."""
    assert edit("t", [0, 1], body) == expected


def test_new_members_go_into_any_object_that_is_there() -> None:
    """The last member of a path may be new in an object further in, and edits build on one another."""
    assert json.loads(edit("messages[0].name", "x"))["messages"][0]["name"] == "x"
    found = json.loads(apply_edits(BODY, [("metadata", {}), ("metadata.user_id", "u"), ('["a.b"]', 1)]))
    assert (found["metadata"], found["a.b"]) == ({"user_id": "u"}, 1)


def test_a_star_means_each() -> None:
    """A star edits each element or member, and says so where there is none."""
    found = json.loads(edit("messages[*].content", "x"))
    assert [turn["content"] for turn in found["messages"]] == ["x", "x"]
    with pytest.raises(UsageError, match=r"tools\[\*\]\.name matches nothing"):
        edit("tools[*].name", 1, b'{"tools": []}')


def test_of_a_name_that_stands_twice_the_last_counts() -> None:
    """The member that a parser would see is the one that changes."""
    assert edit("a", 3, b'{"a":1,"a":2}') == b'{"a":1,"a":3}'


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"a":"x"}', '{"a":"ü😀"}'.encode()),
    (b'{"a":"x","b":"\\u00e9"}', b'{"a":"\\u00fc\\ud83d\\ude00","b":"\\u00e9"}'),
])  # fmt: skip
def test_characters_are_escaped_where_the_body_does(body: bytes, expected: bytes) -> None:
    """Characters beyond ASCII are written as the body writes them."""
    assert edit("a", "ü😀", body) == expected
    assert json.loads(edit("a", "\ud800", body))["a"] == "\ud800"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "messages[2].content",
            r"no messages\[2\]\.content: messages has 2 elements.*near it are messages\[[01]\]",
        ),
        ("messages[2]", r"messages has 2 elements, counted from 0"),
        ("message[0].content", r"the body has no 'message'; near it are messages\[0\]\.content"),
        ("model.name", r"model is a string"),
        ("messages.content", r"messages is an array"),
        ("messages[0][0]", r"messages\[0\] is an object"),
        ("temperature.x", r"temperature is a number"),
        ("nested.new.member", r"has no 'nested'; at its top are model, "),
        ("a[b", "is not a JSON path"),
    ],
)
def test_a_path_that_is_not_there_names_the_near_ones(path: str, message: str) -> None:
    """An index out of range and a wrong parent are errors that say why, and which paths there are."""
    with pytest.raises(UsageError, match=message):
        edit(path, 1)


def test_bodies_and_values_that_are_no_json_are_refused() -> None:
    """A body that is no JSON cannot be edited, nor a value that is none be set."""
    for body in (b"", b"a=b", b"\xff", b'{"a":'):
        with pytest.raises(UsageError, match="is not JSON"):
            edit("a", 1, body)
    for value in ({1, 2}, float("nan"), b"x"):
        with pytest.raises(UsageError, match="for model is no JSON value"):
            edit("model", value)
    with pytest.raises(UsageError, match="the body is a number"):
        edit("a", 1, b"3")


@given(
    body=st.dictionaries(TEXT, JSON_VALUES, min_size=1, max_size=4),
    value=JSON_VALUES,
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    data=st.data(),
)
def test_an_edit_is_what_the_parsed_body_says(
    body: dict[str, Any], value: Any, indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    """For any body and value, the edited bytes parse to the body with that one member replaced or added."""
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    name = data.draw(st.sampled_from(sorted(body)) | TEXT)
    if name == "*":  # stands for every member
        return
    path = f"[{json.dumps(name)}]"
    edited = apply_edits(text.encode("utf-8", "surrogatepass"), [(path, value)])
    assert json.loads(edited) == {**body, name: value}
    assert list(json.loads(edited)) == list({**body, name: value})


def test_a_large_body_is_edited_quickly() -> None:
    """Editing a body of 2 MB takes a parser's time, not a scan's of every character."""
    turns = [{"role": "user", "content": "x" * 2000} for _ in range(1000)]
    body = json.dumps({"model": "m", "messages": turns}).encode()
    with soon(0.2):
        edited = apply_edits(body, [("messages[999].content", "y"), ("temperature", 0)])
    assert json.loads(edited)["messages"][999]["content"] == "y"
