"""Forks typed as a user types them, against recorded runs of the booking example."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import BARE, EXAMPLES, asking, environment, here, tracefork
from tracefork_backend.simulate import ModelServer

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
    assert "4 of 4 forks · $0 · 2 success, 2 failure" in done.out.replace("$0.0000", "$0")
    rows = here("sql", "select r.outcome from forks join runs r using (run_id)", "--json", cwd=folder).rows
    assert sorted(row["outcome"] for row in rows) == [False, False, True, True]


def test_the_estimate_starts_nothing(folder: Path) -> None:
    """`--estimate` counts calls and dollars per cell; two values of one flag make variants, two flags one."""
    flags = ("--model", "claude-haiku-4-5", "--model", "claude-opus-4-1", "--set", "temperature=0")
    done = here("fork", "last@1", *flags, "--times", "3", "--estimate", cwd=folder, **BARE)
    assert done.status == 0, done.err
    assert "request temperature=0 model=claude-haiku-4-5" in done.out
    assert "estimate: 6 forks, 24 live calls, $0.1" in done.out
    (found,) = here("fork", "last@1", *flags, "--estimate", "--json", cwd=folder, **BARE).rows
    assert [cell["estimated_calls"] for cell in found["cells"]] == [4, 4]
    assert here("sql", "select * from forks", "--json", cwd=folder).rows == []


def test_a_judge_that_costs_more_than_the_forks_is_told(folder: Path) -> None:
    """By the estimate, and where the budget has no room for it."""
    words = ("fork", "last@2", "--text", "x", "--tail", "offline", "--times", "2", "--judge", "It is booked")
    told = here(*words, "--estimate", cwd=folder, **BARE)
    assert re.search(
        r"estimate: 2 forks, 0 live calls, \$0, and up to \$0\.\d+ for the judge; nothing", told.out
    )
    here(*words, "--budget", "0.001", cwd=folder, ANTHROPIC_API_KEY="k", **BARE).refused("of it its judge")


def test_a_budget_that_has_no_room_is_bad_usage(folder: Path) -> None:
    """Not one fork fits: an error, and nothing is spent."""
    typed = here("fork", "last@1", "--resample", "--budget", "0.001", cwd=folder, **BARE)
    said, refused = typed.err.splitlines()
    assert typed.status == 2
    assert said.startswith("budget $0.0010: a call that runs when it ends is paid for")
    assert refused.startswith("error: the budget is too small: $0.0010 left, a fork may take")
    found = re.search(r"--budget (\d\.\d+) has room for it", refused)
    assert found is not None, refused
    assert here("sql", "select * from forks", "--json", cwd=folder).rows == []
    again = here("fork", "last@1", "--resample", "--budget", found[1], cwd=folder, **BARE)
    assert "too small" not in again.err


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


ASKS = """
import httpx2, os
for word in ("one", "two"):
    asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": word}]}
    answer = httpx2.post(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json=asked)
    print(answer.json()["content"][0]["text"])
"""


def test_a_gateway_that_moved(tmp_path: Path) -> None:
    """The fork says whose address did not answer, and goes where it is told; its run keeps the old one."""
    (tmp_path / "agent.py").write_text(ASKS)
    with ModelServer() as old:
        recorded = asking(tmp_path, old, "run", "--", sys.executable, "agent.py")
        assert recorded.out == "one\ntwo\n", recorded.err
    run = asking(tmp_path, old, "ls", "--json").rows[0]["run_id"]
    with ModelServer() as new:
        forked = asking(tmp_path, new, "fork", f"{run}@0", "--text", "x")
        moved = f"{old.url}={new.url}"
        assert forked.status == 3
        assert f"this shell has {new.url}; where it moved, set TRACEFORK_MOVED={moved}\n" in forked.err
        assert new.requests == []
        done = asking(tmp_path, new, "fork", f"{run}@0", "--text", "x", "--json", TRACEFORK_MOVED=moved)
        assert done.rows[0]["stdout"] == "x\ntwo\n", done.err
        (asked,) = new.requests
        assert asked.header("host") == new.url.removeprefix("http://")
    assert f"POST {old.url}/v1/messages" in asking(tmp_path, new, "show", "last@1").out
    assert asking(tmp_path, new, "replay", "last").status == 0


TURNS = """
import httpx2, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
print("a banner of some library, " * 20)
for word in ("one", "two", "three"):
    asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": word}]}
    with trace.get_tracer("theirs").start_as_current_span("turn", kind=trace.SpanKind.CONSUMER):
        answer = httpx2.post(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json=asked)
    print(answer.json()["content"][0]["text"])
"""


@pytest.mark.parametrize("line", [False, True])
def test_runs_of_one_command_are_named_with_the_steps_that_a_fork_finds_them_by(
    tmp_path: Path, line: bool
) -> None:
    """`show` of one names the others; the end of a long output is what a fork shows."""
    setup = "from tracefork_otel import TraceforkInstrumentor as T\nT().instrument()\n" if line else ""
    (tmp_path / "agent.py").write_text(setup + TURNS)
    with ModelServer() as server:
        if line:
            environ = environment(ANTHROPIC_BASE_URL=server.url)
            subprocess.run([sys.executable, "agent.py"], cwd=tmp_path, env=environ, check=True)
        else:
            assert asking(tmp_path, server, "run", "--", sys.executable, "agent.py").status == 0
        three, two, one = (row["run_id"] for row in asking(tmp_path, server, "ls", "--json").rows)
        shown = asking(tmp_path, server, "show", "last")
        assert f"with it     {one[:8]} (step 1), {two[:8]} (step 2): " in shown.out, shown.out
        assert asking(tmp_path, server, "show", "last", "--json").rows[0]["repeated_with"] == [one, two]
        forked = asking(tmp_path, server, "fork", f"{three}@2", "--text", "changed")
        output = forked.out.splitlines()[1]
        assert output.startswith("output  …")
        assert output.endswith("one changed three")
        assert "with it" not in asking(tmp_path, server, "show", "last").out


ANSWERED = "        messages.append(answer.to_param())\n"


def agent_that(folder: Path, *, begins: str = "", once_answered: str = "") -> None:
    """Record the booking example as agent.py; its forks then do this before all else, or after an answer."""
    text = BOOKING.read_text()
    (folder / "agent.py").write_text(text)
    done = tracefork("run", "--", sys.executable, "agent.py", "--city", "Osaka", cwd=folder, **BARE)
    assert done.status == 0, done.err
    changed = text.replace(ANSWERED, f"        {once_answered}\n{ANSWERED}")
    (folder / "agent.py").write_text(changed.replace("import argparse\n", f"{begins}\nimport argparse\n"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_what_is_kept(folder: Path, number: int, status: int) -> None:
    """What the forks did is named, and `show` has it and why; no process of theirs is left."""
    agent_that(folder, once_answered="import time; open(f'pid-{os.getpid()}', 'w'); time.sleep(100)")
    words = ("fork", "last@2", "--text", "x", "--text", "y", "--tail", "offline")
    with subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.cli", *words],
        cwd=folder, env=environment(**BARE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (found := list(folder.glob("pid-*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, ""), err
    first, kept = err.splitlines()
    assert first == "interrupted"
    named = re.fullmatch(r"fork (\w{8}) is kept as far as it went: tracefork-otel show \1", kept)
    assert named, kept
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[0].name.removeprefix("pid-")), 0)
    shown = here("show", named[1], cwd=folder)
    assert re.search(r"fork of     \w{8}@2  text, tail offline\n", shown.out), shown.out
    assert "problem     stopped: it was interrupted before it was done\n" in shown.out


def test_show_says_why_a_fork_is_not_what_was_asked_for(folder: Path) -> None:
    """Also of one whose agent ended before its first call, which is no run."""
    agent_that(folder, once_answered="import sys; sys.exit(4)")
    (ended,) = here("fork", "last@2", "--text", "x", "--json", cwd=folder, **BARE).rows
    shown = here("show", ended["run_id"], cwd=folder)
    assert "problem     not reached: " in shown.out
    assert "ended before step 2, after 1 call, with status 4: nothing was changed\n" in shown.out
    agent_that(folder, begins="import sys; sys.exit(4)")
    (idle,) = here("fork", "last@2", "--text", "x", "--json", cwd=folder, **BARE).rows
    shown = here("show", idle["run_id"][:8], cwd=folder)
    shown.refused("is a fork of", "made no call", "ended before step 2, after 0 calls, with status 4")


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
