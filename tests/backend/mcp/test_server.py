"""The tools, asked by the official client in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import Recorder, answered, asked

pytest.importorskip("mcp")

from mcp.client import Client
from tracefork_backend.mcp.answers import BYTES
from tracefork_backend.mcp.looking import Looking
from tracefork_backend.mcp.server import Assistant

RUN = "ab" * 16


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looking]:
    """A store whose one run has two steps, with a long text in the second."""
    store = tmp_path_factory.mktemp("store") / ".tracefork"
    recorder = Recorder(store)
    recorder.root(RUN, "booking")
    for request, said in ((asked("hello"), "good day"), (asked("hello", "good day", "x" * 9000), "y" * 9000)):
        recorder.exchange(RUN, request, answered(said))
    recorder.close()
    made = Looking(store)
    yield made
    made.close()


def call(looking: Looking, name: str, **arguments: Any) -> tuple[bool, str]:
    """Return whether the tool failed, and what it said."""

    async def ask() -> Any:
        async with Client(Assistant(looking.tools())) as client:
            return await client.call_tool(name, arguments)

    found = asyncio.run(ask())
    return bool(found.is_error), found.content[0].text


def test_runs_are_found_and_read(looking: Looking) -> None:
    """The list names the run, the run its steps, the step what is new in it, each in 4 KB."""
    for name, arguments, parts in (
        ("list_runs", {}, ["booking", '"steps": 2']),
        ("show_run", {}, ["good day", "claude-sonnet-4-5"]),
        ("show_step", {"run": "last", "step": 1}, ["more characters", '"earlier_messages": 1']),
        ("show_step", {"run": "last", "step": 1, "show": "request"}, ["claude-sonnet-4-5", "(9"]),
        ("sql_query", {"query": "select step, model from exchanges order by step"}, ["claude-sonnet-4-5"]),
        ("diff", {"a": "last", "b": "last"}, [""]),
    ):
        failed, text = call(looking, name, **arguments)
        assert not failed, text
        assert all(part in text for part in parts), text
        assert len(text.encode()) <= BYTES


def test_a_cut_message_is_read_whole(looking: Looking) -> None:
    """By its place and the offsets, in pieces."""
    text, at = "", 0
    while True:
        told = json.loads(call(looking, "show_step", run="last", step=1, message=2, offset=at)[1])
        text += told["text"]
        if "next_offset" not in told:
            break
        at = told["next_offset"]
    assert text == "x" * 9000


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("nothing", {}, "there is no tool 'nothing': list_runs"),
        ("show_run", {"nr": 1}, "takes no 'nr': it takes run, offset"),
        ("show_run", {"run": 5}, "run=5"),
        ("show_run", {"run": None}, "run=None"),
        ("show_run", {"run": "unknown"}, "names no run"),
        ("show_run", {"run": "last", "offset": -1}, "offset=-1"),
        ("show_run", {"run": "last", "offset": 10**30}, "offset=1000"),
        ("show_step", {"run": "last"}, "step is missing"),
        ("show_step", {"run": "last", "step": 7}, "its steps are 0..1"),
        ("show_step", {"run": "last", "step": [1]}, "step=[1]"),
        ("show_step", {"run": "last", "step": 0, "show": "all"}, "show='all'"),
        ("show_step", {"run": "last", "step": 0, "message": 9}, "none with `at` 9"),
        ("list_runs", {"limit": 0, "kind": "x"}, "limit=0"),
        ("sql_query", {"query": "drop table runs"}, "SELECT"),
        ("sql_query", {"query": "select * from read_csv('/etc/passwd')"}, "refused"),
        ("sql_query", {"query": "x" * 30_000}, "at most 20000"),
        ("diff", {"a": "last"}, "no parent"),
    ],
)
def test_wrong_arguments_are_named(looking: Looking, name: str, arguments: dict[str, Any], says: str) -> None:
    """The call fails in words that tell what to do, and the server goes on."""
    failed, text = call(looking, name, **arguments)
    assert failed
    assert says in text, text
    assert "Error executing tool" not in text
    assert len(text.encode()) < 600


def test_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is said, and its first run is found once it is recorded."""
    looking = Looking(tmp_path / "none")
    failed, text = call(looking, "list_runs")
    assert not failed
    assert "record one with" in text
    recorder = Recorder(tmp_path / "none")
    recorder.root(RUN)
    recorder.exchange(RUN, asked("a"), answered("b"))
    recorder.close()
    assert "record one with" not in call(looking, "list_runs")[1]
    looking.close()
