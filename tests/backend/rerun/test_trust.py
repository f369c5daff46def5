"""What was not recorded by this user on this machine is shown and not started, unless somebody says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import Desk, at_desk
from stored import Recorder, answered, asked
from tracefork_backend import fork, noop, replay
from tracefork_backend.blaming.experiment import blame
from tracefork_backend.grading.regex import regex
from tracefork_backend.matrices.matrix import matrix
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.trust import NotTrusted
from tracefork_backend.store import Run, open_store

from tracefork_otel import AgentFailed, Tape
from tracefork_otel.tape.marks import mark_of_tape, marked
from tracefork_otel.tape.start import HowStarted

RUN, LAUNCH = "ab" * 16, "cd" * 16
AGENT = """
    from pathlib import Path
    say("a"); say("b")
    Path("ran").touch()
"""
CALLED = """
    @tracefork_otel.agent
    def book(city):
        return say(city)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An agent, its model, and a shell that trusts nothing by itself."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


def planted(tape: Tape, **start: Any) -> Tape:
    """The tape with another start, as somebody may write it."""
    return replace(tape, start=replace(tape.start, **start))


COMMANDS: dict[str, Callable[[Any, Any], object]] = {
    "replay": lambda source, store: replay(source, store=store),
    "fork": lambda source, store: fork(source, at=1, edit=noop(), store=store),
    "matrix": lambda source, store: matrix([(source, 1)], [noop()], store=store),
}


@pytest.mark.slow
def test_without_a_home_recording_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is whole; its replay says why it asks."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "none")
    run = desk.recorded(AGENT)
    assert run.complete
    with pytest.raises(NotTrusted, match="without a home folder"):
        replay(run)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that this user's recorder says to be that of a command, which makes a file `ran`."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(tmp_path / "store", launch_id=LAUNCH)
    start = HowStarted(command=("touch", "ran"), cwd=str(tmp_path), environment={"AGENT_URL": "x"})
    recorder.root(LAUNCH, attributes=marked(LAUNCH, start.attributes()))
    for text in ("a", "b"):
        recorder.exchange(RUN, asked(text), answered("c"))
    recorder.wal.close()
    with open_store(tmp_path / "store") as store:
        yield store.run(RUN)


def tape_of(run: Run) -> Tape:
    """The tape of the run, as `tape export` writes it."""
    return reconstruct(run.store, run, command=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_changed_tape_starts_nothing(made: Run, tmp_path: Path, command: str) -> None:
    """What it would start is in the error, fit for a terminal."""
    tape = planted(tape_of(made), command=("sh", "-c", "touch ran\x1b[2J"))
    with pytest.raises(NotTrusted) as seen:
        COMMANDS[command](tape, made.store)
    assert not (tmp_path / "ran").exists()
    text = str(seen.value)
    assert "touch ran\\x1b[2J" in text
    assert str(tmp_path) in text
    assert "AGENT_URL" in text
    assert "--trust" in text.splitlines()[-1]
    assert "--agent" in text.splitlines()[-1]
    assert text.replace("\n", "").isprintable()


def test_a_changed_answer_is_another_tape(made: Run, tmp_path: Path) -> None:
    """An agent does what its model says."""
    tape = tape_of(made)
    first = tape.exchanges[0]
    assert first.response is not None
    body = answered("rm -r /")
    changed = replace(first, response=replace(first.response, body=body, chunk_sizes=(len(body),)))
    with pytest.raises(NotTrusted, match="was changed"):
        replay(replace(tape, exchanges=(changed, *tape.exchanges[1:])))
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_what_was_recorded_here_starts(desk: Desk, tmp_path: Path) -> None:
    """Of a store, or of a tape that was written and read; and so does what was made of it."""
    run = desk.recorded(AGENT)
    ran, file = desk.folder / "ran", tmp_path / "run.tape.jsonl"
    tape_of(run).dump(file)
    for command, source in (("replay", Tape.load(file)), ("fork", run), ("matrix", Tape.load(file))):
        ran.unlink()
        COMMANDS[command](source, desk.store)
        assert ran.exists(), command
    for kind in ("replay", "fork"):
        ran.unlink()
        replay(desk.store.runs(kind)[0])
        assert ran.exists(), kind


@pytest.mark.slow
def test_another_users_run_does_not_start(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another key, or with none, the same store is somebody else's; `trust` starts it."""
    state = os.environ["XDG_STATE_HOME"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(NotTrusted, match=r"there is no key at .*other"):
        replay(made)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "none")
    with pytest.raises(NotTrusted, match="without a home folder there is no key"):
        blame(made, oracle=regex(success="A"))
    assert not (tmp_path / "ran").exists()
    for trust in (True, False):
        with pytest.raises(AgentFailed, match="touch ran ran outside"):
            replay(made, trust=trust)
        assert (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink()
        monkeypatch.setenv("TRACEFORK_TRUST", "1")
    monkeypatch.setenv("TRACEFORK_TRUST", "0")
    monkeypatch.setenv("XDG_STATE_HOME", state)
    with pytest.raises(AgentFailed):
        replay(made)


def test_in_another_folder_it_is_another_start(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape is played in the checkout where it is called; the agent there may be anybody's."""
    (tmp_path / "agent.sh").touch()
    started = replace(tape_of(made).start, command=("sh", "agent.sh"))
    tape = replace(tape_of(made), start=started)
    tape = replace(tape, mark=mark_of_tape(tape))
    other = tmp_path / "clone"
    other.mkdir()
    (other / "agent.sh").write_text("touch ran")
    monkeypatch.chdir(other)
    with pytest.raises(NotTrusted, match="in another folder"):
        replay(tape)
    assert not (other / "ran").exists()
    with pytest.raises(AgentFailed):
        replay(tape, trust=True)
    assert (other / "ran").exists()


@pytest.mark.slow
def test_nothing_of_a_matrix_starts_if_one_of_its_runs_may_not(made: Run, tmp_path: Path) -> None:
    """All are looked at before the first is forked."""
    foreign = planted(tape_of(made), command=("sh", "agent.sh"))
    with pytest.raises(NotTrusted):
        matrix([(made, 1), (foreign, 1)], [noop()], store=made.store)
    assert not (tmp_path / "ran").exists()
    assert not made.store.runs("fork")


def test_what_a_file_may_hold_is_shown_at_bounded_length(made: Run) -> None:
    """A start of megabytes, with what a terminal acts on or hides, is a short text."""
    evil = "\x9b2J\u202e\u2066\udc80\0" + "x" * 3_000_000
    tape = planted(
        tape_of(made),
        command=("sh", evil),
        cwd="/\x1b]0;title\x07",
        environment={evil: "1", **{f"V{n}": "" for n in range(5000)}},
        arguments={"args": [evil]},
    )
    with pytest.raises(NotTrusted) as seen:
        replay(tape)
    text = str(seen.value)
    assert len(text) < 15_000
    assert text.replace("\n", "").isprintable()


def test_a_store_holds_no_key(made: Run) -> None:
    """It is in the user's folder alone."""
    key = (Path(os.environ["XDG_STATE_HOME"]) / "tracefork-otel" / "key").read_bytes()
    files = [file for file in made.store.path.rglob("*") if file.is_file()]
    assert files
    assert not any(key in file.read_bytes() or key.hex().encode() in file.read_bytes() for file in files)


THEIRS = """
import os
os.environ["WHERE"] = os.getcwd()
def act(*args):
    raise SystemExit(f"theirs in {os.getcwd()}")
"""


@pytest.mark.slow
def test_an_agent_of_ones_own_gets_only_data(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A function that the caller names is found here, not in the tape's folder, nor in its environment."""
    run = desk.called(CALLED, "book('Osaka')")
    tape = reconstruct(desk.store, run)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "agent.py").write_text(THEIRS)
    foreign = planted(
        tape,
        cwd=str(theirs),
        script=str(theirs),
        environment={"PYTHONPATH": str(theirs), "AGENT_URL": "http://127.0.0.1:9", "EXTRA": "1"},
        withheld=("AGENT_API_KEY", "BASH_ENV"),
    )
    monkeypatch.delenv("AGENT_API_KEY")
    seen = replay(foreign, agent="agent:book")
    assert seen.passed, seen.receipt
    replay(foreign, agent="agent:book", store=desk.store)
    made = desk.store.runs("replay")[0].start
    assert made.arguments == {"args": ["Osaka"], "kwargs": {}}
    # What ran is the caller's own function, so the replay can be replayed.
    assert (made.command, made.cwd, made.entrypoint, made.script) == (None, None, "agent:book", None)
    assert (made.environment, made.withheld) == ({}, ("AGENT_API_KEY",))


@pytest.mark.slow
def test_a_call_of_a_function_starts_again(desk: Desk) -> None:
    """The function of a script is found in that script's folder, recorded by one line in the code."""
    run = desk.called(CALLED, "book('Osaka')")
    assert replay(run).passed
    with pytest.raises(NotTrusted, match=r"function +subprocess:getoutput"):
        replay(planted(reconstruct(desk.store, run), entrypoint="subprocess:getoutput"))


def test_nothing_that_says_a_start_is_no_matter_of_trust() -> None:
    """An empty start has another error, which says how to name an agent."""
    from tracefork_backend.rerun.trust import permitted

    tape = Tape(run_id="ab" * 16, exchanges=(), start=HowStarted())
    assert permitted(tape, agent=None, trust=False, portable=True) is tape
