"""Decisions as generators: a task yields the trials it waits for and goes on when they are there."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeAlias, TypeVar

from .trials import Arm

T = TypeVar("T")

Wants: TypeAlias = list[tuple[Arm, int]]
"""Arms, and how many outcomes each must have."""

Task: TypeAlias = Generator[Wants, None, T]
"""May be resumed before its wants are met: then it yields them again."""


def until(*wants: tuple[Arm, int]) -> Task[None]:
    """Wait until every arm has so many outcomes."""
    while True:
        unmet = [(arm, trials) for arm, trials in wants if len(arm.outcomes) < trials]
        if not unmet:
            return
        yield unmet


def together(tasks: Sequence[Task[T]]) -> Task[list[T]]:
    """Run tasks side by side and return their results in order; none waits for another.

    Each decides by the outcomes of its own arms only, so the results do not depend on the order of arrival.
    """
    results: dict[int, T] = {}
    running = dict(enumerate(tasks))
    while running:
        wants: Wants = []
        for index, task in list(running.items()):
            try:
                wants += next(task)
            except StopIteration as stop:
                results[index] = stop.value
                del running[index]
        if running:
            yield wants
    return [results[index] for index in range(len(tasks))]
