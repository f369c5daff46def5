"""Agents started: a command recorded in the foreground, or any command supervised. The only subprocesses."""

from __future__ import annotations

from .environment import as_recorded, executable, given_back, traced, unstartable, working_directory
from .recording import Recorded, RecordedRun, record
from .supervise import Finished, Stopper, run_command

__all__ = [
    "Finished",
    "Recorded",
    "RecordedRun",
    "Stopper",
    "as_recorded",
    "executable",
    "given_back",
    "record",
    "run_command",
    "traced",
    "unstartable",
    "working_directory",
]
