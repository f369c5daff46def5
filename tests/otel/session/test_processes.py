"""Threads, tasks, pools and child processes: where their exchanges land, and what a killed one leaves."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from recorded import run_python
from tracefork_backend.agents.recording import record
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate import ModelServer, Reply
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


@pytest.mark.slow
def test_under_run_every_thread_and_process_is_in_one_run(script: Path, tmp_path: Path) -> None:
    """Under `run` all nine exchanges, of five processes, are steps of one complete run, each once."""
    record(tmp_path / "store", (sys.executable, str(script)))
    store = open_store(tmp_path / "store")
    assert [run.steps for run in store.runs()] == [len(NAMES)]
    run = store.run("last")
    assert sorted(exchange.request.body.decode() for exchange in run.exchanges) == NAMES
    assert len({exchange.process_id for exchange in run.exchanges}) == 5
    assert run.complete, run.incomplete_reasons


@pytest.mark.slow
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
    recorded = record(tmp_path / "store", (sys.executable, str(script)))
    run = open_store(tmp_path / "store").run("last")
    assert recorded.problems == (
        f"run {run.run_id[:8]} is incomplete: step 0 was open when the command ended",
    )
    assert sorted(exchange.outcome for exchange in run.exchanges) == ["complete", "in_flight"]
    assert not run.complete
    assert run.incomplete_reasons == ("step 0 was open when its process ended",)


LINE = (
    "from tracefork_otel import TraceforkInstrumentor; TraceforkInstrumentor().instrument(http_spans=False)\n"
)
SPAWNED = f"""
{LINE}
import multiprocessing, os, subprocess, sys
import httpx2
import tracefork_otel

URL = os.environ["AGENT_URL"] + "/echo"
CHILD = {LINE!r} + "import httpx2, sys; httpx2.post(sys.argv[1], content=b'subprocess')"

def call(name):
    httpx2.post(URL, content=name.encode())

@tracefork_otel.agent
def agent():
    for method in ("spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=call, args=(method,))
        child.start(); child.join(); assert child.exitcode == 0
    subprocess.run([sys.executable, "-c", CHILD, URL], check=True)
    shell = ["/bin/sh", "-c", "$0 -c \\"$1\\" $2; true", sys.executable]
    subprocess.run([*shell, CHILD.replace("subp", "shell p"), URL], check=True)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        call("root")
        agent.__wrapped__()
    else:
        agent()
"""


@pytest.mark.slow
@pytest.mark.parametrize("opened_by", ["an agent's span", "a call"])
def test_without_run_children_join_the_run_of_their_parent(script: Path, opened_by: str) -> None:
    """With the one line in each and no `run`, processes that were spawned are steps of the run that their
    parent has open, and all of it replays exactly, each answer served once.
    """
    script.write_text(SPAWNED)
    store = script.parent / "store"
    words = [str(script)] if opened_by == "an agent's span" else [str(script), "call"]
    run_python(words, store=store, TRACEFORK_SEAL="1")
    opened = open_store(store)
    assert len(opened.runs()) == 1
    run = opened.run("last")
    names = ["forkserver", "shell process", "spawn", "subprocess"]
    if opened_by == "a call":
        names.insert(1, "root")
    assert sorted(exchange.request.body.decode() for exchange in run.exchanges) == names
    assert run.complete, run.incomplete_reasons
    if opened_by == "a call":
        again = replay(run)
        assert again.passed, again.receipt
        assert again.matched == again.total == 5


@pytest.mark.slow
def test_traceparent_is_followed_without_run(raw: str, tmp_path: Path) -> None:
    """A process that is given TRACEPARENT, and has the one line, is in that trace; without it, on its own."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    code = f"{LINE}import httpx2; httpx2.get('{raw}/empty')"
    run_python(code, store=tmp_path, TRACEPARENT=f"00-{trace}-b7ad6b7169203331-01")
    run_python(code, store=tmp_path)
    first, second = sorted(open_store(tmp_path).runs(), key=lambda run: run.run_id != trace)
    assert (first.run_id, first.steps) == (trace, 1)
    assert (second.run_id != trace, second.steps) == (True, 1)


WORKERS = """
import multiprocessing, os, sys
import httpx2

BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "which call is this?"}]}

def call():
    answer = httpx2.post(os.environ["AGENT_URL"] + "/v1/messages", json=BODY)
    return answer.json()["content"][0]["text"]

def work(start, said):
    start.wait()
    said.put([call() for _ in range(3)])

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    start, said = context.Event(), context.Queue()
    workers = [context.Process(target=work, args=(start, said)) for _ in range(2)]
    for worker in workers: worker.start()
    start.set()
    heard = [said.get() for _ in workers]
    for worker in workers: worker.join()
    print(sorted(heard[0] + heard[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_workers_replay_without_serving_twice(
    script: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that send equal requests at once get each recorded answer once; the receipt passes."""
    script.write_text(WORKERS)
    store = script.parent / "store"
    with ModelServer(lambda call: Reply(text=f"call {call.index}")) as server:
        monkeypatch.setenv("AGENT_URL", server.url)
        record(store, (sys.executable, str(script), method))
    run = open_store(store).run("last")
    assert run.steps == 6
    again = replay(run)  # the server is gone
    assert again.passed, again.receipt
    assert (again.matched, again.total) == (6, 6)
    assert again.stdout.strip() == str([f"call {index}" for index in range(6)])


@pytest.mark.slow
@pytest.mark.parametrize("with_run", [True, False])
def test_a_killed_parent_leaves_a_run_that_says_so(script: Path, with_run: bool) -> None:
    """A parent killed while its child works leaves one run, `killed`, with what the child went on to do."""
    killing = (
        SPAWNED.partition("@tracefork")[0]
        + """
def orphan(parent):
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent: time.sleep(0.01)
    call("orphan")
    open("done", "w").close()

import signal, time
if __name__ == "__main__":
    call("parent")
    child = multiprocessing.get_context("spawn").Process(target=orphan, args=(os.getpid(),))
    child.start()
    child.join()
"""
    )
    script.write_text(killing)
    store = script.parent / "store"
    if with_run:
        assert record(store, (sys.executable, str(script))).exit_status == 128 + signal.SIGKILL
    else:
        assert run_python([str(script)], store=store, check=False).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while not (script.parent / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runs = open_store(store).runs()
    assert [(run.steps, run.status) for run in runs] == [(2, "error" if with_run else "killed")]
    bodies = [exchange.request.body for exchange in open_store(store).run("last").exchanges]
    assert sorted(bodies) == [b"orphan", b"parent"]


AT_EXIT = """
import atexit, os
import httpx2
from tracefork_otel import TraceforkInstrumentor

def call(name):
    httpx2.post(os.environ["AGENT_URL"] + "/echo", content=name.encode())

atexit.register(call, "before us")
TraceforkInstrumentor().instrument()
call("main")
atexit.register(call, "after us")
"""


@pytest.mark.slow
def test_calls_at_exit_are_in_the_run(tmp_path: Path, raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is registered before the recording or after it: one run, which ended well."""
    monkeypatch.setenv("AGENT_URL", raw)
    (tmp_path / "agent.py").write_text(AT_EXIT)
    run_python([str(tmp_path / "agent.py")], store=tmp_path / "store")
    with open_store(tmp_path / "store") as store:
        (run,) = store.rows("select steps, status from runs")
        assert run == {"steps": 3, "status": "ok"}
