"""What tests of forks share: an agent's folder, a store, and a model server that its tail can talk to."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pytest
from tracefork_backend.agents.recording import Recorded, record
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Behaviour, Call, Reply
from tracefork_backend.store import Run, Store, open_store

TALK = '''
import os, sys, httpx2, tracefork_otel

client = httpx2.Client()
history = []

def say(text, forget=False):
    """What a model answers, asked by plain HTTP: an agent that starts without an SDK is quick to start."""
    messages = [*([] if forget else history), {"role": "user", "content": text}]
    body = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": messages}
    head = {"x-api-key": os.environ["AGENT_API_KEY"]}
    answer = client.post(os.environ["AGENT_URL"] + "/v1/messages", json=body, headers=head, timeout=20)
    answer.raise_for_status()
    said = answer.json()["content"][0]["text"]
    if not forget:
        history.extend([*messages[-1:], {"role": "assistant", "content": said}])
    return said
'''


def shout(call: Call) -> Reply:
    """Repeats the last message in capitals."""
    return Reply(text=call.last.upper())


class Desk:
    """A folder with an agent's script in it, a store, and the server that answers the agent."""

    talk = TALK
    """What each script begins with."""

    def __init__(self, folder: Path, server: ModelServer) -> None:
        self.folder = folder
        self.store_path = folder / "store"
        self.server = server

    def write(self, body: str, name: str = "agent.py") -> None:
        """The script is there, with `say(text)` defined; it asks one question after the other."""
        (self.folder / name).write_text(self.talk + textwrap.dedent(body))

    def record(self, *argv: str) -> Recorded:
        """The command was recorded, `agent.py` by default, whose exit status may be anything."""
        return record(self.store_path, argv or (sys.executable, "agent.py"))

    def recorded(self, body: str) -> Run:
        """The run of a command with this script."""
        self.write(body)
        self.record()
        self.server.requests.clear()
        return self.run()

    def called(self, body: str, call: str) -> Run:
        """The run of one call of an agent function of this script."""
        self.write(body)
        start = "from tracefork_otel import TraceforkInstrumentor as T; T().instrument(http_spans=False); "
        env = {**os.environ, "TRACEFORK_STORE": str(self.store_path)}
        subprocess.run([sys.executable, "-c", f"{start}import agent; agent.{call}"], env=env, check=True)
        self.server.requests.clear()
        return self.run()

    @cached_property
    def store(self) -> Store:
        """The store."""
        return open_store(self.store_path)

    def run(self) -> Run:
        """The last run."""
        return self.store.run("last")

    def asked(self) -> list[str]:
        """The last message of each request that reached the server."""
        return [request.json()["messages"][-1]["content"] for request in self.server.requests]


@contextmanager
def at_desk(folder: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour = shout) -> Iterator[Desk]:
    """A desk whose agents find the server and a key in their environment."""
    with ModelServer(behaviour, seed=7) as server:
        monkeypatch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("OTEL_", "TRACE"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AGENT_URL", server.url)
        monkeypatch.setenv("AGENT_API_KEY", "secret-key-value")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
        yield Desk(folder, server)


@contextmanager
def as_output(descriptor: int, number: int = 1) -> Iterator[None]:
    """Within the block that is this process's standard output."""
    before = os.dup(number)
    os.dup2(descriptor, number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
