"""`tracefork-otel run` that is killed, or captures nothing: what is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import environment, here, tracefork
from tracefork_backend.simulate import ModelServer

AGENT = """
import os, sys, time, httpx2
def say(text):
    httpx2.post(sys.argv[1] + "/raw/echo", content=text)
say("before")
if os.environ["TRACEFORK_MODE"] == "record":
    above = os.getppid()
    print("ready", flush=True)
    while os.getppid() == above:
        time.sleep(0.01)
say("after")
open("ended-" + os.environ["TRACEFORK_MODE"], "w").close()
"""


@pytest.mark.slow
def test_a_command_is_known_when_run_was_killed(tmp_path: Path) -> None:
    """Killed by -9 while its agent works, `run` leaves how to start the agent: its run replays."""
    (tmp_path / "agent.py").write_text(AGENT)
    with ModelServer() as server:
        command = [sys.executable, "agent.py", server.url]
        with subprocess.Popen(
            [sys.executable, "-m", "tracefork_backend.cli", "run", "--", *command],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            running.send_signal(signal.SIGKILL)
            assert running.wait(30) == -signal.SIGKILL
            deadline = time.monotonic() + 60
            while not (tmp_path / "ended-record").exists():
                assert time.monotonic() < deadline, "the agent did not go on"
                time.sleep(0.02)
            # The agent holds the other end until it is gone, hooks at exit and all.
            running.stdout.read()
    (run,) = here("ls", "--json", cwd=tmp_path).rows
    assert (run["steps"], run["status"]) == (2, "killed")
    assert run["name"].startswith("agent.py ")
    (shown,) = here("sql", "select command from runs", "--json", cwd=tmp_path).rows
    assert shown["command"] is not None
    assert "agent.py" in shown["command"]
    done = here("replay", "last", cwd=tmp_path)
    assert done.status == 0, done.out + done.err
    assert (tmp_path / "ended-replay").exists()


@pytest.mark.slow
def test_a_command_without_exchanges_is_no_run(tmp_path: Path) -> None:
    """A command that is none leaves no file behind, and one that is no Python a store without a record."""
    assert tracefork("run", "--", "no-such-command", cwd=tmp_path).status == 2
    assert list(tmp_path.iterdir()) == []
    assert tracefork("run", "--", "true", cwd=tmp_path).status == 3
    assert list((tmp_path / ".tracefork").glob("*/*")) == []
    assert here("ls", "--all", "--json", cwd=tmp_path).rows == []
    assert here("sql", "select * from spans", "--json", cwd=tmp_path).rows == []
