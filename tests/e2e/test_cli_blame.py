"""Blame typed as a user types it, on the booking example."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import EXAMPLES, environment, tracefork
from tracefork_backend.blame import changes, journal
from tracefork_backend.reconstruct import reconstruct
from tracefork_backend.store import open_store

BOOKING = EXAMPLES / "booking_agent.py"
GRADED = ("--success-re", "BOOKED", "--failure-re", "ERROR|sorry")
RIGHT = {"tool_input": {"flight": "NH176", "date": "2026-11-03"}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that failed, and a file that mends its step 2."""
    folder = tmp_path_factory.mktemp("recorded")
    done = tracefork("run", "--", sys.executable, BOOKING, "--city", "Osaka", cwd=folder)
    assert done.status == 0, done.err
    (folder / "repair.json").write_text(json.dumps({"2": RIGHT}))
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.mark.slow
def test_a_killed_repair_is_resumed_shown_and_verified(folder: Path) -> None:
    """Kill -9 in the middle, resume, and the repaired step is certified; every number is recomputed."""
    asked = ("blame", "last", *GRADED, "--mode", "intervene", "--repair", "repair.json", "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.cli", *asked], cwd=folder, env=environment()
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
    done = tracefork("blame", "resume", "last", cwd=folder, timeout=300)
    assert done.status == 0, done.err
    assert "step 2" in done.out
    after = journal.read(found[0])[1]
    assert after[: len(before)] == before
    assert len({one.trial_id for one in after}) == len(after)
    assert tracefork("blame", "verify", "last", cwd=folder).status == 0
    shown = tracefork("blame", "show", "last", cwd=folder)
    assert "not_intervenable" in shown.out
    row = tracefork("sql", "--json", "select step, verdict, is_root from blame", cwd=folder).rows
    assert row == [{"step": 2, "verdict": "certified", "is_root": True}]


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
    ((path, _),) = fits["corrupted_tool_output"][2].changes
    assert path == "messages[4].content[0].content"
    ((path, turns),) = fits["dropped_message"][2].changes
    assert path == "messages"
    assert isinstance(turns, list)
    assert len(turns) == 3
    assert "POISONED" in json.dumps(fits["poisoned_argument"][1].value)


def test_bad_usage_is_refused_in_one_line(folder: Path) -> None:
    """No oracle, two changes, an unknown mode or experiment, a budget of nothing: status 2 and what to do."""
    for arguments, says in (
        (("blame", "last"), "say what a success is"),
        (("blame", "last", *GRADED, "--noop", "--ablate", "x"), "one kind of change"),
        (("blame", "last", *GRADED, "--mode", "guess"), "--mode guess"),
        (("blame", "last", *GRADED, "--budget", "0"), "pays for no fork"),
        (("blame", "verify", "abcdef"), "no finished experiment begins with abcdef"),
    ):
        done = tracefork(*arguments, cwd=folder)
        assert done.status == 2, done.err
        assert says in done.err


def test_an_estimate_says_forks_money_and_chance(folder: Path) -> None:
    """Nothing is run, and the four lines say what would be."""
    done = tracefork("blame", "last", *GRADED, "--ablate", "x", "--estimate", "--budget", "2", cwd=folder)
    assert done.status == 0, done.err
    assert "chance of a verdict within $2.00" in done.out
