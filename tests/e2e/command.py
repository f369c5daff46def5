"""The command line as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tracefork_backend.cli import main
from tracefork_backend.simulate import ModelServer

KEY = "sk-ant-very-secret-key-0123456789"
"""What an agent has as its key, so that a test can look where it went."""
EXAMPLES = Path(__file__).parents[2] / "examples"
BARE = {"PYTHONPATH": str(Path(__file__).parents[1] / "bare")}
"""Gives agents a client of bare HTTP in the SDK's place, in tests that are not about the SDK."""


@dataclass(frozen=True)
class Typed:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, *parts: str, status: int = 2) -> None:
        """Assert that the command ended with one line of error, which says these things."""
        assert self.status == status, self.out + self.err
        assert self.err.startswith("error: "), self.err
        assert len(self.err.strip().splitlines()) == 1, self.err
        assert all(part in self.err for part in parts), self.err


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without keys and settings from outside."""
    outside = ("TRACEFORK_", "OTEL_", "ANTHROPIC_", "OPENAI_", "TRACEPARENT", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    return {**kept, "COLUMNS": "180", **extra}


def asking(folder: Path, server: ModelServer, *words: str, **extra: str) -> Typed:
    """Run the command with the model server as the agent's provider."""
    return tracefork(*words, cwd=folder, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY=KEY, **extra)


def tracefork(*arguments: str | Path, cwd: Path, timeout: float = 100, **extra: str) -> Typed:
    """Run `tracefork-otel ARGUMENTS` in a folder to its end, as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tracefork_backend.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Typed(done.returncode, done.stdout, done.stderr)


def here(*arguments: str | Path, cwd: Path, **extra: str) -> Typed:
    """Run the same in this process, which has loaded everything already."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        patch.dict(os.environ, environment(**extra), clear=True),
        patch.object(sys, "argv", ["tracefork-otel", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        main()
    assert isinstance(left.value.code, int)
    return Typed(left.value.code, out.getvalue(), err.getvalue())
