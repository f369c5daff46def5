"""Blame typed as a user types it, on the booking example."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.booking import BOOKING, GRADED, RIGHT, record_failure
from e2e.command import BARE, environment, here, tracefork
from tracefork_backend.blaming import changes, journal
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import Call, ModelServer, Reply
from tracefork_backend.simulate.behaviours import booking
from tracefork_backend.store import open_store


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agents import in each command: a recording does not say it."""
    monkeypatch.setenv("PYTHONPATH", BARE["PYTHONPATH"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that failed, and a file that mends its step 2."""
    return record_failure(tmp_path_factory.mktemp("recorded"), repair={"2": RIGHT})


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.mark.slow
def test_a_killed_repair_is_resumed_shown_and_verified(folder: Path) -> None:
    """Kill -9 in the middle, resume, and the repaired step is certified; every number is recomputed."""
    asked = ("blame", "last", *GRADED, "--mode", "intervene", "--repair", "repair.json", "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.cli", *asked], cwd=folder, env=environment(**BARE)
    )
    store = folder / ".tracefork"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = list((store / "blame").glob("*.journal.jsonl")) if (store / "blame").is_dir() else []
            if found and len(found[0].read_bytes().splitlines()) > 2:
                break
            time.sleep(0.05)
        else:
            pytest.fail("no trial was journalled")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = journal.read(found[0])[1]
    done = here("blame", "resume", "last", cwd=folder, **BARE)
    assert done.status == 0, done.err
    assert "step 2" in done.out
    after = journal.read(found[0])[1]
    assert after[: len(before)] == before
    assert len({one.trial_id for one in after}) == len(after)
    assert here("blame", "verify", "last", cwd=folder).status == 0
    shown = here("blame", "show", "last", cwd=folder)
    assert "not_intervenable" in shown.out
    row = here("sql", "--json", "select step, verdict, is_root from blame", cwd=folder).rows
    assert row == [{"step": 2, "verdict": "certified", "is_root": True}]


@pytest.mark.slow
def test_fault_classes_change_what_their_names_say(recorded: Path) -> None:
    """Each of the five is bound to the steps that have what it breaks, and to no other."""
    with open_store(recorded / ".tracefork") as store:
        tape = reconstruct(store, store.run("last"))
    fits = {name: changes.bound(changes.fault(name), tape)[0] for name in changes.FAULT_CLASSES}
    later = set(range(1, tape.steps))
    assert set(fits["corrupted_tool_output"]) == set(fits["misleading_retrieval"]) == later
    assert set(fits["dropped_message"]) == later
    assert set(fits["wrong_system_prompt"]) == set(range(tape.steps))
    assert set(fits["poisoned_argument"]) == set(range(tape.steps - 1))
    ((path, _),) = fits["corrupted_tool_output"][2].edits
    assert path == "messages[4].content[0].content"
    ((path, turns),) = fits["dropped_message"][2].edits
    assert path == "messages"
    assert isinstance(turns, list)
    assert len(turns) == 3
    poisoned = fits["poisoned_argument"][1].response
    assert poisoned is not None
    assert b"POISONED" in poisoned.body


@pytest.mark.slow
def test_bad_usage_is_refused_in_one_line(folder: Path) -> None:
    """No oracle, two changes, an unknown mode or experiment, a budget of nothing: status 2 and what to do."""
    for arguments, says in (
        (("blame", "last"), "say what a success is"),
        (("blame", "last", *GRADED, "--noop", "--ablate", "x"), "one kind of change"),
        (("blame", "last", *GRADED, "--mode", "guess"), "--mode guess"),
        (("blame", "last", *GRADED, "--budget", "0"), "pays for no fork"),
        (("blame", "last", *GRADED, "--judge", "it is booked"), "one oracle grades a run"),
        (("blame", "last", "--judge", "x", "--judge-rates", "0.9"), "write it like 0.95,0.9"),
        (("blame", "last", "--judge-model", "claude-haiku-4-5"), "belong to --judge"),
        (("blame", "last", "--judge", "@none.txt"), "cannot read none.txt"),
        (("blame", "last", "--judge", "it is booked", "--mode", "fixed"), "ANTHROPIC_API_KEY"),
        (("blame", "run", "last"), "say what a success is"),
        (("blame", *GRADED, "last", "--mode", "guess"), "--mode guess"),
        (("blame", "resume", "last", "--success-re", "BOOKED"), "leave --success-re out"),
        (("blame", "resume", "last", "--alpha=0.2"), "leave --alpha out"),
        (("blame", "show", "last", "--noop"), "leave --noop out"),
        (("blame", "show", "--nope"), "No such option: --nope"),
        (("blame", "verify", "last", "--nope"), "No such option: --nope"),
        (("blame", "verify", "abcdef"), "no finished experiment begins with abcdef"),
    ):
        here(*arguments, cwd=folder).refused(says)


@pytest.mark.slow
def test_an_experiment_that_its_limit_ended_goes_on_with_a_higher_one(folder: Path) -> None:
    """What ended it is named wherever it is said; more forks are made, and the numbers follow from all."""
    asked = ("blame", "last", *GRADED, "--mode", "fixed", "--max-trials", "2", "--jobs", "2")
    done = tracefork(*asked, cwd=folder)
    assert "(the number of forks ended the search: 2 at most)" in done.out
    assert "ended: max_trials" in done.out
    assert re.search(r"to go on: tracefork-otel blame resume \w{8} --max-trials N", done.out)
    assert "budget" not in done.out
    page = ("--report", "page.html")
    assert tracefork("blame", "show", "last", *page, cwd=folder).status == 0
    assert "as many forks were made as it was given" in (folder / "page.html").read_text()
    done = tracefork("blame", "resume", "last", "--max-trials", "5", "--jobs", "2", "--json", cwd=folder)
    (found,) = done.rows
    assert (found["forks"], found["stop_reason"]) == (5, "max_trials")
    assert tracefork("blame", "verify", "last", cwd=folder).status == 0


def test_help_shows_the_verbs_of_blame(tmp_path: Path) -> None:
    """They are sub-commands, and the flags of the first are those that `blame RUN` takes."""
    shown = here("blame", "--help", cwd=tmp_path)
    assert shown.status == 0
    assert all(f" {verb} " in shown.out for verb in ("run", "resume", "show", "verify"))
    short, full = (here("blame", *verb, "--help", cwd=tmp_path) for verb in (("last",), ("run",)))
    assert short.out == full.out
    assert "--coupling" in full.out


@pytest.mark.slow
def test_an_estimate_says_forks_money_and_chance(folder: Path) -> None:
    """Nothing is run, and the four lines say what would be."""
    done = here("blame", "last", *GRADED, "--ablate", "x", "--estimate", "--budget", "2", cwd=folder)
    assert done.status == 0, done.err
    assert "chance of a verdict within $2.00" in done.out
    judged = here("blame", "last", "--judge", "It is booked", "--ablate", "x", "--estimate", cwd=folder)
    assert re.search(r"\n       with the judge, \$0\.\d+ for an ending like the recorded one\n", judged.out)
    poor = here(
        *("blame", "last", "--judge", "It is booked", "--ablate", "x", "--estimate", "--budget", "0.04"),
        cwd=folder,
    )
    assert re.search(r"recorded one; the budget sets \$0\.04\d+ aside for each\n", poor.out), poor.out
    assert "chance of a verdict within $0.0400: 0%" in poor.out
    unknown = ("--judge-model", "no-such-model", "--ablate", "x", "--estimate")
    told = here("blame", "last", "--judge", "It is booked", *unknown, cwd=folder)
    assert "left out: the price of no-such-model is not known; say it with --price MODEL=IN/OUT" in told.out
    given = ("--price", "no-such-model=1/5")
    told = here("blame", "last", "--judge", "It is booked", *unknown, *given, cwd=folder)
    assert "left out" not in told.out
    assert "with the judge" in told.out


def traveller_and_judge(call: Call) -> Reply:
    """Answer a judge's question by what was booked, and book flights else."""
    if not call.prompt.startswith("Rubric:"):
        return booking(call)
    wanted = "SUCCEEDED" if "BOOKED" in call.prompt else "FAILED"
    return Reply(text=next(line[0] for line in call.prompt.splitlines() if wanted in line and line[1] == "."))


@pytest.mark.slow
def test_a_judge_grades_and_what_it_cost_is_shown_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--judge` asks a real SDK's client; its model, errors and price stand beside the forks'."""
    monkeypatch.delenv("PYTHONPATH")
    with ModelServer(traveller_and_judge) as server:
        given = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "sk-ant-test"}
        done = tracefork("run", "--", sys.executable, BOOKING, "--city", "Osaka", cwd=tmp_path, **given)
        assert done.status == 0, done.err
        (tmp_path / "rubric.txt").write_text("The run succeeded if a flight was booked.")
        (tmp_path / "repair.json").write_text(json.dumps({"2": RIGHT}))
        asked = ("--judge", "@rubric.txt", "--judge-rates", "0.95,0.9", "--repair", "repair.json")
        done = tracefork("blame", "last", *asked, "--mode", "intervene", cwd=tmp_path, timeout=300, **given)
    assert done.status == 0, done.err
    assert "step 2 is the root cause" in done.out
    assert "sensitivity 0.95, specificity 0.9 as given" in done.out
    (row,) = here(
        "sql", "--json", "select oracle_name, grading_usd, spent_usd from blame_experiments", cwd=tmp_path
    ).rows
    assert row["oracle_name"] == "judge claude-haiku-4-5"
    assert row["grading_usd"] > 0 < row["spent_usd"]


@pytest.mark.slow
def test_auto_finds_where_a_sampled_run_was_lost(tmp_path: Path) -> None:
    """A real agent that fails in seven of ten runs is lost at step 2, found by redraws alone."""
    agent = (sys.executable, BOOKING, "--city", "Osaka", "--sampled")
    for _ in range(20):
        done = tracefork("run", "--", *agent, cwd=tmp_path, **BARE)
        assert done.status == 0, done.err
        if "ERROR" in done.out:
            break
    done = tracefork("blame", "last", *GRADED, "--jobs", "2", cwd=tmp_path, timeout=600, **BARE)
    assert done.status == 0, done.err
    top = here("sql", "--json", "select mode, top_step from blame_experiments", cwd=tmp_path).rows
    assert top == [{"mode": "value", "top_step": 2}]
    assert here("blame", "verify", "last", cwd=tmp_path).status == 0
    assert here("blame", "show", "last", "--report", "page.html", cwd=tmp_path).status == 0
    page = (tmp_path / "page.html").read_text()
    assert "Step 2 lost this run." in page
    assert "Drawn again; fork" in page
    assert "request: {" not in page  # the prefix is the recorded one, so only the answers differ
