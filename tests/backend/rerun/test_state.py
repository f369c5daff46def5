"""An agent that runs again begins with its files as they were, in a copy of its own."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from forked import Desk, at_desk
from tracefork_backend.agents.recording import record
from tracefork_backend.rerun import state
from tracefork_backend.rerun.edits import text
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.rerun.stage import Stage
from tracefork_backend.rerun.starting import InProcesses, playable
from tracefork_backend.rerun.state import lacking, take_in, with_state
from tracefork_backend.store import Run, Store, doctor, open_store
from tracefork_backend.store.removing import planned, remove
from tracefork_backend.store.states import tidy

from tracefork_otel import StoreError, Tape, UsageError
from tracefork_otel.state.keeping import in_use

KEEPS = """
    import pathlib, sqlite3

    db = sqlite3.connect("memory.db", isolation_level=None)
    db.execute("create table if not exists said (text)")
    notes = pathlib.Path(__file__).parent / "notes"  # an absolute path
    notes.mkdir(exist_ok=True)
    before = [row[0] for row in db.execute("select text from said")]
    before += sorted(f"{note.name}={note.read_text()}" for note in notes.iterdir())
    answer = say(" ".join(before) or "nothing")
    db.execute("insert into said values (?)", [answer])
    with open(notes / str(len(before)), "w") as note:
        note.write(answer)
    print(answer, len(list(notes.iterdir())))
"""


def kept_by(desk: Desk) -> None:
    """One run of the agent, with what it keeps named."""
    paths = ("memory.db", str(desk.folder / "notes"))
    assert record(desk.store_path, (sys.executable, "agent.py"), state=paths).runs


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An agent that adds to a database and a folder what its model answers, recorded twice."""
    with (
        pytest.MonkeyPatch.context() as patch,
        at_desk(tmp_path_factory.mktemp("desk"), patch) as made,
    ):
        made.write(KEEPS)
        kept_by(made)
        kept_by(made)
        yield made


@pytest.fixture
def copied(desk: Desk, tmp_path: Path) -> Store:
    """A copy of its store."""
    shutil.copytree(desk.store_path, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.fixture
def own(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk beside it, in a folder of its own, for another agent of the same server."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Desk(folder, desk.server)


def runs_of(store: Store) -> list[Run]:
    """The two runs, the first one first."""
    return sorted(store.runs("record"), key=lambda run: run.started_at)


def files_of(folder: Path) -> dict[str, str]:
    """What the agent has in its folder, by digest."""
    found = [folder / "memory.db", *sorted((folder / "notes").glob("*"))]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in found if path.exists()}


@pytest.mark.slow
def test_a_replay_begins_where_the_recording_did(desk: Desk) -> None:
    """Of the first run, before which nothing was there, whatever is there now."""
    before = files_of(desk.folder)
    result = replay(runs_of(desk.store)[0])
    assert result.passed, result.receipt
    assert result.stdout == "NOTHING 1\n"
    assert files_of(desk.folder) == before


@pytest.mark.slow
def test_forks_begin_there_too_and_are_runs_with_that_state(desk: Desk) -> None:
    """Several at once; and a fork is replayed in its turn."""
    before = files_of(desk.folder)
    with Forker(runs_of(desk.store)[1]) as forker:
        changed = Planned(change=text("other").bind(forker.tape, 0))
        made = forker.forks([changed] * 2)
    assert [(one.problem, one.stdout) for one in made] == [(None, "other 2\n")] * 2
    result = replay(desk.store.run(made[0].run_id))
    assert result.passed, result.receipt
    assert files_of(desk.folder) == before
    assert not list(desk.store_path.glob(".fork-*"))


@pytest.mark.slow
def test_no_start_without_the_state(copied: Store) -> None:
    """Where the store has lost it, that is said, and `doctor` names the file."""
    assert doctor(copied.path).healthy
    for file in (copied.path / "state").iterdir():
        if file.stat().st_size > 4000:
            file.unlink()
    with pytest.raises(StoreError, match=r"memory\.db: the store has not what was kept of it any more"):
        replay(runs_of(copied)[1], trust=True)
    report = doctor(copied.path)
    assert not report.healthy
    assert "memory.db; restore it" in report.files[0].why


@pytest.mark.slow
def test_state_goes_with_the_last_run_that_needs_it(copied: Store) -> None:
    """What others need stays; what nobody needs is told, and goes."""
    objects = copied.path / "state"
    first, second = runs_of(copied)
    before = {file.name for file in objects.iterdir()}
    remove(copied, planned(copied, [first.run_id]))
    assert {file.name for file in objects.iterdir()} == before  # all that the first has is in the second
    (objects / ("0" * 64)).write_text("left by a recording that was killed")
    assert "no run needs this state" in doctor(copied.path).files[0].why
    with in_use(copied.path):
        remove(copied, planned(copied, [second.run_id], forks=True))
        assert len(list(objects.iterdir())) == len(before) + 1
    remove(copied, planned(copied, []))
    assert [file.name for file in objects.iterdir()] == [".lock"]


def test_a_run_that_captured_nothing_leaves_no_state(desk: Desk) -> None:
    """Neither in a store that was there nor in another."""
    other = desk.folder / "other"
    assert not record(other, (sys.executable, "-c", "1"), state=["agent.py"]).runs
    assert not (other / "state").exists()


def test_what_cannot_be_kept_is_said_before_the_command_starts(desk: Desk) -> None:
    """Nothing is started, and nothing written."""
    (desk.folder / "big").write_bytes(bytes(2**20))
    asked = len(desk.server.requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEFORK_STATE_LIMIT", "1000")
        with pytest.raises(UsageError, match=r"big has 1048576 bytes, and state is kept up to 1000 bytes"):
            record(desk.store_path, (sys.executable, "agent.py"), state=["big"])
    assert len(desk.server.requests) == asked


def test_state_is_no_way_round_redaction(desk: Desk) -> None:
    """A file that holds what rules replace, and one in which they cannot look, are not kept."""
    rules = desk.folder / "rules.toml"
    rules.write_text('[[rule]]\nname = "cards"\npattern = "4[0-9]{15}"\n')
    (desk.folder / "a.txt").write_text("card 4111111111111111")
    sqlite3.connect(desk.folder / "b.db").execute("create table t (x)")
    for name, why in (("a.txt", "it holds what redaction rules replace"), ("b.db", "it is no text")):
        with pytest.raises(UsageError, match=f"{name} cannot be kept as state: {why}"):
            record(desk.store_path, (sys.executable, "agent.py"), state=[name], rules=rules)


def test_agents_that_keep_state_share_no_process(desk: Desk) -> None:
    """A file that a module has open would be the same one for all forks of its process."""
    how = playable("fork", match="exact", ignore=(), timing="none", allow_hosts=(), skip_hosts=(), tools=None)
    with Stage(runs_of(desk.store)[0], how, agent="agent:main", store=None, warm=True) as stage:
        assert isinstance(stage.way, InProcesses)
        assert not stage.way.is_warm


@pytest.mark.slow
def test_a_tape_carries_its_state(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replayed without the store, and imported into another one; without its files that is refused."""
    run = runs_of(desk.store)[1]
    tape = reconstruct(desk.store, run)
    whole = with_state(tape, desk.store_path)
    whole.dump(tmp_path / "run.tape")
    before = files_of(desk.folder)
    assert lacking(Tape.load(tmp_path / "run.tape")) is None
    assert replay(Tape.load(tmp_path / "run.tape"), trust=True).passed
    other = tmp_path / "other"
    import_tape(other, tmp_path / "run.tape")
    assert doctor(other).healthy
    monkeypatch.setattr(state, "CARRIED", 10)
    less = with_state(tape, desk.store_path)
    assert "memory.db" in str(lacking(less))
    with pytest.raises(
        UsageError, match=r"does not carry the state that its agent begins with, .*memory\.db"
    ):
        replay(less)
    less.dump(tmp_path / "less.tape")
    import_tape(tmp_path / "third", tmp_path / "less.tape")
    assert doctor(tmp_path / "third").healthy
    with open_store(tmp_path / "third") as third, pytest.raises(UsageError, match="its tape did not carry"):
        replay(third.run("last"), trust=True)
    assert files_of(desk.folder) == before


@pytest.mark.slow
def test_what_runs_again_elsewhere_takes_its_state_along(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay that is kept in another store is a run of that, with the same beginning.

    Whatever else ends in that store meanwhile.
    """

    def meanwhile(files: Mapping[str, bytes], objects: Path) -> None:
        take_in(files, objects)
        tidy(objects.parent, there=True)

    monkeypatch.setattr(state, "take_in", meanwhile)
    with open_store(tmp_path / "other") as other:
        (tmp_path / "other" / "wal").mkdir(parents=True)
        made = replay(runs_of(desk.store)[0], store=other)
        assert made.passed
    assert doctor(tmp_path / "other").healthy


@pytest.mark.slow
def test_an_agent_says_itself_what_it_keeps(own: Desk) -> None:
    """By its own line, alone and under `run`; and what it writes besides is said once."""
    own.write(
        """
        from tracefork_otel import TraceforkInstrumentor
        TraceforkInstrumentor().instrument(store="store", http_spans=False, state="kept.txt")
        with open("kept.txt", "a+") as kept, open("beside.txt", "a") as beside:
            kept.seek(0)
            print(say(kept.read() or "nothing"))
            kept.write("x")
            beside.write("y")
        """
    )
    assert subprocess.run([sys.executable, "agent.py"], check=True).returncode == 0
    own.record()
    for run, said in zip(runs_of(own.store), ("NOTHING", "X"), strict=True):
        result = replay(run)
        assert result.passed, result.receipt
        assert result.stdout == f"{said}\n"
        (note,) = result.notes
        assert "opened " + str(own.folder / "beside.txt") + " for writing, and not in a copy" in note
    assert (own.folder / "kept.txt").read_text() == "xx"


@pytest.mark.slow
def test_a_database_that_was_not_kept_is_not_changed(own: Desk) -> None:
    """The agent and the process that it starts share a copy, which the receipt says once."""
    own.write(
        """
        import sqlite3, subprocess, sys
        adds = "import sqlite3; d = sqlite3.connect('a.db', isolation_level=None); "
        adds += "d.execute('insert into t values (1)')"
        sqlite3.connect("a.db", isolation_level=None).execute("create table if not exists t (x)")
        answer = say("x")
        subprocess.run([sys.executable, "-c", adds], check=True)
        print(answer, sqlite3.connect("a.db").execute("select count(*) from t").fetchone()[0])
        """
    )
    own.record()
    before = (own.folder / "a.db").read_bytes()
    (run,) = runs_of(own.store)
    result = replay(run)
    assert not result.drifts, result.receipt
    assert result.stdout == "X 2\n"
    (note,) = (line for line in result.receipt if "a.db" in line)
    assert f"a copy of {own.folder / 'a.db'} as it is now" in note
    assert f"--state {own.folder / 'a.db'}" in note
    assert (own.folder / "a.db").read_bytes() == before


@pytest.mark.slow
def test_what_shelve_makes_of_a_name(own: Desk) -> None:
    """Several files, none of which has the name: nothing was there at first, and then all of them."""
    own.write(
        """
        import shelve
        with shelve.open("notes") as notes:
            answer = say(" ".join(sorted(notes)) or "nothing")
            notes[str(len(notes))] = answer
        print(answer)
        """
    )
    for _ in range(2):
        assert record(own.store_path, (sys.executable, "agent.py"), state=["notes"]).runs
    before = {path.name: path.read_bytes() for path in own.folder.glob("notes*")}
    for run, said in zip(runs_of(own.store), ("NOTHING", "0"), strict=True):
        result = replay(run)
        assert result.passed, result.receipt
        assert (result.stdout, result.notes) == (f"{said}\n", ())
    assert {path.name: path.read_bytes() for path in own.folder.glob("notes*")} == before


@pytest.mark.slow
def test_programs_of_other_languages(own: Desk) -> None:
    """They work on the copy where they are given its name; what a shell's line changes is said."""
    own.write(
        """
        import os, subprocess
        (folder := __import__("pathlib").Path("work")).mkdir(exist_ok=True)
        subprocess.run(["tee", "-a", "notes.txt"], input=b"x", stdout=subprocess.DEVNULL, check=True)
        subprocess.run("printf y >> inside", shell=True, cwd="work", check=True)
        if "TRACEFORK_TAPE" in os.environ:
            subprocess.run("printf z >> notes.txt", shell=True, check=True)
        print(say(open("notes.txt").read() + open("work/inside").read()))
        """
    )
    for _ in range(2):
        assert record(own.store_path, (sys.executable, "agent.py"), state=["notes.txt", "work"]).runs
    for run, said in zip(runs_of(own.store), ("XY", "XXYY"), strict=True):
        result = replay(run)
        assert result.passed, result.receipt
        assert result.stdout == f"{said}\n"
        (note,) = result.notes
        assert note.startswith(f"{own.folder / 'notes.txt'} changed while the agent ran on a copy")
    assert ((own.folder / "notes.txt").read_text(), (own.folder / "work" / "inside").read_text()) == (
        "xxzz",
        "yy",
    )


@pytest.mark.slow
def test_each_call_of_an_agent_has_the_state_of_its_own_start(
    own: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of one process, below spans of the user's and inside each other; `rm` knows what each needs."""
    monkeypatch.syspath_prepend(str(own.folder))
    own.write(
        """
        import pathlib
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from tracefork_otel import TraceforkInstrumentor, agent
        trace.set_tracer_provider(TracerProvider())
        TraceforkInstrumentor().instrument(store="store", http_spans=False, state="kept.txt")
        kept = pathlib.Path("kept.txt")

        @agent
        def inner(text):
            kept.write_text(text)
            return say(text, forget=True)

        @agent
        def outer(text):
            return inner((kept.read_text() if kept.exists() else "") + text)

        if __name__ == "__main__":
            for text in "ab":
                outer(text)
            with trace.get_tracer("mine").start_as_current_span("task"):
                outer("c")
        """
    )
    subprocess.run([sys.executable, "agent.py"], check=True)
    runs = runs_of(own.store)
    for run, said in zip(runs, ("A", "AB", "ABC"), strict=True):
        result = replay(run)
        assert result.passed, result.receipt
        assert result.result == said
    assert (own.folder / "kept.txt").read_text() == "abc"
    remove(own.store, planned(own.store, [runs[0].run_id, runs[2].run_id], forks=True))
    assert doctor(own.store_path).healthy
    assert replay(runs[1]).passed
