"""Runs compared as a user types it, and commits bisected by a tape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.command import BARE, EXAMPLES, environment, here, tracefork

BOOKING = EXAMPLES / "booking_agent.py"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that succeeded, one that failed, and a fork of the latter."""
    folder = tmp_path_factory.mktemp("compared")
    for city in ("Tokyo", "Osaka"):
        done = tracefork("run", "--", sys.executable, BOOKING, "--city", city, cwd=folder, **BARE)
        assert done.status == 0, done.err
    fixed = '{"flight": "NH176", "date": "2026-11-03"}'
    assert here("fork", "last@2", "--tool-input", fixed, cwd=folder, **BARE).status == 0
    return folder


@pytest.mark.slow
def test_a_fork_is_compared_with_its_parent(recorded: Path) -> None:
    """One name is enough: equal prefix, the change by JSON path, what followed from it, both endings."""
    done = here("diff", "last", cwd=recorded)
    assert done.status == 0, done.err
    for part in (
        "= 0 to 1  2 steps, the same",
        "the first difference; edited: tool_input",
        "response reply[1].input.flight: JL60 → NH176",
        "~ 3  claude-sonnet-5 → book  (carries step 2)",
        "2 same, 3 changed; the first difference is step 2, and steps 3, 4 follow from it",
        'a ends  "ERROR: the booking failed',
        'b ends  "BOOKED flight NH176',
        "cost    $",
    ):
        assert part in done.out, done.out


@pytest.mark.slow
def test_two_recordings_for_machines(recorded: Path) -> None:
    """`--json` holds every step with its changes, the first difference and its chain."""
    (found,) = here("diff", "last~2", "last~1", "--json", cwd=recorded).rows
    assert (found["first"], found["chain"], found["differs"]) == (0, [1, 2, 3, 4], True)
    assert [step["kind"] for step in found["steps"]] == ["changed"] * 5
    assert {"where", "path", "a", "b"} <= found["steps"][0]["changes"][0].keys()
    assert "Tokyo" in json.dumps(found["steps"][0]["changes"])


@pytest.mark.slow
def test_the_exit_code_is_gits(recorded: Path) -> None:
    """Differences are no failure, unless `--exit-code` asks for a status."""
    assert here("diff", "last~1", "last", cwd=recorded).status == 0
    assert here("diff", "last~1", "last", "--exit-code", cwd=recorded).status == 1
    same = here("diff", "last", "last", "--exit-code", cwd=recorded)
    assert (same.status, "nothing differs" in same.out) == (0, True)


@pytest.mark.slow
def test_a_tape_is_a_side(recorded: Path, tmp_path: Path) -> None:
    """A tape file is compared with a run of the store."""
    tape = tmp_path / "tape.jsonl"
    assert here("tape", "export", "last~1", "--output", tape, cwd=recorded).status == 0
    done = here("diff", tape, "last~1", cwd=recorded)
    assert "5 same: nothing differs" in done.out, done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "part"),
    [(("last~1",), "is no fork"), (("nosuch", "last"), "nosuch"), (("last", "last~9"), "last~9")],
)
def test_bad_input(recorded: Path, arguments: tuple[str, ...], part: str) -> None:
    """A name that leads nowhere, or a run without a parent, is one line of error."""
    done = here("diff", *arguments, cwd=recorded)
    done.refused(part)


AGENT = """
import httpx2, prompts
print(httpx2.post("{url}", json={{"system": prompts.SYSTEM, "q": "fly"}}).status_code)
"""


def git(folder: Path, *arguments: str, **extra: str) -> str:
    """What git printed."""
    who = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    named = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", *named, *arguments],
        cwd=folder,
        env=environment(**who, **extra),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_git_bisect_finds_the_commit_that_broke_a_run(tmp_path: Path) -> None:
    """`git bisect run … verify --bisect TAPE` finds what changed the prompt, past one that cannot start."""
    from tracefork_backend.simulate import ModelServer

    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    prompts = folder / "prompts.py"
    with ModelServer(seed=3) as server:
        (folder / "agent.py").write_text(AGENT.format(url=f"{server.url}/raw/echo"))
        prompts.write_text('SYSTEM = "Be kind to travellers."\n')
        done = tracefork("run", "--", sys.executable, "agent.py", cwd=folder)
        assert (done.status, done.out) == (0, "200\n"), done.err
    tape = tmp_path / "kept.jsonl"
    assert here("tape", "export", "last", "--output", tape, cwd=folder).status == 0
    # All versions of the prompt have one length: nothing but their content tells them apart.
    versions = [
        'SYSTEM = "Be kind to travellers."\n',
        '# a\nSYSTEM="Be kind to travellers."\n',
        'SYSTEM = "Be kind to travellers.\n',  # a syntax error: cannot tell
        'SYSTEM = "Be cold to travellers."\n',
        '# b\nSYSTEM="Be cold to travellers."\n',
        'SYSTEM = "Be rude to travellers."\n',
    ]
    commits: list[str] = []
    for number, text in enumerate(versions):
        prompts.write_text(text)
        (folder / "README").write_text(f"version {number}\n")
        git(folder, "add", "agent.py", "prompts.py", "README")
        git(folder, "commit", "-q", "-m", f"version {number}")
        commits.append(git(folder, "rev-parse", "HEAD").strip())
    git(folder, "bisect", "start", commits[-1], commits[0])
    verify = ("-m", "tracefork_backend.cli", "verify", "--bisect", str(tape))
    # The commit that cannot be started is skipped, so git may only say that it is one of two.
    done = subprocess.run(
        ["git", "bisect", "run", sys.executable, *verify],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = done.stdout + done.stderr
    log = git(folder, "bisect", "log")
    assert f"# bad: [{commits[3]}]" in log, said
    assert f"# good: [{commits[1]}]" in log, said
    assert f"# skip: [{commits[2]}]" in log, said
    assert f"# bad: [{commits[2]}]" not in log
    assert "FAIL" in said
    assert "prompt at step 0" in said
    assert "SKIP" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("", 0),
        ("sys.exit(9)", 1),
        ("say('one more')", 1),
        ("import nosuchmodule", 125),
    ],
)
def test_bisect_statuses(tmp_path: Path, change: str, status: int) -> None:
    """0 same, 1 what the agent does otherwise, 125 what keeps it from being seen."""
    from tracefork_backend.simulate import ModelServer

    agent = tmp_path / "agent.py"
    with ModelServer(seed=3) as server:
        says = (
            "import sys, httpx2\n"
            f"def say(text): return httpx2.post({server.url + '/raw/echo'!r}, json={{'q': text}})\n"
        )
        agent.write_text(says + "say('hello')\n")
        assert tracefork("run", "--", sys.executable, "agent.py", cwd=tmp_path).status == 0
    before = change if change.startswith("import") else ""
    agent.write_text(f"{before}\n{says}say('hello')\n{'' if before else change}\n")
    done = here("verify", "--bisect", "last", cwd=tmp_path)
    assert done.status == status, done.out + done.err
    assert not list(tmp_path.glob("__pycache__"))


def test_bisect_asks_about_one_tape_and_skips_what_is_not_there(recorded: Path) -> None:
    """Two names are bad usage; a tape that this commit does not have cannot be told about."""
    assert here("verify", "--bisect", "last", "last~1", cwd=recorded).status == 2
    missing = here("verify", "--bisect", "tests/tapes/booking.jsonl", cwd=recorded)
    assert (missing.status, "cannot tell" in missing.out) == (125, True)
