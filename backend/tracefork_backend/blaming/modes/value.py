"""Where a stochastic run was lost: the drop of V(i) = P(flip | responses up to i kept).

A redraw of step i is the arm that keeps i - 1, so one arm per prefix serves as treatment of one step and
control of the step before. After the last step it is measured too, for nothing: what still flips there
comes from outside the responses, from a tool, the agent's own code or the oracle, and no step is to blame.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

from ..axis import MOST_FIRST, Axis, before, drop_at, drop_contrast, prefix, searched
from ..contrast import Contrast
from ..curve import WORTH, likely
from ..findings import Drop, Effect, Guess, Verdict
from ..plan import Plan
from ..state import State
from ..tasks import Task, until
from ..trials import Sampler, TrialRequest
from .mode import Mode, Words, attempt, certified, counts

# Full re-runs before the curve is searched: up to MOST_FIRST for the first two flips; none in 16 means
# V < 0.17 at 95 %.
_FIRST = 4
_FLIPS_WANTED = 2

# Prefixes with fewer graded trials do not count as measured.
_MEASURED = 4


class Value(Mode):
    """Natural redraws: blame is the drop of the chance to come out otherwise once a response is kept."""

    name = found = "value"
    redraws = True
    counts_controls = False
    assumes = f"some step loses {WORTH:g} or more, mostly as in failed runs of a small real model"
    words = Words(
        lost="Step {step} lost this run.",
        won="Step {step} won this run.",
        treated="drawn again",
        treated_fully="left open and drawn again",
        cautions=(
            "A step was judged by drawing its own answer again. A step that is wrong however often it is "
            "drawn looks innocent here.",
        ),
    )

    def search(self, state: State) -> Task[None]:
        """Search the V curve; the state then holds contrasts, the certified steps and the likely ones."""
        state.mode = self.name
        state.phase = "value"
        state.tested = state.plan.whole
        first = prefix(state, -1)
        if state.baseline is None:
            state.baseline = first
        yield from until((first, _FIRST), (prefix(state, state.plan.steps - 1), _FIRST))
        # Four re-runs of an agent that fails in seven of ten are alike in one case of four.
        while first.flips < _FLIPS_WANTED and len(first.outcomes) < MOST_FIRST:
            yield from until((first, len(first.outcomes) + 2))
        state.deterministic = state.plan.deterministic == "auto" and first.told and first.alike(False)
        if state.deterministic:
            state.stop_reason = "systematic"
            return
        if not first.flips and not (yield from _rescued_later(state)):
            state.stop_reason = "systematic" if first.defined else "aborted"
            return
        yield from searched(state)
        found = [step for step in state.certified if drop_at(state, step) > 0]
        if found:
            root = max(found, key=lambda step: (drop_at(state, step), -step))
            if not Axis(state).file_larger(drop_at(state, root)):
                state.roots.add(root)
        state.stop_reason = "certified" if state.certified else "none_found"

    def places(self, plan: Plan) -> Sequence[int]:
        """Return all steps: each can be drawn again, with the attempts at it."""
        return plan.whole

    def foretold(
        self, plan: Plan, rng: random.Random, *, effect: float, baseline: float
    ) -> tuple[int, Sampler]:
        """Return outcomes by a curve that is likely of such runs, and the step that loses most."""
        curve = likely(plan.steps, rng)
        cause = max(range(plan.steps), key=lambda step: curve[step] - curve[step + 1])
        return cause, lambda request: rng.random() < curve[request.kept]

    def sampler(
        self, plan: Plan, rng: random.Random, *, cause: int, effect: float, baseline: float
    ) -> Sampler:
        """Return outcomes that flip with effect + baseline until the cause is kept, then with baseline."""

        def flips(request: TrialRequest) -> bool:
            rate = baseline + (effect if request.kept <= cause else 0.0)
            return request.kept < plan.steps and rng.random() < rate

        return flips

    def drops(self, state: State) -> tuple[Drop, ...]:
        """Return how the whole loss divides over the measured prefixes; the parts add up to it exactly."""
        measured: list[tuple[int, float, int]] = []
        for step in range(-1, state.plan.steps):
            arm = state.ledger.arms.get(f"keep:{step}")
            if arm is not None and arm.rate is not None and (len(arm.defined) >= _MEASURED or step == -1):
                measured.append((step, arm.rate, len(arm.defined)))
        if not measured or measured[0][0] != -1:
            return ()
        if measured[-1][0] != state.plan.steps - 1:
            # Not re-run: the recorded outcome stands, which is no flip.
            measured.append((state.plan.steps - 1, 0.0, 0))
        return tuple(
            Drop(
                first=before[0] + 1,
                last=after[0],
                drop=before[1] - after[1],
                n_before=before[2],
                n_after=after[2],
            )
            for before, after in itertools.pairwise(measured)
        )

    def ranking(self, state: State, effects: Sequence[Effect]) -> tuple[int, ...]:
        """Order the steps as other modes do, but for one that likely loses more than what is certified."""
        order = super().ranking(state, effects)
        first = state.likely if state.certified and not state.roots else []
        return tuple(dict.fromkeys((*first, *order)))

    def guess(self, state: State) -> Guess | None:
        """Return what the model of the curve says, once both ends are measured and nothing is certified."""
        axis = Axis(state)
        knots = axis.knots()
        measured = len(knots) > 1 and (knots[0].place, knots[-1].place) == (-1, axis.last)
        flips = any(knot.flips for knot in knots)
        return axis.guess() if measured and flips and not state.certified else None

    def q_values(self, state: State) -> dict[int, float]:
        """Return Bonferroni's over all steps, which also covers choosing among them by the same trials."""
        contrasts = [(step, self.contrast(state, step)) for step in range(state.plan.steps)]
        return {
            step: min(1.0, state.plan.steps * math.exp(-max(0.0, contrast.log_e)))
            for step, contrast in contrasts
            if contrast is not None
        }

    def contrast(self, state: State, step: int) -> Contrast | None:
        """Return the contrast of the prefixes around a step, if both have graded trials."""
        if step not in state.contrasts:
            arms = (state.ledger.arms.get(f"keep:{at}") for at in (before(state, step), step))
            if not all(arm is not None and arm.defined for arm in arms):
                return None
        found = drop_contrast(state, step)
        # What certified a step stays as it was, though later trials of its prefixes came in for others.
        if step not in state.certified:
            found.fold()
        return found

    def counts(self, state: State, step: int) -> dict[str, Any]:
        """Return the counts of the prefixes around a step."""
        arms = state.ledger.arms
        return counts(arms.get(f"keep:{before(state, step)}"), arms.get(f"keep:{step}"))

    def verdict(self, state: State, step: int) -> tuple[Verdict, str]:
        """Judge a step by the measured prefixes around it."""
        if (part := attempt(state.plan, step)) is not None:
            return part
        if step in state.certified:
            return certified(state)
        if step in state.closed:
            return state.closed[step]
        for drop in self.drops(state):
            if drop.first <= step <= drop.last and drop.n_before >= _MEASURED:
                chance = Contrast(prefix(state, drop.first - 1), prefix(state, drop.last)).chance(0.2)
                share = f"{drop.drop:.2f} of the loss"
                if drop.last == drop.first:
                    verdict, words = "inconclusive", f"this step accounts for {share}"
                else:
                    verdict = "untested"
                    words = f"steps {drop.first} to {drop.last} together account for {share}"
                return ("screened_out" if chance < 0.5 else verdict), words
        return "untested", "the experiment ended before it was tested"


def _rescued_later(state: State) -> Task[bool]:
    """Tell whether some re-run flips that keeps a quarter, a half or three quarters of the responses."""
    places = {state.plan.steps * quarter // 4 - 1 for quarter in (1, 2, 3)}
    arms = [prefix(state, place) for place in sorted(places - {-1})]
    yield from until(*((arm, _FIRST) for arm in arms))
    return any(arm.flips for arm in arms)


VALUE = Value()
