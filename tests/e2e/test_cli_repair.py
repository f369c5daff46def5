"""Repairs typed as a user types them, on the booking example."""

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
from e2e.booking import GRADED, RIGHT, record_failure
from e2e.command import BARE, environment, here, tracefork
from tracefork_backend.blaming import journal


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agents import in each command: a recording does not say it."""
    monkeypatch.setenv("PYTHONPATH", BARE["PYTHONPATH"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that failed, and a file of what may mend it."""
    return record_failure(tmp_path_factory.mktemp("recorded"), edits={"1": "Never mind.", "2": RIGHT})


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.mark.slow
def test_an_edit_is_shrunk_confirmed_kept_and_forked(folder: Path) -> None:
    """Of the two values that it changes the day is enough; what is kept makes a fork succeed."""
    asked = ("repair", "last", *GRADED, "--try", "edits.json", "--budget", "2.00", "--jobs", "2")
    done = tracefork(*asked, "--keep", "fix.json", cwd=folder, timeout=300, **BARE)
    assert done.status == 0, done.err
    assert 'step 2: call check_seats with date "2026-11-03" for "2026-11-04" (1 of 2 differences)' in done.out
    assert "what else differed did not matter: flight" in done.out
    assert "step 1: " in done.out
    assert "ended: confirmed" in done.out
    assert here("repair", "show", "last", cwd=folder).out == done.out
    (told,) = here("repair", "show", "last", "--json", cwd=folder).rows
    assert [(one["verdict"], one["without"], one["answers"]) for one in told["repairs"]] == [
        ("nothing_found", "", True),
        ("confirmed", "flight", True),
    ]
    begun = next((folder / ".tracefork" / "blame").glob("*.repair.jsonl"))
    shutil.copy(begun, begun.with_name("ffffffffffffffff.repair.jsonl"))  # one that was killed at its end
    here("repair", "show", "last", cwd=folder).refused("has not ended, after ", "repair resume ffffffff")
    fixed = json.loads((folder / "fix.json").read_text())
    assert fixed == {"2": {"tool_input": {"flight": "JL60", "date": "2026-11-03"}, "tool": "check_seats"}}
    done = tracefork("fork", "last@2", "--edit", "fix.json", *GRADED, cwd=folder, **BARE)
    assert "outcome: success" in done.out


@pytest.mark.slow
def test_an_answer_that_ends_the_run_is_told_from_a_repair(folder: Path) -> None:
    """A text in place of a call, with which the agent ends, may write no more than what is graded."""
    (folder / "says.json").write_text('{"2": "BOOKED, all is well."}')
    done = here("repair", "last", *GRADED, "--try", "says.json", "--jobs", "2", cwd=folder, **BARE)
    assert done.status == 0, done.err
    assert "the agent asks nothing after it: it may be no more than what is graded" in done.out
    assert "another answer shows what went wrong" not in done.out
    assert here("repair", "show", "last", cwd=folder).out == done.out


@pytest.mark.slow
@pytest.mark.timeout(300)  # a process for each of some thirty forks
def test_one_that_was_killed_goes_on_from_its_journal(folder: Path) -> None:
    """Kill -9 in the middle, then `repair resume`: confirmed, each fork made once, kept in a file."""
    (folder / "right.json").write_text(json.dumps({"2": RIGHT}))
    asked = ("repair", "last", *GRADED, "--try", "right.json", "--max-trials", "60", "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.cli", *asked], cwd=folder, env=environment(**BARE)
    )
    blame = folder / ".tracefork" / "blame"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = list(blame.glob("*.repair.jsonl")) if blame.is_dir() else []
            if found and len(found[0].read_bytes().splitlines()) > 4:
                break
            time.sleep(0.05)
        else:
            pytest.fail("no fork was journalled")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = journal.read(found[0])[1]
    here("repair", "show", "last", cwd=folder).refused("has not ended", "repair resume ")
    here("repair", "resume", "last", "--max-trials", "1", cwd=folder).refused("is less than", "made already")
    here("repair", "resume", "last", "--at", "2", cwd=folder).refused("leave --at out")
    done = here("repair", "resume", "last", "--keep", "fix.json", cwd=folder, **BARE)
    assert done.status == 0, done.err
    assert 'step 2: call check_seats with date "2026-11-03" for "2026-11-04" (1 of 2 differences)' in done.out
    after = journal.read(found[0])[1]
    assert after[: len(before)] == before
    assert len({one.trial_id for one in after}) == len(after)
    assert here("repair", "show", "last", cwd=folder).out == done.out
    assert json.loads((folder / "fix.json").read_text())["2"]["tool"] == "check_seats"


@pytest.mark.slow
def test_bad_usage_is_refused_in_one_line(folder: Path) -> None:
    """What cannot be tried, and files that say nothing: status 2 and what to do."""
    (folder / "other.json").write_text('{"9": "x"}')
    (folder / "same.json").write_text("{}")
    for arguments, says in (
        (("repair", "last"), "say what a success is"),
        (("repair", "last", *GRADED), "there is nothing to try"),
        (("repair", "last", *GRADED, "--try", "other.json"), "has no step 9"),
        (("repair", "last", *GRADED, "--try", "same.json"), "must be like"),
        (("repair", "last", *GRADED, "--try", "none.json"), "cannot read none.json"),
        (("repair", "last", *GRADED, "--try", "edits.json", "--at", "9"), "has no step 9"),
        (("repair", "last", *GRADED, "--try", "edits.json", "--at", "3"), "there is nothing to try"),
        (("repair", "last", *GRADED, "--try", "edits.json", "--budget", "0"), "pays for no fork"),
        (("repair", "last", *GRADED, "--try", "edits.json", "--alpha", "2"), "alpha is 2"),
        (("repair", "abcdef", *GRADED), "no run"),
        (("repair", "show", "last"), "no search for repairs begins with last; `repair RUN` makes one"),
        (("repair", "show", "last", "--alpha", "2"), "leave --alpha out"),
        (("repair", "resume", "last"), "no search for repairs begins with last; `repair RUN` makes one"),
        (("fork", "last@2", "--edit", "other.json"), "has no edit for step 2"),
        (("fork", "last@2", "--edit", "edits.json", "--text", "x"), "leave out --edit"),
    ):
        here(*arguments, cwd=folder).refused(says)


@pytest.mark.slow
def test_a_run_that_succeeded_is_refused(folder: Path) -> None:
    """There is nothing to repair, by which oracle is said, also where nothing was given to try."""
    for given in ((), ("--try", "edits.json")):
        done = tracefork("repair", "last", "--success-re", "sorry", *given, cwd=folder, **BARE)
        done.refused("nothing to repair")
