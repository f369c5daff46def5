"""Certify candidates by the paired e-process; the only way to be blamed as a single step."""

from __future__ import annotations

import math

from .contrast import Contrast
from .state import State
from .tasks import Task

# Pairs after which an undecided candidate is given up, and before which none is.
MOST_PAIRS = 60
LEAST_PAIRS = 6

# Forks of one arm, lost ones included, after which a test is given up.
MOST_ATTEMPTS = 2 * MOST_PAIRS

# A candidate is minor once an effect this large is less likely than _UNLIKELY. No error rate depends on it.
_DECISIVE = 0.4
_UNLIKELY = 0.05


def confirm(state: State, candidates: list[int]) -> Task[None]:
    """Draw pairs at the leading candidate until each is certified, minor or inconclusive."""
    state.phase = "confirm"
    open_steps = [step for step in candidates if step not in state.certified]
    for step in open_steps:
        state.closed.pop(step, None)
    # Enough for a step that stands alone; steps that stand together need less.
    threshold = math.log(len(state.tested) / state.singles_alpha)
    while open_steps:
        step = max(open_steps, key=lambda s: (_promise(state, s), -state.plan.cost(s), -s))
        contrast = state.contrast(step)
        if contrast.behind:
            yield from contrast.level()
        else:
            yield from contrast.draw(threshold)
        for sure in state.rejected():
            state.certified.add(sure)
            if sure in open_steps:
                open_steps.remove(sure)
        if step in open_steps and _give_up(state, step, contrast):
            open_steps.remove(step)


def _promise(state: State, step: int) -> float:
    """Return a rough effect, the baseline standing in for a control not drawn yet."""
    arm, control = state.ledger.alter((step,)), state.contrast(step).control
    baseline = state.baseline_rate
    return (arm.flips + 0.5) / (len(arm.defined) + 1) - (control.flips + baseline) / (
        len(control.defined) + 1
    )


def _give_up(state: State, step: int, contrast: Contrast) -> bool:
    """Close a step that is not worth more pairs, and say why."""
    arm = contrast.treatment
    if contrast.blocks >= LEAST_PAIRS and contrast.chance(_DECISIVE) < _UNLIKELY:
        state.closed[step] = (
            "minor",
            f"an effect of {_DECISIVE} or more is unlikely after {contrast.blocks} pairs",
        )
        return True
    if contrast.blocks < MOST_PAIRS and contrast.attempts < MOST_ATTEMPTS:
        return False
    reason = f"not settled after {contrast.blocks} pairs"
    if arm.undefined or contrast.control.undefined:
        reason += "; it might be if the ungraded forks are read at their worst for the claim"
        if contrast.log_e_defined >= math.log(len(state.tested) / state.singles_alpha):
            reason = (
                "the graded forks alone would certify it, but not if the ungraded ones went the other way"
            )
    state.closed[step] = ("inconclusive", reason)
    return True
