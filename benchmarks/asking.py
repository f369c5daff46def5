"""A model server and agents that ask it, as processes: each does what it is told on its standard input."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Kind = TypeVar("Kind", str, tuple[str, str])


@contextmanager
def agents(code: str, kinds: Sequence[Kind]) -> Iterator[dict[Kind, subprocess.Popen[str]]]:
    """One process a kind, given the kind, the server's URL and a folder of its own; all end with the block."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        started.append(
            process := subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        return process

    with tempfile.TemporaryDirectory() as folder:
        try:
            server = start("-m", "tracefork_backend.simulate")
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            yield {
                kind: start(
                    "-c",
                    code,
                    *((kind,) if isinstance(kind, str) else kind),
                    url,
                    str(Path(folder) / str(number)),
                )
                for number, kind in enumerate(kinds)
            }
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def ask(agent: subprocess.Popen[str], what: str) -> list[int]:
    """Return the times that the agent measured."""
    assert agent.stdin is not None and agent.stdout is not None
    agent.stdin.write(what + "\n")
    agent.stdin.flush()
    return json.loads(agent.stdout.readline())
