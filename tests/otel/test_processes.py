"""Threads, tasks, pools and child processes: where their exchanges land, and what a killed one leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tracefork_backend.runner import record
from tracefork_backend.store import open_store

# Every way in which Python hands work on; each sends its own name. A spawned child imports this script anew.
SPREAD = """
import asyncio, multiprocessing, os, subprocess, sys, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import httpx2

URL = os.environ["AGENT_URL"] + "/echo"
CHILD = "import httpx2, os; httpx2.post(os.environ['AGENT_URL'] + '/echo', content=b'subprocess')"

def call(name):
    httpx2.post(URL, content=name.encode())

async def task(name):
    async with httpx2.AsyncClient() as client:
        await client.post(URL, content=name.encode())

async def tasks():
    async with asyncio.TaskGroup() as group:
        group.create_task(task("task"))
        group.create_task(asyncio.to_thread(call, "to_thread"))

if __name__ == "__main__":
    call("main")
    thread = threading.Thread(target=call, args=("thread",)); thread.start(); thread.join()
    with ThreadPoolExecutor(1) as pool: pool.submit(call, "pool").result()
    asyncio.run(tasks())
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=call, args=(method,))
        child.start(); child.join(); assert child.exitcode == 0
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(call, "process_pool").result()
    subprocess.run([sys.executable, "-c", CHILD], check=True)
"""
NAMES = ["fork", "main", "pool", "process_pool", "spawn", "subprocess", "task", "thread", "to_thread"]


@pytest.fixture
def script(tmp_path: Path, raw: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that spreads its work, in a folder with a server to call."""
    monkeypatch.setenv("AGENT_URL", raw)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spread.py"
    path.write_text(SPREAD)
    return path


def test_under_run_every_thread_and_process_is_in_one_run(script: Path, tmp_path: Path) -> None:
    """Under `run` all nine exchanges, of five processes, are steps of one complete run, each once."""
    record(tmp_path / "store", (sys.executable, str(script)))
    store = open_store(tmp_path / "store")
    assert [run.steps for run in store.runs()] == [len(NAMES)]
    run = store.run("last")
    assert sorted(exchange.request.body.decode() for exchange in run.exchanges) == NAMES
    assert len({exchange.process_id for exchange in run.exchanges}) == 5
    assert run.complete, run.incomplete_reasons


def test_a_killed_child_leaves_a_run_that_says_so(
    raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child killed in mid-stream leaves its exchange in flight in the parent's run, whose own are whole."""
    monkeypatch.setenv("AGENT_URL", raw)
    script = tmp_path / "agent.py"
    script.write_text(
        "import os, signal, httpx2\n"
        "URL = os.environ['AGENT_URL']\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with httpx2.stream('GET', URL + '/sse?events=3') as response:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
        "httpx2.post(URL + '/echo', content=b'parent')\n"
    )
    record(tmp_path / "store", (sys.executable, str(script)))
    run = open_store(tmp_path / "store").run("last")
    assert sorted(exchange.outcome for exchange in run.exchanges) == ["complete", "in_flight"]
    assert not run.complete
    assert run.incomplete_reasons == ("step 0 was open when its process ended",)
