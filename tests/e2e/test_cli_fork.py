"""Forks typed as a user types them, against recorded runs of the booking example."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import BARE, EXAMPLES, environment, here, tracefork

# Each command starts agents of its own: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

BOOKING = EXAMPLES / "booking_agent.py"
RIGHT = '{"flight": "NH176", "date": "2026-11-03"}'
"""What the model should have called its tool with at step 2 of the failing run."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that failed."""
    folder = tmp_path_factory.mktemp("recorded")
    done = tracefork("run", "--", sys.executable, BOOKING, "--city", "Osaka", cwd=folder, **BARE)
    assert done.status == 0, done.err
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def test_one_changed_tool_input_saves_the_booking(folder: Path) -> None:
    """The fork says what was served, edited and live, what it cost and how it ended, and where to look."""
    done = here(
        "fork", "last@2", "--tool-input", RIGHT, "--success-re", "BOOKED", cwd=folder,
        TRACEFORK_JAEGER_UI="http://127.0.0.1:16686", **BARE,
    )  # fmt: skip
    assert (done.status, done.err) == (0, ""), done.err
    first, output, hint, jaeger = done.out.splitlines()
    found = re.fullmatch(
        r"fork (\w{8}) of (\w{8})@2 · 2 served, 1 edited, 2 live · \$0\.00\d\d · outcome: success", first
    )
    assert found, first
    assert output.startswith("output  BOOKED flight NH176 to Osaka")
    assert hint == f"compare: tracefork-otel diff {found[2]} {found[1]}"
    assert jaeger.startswith(f"jaeger: http://127.0.0.1:16686/trace/{found[1]}")
    (row,) = here("sql", "select * from forks", "--json", cwd=folder).rows
    assert (row["run_id"][:8], row["step"], row["outcome"], row["calls_live"]) == (found[1], 2, True, 2)


def test_json_of_a_fork(folder: Path) -> None:
    """`--json` gives every field of the fork to machines."""
    (row,) = here("fork", "last@2", "--noop", "--tail", "offline", "--json", cwd=folder, **BARE).rows
    assert (row["kind"], row["tail"], row["calls_replayed"], row["calls_live"]) == ("noop", "offline", 3, 0)
    assert (row["calls_memo"], row["problem"], row["cost_usd"]) == (2, None, 0.0)
    assert row["stdout"].startswith("ERROR: the booking failed")


def test_a_drift_before_the_step_is_a_finding(folder: Path) -> None:
    """An agent whose prompt changed leaves its tape: the drift is told, status 1."""
    agent = folder / "agent.py"
    agent.write_text(BOOKING.read_text())
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=folder, **BARE).status == 0
    agent.write_text(BOOKING.read_text().replace("You are a travel agent.", "You are a careful agent."))
    done = here("fork", "last@2", "--text", "x", cwd=folder, **BARE)
    assert done.status == 1, done.out + done.err
    assert "outcome: drift" in done.out
    for part in ("error: the agent left its tape before step 2", "system", "careful"):
        assert part in done.err, done.err


def test_a_failing_agent_is_no_success(folder: Path) -> None:
    """An agent that ends before the step: said, status 3; a tail that may not go live: said too."""
    agent = folder / "agent.py"
    agent.write_text(BOOKING.read_text())
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=folder, **BARE).status == 0
    offline = here("fork", "last@1", "--tool-input", RIGHT, "--tail", "offline", cwd=folder, **BARE)
    assert (offline.status, "outcome: offline" in offline.out) == (3, True), offline.err
    assert "error: after the change the agent made a call that its parent had not made" in offline.err
    agent.write_text("print('nothing to do')\n")
    done = here("fork", "last~1@1", "--text", "x", cwd=folder, **BARE)
    assert (done.status, "outcome: not reached" in done.out) == (3, True), done.out + done.err
    assert "ended before step 1, after 0 calls, with status 0: nothing was changed" in done.err


def test_a_matrix_of_runs_and_variants(folder: Path) -> None:
    """A step that is there and one that is not, by two answers: a table with rates, and the same in SQL."""
    refs = ("last@2", "last@9")
    flags = ("--text", "BOOKED, I say", "--text", "ERROR: sorry", "--success-re", "BOOKED")
    done = here("fork", *refs, *flags, "--times", "2", "--jobs", "2", cwd=folder, **BARE)
    assert done.status == 0, done.err
    lines = [line for line in done.out.splitlines() if "@" in line]
    assert len(lines) == 4
    assert re.search(r"@2 +text BOOKED, I say +2/2 +2 +0 +0 +100% +34% to 100%", lines[0]), lines[0]
    assert re.search(r"@2 +text ERROR: sorry +2/2 +0 +2 +0 +0% +0% to 66%", lines[1]), lines[1]
    assert all("has no step 9" in line for line in lines[2:])
    assert "4 of 4 forks · $0 · 2 passed, 2 failed, 0 undefined" in done.out.replace("$0.0000", "$0")
    rows = here("sql", "select r.outcome from forks join runs r using (run_id)", "--json", cwd=folder).rows
    assert sorted(row["outcome"] for row in rows) == [False, False, True, True]


def test_the_estimate_starts_nothing(folder: Path) -> None:
    """`--estimate` counts calls and dollars per cell; two values of one flag make variants, two flags one."""
    flags = ("--model", "claude-haiku-4-5", "--model", "claude-opus-4-1", "--set", "temperature=0")
    done = here("fork", "last@1", *flags, "--times", "3", "--estimate", cwd=folder, **BARE)
    assert done.status == 0, done.err
    assert "request temperature=0 model=claude-haiku-4-5" in done.out
    assert "estimate: 6 forks, 24 live calls, $0.0" in done.out
    (found,) = here("fork", "last@1", *flags, "--estimate", "--json", cwd=folder, **BARE).rows
    assert [cell["estimated_calls"] for cell in found["cells"]] == [4, 4]
    assert here("sql", "select * from forks", "--json", cwd=folder).rows == []


def test_a_budget_that_has_no_room_is_bad_usage(folder: Path) -> None:
    """Not one fork fits: an error, and nothing is spent."""
    here("fork", "last@1", "--resample", "--budget", "0.001", cwd=folder, **BARE).refused("budget", "$0.0010")
    assert here("sql", "select * from forks", "--json", cwd=folder).rows == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("last", "--text", "x"), ["at which step", "last@0"]),
        (("last@7", "--text", "x"), ["no step 7", "0..4"]),
        (("nosuchrun@1", "--text", "x"), ["nosuchrun"]),
        (("last@x", "--text", "x"), ["last@x"]),
        (("last@1",), ["choose one of", "--text"]),
        (("last@1", "--text", "x", "--model", "m"), ["choose one of"]),
        (("last@1", "--set", "nosuch.path=1"), ["nosuch"]),
        (("last@1", "--set", "temperature"), ["PATH=VALUE"]),
        (("last@1", "--set", "temperature=0", "--set", "temperature=0"), ["twice"]),
        (("last@1", "--tool-input", "{"), ["JSON"]),
        (("last@1", "--fault", "418"), ["418", "529"]),
        (("last@1", "--response", "nosuch.json"), ["nosuch.json"]),
        (("last@1", "--system", "@nosuch.md"), ["nosuch.md"]),
        (("last@1", "--text", "x", "--tool", "book"), ["--tool"]),
        (("last@1", "--tool-result", "a=b"), ["does not call a", "check_seats"]),
        (("last@1", "--noop", "--tail", "warm"), ["--tail warm", "recorded"]),
        (("last@1", "--noop", "--times", "0"), ["--times"]),
        (("last@1", "--noop", "--jobs", "0"), ["--jobs"]),
        (("last@1", "--noop", "--budget", "-1"), ["budget"]),
        (("last@1", "--noop", "--success-re", "("), ["regular expression"]),
        (("last@1", "--noop", "--exit-code", "--field", "a=1"), ["one oracle"]),
        (("last@1", "--noop", "--field", "a"), ["--field", "PATH=VALUE"]),
        (("last@1", "--noop", "--oracle", "nosuch_checks:fn"), ["nosuch_checks"]),
    ],
)
def test_bad_input(recorded: Path, arguments: tuple[str, ...], parts: list[str]) -> None:
    """Every wrong reference, flag and value is one line of error, before anything runs."""
    here("fork", *arguments, cwd=recorded).refused(*parts)


def test_an_agent_that_is_none(recorded: Path) -> None:
    """A function that cannot be imported is a failure of the agent's, status 3."""
    done = here("fork", "last@1", "--noop", "--agent", "nosuch.module:fn", cwd=recorded, **BARE)
    assert done.status == 3
    assert "error: the agent nosuch.module:fn cannot be imported" in done.err
    assert "outcome: not started" in done.out


def test_an_oracle_of_the_users_own(folder: Path) -> None:
    """A function beside the agent grades; one that raises is bad usage that names it."""
    (folder / "my_checks.py").write_text(
        "def graded(run):\n    return 'BOOKED' in run.text\n\ndef broken(run):\n    raise KeyError('x')\n"
    )
    flags = ("--text", "BOOKED", "--tail", "offline")
    done = here("fork", "last@1", *flags, "--oracle", "my_checks:graded", cwd=folder, **BARE)
    assert "outcome: success" in done.out, done.err
    here("fork", "last@1", *flags, "--oracle", "my_checks:broken", cwd=folder, **BARE).refused(
        "my_checks:broken"
    )


def test_a_tape_file_is_forked(folder: Path) -> None:
    """A tape file with a step names a run too."""
    assert here("tape", "export", "last", "--output", "osaka.jsonl", cwd=folder).status == 0
    done = here("fork", "osaka.jsonl@2", "--tool-input", RIGHT, "--success-re", "BOOKED", cwd=folder, **BARE)
    assert "outcome: success" in done.out, done.err


def test_a_live_table_on_a_terminal(folder: Path) -> None:
    """On a terminal the matrix is shown on standard error as it grows; standard output stays clean JSON."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable, "-m", "tracefork_backend.cli", "fork", "last@2",
            "--text", "BOOKED", "--text", "ERROR", "--tail", "offline", "--success-re", "BOOKED", "--json",
        ],
        cwd=folder,
        env=environment(TERM="xterm-256color", **BARE),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = _until_end(ours, process)
        assert process.stdout is not None
        out = process.stdout.read()
        assert process.wait(60) == 0
    os.close(ours)
    assert "VARIANT" in shown
    assert "1 of 2 forks" in shown
    assert [cell["trials"] for cell in json.loads(out)["cells"]] == [1, 1]


def _until_end(terminal: int, process: subprocess.Popen[bytes]) -> str:
    """What is written to the terminal until the process ends."""
    shown = b""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            shown += data
        elif process.poll() is not None:
            break
    return shown.decode("utf-8", "replace")
