"""While agents are killed in every mode, whoever reads the store gets an answer, and nothing is lost.

More of them, in half an hour: `KILLS=600 pytest -n0 -s -m slow --timeout 7200 tests/e2e/test_kill9_read.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.command import Typed, environment, tracefork
from e2e.test_kill9 import Agents, model

from tracefork_otel.store import manifest, segment

COMMAND = (sys.executable, "-m", "tracefork_backend.cli")
STEPS = 12
AGENT = f"""
import sys, time, httpx2
with httpx2.Client() as client:
    for turn in range({STEPS}):
        client.post(sys.argv[1] + "/raw/echo", content="turn %d " % turn * 50)
        time.sleep(0.03)
"""
KILLS = int(os.environ.get("KILLS", "12"))
MODES = ("run", "replay", "fork")
COUNT = "select count(*) as known, count(*) filter (where run_id = '{}') as whole from exchanges"


class Readers:
    """Commands that read the store, one after the other for as long as agents are killed."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder
        self.asked = (
            ("ls",),
            ("show", "last"),
            ("show", run_id),
            ("sql", COUNT.format(run_id), "--json"),
            ("doctor",),
        )
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.known = 0

    def ask_all(self) -> None:
        """Each of them answered once more, or what it said instead is kept."""
        for words in self.asked:
            said = tracefork(*words, cwd=self.folder, timeout=300)
            self.done[words[0]] += 1
            if said.status or said.err.strip() or not self._goes_on(words[0], said):
                self.failed.append(f"{' '.join(words)}: {said.status}: {said.out[-2000:]}{said.err}")

    def _goes_on(self, verb: str, said: Typed) -> bool:
        """Return whether nothing is gone that was there before."""
        if verb != "sql":
            return True
        row = json.loads(said.out)
        known, self.known = self.known, row["known"]
        return row["whole"] == STEPS and self.known >= known

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """They ask meanwhile, in a thread."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.ask_all()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def below(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(told[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        waiting += (more := parents.get(waiting.pop(), []))
        found += more
    return found


def kill(pids: list[int]) -> None:
    """They are killed, as far as they are still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_a_command(words: list[str], folder: Path, rng: random.Random) -> bool:
    """Return whether a command was at work when it, its agent, or both were killed; nothing of it is left."""
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        started: set[int] = set()
        until = time.monotonic() + rng.uniform(0.3, 4)
        while time.monotonic() < until and running.poll() is None:
            started.update(below(running.pid))
            time.sleep(0.05)
        whom = rng.choice(["command", "agent", "all"])
        agents = [] if whom == "command" else below(running.pid)
        was_at_work = running.poll() is None and (whom == "command" or agents != [])
        kill(agents)
        if whom != "agent":
            running.kill()
        running.wait(300)
        kill([pid for pid in started if str(folder) in environ_of(pid)])
    return was_at_work


def environ_of(pid: int) -> str:
    """The environment of a process, empty where it is gone: its number may be another's by now."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def ended_in(store: Path) -> dict[bytes, bytes]:
    """The digests of all requests in segments that were answered, and of their answers."""
    return {
        hashlib.sha256(exchange.request.body).digest(): hashlib.sha256(exchange.response.body).digest()
        for entry in manifest.load(store).segments
        for exchange in segment.read_exchanges(store, entry)
        if exchange.response is not None
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_who_reads_while_agents_are_killed_gets_an_answer(tmp_path: Path) -> None:
    """One in six is a run, replay or fork that is killed as a command, the others record by themselves."""
    rng, modes = random.Random(KILLS), Counter[str]()
    (tmp_path / "agent.py").write_text(AGENT)
    with model() as url:
        command = ["run", "--", sys.executable, "agent.py", url]
        assert tracefork(*command, cwd=tmp_path).status == 0
        (run,) = tracefork("ls", "--json", cwd=tmp_path).rows
        readers = Readers(tmp_path, run["run_id"])
        agents = Agents(tmp_path / ".tracefork", tmp_path, url)
        asked = {
            "run": command,
            "replay": ["replay", run["run_id"]],
            "fork": ["fork", f"{run['run_id']}@3", "--noop"],
        }
        try:
            with readers.at_work():
                while (number := modes.total()) < KILLS:
                    mode = MODES[number // 6 % 3] if number % 6 == 0 else "record"
                    if mode in asked:
                        # One that had ended before counts for nothing.
                        modes[mode] += kill_a_command(asked[mode], tmp_path, rng)
                    else:
                        agents.kill_one(
                            rotate=rng.choice([20_000, 100_000, 10**9]),
                            after=rng.choice([0.02, 0.25]) * rng.random(),
                        )
                        modes[mode] += 1
        finally:
            agents.close()
        readers.ask_all()
    print(f"\n{dict(modes)} killed, {dict(readers.done)} asked")
    print(f"{len(agents.got_back)} answers acknowledged, {readers.known} exchanges stored")
    assert readers.failed == []
    ended = ended_in(tmp_path / ".tracefork")
    assert len(agents.got_back) > KILLS
    assert {request: ended.get(request) for request in agents.got_back} == agents.got_back
    assert tracefork("replay", run["run_id"], cwd=tmp_path).status == 0
