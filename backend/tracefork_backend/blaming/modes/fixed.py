"""The plain flip rate: k forks per step, no control, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from ...statistics import wilson
from ..findings import Effect, Findings
from ..state import State
from ..tasks import Task, until
from ..trials import Arm
from .mode import Mode, Words, counts


class Fixed(Mode):
    """A number of forks that is fixed before, at every step."""

    name = found = "fixed"
    compares = False
    words = Words(
        chart="How often the run ended differently when a step was changed, with its interval. "
        "There is no control to compare with.",
        axis="flip rate (no control)",
        unsettled="Flip rate only",
        cautions=("Flip rates without controls cannot tell a cause from an agent that is merely unsteady.",),
    )

    def search(self, state: State) -> Task[None]:
        """Draw k trials of every step, all at once."""
        state.mode = self.name
        state.phase = "fixed"
        if state.plan.natural:
            state.tested = state.plan.whole
        yield from until(*((_arm(state, step), state.plan.k) for step in state.tested))
        state.stop_reason = "fixed"

    def message(self, state: State, found: Findings) -> str | None:
        """Return what flip rates tell, once all are there."""
        if found.stop_reason != "fixed":
            return None
        return "flip rates without controls; they do not tell a cause from noise"

    def effects(self, state: State) -> list[Effect]:
        """Return the flip rate of each step with the interval of Wilson."""
        return [self._effect(state, step) for step in range(state.plan.steps)]

    def _effect(self, state: State, step: int) -> Effect:
        if step not in state.tested:
            verdict, reason = self.verdict(state, step)
            return Effect(step=step, verdict=verdict, reason=reason)
        arm = _arm(state, step)
        low, high = wilson(arm.flips, len(arm.defined), level=1 - state.plan.alpha)
        return Effect(
            step=step,
            verdict="inconclusive" if arm.outcomes else "untested",
            reason="a flip rate without a control: noise alone may be behind it",
            ci_low=low,
            ci_high=high,
            ci_kind="wilson",
            **counts(arm, None),
        )

    def ranking(self, state: State, effects: Sequence[Effect]) -> tuple[int, ...]:
        """Order the steps by their rates."""
        rates = [(-effect.flip_rate, effect.step) for effect in effects if effect.flip_rate is not None]
        return tuple(step for _, step in sorted(rates))


def _arm(state: State, step: int) -> Arm:
    """Return the arm of a step: a natural redraw is the arm that keeps what came before."""
    if state.plan.natural:
        return state.ledger.keep(step - 1, role="value")
    return state.ledger.alter((step,))


FIXED = Fixed()
