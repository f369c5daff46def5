"""The search for the step to blame, which has an answer at any time."""

from __future__ import annotations

from .answer import findings
from .asking import Asking
from .findings import Findings
from .modes import mode_named
from .plan import Plan
from .state import State


class Search(Asking):
    """One blame experiment; see `next_batch`, `observe`, `verdict`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._state = State(plan)
        self._state.tested = plan.tested
        mode = mode_named(plan.mode).settled(natural=plan.natural)
        super().__init__(self._state, mode.search(self._state), max_trials=plan.max_trials)

    def verdict(self) -> Findings:
        """Return the answer as of now."""
        return findings(self._state)
