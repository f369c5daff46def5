"""What the page started does not outlive it, also where nothing of it could tidy up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from e2e.booking import BOOKING
from e2e.command import BARE, environment, tracefork

AGENT = """
import pathlib, runpy, sys, time
if pathlib.Path("wait").exists():
    time.sleep(300)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def at_work(folder: Path) -> list[str]:
    """The command lines of processes that name the folder."""
    found: list[str] = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_page_leaves_no_fork_at_work(tmp_path: Path) -> None:
    """The command that makes the forks ends as by Ctrl-C once the page is gone, and its agents with it."""
    (tmp_path / "agent.py").write_text(AGENT)
    agent = [sys.executable, "agent.py", BOOKING, "--city", "Osaka"]
    done = tracefork("run", "--", *agent, cwd=tmp_path, **BARE)
    assert done.status == 0, done.err
    (tmp_path / "wait").touch()
    store = tmp_path / ".tracefork"
    command = [sys.executable, "-m", "tracefork_backend.cli", "serve", "--no-otlp", "--port", "0"]
    with subprocess.Popen(
        [*command, "--store", str(store), "--allow-run", "--budget", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**BARE),
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split(" is at ")[1].split(" ")[0].rstrip("/\n")
            token = re.search(r'"X-Tracefork-Token": "([^"]+)"', httpx2.get(f"{url}/").text)
            assert token is not None
            started = httpx2.post(
                f"{url}/run/last/step/1/fork",
                data={"kind": "resample", "times": "1"},
                headers={"x-tracefork-token": token[1]},
                timeout=60,
            )
            where = started.headers["hx-redirect"]
            time.sleep(2)
            assert 'class="running"' in httpx2.get(f"{url}{where}").text
            assert any(" fork " in line for line in at_work(store))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
        end = time.monotonic() + 30
        while at_work(store) and time.monotonic() < end:
            time.sleep(0.1)
        assert at_work(store) == []
