"""Where a stochastic run was lost: the drop of V(i) = P(flip | responses up to i kept), found by bisection.

A redraw of step i is the arm that keeps i - 1, so one arm per prefix serves as treatment of one step and
control of the step before. After the last step it is measured too, for nothing: what still flips there
comes from outside the responses, from a tool, the agent's own code or the oracle, and no step is to blame.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bisection import Grid, locate
from ..contrast import Contrast
from ..findings import Drop, Verdict
from ..plan import Plan
from ..state import State
from ..tasks import Task, until
from ..trials import Arm, Sampler, TrialRequest
from .mode import Mode, Words, certified, counts

# Full re-runs before the curve is searched: up to 16 for the first two flips; none in 16 means V < 0.17 at
# 95 %.
_FIRST = 4
_MOST_FIRST = 16
_FLIPS_WANTED = 2

# Probes of one prefix at a time: two keep two workers busy for a tenth more forks than one.
_PROBES = 2

# The posterior probability at which a step is put to the test, and limits of the search (research 3.6).
_SURE = 0.9
_MOST_SCREENING = 300
# The same for what one certified drop leaves: it is the smaller part of the loss.
_MOST_AGAIN = 100
_TRIES = 3

# Pairs of one test, and when it is given up: a drop this large is unlikely.
_MOST_PAIRS = 80
_MOST_ATTEMPTS = 3 * _MOST_PAIRS
_LEAST_PAIRS = 12
_WORTH = 0.15
_UNLIKELY = 0.05

# A loss this large that a certified drop leaves unexplained is searched for another one.
_UNEXPLAINED = 0.2
# Forks at both ends of what is left: where nothing was lost, a loss that large is seen in 8 % by chance.
_MEASURE = 24

# Prefixes with fewer graded trials do not count as measured.
_MEASURED = 4


@dataclass(frozen=True, slots=True)
class _Span:
    """Steps `after + 1` to `last`, across which V falls."""

    after: int
    last: int


def _whole(state: State) -> _Span:
    return _Span(-1, state.plan.steps - 1)


class Value(Mode):
    """Natural redraws: blame is the drop of the chance to come out otherwise once a response is kept."""

    name = found = "value"
    redraws = True
    counts_controls = False
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
        state.tested = tuple(range(state.plan.steps))
        first = _prefix(state, -1)
        if state.baseline is None:
            state.baseline = first
        yield from until((first, _FIRST), (_prefix(state, state.plan.steps - 1), _FIRST))
        # Four re-runs of an agent that fails in seven of ten are alike in one case of four.
        while first.flips < _FLIPS_WANTED and len(first.outcomes) < _MOST_FIRST:
            yield from until((first, len(first.outcomes) + 2))
        state.deterministic = state.plan.deterministic == "auto" and first.told and first.alike(False)
        if state.deterministic:
            state.stop_reason = "systematic"
            return
        if not first.flips and not (yield from _rescued_later(state)):
            state.stop_reason = "systematic" if first.defined else "aborted"
            return
        spans = [_whole(state)]
        while spans:
            span = spans.pop()
            step = yield from _search(state, span)
            if step is not None:
                for part in (_Span(span.after, step - 1), _Span(step, span.last)):
                    if part.last > part.after and (yield from _loses(state, part)):
                        spans.append(part)
        found = [step for step in state.certified if _drop_at(state, step) > 0]
        if found:
            state.roots.add(max(found, key=lambda step: (_drop_at(state, step), -step)))
        state.stop_reason = "certified" if state.certified else "none_found"

    def places(self, plan: Plan) -> Sequence[int]:
        """Return all steps: each can be drawn again."""
        return range(plan.steps)

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
            arms = (state.ledger.arms.get(f"keep:{at}") for at in (step - 1, step))
            if not all(arm is not None and arm.defined for arm in arms):
                return None
        found = _drop_contrast(state, step)
        # What certified a step stays as it was, though later trials of its prefixes came in for others.
        if step not in state.certified:
            found.fold()
        return found

    def counts(self, state: State, step: int) -> dict[str, Any]:
        """Return the counts of the prefixes around a step."""
        arms = state.ledger.arms
        return counts(arms.get(f"keep:{step - 1}"), arms.get(f"keep:{step}"))

    def verdict(self, state: State, step: int) -> tuple[Verdict, str]:
        """Judge a step by the measured prefixes around it."""
        if step in state.certified:
            return certified(state)
        if step in state.closed:
            return state.closed[step]
        for drop in self.drops(state):
            if drop.first <= step <= drop.last:
                chance = Contrast(_prefix(state, drop.first - 1), _prefix(state, drop.last)).chance(0.2)
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
    arms = [_prefix(state, place) for place in sorted(places - {-1})]
    yield from until(*((arm, _FIRST) for arm in arms))
    return any(arm.flips for arm in arms)


def _prefix(state: State, step: int) -> Arm:
    """Return the arm that keeps the responses up to `step`."""
    return state.ledger.keep(step, role="value")


def _drop_contrast(state: State, step: int) -> Contrast:
    """Return the contrast of keeping everything before `step` against keeping the step too."""
    found = state.contrasts.get(step)
    if found is None:
        found = state.contrasts[step] = Contrast(_prefix(state, step - 1), _prefix(state, step))
    return found


def _drop_at(state: State, step: int) -> float:
    return _drop_contrast(state, step).effect or 0.0


def _loses(state: State, span: _Span) -> Task[bool]:
    """Tell whether V likelier than not falls by `_UNEXPLAINED` over the span."""
    loss = Contrast(_prefix(state, span.after), _prefix(state, span.last))
    if loss.chance(_UNEXPLAINED) <= 0.5:
        return False
    # The first re-runs are four: three of them well is no proof of a second loss.
    yield from until((loss.treatment, _MEASURE), (loss.control, _MEASURE))
    return loss.chance(_UNEXPLAINED) > 0.5


def _search(state: State, span: _Span) -> Task[int | None]:
    """Return the certified step of a span, or None; what looked likeliest is filed either way."""
    threshold = math.log(state.plan.steps / state.plan.alpha)
    tried: set[int] = set()
    drawn = 0
    most = _MOST_SCREENING if span == _whole(state) else _MOST_AGAIN
    grid = Grid.whole() if span.last == state.plan.steps - 1 else Grid.above(_rate(state, span.last))
    while True:
        counts = _counts(state, span)
        place = locate(grid, counts, first=span.after + 1, last=span.last, excluded=tried)
        if place.chance < _SURE and drawn < most:
            arm = _prefix(state, place.probe)
            yield from until((arm, len(arm.outcomes) + _PROBES))
            drawn += _PROBES
            if len(arm.outcomes) >= 2 * _MOST_SCREENING or (
                not arm.defined and len(arm.outcomes) >= _MOST_FIRST
            ):
                return None
            continue
        tried.add(place.step)
        certified = yield from _certify(state, place.step, threshold)
        if certified:
            return place.step
        best = locate(grid, _counts(state, span), first=span.after + 1, last=span.last, excluded=set())
        if best.step in tried or len(tried) >= _TRIES or drawn >= most:
            state.likely.append(best.step)
            state.closed[best.step] = (
                "inconclusive",
                f"likely the place (chance {best.chance:.2f}), but the drop is not certified",
            )
            return None


def _certify(state: State, step: int, threshold: float) -> Task[bool]:
    """Test that keeping this step lowers V.

    Every trial of both prefixes counts: the bound of alpha / steps holds for all steps at once, whichever
    is chosen.
    """
    contrast = _drop_contrast(state, step)
    contrast.fold()
    while True:
        if contrast.log_e >= threshold and contrast.excludes_zero(level=1 - state.plan.alpha):
            state.certified.add(step)
            return True
        if contrast.blocks >= _LEAST_PAIRS and contrast.chance(_WORTH) < _UNLIKELY:
            return False
        if contrast.blocks >= _MOST_PAIRS or contrast.attempts >= _MOST_ATTEMPTS:
            return False
        yield from contrast.draw(threshold)


def _rate(state: State, step: int) -> float:
    return _prefix(state, step).rate or 0.0


def _counts(state: State, span: _Span) -> list[tuple[int, int, int]]:
    """Return (prefix, flips, others) of the prefixes of a span that have been drawn, in order."""
    counts: list[tuple[int, int, int]] = []
    for step in range(span.after, span.last):
        arm = state.ledger.arms.get(f"keep:{step}")
        if arm is not None and arm.defined:
            counts.append((step, arm.flips, len(arm.defined) - arm.flips))
    return counts


VALUE = Value()
