"""A warm process: it imported an agent once, and forks a supervised child for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .supervise import Finished, Stopper


class Refused(Exception):
    """The agent cannot be forked from a process that imported it; the message says why."""


class WarmPool:
    """One process that imported the agent; none of it is left after `close`."""

    def __init__(self, entrypoint: str, *, env: Mapping[str, str], cwd: Path, tape: Path) -> None:
        raise Refused("there is no warm process yet")

    def run(
        self, *, env: Mapping[str, str], arguments: Any, timeout: float | None, stopper: Stopper
    ) -> Finished:
        """How the agent's call ended in a child of the warm process."""
        raise NotImplementedError

    def close(self) -> None:
        """The warm process has ended."""
