"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefork_backend.simulate import ModelServer

KEY = "sk-ant-very-secret-key-0123456789"
"""What an agent has as its key, so that a test can look where it went."""
EXAMPLES = Path(__file__).parents[2] / "examples"


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


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without keys and settings from outside."""
    outside = ("TRACEFORK_", "OTEL_", "ANTHROPIC_", "OPENAI_", "TRACEPARENT", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    return {**kept, "COLUMNS": "180", **extra}


def asking(folder: Path, server: ModelServer, *words: str, **extra: str) -> Typed:
    """The command, with the model server as the agent's provider."""
    return tracefork(*words, cwd=folder, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY=KEY, **extra)


def tracefork(*arguments: str | Path, cwd: Path, timeout: float = 100, **extra: str) -> Typed:
    """The command `tracefork-otel ARGUMENTS`, run in a folder to its end."""
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
