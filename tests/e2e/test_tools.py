"""Tools typed: the booking example, whose tools say when they really run, recorded, replayed and forked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from e2e.command import BARE, EXAMPLES, here, tracefork
from tracefork_backend.rerun.edits.calls import calls_of
from tracefork_backend.store import open_store

# Each command starts agents of its own: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

AGENT = EXAMPLES / "booking_tools.py"
SOLD_OUT = 'check_seats={"flight": "JL60", "seats": 0}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that failed."""
    made = tmp_path_factory.mktemp("tools")
    done = tracefork("run", "--", sys.executable, AGENT, "--city", "Osaka", cwd=made, **BARE)
    assert done.status == 0, done.err
    assert done.err.count("checking") == 2
    return made


def test_a_replay_and_its_tape_run_no_tool(folder: Path) -> None:
    """Bit-exact with every result served, from the store, from a tape file, and from its import elsewhere."""
    done = here("replay", "last", cwd=folder, **BARE)
    assert (done.status, "tools   4 of 4 served from the tape" in done.out) == (0, True), done.out
    assert "PASS    bit-exact" in done.out
    assert here("tape", "export", "last", "-o", "run.jsonl", cwd=folder).status == 0
    checked = here("verify", "run.jsonl", "--tools", "refuse", cwd=folder, **BARE)
    assert checked.status == 0, checked.out
    assert here("tape", "import", "run.jsonl", "--store", "other", cwd=folder).status == 0
    again = here("replay", "last", "--store", "other", cwd=folder, **BARE)
    assert (again.status, "4 of 4 served" in again.out) == (0, True), again.out
    (row, *_) = here("replay", "last", "--tools", "live", "--json", cwd=folder, **BARE).rows
    assert row["tools"].startswith("0 of 4 served from the tape; ran for real: book, check_seats (2 times)")


def test_another_result_saves_the_booking(folder: Path) -> None:
    """The fork goes on from it, says what ran for real, and stands in the views with its change."""
    done = here("fork", "last@2", "--tool-result", SOLD_OUT, "--success-re", "BOOKED", cwd=folder, **BARE)
    assert (done.status, done.err) == (0, ""), done.err
    assert "3 served, 1 edited, 3 live" in done.out
    assert "tools   2 of 5 served from the tape; replaced: check_seats; ran for real" in done.out
    (row,) = here("sql", "select * from forks", "--json", cwd=folder).rows
    assert (row["step"], row["intervention"], row["outcome"]) == (2, "tool_result check_seats", True)
    several = here(
        "fork", "last~1@2", "--tool-result", SOLD_OUT, "--tool-result", "check_seats=timeout", "--estimate",
        cwd=folder, **BARE,
    )  # fmt: skip
    assert "estimate: 2 forks, 4 live calls" in several.out, several.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fork", "{}@2", "--tool-result", "gone=1"), "does not call gone; it calls check_seats"),
        (("fork", "{}@0", "--tool-result", "book=1"), "it calls search_flights; book is called at 3"),
        (("fork", "{}@2", "--tool-result", "check_seats"), "is not NAME=VALUE"),
        (("fork", "{}@2", "--tool-result", "check_seats=@gone"), "cannot read gone"),
        (("fork", "{}@2", "--tool-result", "a=1", "--noop"), "choose one of --tool-result, --noop"),
        (("fork", "{}@2", "--noop", "--tools", "bogus"), "--tools bogus: use recorded, live or refuse"),
        (("replay", "{}", "--tools", "bogus"), "--tools bogus: use recorded, live or refuse"),
        (("verify", "{}", "--tools", "bogus"), "--tools bogus: use recorded, live or refuse"),
    ],
)
def test_wrong_input(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """Bad usage: one line that says what is wrong, status 2, and nothing runs."""
    (row,) = here("sql", "select run_id from runs where kind = 'record'", "--json", cwd=folder).rows
    done = here(*(one.replace("{}", row["run_id"][:8]) for one in arguments), cwd=folder)
    done.refused(said)
    assert done.out == ""


def test_a_call_under_tool_is_named_by_its_id_too(folder: Path) -> None:
    """The id stands in the model's answer alone, and means the function's call that it led to."""
    (run,) = open_store(folder / ".tracefork").runs("record")
    (called,) = (one.call_id for one in calls_of(run.exchanges[2]))
    given = SOLD_OUT.replace("check_seats", str(called))
    done = here("fork", f"{run.run_id}@2", "--tool-result", given, cwd=folder, **BARE)
    assert (done.status, done.err) == (0, ""), done.err
    assert "replaced: check_seats" in done.out
