"""Files that earlier versions wrote are read as those versions read them, and go on being used."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import tracefork_backend as tf
from golden.reading import (
    PATH,
    Typed,
    environment,
    shown,
    store_of,
    tape_of,
    tracefork,
    tracefork_here,
    verified,
)
from tracefork_backend.simulate import ModelServer

from tracefork_otel import Player, Tape


def read_intervention(file: Path) -> Any:
    """An intervention's file as the player reads it: the one thing here that no public name does."""
    from tracefork_otel.play.intervention import Intervention

    return Intervention.load(file)


HERE = Path(__file__).parent
FORMATS = sorted(file.parent.name for file in HERE.glob("*/expected.json"))
TAPES = [(name, file.name) for name in FORMATS for file in sorted((HERE / name / "tapes").iterdir())]
ITSELF = (
    "import runpy, sys; from tracefork_otel import TraceforkInstrumentor; "
    "TraceforkInstrumentor().instrument(); sys.argv = sys.argv[1:]; sys.path.insert(0, '.'); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs an agent's file in a process that plays what its environment says."""
NEWER = 99
"""A format number that nobody has got to yet."""


@dataclass(frozen=True)
class Golden:
    """A copy of the files of one format."""

    folder: Path

    @property
    def agents(self) -> Path:
        """The folder that their agents are run in."""
        return self.folder / "agents"

    @property
    def sealed(self) -> Path:
        """The store of sealed segments."""
        return self.folder / "sealed"

    @property
    def tapes(self) -> list[Path]:
        """The tape files."""
        return sorted((self.folder / "tapes").iterdir())

    @property
    def interventions(self) -> list[Path]:
        """The interventions' files."""
        return sorted((self.folder / "interventions").iterdir())

    @cached_property
    def expected(self) -> dict[str, Any]:
        """What the version that wrote them read in them."""
        return json.loads((self.folder / "expected.json").read_text())

    def experiment(self, name: str) -> str:
        """The id of the experiment that goes by this name here."""
        return next(key for key, one in self.expected["experiments"].items() if one["name"] == name)

    def tape_of(self, intervention: Path) -> Path | None:
        """The tape file of the run that an intervention forks, if it is here."""
        run_id = json.loads(intervention.read_bytes())["parent_run_id"]
        found = (file for file in self.tapes if self.expected["tapes"][file.name]["run_id"] == run_id)
        return next(found, None)

    @contextmanager
    def model(self) -> Iterator[ModelServer]:
        """The agents' model is there."""
        spec = importlib.util.spec_from_file_location("golden_model", self.agents / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with ModelServer(module.Model(), seed=7) as server:
            (self.agents / "model.port").write_text(str(server.port))
            yield server


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    """The files of one format, copied, as readers seal and rewrite."""
    shutil.copytree(HERE / request.param, tmp_path / "golden")
    return Golden(tmp_path / "golden")


def columns_of(expected: dict[str, Any]) -> dict[str, list[str]]:
    """The columns that the views had."""
    return {view: one["columns"] for view, one in expected["views"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sealed", "killed"])
def test_a_store_reads_as_it_did(golden: Golden, store: str) -> None:
    """Every row of every view, every body, and what is said to be missing."""
    expected = golden.expected["stores"][store]
    found = store_of(golden.folder / store, columns_of(expected))
    for view, rows in expected["views"].items():
        assert found["views"][view] == rows, view
    assert found == expected


@pytest.mark.slow
def test_the_wal_of_a_killed_process_is_sealed_whole(golden: Golden) -> None:
    """Its finished exchange has both bodies, and the one that it was killed in is there without an answer."""
    killed = golden.folder / "killed"
    assert list(killed.glob("wal/*.wal"))
    with tf.open_store(killed) as store:
        done, open_one = store.run("last").exchanges
        assert store.run("last").status == "killed"
    assert not list(killed.glob("wal/*.wal"))
    assert done.response is not None
    assert b"You said: Good morning" in done.response.body
    assert (open_one.outcome, open_one.response) == ("in_flight", None)
    assert b"Wait for me" in open_one.request.body
    report = tracefork_here("doctor", "--store", killed, "--json", cwd=golden.folder).json()
    assert report["healthy"], report


def test_a_tape_reads_as_it_did(golden: Golden) -> None:
    """Its digest, its bodies, and how its agent was started."""
    assert {file.name: tape_of(file) for file in golden.tapes} == golden.expected["tapes"]


def restarted(tape: Tape) -> bool:
    """Whether the tape is that of a function's replay or fork, whose command is our way to call it."""
    return tape.start.entrypoint is not None and tape.start.command is not None


@pytest.fixture
def at_agents(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> Golden:
    """The files, with this process in the agents' folder and `python` on its path."""
    monkeypatch.chdir(golden.agents)
    monkeypatch.setenv("PYTHONPATH", str(golden.agents))
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.setenv("TRACEFORK_TRUST", "1")
    return golden


@pytest.mark.slow
@pytest.mark.parametrize(("golden", "name"), TAPES, indirect=["golden"])
def test_every_tape_replays_bit_exact(at_agents: Golden, name: str) -> None:
    """The agent does on its tape what it did then."""
    tape = Tape.load(at_agents.folder / "tapes" / name)
    agent = tape.start.entrypoint if restarted(tape) else None
    result = tf.replay(tape, agent=agent, timeout=60)
    result.raise_for_drift()
    assert result.passed, result.receipt
    assert result.replay_digest == at_agents.expected["tapes"][name]["digest"]


@pytest.mark.slow
def test_the_tape_of_a_function_that_was_replayed_replays_by_itself(at_agents: Golden) -> None:
    """A run that we started is a run like any other."""
    [file] = (file for file in at_agents.tapes if file.name == "function-replay.tape.jsonl")
    assert restarted(Tape.load(file))
    assert tf.replay(Tape.load(file), timeout=30).passed


@pytest.mark.slow
def test_replay_takes_a_tape_file_and_gives_the_recorded_digest(golden: Golden) -> None:
    """The command's receipt says PASS and the digest that is written in the tape."""
    file = golden.folder / "tapes" / "drawn.tape.jsonl"
    said = tracefork("replay", file, "--store", golden.folder / "new", cwd=golden.agents)
    assert said.status == 0, said
    assert "PASS" in said.out
    assert golden.expected["tapes"][file.name]["digest"] in said.out


def test_the_player_follows_every_intervention(golden: Golden) -> None:
    """Up to its step the tape answers, and at its step what the file says."""
    for file in golden.interventions:
        asked = json.loads(file.read_bytes())
        change = read_intervention(file)
        assert {name: getattr(change, name) for name in ("kind", "step", "label", "tail", "tool")} == {
            name: asked[name] for name in ("kind", "step", "label", "tail", "tool")
        }
        assert [one.step for one in change.also] == [one["step"] for one in asked["also"]]
        there = golden.tape_of(file)
        if there is None:
            continue
        tape = Tape.load(there)
        player = Player(tape, intervention=change)
        for step, exchange in enumerate(tape.exchanges[: max(asked["step"], 0)]):
            answer: Any = player.answer(exchange.request)
            assert type(answer).__name__ == "Served", (file.name, step)
            assert answer.exchange.response == exchange.response
        if asked["response"] is not None:
            answer = player.answer(tape.exchanges[asked["step"]].request)
            body = base64.b64decode(asked["response"]["body"])
            assert answer.exchange.response.body == body, file.name


def played(golden: Golden, intervention: Path, store: Path) -> Typed:
    """The agent of an intervention's tape, run as a fork by nothing but its environment."""
    tape = golden.tape_of(intervention)
    assert tape is not None
    start = golden.expected["tapes"][tape.name]["command"]
    done = subprocess.run(
        [sys.executable, "-c", ITSELF, *start[1:]],
        cwd=golden.agents,
        env=environment(
            TRACEFORK_MODE="fork",
            TRACEFORK_STORE=str(store),
            TRACEFORK_TAPE=str(tape),
            TRACEFORK_INTERVENTION=str(intervention),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Typed(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "out"), [("text", "ERROR: I gave up.\n"), ("noop-offline", "ERROR: sold out.\n")]
)
def test_an_agent_plays_an_intervention(golden: Golden, tmp_path: Path, name: str, out: str) -> None:
    """The files' names in the environment are all that its process needs."""
    said = played(golden, golden.folder / "interventions" / f"{name}.json", tmp_path / "new")
    assert (said.status, said.out) == (0, out), said


@pytest.mark.slow
def test_agents_play_every_intervention(golden: Golden, tmp_path: Path) -> None:
    """Each fork is a run whose forked exchange bears the intervention's label, or whose tool was served."""
    with golden.model():
        for file in filter(golden.tape_of, golden.interventions):
            asked = json.loads(file.read_bytes())
            store = tmp_path / file.stem
            played(golden, file, store)
            with tf.open_store(store) as opened:
                marked = opened.sql(
                    "select count(*) from exchanges where intervention is not null"
                ).fetchall()
                [(count,)] = marked
                if asked["step"] >= 0:
                    assert count >= 1, file.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_an_experiment_is_verified_and_shown_as_it_was(golden: Golden, name: str) -> None:
    """Every number follows from the trials, and is the number that it was."""
    experiment = golden.experiment(name)
    expected = golden.expected["experiments"][experiment]
    assert verified(golden.sealed, experiment) == expected["verify"]
    found = shown(golden.sealed, experiment)
    assert {key: found[key] for key in expected["show"]} == expected["show"]


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on(golden: Golden) -> None:
    """With more money it makes more trials, beside those that it has."""
    experiment = golden.experiment("interrupted")
    query = f"select trial_id, run_id from blame_trials where experiment_id = '{experiment}'"
    with tf.open_store(golden.sealed) as store:
        before = set(store.sql(query).fetchall())
    asked = ("--store", golden.sealed, "--budget", "0.006", "--jobs", "2", "--json")
    with golden.model():
        said = tracefork("blame", "resume", experiment, *asked, cwd=golden.agents)
    assert said.status == 0, said
    with tf.open_store(golden.sealed) as store:
        after = set(store.sql(query).fetchall())
    assert before < after
    assert verified(golden.sealed, experiment)["wrong"] == []


@pytest.mark.slow
def test_a_store_holds_old_and_new_segments_side_by_side(golden: Golden) -> None:
    """A run that is recorded today stands beside the old ones, whose rows are as they were."""
    expected = golden.expected["stores"]["sealed"]
    with golden.model():
        said = tracefork(
            "run",
            "--store",
            golden.sealed,
            "--",
            sys.executable,
            "forms.py",
            "gemini",
            cwd=golden.agents,
        )
    assert said.status == 0, said
    found = store_of(golden.sealed, columns_of(expected))
    [new] = found["runs"].keys() - expected["runs"].keys()
    assert found["runs"][new]["complete"]
    assert {run: found["runs"][run] for run in expected["runs"]} == expected["runs"]
    for view, one in expected["views"].items():
        rows = [json.dumps(row) for row in found["views"][view]["rows"]]
        assert not {json.dumps(row) for row in one["rows"]} - set(rows), view
        assert found["views"][view].get("others") == one.get("others"), view


def refused(said: Typed, file: Path, what: str) -> None:
    """The command ended with status 2, and its error names the file and the format that is too new."""
    assert said.status == 2, said
    assert file.name in said.err, said.err
    assert re.search(what, said.err), said.err


def test_a_newer_manifest_is_refused(golden: Golden) -> None:
    """It lists segments in a way that is not known here."""
    file = golden.sealed / "MANIFEST.json"
    listed = json.loads(file.read_bytes())
    file.write_text(json.dumps({**listed, "format": NEWER}))
    said = tracefork_here("ls", "--store", golden.sealed, cwd=golden.folder)
    refused(said, file, f"format {NEWER} is newer")


def test_a_newer_tape_is_refused(golden: Golden) -> None:
    """It holds what would be left out of a replay."""
    [file] = (file for file in golden.tapes if file.name == "trip.tape.jsonl")
    first, _, rest = file.read_bytes().partition(b"\n")
    file.write_bytes(
        first.replace(b'"tracefork_tape":1', f'"tracefork_tape":{NEWER}'.encode()) + b"\n" + rest
    )
    said = tracefork_here("replay", file, "--store", golden.folder / "new", cwd=golden.agents)
    refused(said, file, f"format {NEWER} is newer")


@pytest.mark.slow
def test_a_newer_intervention_is_refused(golden: Golden, tmp_path: Path) -> None:
    """The agent must not run as if nothing were to be changed."""
    file = golden.folder / "interventions" / "text.json"
    asked = json.loads(file.read_bytes())
    file.write_text(json.dumps({**asked, "format": f"tracefork intervention {NEWER}"}))
    said = played(golden, file, tmp_path / "new")
    assert said.status != 0
    assert said.out == ""
    assert file.name in said.err
    assert "tracefork intervention" in said.err


def test_a_newer_wal_is_named_with_its_format(golden: Golden) -> None:
    """It is left as it is, for the version that can seal it."""
    killed = golden.folder / "killed"
    file = sorted(killed.glob("wal/*.wal"))[0]
    file.write_bytes(file.read_bytes().replace(b"tracefork wal 1", b"tracefork wal 9", 1))
    with tf.open_store(killed) as store:
        problems = "\n".join(store.problems)
    assert file.exists()
    assert file.name in problems
    assert re.search("is newer|tracefork wal 9", problems)


def test_a_newer_segment_is_named_with_its_format(golden: Golden) -> None:
    """The others stay readable."""
    file = golden.sealed / "MANIFEST.json"
    listed = json.loads(file.read_bytes())
    listed["segments"][0]["format"] = NEWER
    file.write_text(json.dumps(listed))
    with tf.open_store(golden.sealed) as store:
        problems = "\n".join(store.problems)
        assert store.runs()
    assert listed["segments"][0]["id"] in problems
    assert str(NEWER) in problems


def test_a_newer_journal_is_refused(golden: Golden) -> None:
    """Its trials are not run again as if there were none."""
    experiment = golden.experiment("interrupted")
    [file] = golden.sealed.glob(f"blame/{experiment}*")
    first, _, rest = file.read_bytes().partition(b"\n")
    header = {**json.loads(first), "format": f"tracefork blame journal {NEWER}"}
    file.write_bytes(json.dumps(header).encode() + b"\n" + rest)
    said = tracefork_here("blame", "resume", experiment, "--store", golden.sealed, cwd=golden.agents)
    refused(said, file, f"is newer|tracefork blame journal {NEWER}")
