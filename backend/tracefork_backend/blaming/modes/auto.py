"""The mode that chooses: by the change, and by how often unchanged re-runs escape the recorded failure."""

from __future__ import annotations

from ..controls import controls
from ..state import State
from ..tasks import Task
from .intervene import INTERVENE
from .mode import Mode
from .value import VALUE

# A failed run whose unchanged re-runs succeed this often was lost by chance, so where it was lost is asked
# instead.
_STOCHASTIC = 0.25


class Auto(Mode):
    """`value` for a failure that came by chance or a change that is a redraw, else `intervene`."""

    name = "auto"
    found = "undecided"

    def settled(self, *, natural: bool) -> Mode:
        """Return `value` where there is nothing to try but a redraw."""
        return VALUE if natural else self

    def search(self, state: State) -> Task[None]:
        """Measure the baseline, and go on as the mode that it suggests."""
        state.mode = self.found
        if state.tested:
            if not (yield from controls(state)):
                return
            if state.plan.parent_failed and state.baseline_rate > _STOCHASTIC:
                yield from VALUE.search(state)
                return
        yield from INTERVENE.search(state)


AUTO = Auto()
