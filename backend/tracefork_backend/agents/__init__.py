"""Agents started: a command recorded in the foreground, or any command supervised. The only subprocesses."""

from __future__ import annotations

from .environment import executable, given_back, kept_settings, traced, unstartable, working_directory
from .recording import Recorded, RecordedRun, record
from .supervise import Finished, Stopper, run_command

__all__ = [
    "Finished",
    "Recorded",
    "RecordedRun",
    "Stopper",
    "executable",
    "given_back",
    "kept_settings",
    "record",
    "run_command",
    "traced",
    "unstartable",
    "working_directory",
]
