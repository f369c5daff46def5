"""A mark says that this user's recorder wrote a start, of that run, and that nobody changed it since."""

from __future__ import annotations

import json
import os
import pwd
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracefork_otel import Tape
from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.tape import key
from tracefork_otel.tape.marks import beginning, is_from_here, mark_of_tape, marked
from tracefork_otel.tape.reads import Draw, ToolCall
from tracefork_otel.tape.start import HowStarted, how_started

RUN, OTHER = "ab" * 16, "cd" * 16
START = HowStarted(
    command=("python", "app/agent.py"),
    cwd="/srv",
    environment={"CITY": "Osaka"},
    withheld=("API_KEY",),
    entrypoint="agent:book",
    arguments={"args": ["Ōsaka"], "kwargs": {}},
    script="app",
)
CALL = Exchange(
    trace_id=RUN,
    span_id="1" * 16,
    parent_span_id=None,
    process_id="1-00000000",
    seq=0,
    started_ns=1,
    ended_ns=2,
    request=Request(method="POST", url="https://api.anthropic.com/v1/messages"),
)
TOOL = ToolCall(name="t", arguments="{}", form="text", result="x", span_id="2" * 16, started_ns=1, ended_ns=2)
DRAW = Draw(process="p", lane="", source="time", site="s", line=1, value=1.5)
TAPE = Tape(run_id=RUN, exchanges=(CALL,), start=START, draws=(DRAW,), tools=(TOOL,))
PLANTED = HowStarted(command=("sh", "-c", "touch planted"), entrypoint="os:system", cwd="/tmp")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a key that is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tracefork-otel" / "key"


CHANGES: list[dict[str, Any]] = [
    {"command": ("sh", "app/agent.py")},
    {"command": None},
    {"cwd": "/tmp"},
    {"environment": {"CITY": "Osaka", "BASE_URL": "http://there"}},
    {"withheld": ()},
    {"entrypoint": "os:system"},
    {"arguments": {"args": ["rm"], "kwargs": {}}},
    {"script": "theirs"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(one)) for one in CHANGES])
def test_a_mark_is_of_one_start_of_one_run(state: Path, change: dict[str, Any]) -> None:
    """What a replay would run, and the run's id, are bound by it; what a run says besides is not."""
    tape = replace(TAPE, mark=mark_of_tape(TAPE))
    assert is_from_here(tape)
    known = replace(START, exit_status=3, versions={"python": "3"}, git_commit="c")
    assert is_from_here(replace(tape, start=known, name="other"))
    assert not is_from_here(replace(tape, start=replace(START, **change)))
    assert not is_from_here(replace(tape, run_id=OTHER))
    assert not any(is_from_here(replace(tape, mark=one)) for one in (None, "", "é" * 64, "0" * 64))


ANSWERS: list[dict[str, Any]] = [
    {"exchanges": ()},
    {"exchanges": (replace(CALL, request=replace(CALL.request, body=b"other")),)},
    {"tools": (replace(TOOL, result="rm"),)},
    {"draws": (replace(DRAW, value=2.5),)},
    {"draws": ()},
]


@pytest.mark.parametrize("change", ANSWERS)
def test_a_mark_is_of_what_the_agent_is_answered_too(state: Path, change: dict[str, Any]) -> None:
    """An agent does what its model says, so another answer is another program."""
    tape = replace(TAPE, mark=mark_of_tape(TAPE))
    assert not is_from_here(replace(tape, **change))
    assert is_from_here(Tape.from_bytes(tape.to_bytes()))


def test_a_key_is_made_once_for_its_owner_alone(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but recording makes it; whatever the umask is, nobody else reads it."""
    assert not is_from_here(replace(TAPE, mark="0" * 64))
    assert not state.exists()
    before = os.umask(0)
    try:
        mark = mark_of_tape(TAPE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert os.listdir(state.parent) == ["key"]
    made = state.read_bytes()
    assert len(made) == 32
    monkeypatch.setattr(key, "_known", {})
    assert mark_of_tape(TAPE) == mark
    assert state.read_bytes() == made


def unreadable(state: Path, how: str) -> None:
    """A key that is not to be used, or that cannot be made."""
    state.parent.mkdir(parents=True, mode=0o700)
    if how == "open to others":
        state.write_bytes(b"k" * 32)
        state.chmod(0o644)
    elif how == "a link":
        (state.parent / "elsewhere").write_bytes(b"k" * 32)
        (state.parent / "elsewhere").chmod(0o600)
        state.symlink_to("elsewhere")
    elif how == "a pipe":
        os.mkfifo(state, 0o600)
    elif how == "empty":
        state.touch(0o600)
    elif how == "a folder":
        state.mkdir()
    elif how == "its folder is a file":
        state.parent.rmdir()
        state.parent.touch()


@pytest.mark.parametrize(
    "how", ["open to others", "a link", "a pipe", "empty", "a folder", "its folder is a file"]
)
def test_a_key_that_others_may_know_is_none(state: Path, how: str) -> None:
    """Recording goes on, and nothing is marked."""
    unreadable(state, how)
    attributes = START.attributes()
    assert mark_of_tape(TAPE) is None
    assert marked(RUN, attributes) == attributes
    assert beginning([(RUN, attributes)])[1] is False
    assert str(state) in (key.why_no_key() or "")


def test_without_a_home_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not absolute is none, as XDG says; an unset HOME is what the system says."""
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    for home in ("", "relative"):
        monkeypatch.setenv("HOME", home)
        assert key.key_file() is None
        assert mark_of_tape(TAPE) is None
    monkeypatch.delenv("HOME")
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert key.key_file() == home / ".local" / "state" / "tracefork-otel" / "key"


def stored(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes as a store gives them back."""
    return json.loads(json.dumps(attributes))


def test_what_is_marked_goes_before_what_is_not(state: Path) -> None:
    """A span that somebody planted in a trace says nothing of the start, wherever it stands."""
    ours = stored(marked(RUN, START.attributes()))
    planted = {**stored(PLANTED.attributes()), "tracefork.result": "theirs"}
    moved = stored(marked(OTHER, PLANTED.attributes()))
    for heads in ([planted, ours], [ours, planted], [moved, ours, planted]):
        told, believed = beginning((RUN, one) for one in heads)
        assert believed
        assert how_started(told) == START
    told, believed = beginning([(RUN, planted), (RUN, moved)])
    assert not believed
    assert how_started(told).command == PLANTED.command


def test_a_process_and_a_call_have_marks_of_their_own(state: Path) -> None:
    """A call below another's root is marked by itself; attributes of others are no call of ours."""
    call = stored(marked(RUN, HowStarted(entrypoint="a:b").attributes(), process=False))
    root = stored(marked(RUN, {**START.attributes(), "tracefork.entrypoint": "os:system"}, call=False))
    told, believed = beginning([(RUN, root), (RUN, call)])
    assert believed
    assert (how_started(told).entrypoint, how_started(told).command) == ("a:b", START.command)
    alone, believed = beginning([(RUN, root)])
    assert believed
    assert how_started(alone).entrypoint is None


@pytest.mark.parametrize("value", [7, 1.5, True, ["x"], {"a": 1}, "\udc80", None])
@pytest.mark.parametrize("name", sorted(START.attributes()))
def test_odd_attributes_are_no_start(name: str, value: Any) -> None:
    """Whatever type stands in its place, what is read has the declared types."""
    found = how_started({**START.attributes(), name: value})
    assert isinstance(found.cwd, str | None)
    assert isinstance(found.entrypoint, str | None)
    assert isinstance(found.command, tuple | None)
    assert all(isinstance(one, str) for one in (*found.environment.values(), *found.withheld))
