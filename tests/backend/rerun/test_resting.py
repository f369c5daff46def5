"""A command that only listens, or waits for work, is told from one that sleeps or computes."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from e2e.command import Typed, environment, here
from tracefork_backend.agents.at_rest import at_rest
from tracefork_backend.rerun.resting import resting
from tracefork_backend.simulate import ModelServer, Reply

LINUX = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the system does not say what a process is at",
)
SAY = """
import os, queue, socket, sys, threading, time
import httpx2

def say(words):
    said = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]}
    httpx2.post(os.environ["MODEL_URL"] + "/chat/completions", json=said)

def listen():
    listening = socket.create_server(("127.0.0.1", 0))
    print("ready", flush=True)
    listening.accept()

"""
LISTENS = SAY + "say('at its start')\nlisten()\n"
WAITS = SAY + "say('a task')\nprint('ready', flush=True)\nqueue.Queue().get()\n"
RECEIVES = SAY + "say('a task')\nprint('ready', flush=True)\npair = socket.socketpair()\npair[0].recv(1)\n"
POLLS = (
    SAY
    + """
say('a task')
print('ready', flush=True)
one, other = socket.socketpair()
one.settimeout(20)
while True:
    try:
        one.recv(1)
    except TimeoutError:
        pass
"""
)
SLEEPS = SAY + "threading.Thread(target=listen, daemon=True).start()\nsay('1')\ntime.sleep(9)\nsay('2')\n"
SERVES = (
    SAY
    + """
import asyncio
from aiohttp import web

listening = socket.create_server(("127.0.0.1", 0))

async def chat(request):
    await asyncio.to_thread(say, "a request")
    return web.Response(text="said")

async def ready(app):
    print("ready", listening.getsockname()[1], flush=True)

app = web.Application()
app.router.add_post("/chat", chat)
app.on_startup.append(ready)
"""
)
RUNS_APP = SERVES + "web.run_app(app, sock=listening, print=None)\n"
BY_HAND = (
    SERVES
    + """
async def main():
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    while True:
        await asyncio.sleep(3600)

asyncio.run(main())
"""
)
PAUSES = (
    SAY
    + """
import asyncio

async def main():
    say("1")
    async with await asyncio.start_server(lambda *streams: None, "127.0.0.1", 0):
        await asyncio.sleep(9)
    say("2")

asyncio.run(main())
"""
)


def recorded(folder: Path, code: str, model: ModelServer) -> None:
    """Record the agent, asked at the port that it names, and interrupted if it does not end by itself."""
    (folder / "work.py").write_text(code)
    command = [sys.executable, "-m", "tracefork_backend.cli", "run", "--", sys.executable, "work.py"]
    agent = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(MODEL_URL=model.openai_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert agent.stdout is not None
    with agent.stdout:
        if code in (SLEEPS, PAUSES):
            assert agent.wait(60) == 0
        else:
            ready, *port = agent.stdout.readline().split()
            assert ready == b"ready"
            if port:
                assert httpx2.post(f"http://127.0.0.1:{int(port[0])}/chat", timeout=30).text == "said"
            time.sleep(0.3)
            os.killpg(agent.pid, signal.SIGINT)
        agent.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(agent.pid, signal.SIGKILL)


def replayed(folder: Path, code: str) -> Typed:
    """Record the agent with a model, and replay it while that model is there."""
    with ModelServer(lambda call: Reply(text="yes")) as model:
        recorded(folder, code, model)
        return here("replay", "last", "--timeout", "60", cwd=folder, MODEL_URL=model.openai_url)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("code", "what"), [(LISTENS, "only listens"), (WAITS, "only waits")])
def test_what_only_waits_is_ended(tmp_path: Path, code: str, what: str) -> None:
    """Its receipt is whole, and says what to name; a fork of it is a fork like any other."""
    with ModelServer(lambda call: Reply(text="yes")) as model:
        recorded(tmp_path, code, model)
        for words, passes in (
            (("replay", "last"), "PASS    bit-exact"),
            (("fork", "last@0", "--text", "no"), "1 edited"),
        ):
            began = time.monotonic()
            done = here(*words, "--timeout", "60", cwd=tmp_path, MODEL_URL=model.openai_url)
            assert passes in done.out, done.out + done.err
            assert done.status == 0, done.out + done.err
            assert time.monotonic() - began < 40
            if words[0] == "replay":
                named = "pkg.mod:fn" if code is LISTENS else "work:fn, where"
                said = f"{what}; to make one request or one task again, name it: --agent {named}"
                assert said in done.out


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("code", [RECEIVES, POLLS], ids=["receives", "polls"])
def test_what_waits_on_a_connection_is_ended(tmp_path: Path, code: str) -> None:
    """In a replay, whose answers are all on the tape: with no time, as for Redis, or with a long one."""
    done = replayed(tmp_path, code)
    assert "PASS    bit-exact" in done.out, done.out + done.err
    assert "it only waits; to make" in done.out


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("code", [RUNS_APP, BY_HAND], ids=["run_app", "a runner by hand"])
def test_a_server_that_sleeps_is_ended(tmp_path: Path, code: str) -> None:
    """Nobody is connected, and it sleeps for longer than its recording ever paused: it only listens."""
    done = replayed(tmp_path, code)
    assert "0 of 1 exchanges" in done.out, done.out + done.err
    assert "it only listens; to make one request" in done.out


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("code", [SLEEPS, PAUSES], ids=["a thread listens", "it listens itself"])
def test_what_sleeps_goes_on(tmp_path: Path, code: str) -> None:
    """Also where it listens meanwhile."""
    done = replayed(tmp_path, code)
    assert "2 of 2 exchanges" in done.out, done.out + done.err
    assert "PASS" in done.out


@LINUX
def test_what_a_process_is_at() -> None:
    """One that waits for work waits; one that sleeps, or computes, may do so for long."""
    found = {}
    for name, code in (
        ("waits", "import queue; queue.Queue().get()"),
        ("sleeps", "import time; time.sleep(60)"),
        ("expects", "import socket; pair = socket.socketpair(); pair[0].recv(1)"),
        ("computes", "while True: pass"),
    ):
        # Below a shell of its own, as the tree is that of the command's parent.
        shell = ["sh", "-c", '"$0" -c "$1" & echo $!; wait', sys.executable, code]
        with subprocess.Popen(
            shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            command = int(process.stdout.readline())
            time.sleep(0.7)
            before, _ = at_rest(command), time.sleep(0.3)
            found[name] = before, at_rest(command)
            os.killpg(process.pid, signal.SIGKILL)
    at = {name: looks[1] for name, looks in found.items()}
    if any(one is None for one in at.values()):
        pytest.skip("this system does not say what a process is at")
    assert [name for name, one in at.items() if one and not one.waits] == ["computes"]
    assert [name for name, one in at.items() if one and one.expects] == ["expects"]
    assert [name for name, (a, b) in found.items() if a and b and not b.is_beating(a)] == ["sleeps"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("python -m uvicorn --port 0 app:app", "asgi:app:app;"),
        ("/bin/gunicorn -w 2 pkg.app:make()", "wsgi:pkg.app:make();"),
        ("gunicorn -k uvicorn_worker.UvicornWorker app:app", "asgi:app:app;"),
        ("python manage.py runserver", "pkg.mod:fn, asgi:pkg.mod:app or wsgi:pkg.mod:app;"),
    ],
)
def test_what_to_name(command: str, named: str) -> None:
    """The application, where the command says which it serves."""
    assert f"--agent {named}" in resting(command.split(), "it only listens")
