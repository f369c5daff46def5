"""Workers of queues as people start them: each job is a run, done again with no queue and no worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.command import environment, here
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

pytestmark = pytest.mark.slow

SAY = """
import os
import httpx2

def said(question):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": question}]}

def told(answer):
    return answer.json()["choices"][0]["message"]["content"]

def say(question):
    return told(httpx2.post(os.environ["MODEL_URL"] + "/chat/completions", json=said(question)))

PORT = int(os.environ.get("REDIS_PORT", "1"))
"""
RQ = (
    SAY
    + """
def answer(question):
    return say(question)

def ask():
    import redis, rq
    queue = rq.Queue(connection=redis.Redis(port=PORT))
    queue.enqueue("agent.answer", "one")
    queue.enqueue("agent.answer", question="two")
"""
)
HUEY = (
    SAY
    + """
from huey import SqliteHuey

huey = SqliteHuey(filename="queue.db")

@huey.task(retries=1)
def answer(question):
    return say(question)

def ask():
    answer("one")
    answer(question="two")
"""
)
DRAMATIQ = (
    SAY
    + """
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

broker = RedisBroker(host="127.0.0.1", port=PORT)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)

@dramatiq.actor
async def answer(question):
    async with httpx2.AsyncClient() as client:
        return told(await client.post(os.environ["MODEL_URL"] + "/chat/completions", json=said(question)))

def ask():
    answer.send("one")
    answer.send(question="two")
"""
)
ARQ = (
    SAY
    + """
import asyncio
import arq.worker
from arq.connections import RedisSettings, create_pool

async def nothing(*_):
    "The server that stands in has no INFO."

arq.worker.log_redis_info = nothing

async def started(ctx):
    ctx["client"] = httpx2.AsyncClient()

async def answer(ctx, question):
    url = os.environ["MODEL_URL"] + "/chat/completions"
    return told(await ctx["client"].post(url, json=said(question)))

class WorkerSettings:
    functions = [answer]
    on_startup = started
    redis_settings = RedisSettings(port=PORT)

async def asked():
    pool = await create_pool(WorkerSettings.redis_settings)
    await pool.enqueue_job("answer", "one")
    await pool.enqueue_job("answer", question="two")

def ask():
    asyncio.run(asked())
"""
)
WORKERS = {
    "rq": (RQ, ("rq", "worker", "--url", "redis://127.0.0.1:{port}")),
    "huey": (HUEY, ("huey_consumer", "agent.huey", "-w", "2")),
    "dramatiq": (DRAMATIQ, ("dramatiq", "-p", "1", "-t", "2", "agent")),
    "arq": (ARQ, ("arq", "agent.WorkerSettings")),
}
"""Of each library an agent, and how its worker is started."""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model that repeats what it is asked."""
    with ModelServer(lambda call: Reply(text=f"heard {call.last}")) as running:
        yield running


@pytest.fixture
def redis_port() -> Iterator[int]:
    """Where something listens that speaks as Redis does."""
    fakeredis = pytest.importorskip("fakeredis")
    from fakeredis.model import ClientInfo

    own = ClientInfo.as_bytes
    # Its clients split this at blanks, and the address that it tells has one.
    ClientInfo.as_bytes = lambda self: re.sub(rb"\(.*?\)", b"127.0.0.1:1", own(self))
    running = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    running.daemon_threads, running.block_on_close = True, False  # workers may be connected at the end
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()
        thread.join(10)
        ClientInfo.as_bytes = own


def worked(folder: Path, words: tuple[str, ...], server: ModelServer, env: dict[str, str]) -> str:
    """Record the worker until the model was asked twice and it waits again; return what it printed."""
    log, (program, *rest) = folder / "worker.log", words
    words = (str(Path(sys.executable).with_name(program)), *rest)
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tracefork_backend.cli", "run", "--", *words],
            cwd=folder,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)  # the second answer is on its way
    finally:
        os.killpg(worker.pid, signal.SIGINT)
        worker.wait(30)
    return log.read_text()


@pytest.mark.parametrize("library", WORKERS)
def test_a_job_is_a_run_of_its_own(
    library: str, server: ModelServer, redis_port: int, tmp_path: Path
) -> None:
    """Which is done again in a replay and a fork, with no queue and no worker."""
    pytest.importorskip(library)
    agent, words = WORKERS[library]
    (tmp_path / "agent.py").write_text(agent)
    own = {"MODEL_URL": server.url, "REDIS_PORT": str(redis_port)}
    env = environment(**own)
    subprocess.run(
        [sys.executable, "-c", "import agent; agent.ask()"], cwd=tmp_path, env=env, check=True, timeout=60
    )
    log = worked(tmp_path, tuple(word.format(port=redis_port) for word in words), server, env)
    with open_store(tmp_path / ".tracefork") as store:
        rows = store.sql("select run_id, name, entrypoint, steps, complete, status from runs").fetchall()
    assert [row[1:] for row in rows] == [("task agent.answer", "task:agent:answer", 1, True, "ok")] * 2, log
    asked = len(server.requests)
    for run in rows:
        again = here("replay", run[0], cwd=tmp_path, MODEL_URL=server.url)
        assert "PASS    bit-exact" in again.out, again.out + again.err
    forked = here("fork", f"{rows[0][0]}@0", "--text", "another answer", cwd=tmp_path, MODEL_URL=server.url)
    assert "another answer" in forked.out, forked.out + forked.err
    assert len(server.requests) == asked


def test_a_job_that_fails_says_so(server: ModelServer, redis_port: int, tmp_path: Path) -> None:
    """Its run is an error, though the library goes on."""
    pytest.importorskip("huey")
    failing = HUEY.replace("return say(question)", "raise ValueError(say(question))").replace("retries=1", "")
    (tmp_path / "agent.py").write_text(failing)
    env = environment(MODEL_URL=server.url)
    subprocess.run(
        [sys.executable, "-c", "import agent; agent.ask()"], cwd=tmp_path, env=env, check=True, timeout=60
    )
    worked(tmp_path, WORKERS["huey"][1], server, env)
    with open_store(tmp_path / ".tracefork") as store:
        rows = store.sql("select name, status from runs").fetchall()
    assert rows == [("task agent.answer", "error")] * 2
    again = here("replay", "last", cwd=tmp_path, MODEL_URL=server.url)
    assert "PASS    bit-exact" in again.out, again.out + again.err


OWN_LOOP = (
    SAY
    + """
import redis

jobs = redis.Redis(port=PORT)

def ask():
    jobs.rpush("jobs", "one", "two")

if __name__ == "__main__":
    while True:
        say(jobs.blpop("jobs")[1].decode())
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process is at")
def test_a_loop_of_ones_own_is_seen_to_wait(server: ModelServer, redis_port: int, tmp_path: Path) -> None:
    """Its queue is empty when it is replayed: it is ended once it waited longer than its recording did."""
    pytest.importorskip("redis")
    (tmp_path / "agent.py").write_text(OWN_LOOP)
    own = {"MODEL_URL": server.url, "REDIS_PORT": str(redis_port)}
    env = environment(**own)
    subprocess.run(
        [sys.executable, "-c", "import agent; agent.ask()"], cwd=tmp_path, env=env, check=True, timeout=60
    )
    log = worked(tmp_path, ("python", "agent.py"), server, env)
    again = here("replay", "last", "--timeout", "120", cwd=tmp_path, **own)
    assert "0 of 2 exchanges" in again.out, log + again.out + again.err
    assert "it only waits; to make one request or one task again, name it: --agent agent:fn" in again.out
