"""A tape whose values are odd is an error that names file and field, whatever stands in which place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from growth_guard import soon

from tracefork_otel import Tape
from tracefork_otel.errors import TapeError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.store.records import Note
from tracefork_otel.tape.file import checked, end_line
from tracefork_otel.tape.reads import Draw, ToolCall
from tracefork_otel.tape.start import HowStarted, given_input

RUN = "0123456789abcdef" * 2
ODD: list[Any] = [
    None, True, 7, -1, 2**70, 1.5, 9**999, "", "x\0y", "\ud800", "../../x", [], [[]], [1, 2, 3], {}, {"a": 1},
]  # fmt: skip


def deep(levels: int) -> Any:
    """A value that is nested so deep."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def sample() -> Tape:
    """A tape with something of each kind."""
    response = Response(
        status=200, headers=(("a", "b"),), body=b'{"a":1}', chunk_sizes=(7,), chunk_offsets_us=(1,)
    )
    exchange = Exchange(
        trace_id="f" * 32,
        span_id="1" * 16,
        parent_span_id="2" * 16,
        process_id="1-00000000",
        seq=0,
        started_ns=1,
        ended_ns=2,
        request=Request(method="POST", url="https://a.example/x", headers=(("c", "d"),), body=b'{"q":1}'),
        response=response,
        outcome="complete",
        error_type="e",
        error_message="m",
        intervention="i",
        served_span_id="3" * 16,
        name="n",
        service="s",
        attributes={"x": 1},
        replayed=True,
    )
    called = {"span_id": "4" * 16, "process_id": "p", "started_ns": 1, "ended_ns": 2}
    return Tape(
        run_id=RUN,
        name="odd",
        exchanges=(exchange,),
        start=HowStarted(
            command=("python", "a.py"),
            cwd="/srv",
            environment={"A": "1"},
            withheld=("K",),
            entrypoint="a:b",
            arguments={"args": [], "kwargs": {}},
            git_commit="c",
            versions={"python": "3"},
            exit_status=0,
            script="app",
        ),
        notes=(Note(kind="lost", time_ns=1, attributes={"count": 1}),),
        draws=(Draw(process="p", lane="", source="time", site="s", line=1, value=1.5),),
        tools=(
            ToolCall(name="t", arguments="{}", form="text", result="r", by_text=("z",), **called),
            ToolCall(name="t", arguments="{}", form="error", result='{"type": "X"}', exchanges=1, **called),
        ),
        mark="00",
    )


def rebuilt(records: list[Any], lines: list[bytes]) -> bytes:
    """A file of these records, in which every checksum is right."""
    made = [
        checked({name: value for name, value in record.items() if name != "check"})
        if isinstance(record, dict)
        else line
        for record, line in zip(records, lines, strict=True)
    ]
    chunks = sum(not isinstance(record, dict) for record in records)
    return b"\n".join([*made, end_line(made, chunks, 1), b""])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


@pytest.mark.slow
def test_whatever_stands_in_any_place_is_read_or_refused_by_name() -> None:
    """Each value of each line in turn is each odd value, or is missing; no other error than TapeError."""
    *lines, _, _ = sample().to_bytes().split(b"\n")
    parsed = [json.loads(line) for line in lines]
    records = [one if "check" in one else None for one in parsed]
    assert Tape.from_bytes(rebuilt(records, lines)) == sample()
    tried, refused = 0, list[str]()
    for at, record in enumerate(records):
        for path in places(record) if record else ():
            if path == ("check",) or path == ("tracefork_tape",):
                continue
            for odd in (*ODD, deep(300), deep(50), ...):
                changed = json.loads(lines[at])
                holder = changed
                for key in path[:-1]:
                    holder = holder[key]
                if odd is ...:
                    del holder[path[-1]]
                else:
                    holder[path[-1]] = odd
                data = rebuilt([*records[:at], changed, *records[at + 1 :]], lines)
                tried += 1
                try:
                    Tape.from_bytes(data, where="odd.jsonl").to_bytes()
                except TapeError as error:
                    refused.append(str(error))
    assert tried > 1500
    assert len(refused) > tried / 3
    assert [why for why in refused if not why.startswith("odd.jsonl: ") or len(why) > 500] == []


def test_the_field_is_named() -> None:
    """A person can see what is wrong where."""
    *lines, _, _ = sample().to_bytes().split(b"\n")
    records: list[Any] = [one if "check" in (one := json.loads(line)) else None for line in lines]
    first = {**records[0], "start": {**records[0]["start"], "environment": {"A": 1}}}
    with pytest.raises(TapeError, match=r"line 1: .*start: environment: 1 is not a text"):
        Tape.from_bytes(rebuilt([first, *records[1:]], lines))


@pytest.mark.slow
@pytest.mark.parametrize("size", [70, 2**40])
def test_a_line_that_is_named_very_often_is_no_bomb(size: int, tmp_path: Path) -> None:
    """What is taken together stops where the declared bytes, or what any tape has, are exceeded."""
    *lines, _, _ = sample().to_bytes().split(b"\n")
    records: list[Any] = [one if "check" in (one := json.loads(line)) else None for line in lines]
    at = next(at for at, one in enumerate(records) if one and "step" in one)
    asked = {**records[at]["request"], "lines": [[2, 2]] * 200_000, "bytes": size}
    records[at] = {**records[at], "request": asked}
    file = tmp_path / "bomb.jsonl"
    file.write_bytes(rebuilt(records, lines))
    with soon(1), pytest.raises(TapeError, match=r"bomb\.jsonl: line \d+: .* bytes"):
        Tape.load(file)


@pytest.mark.parametrize("kept", ["base64:a", "base64:ab=c", "base64:\u00e9", "base64:-_8="])
def test_standard_input_that_is_no_base64(kept: str, tmp_path: Path) -> None:
    """A tape with it is refused by its line, and a start that came another way by a word."""
    path = tmp_path / "run.tape"
    Tape(run_id="1" * 32, exchanges=(), start=HowStarted(stdin=kept)).dump(path)
    with pytest.raises(TapeError, match=r"line 1.*stdin"):
        Tape.load(path)
    with pytest.raises(TapeError, match="standard input"):
        given_input(kept)
