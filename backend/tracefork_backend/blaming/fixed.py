"""The plain flip rate: k forks per step, no control, for comparison."""

from __future__ import annotations

from .state import State
from .tasks import Task, until
from .trials import Arm


def redraw_arm(state: State, step: int) -> Arm:
    """Return the arm of a step in this mode: a natural redraw is the arm that keeps what came before."""
    if state.plan.natural:
        return state.ledger.keep(step - 1, role="value")
    return state.ledger.alter((step,))


def fixed(state: State) -> Task[None]:
    """Draw k trials of every step, all at once."""
    state.phase = "fixed"
    yield from until(*((redraw_arm(state, step), state.plan.k) for step in state.tested))
    state.stop_reason = "fixed"
