"""Every target: one for each thing that is read and that somebody else may have written."""

from __future__ import annotations

import logging

from . import of_files, of_questions, of_wire
from .running import Finding, Target, bounded, fuzz

TARGETS: dict[str, Target] = {
    target.name: target for target in (*of_wire.TARGETS, *of_files.TARGETS, *of_questions.TARGETS)
}


def fuzzed(name: str, runs: int, seconds: float, seed: int) -> tuple[str, int, float, list[Finding]]:
    """Return what came of one target, in a process of its own."""
    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    with bounded():
        count, took, found = fuzz(target, runs=max(1, runs // target.dear), seconds=seconds, seed=seed)
    of_files.clean()
    return name, count, took, found
