"""The search of value mode: the places where a run may be cut, and which of them gets the next forks.

Locating and testing compete for the same forks: the gap between two measured prefixes that promises most gets
them. It decides what is drawn, never what counts: every trial of both prefixes of a step counts.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from .bisection import Place, locate
from .contrast import Contrast
from .curve import Curve, Gap, Knot, Proof
from .findings import Guess
from .state import State
from .tasks import Task, until
from .trials import Arm

MOST_FIRST = 16
"""Full re-runs for the first flips; a prefix with as many trials and none graded is given up."""

# Forks between two decisions: enough for a few workers. A new prefix gets as many, or half where the gap is
# so steep that two tell its sides apart.
_BATCH = 4
_STEEP = 0.45

# Forks after the opening, or as many as a person allows where that is more; before a certificate the search
# ends when fewer than _HOPE certificates are to be expected from all that are left. (0.05 spends up to twice
# as much on flat curves, 0.3 loses drops of 0.2.)
_MOST = 300
_LEAST = 60
_HOPE = 0.15
# After a certificate: so many more, where another large drop is at least so likely. (At 0.25 a tenth fewer
# of two drops are found.)
_AGAIN = 150
_STILL = 0.10
_LEVELLED = 8
# All responses kept: no live call. Four that do not flip are no proof against a V of 0.3 everywhere.
_SURE_END = 16

# The weight of the bet that holds where trials share answers, as short ones that repeat do in any real run:
# a proof then takes 98 forks in the median where it took 128 at 0.1, and no more where nothing is shared.
_PAIRED = 0.5


def prefix(state: State, step: int) -> Arm:
    """Return the arm that keeps the responses up to `step`."""
    return state.ledger.keep(step, role="value")


def drop_contrast(state: State, step: int) -> Contrast:
    """Return the contrast of keeping everything before `step` against keeping the step too."""
    found = state.contrasts.get(step)
    if found is None:
        found = state.contrasts[step] = Contrast(
            prefix(state, before(state, step)), prefix(state, step), paired=_PAIRED
        )
    return found


def before(state: State, step: int) -> int:
    """Return the last step before this one that is one by itself, -1 if none."""
    return max((one for one in state.plan.whole if one < step), default=-1)


def drop_at(state: State, step: int) -> float:
    """Return by how much V fell at a step in the trials so far."""
    return drop_contrast(state, step).effect or 0.0


def searched(state: State) -> Task[None]:
    """Draw forks where a certificate may be had soonest, until none is to be expected or the drop is found.

    A wide gap is drawn at its middle, one of a single step at both its ends. The bound of alpha / steps holds
    for all steps at once, whichever is looked at.
    """
    axis = Axis(state)
    begun = axis.drawn
    limit = most = max(_MOST, state.plan.max_trials or 0)
    while True:
        spent = axis.drawn - begun
        if axis.certify() and not state.plan.every:
            limit = min(most, spent + _AGAIN)
        left = limit - spent
        looks = axis.looks()
        if state.certified and not state.plan.every:
            looks = [look for look in looks if look.gap.large > _STILL]
        elif left > 0 and spent >= _LEAST and left * sum(look.plain for look in looks) < _HOPE:
            looks = []
        if not looks or left <= 0:
            end = axis.arm(axis.last)
            if not state.certified and left > 0 and not end.flips and len(end.outcomes) < _SURE_END:
                yield from until((end, len(end.outcomes) + _BATCH))
                continue
            break
        yield from axis.probe(max(looks, key=lambda look: look.weighed).gap)
    if not state.certified:
        axis.file()


@dataclass(frozen=True, slots=True)
class _Look:
    """What one fork in a gap promises: certificates, and the same weighed by how much they explain."""

    gap: Gap
    plain: float
    weighed: float


class Axis:
    """The places where the run may be cut: one for each step that is one by itself, -1 for nothing kept."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._steps = state.plan.whole
        self._threshold = math.log(state.plan.steps / state.plan.alpha)
        self.last = len(self._steps) - 1

    @property
    def drawn(self) -> int:
        """How many forks have ended."""
        return sum(len(arm.outcomes) for arm in self._state.ledger.arms.values())

    def arm(self, place: int) -> Arm:
        """Return the arm of a place."""
        return prefix(self._state, self._steps[place] if place >= 0 else -1)

    def knots(self) -> list[Knot]:
        """Return the places that were measured, the first and the last among them."""
        arms = self._state.ledger.arms
        found: list[Knot] = []
        for place in range(-1, self.last + 1):
            arm = arms.get(f"keep:{self._steps[place] if place >= 0 else -1}")
            if arm is not None and arm.outcomes:
                found.append(Knot(place, arm.flips, len(arm.defined) - arm.flips))
        return found

    def certify(self) -> bool:
        """Bring the contrasts up to date, and tell whether that certified a step."""
        level = 1 - self._state.plan.alpha
        found = False
        for first, last in itertools.pairwise(self.knots()):
            step = self._steps[last.place]
            if last.place - first.place > 1 or step in self._state.certified:
                continue
            contrast = drop_contrast(self._state, step)
            contrast.fold()
            if contrast.log_e >= self._threshold and contrast.excludes_zero(level=level):
                self._state.certified.add(step)
                found = True
        return found

    def looks(self) -> list[_Look]:
        """Return what each gap promises that is not settled and can be graded."""
        curve = Curve.of(self.knots(), steps=len(self._steps))
        return [self._look(gap) for gap in curve.gaps if not self._settled(gap)]

    def _settled(self, gap: Gap) -> bool:
        if gap.width == 1 and self._steps[gap.last.place] in self._state.certified:
            return True
        ends = (self.arm(gap.first.place), self.arm(gap.last.place))
        return any(not end.defined and len(end.outcomes) >= MOST_FIRST for end in ends)

    def _look(self, gap: Gap) -> _Look:
        plain, weighed = gap.promise(self._proof(gap))
        return _Look(gap, plain, weighed)

    def _proof(self, gap: Gap) -> Proof:
        """Return what a certificate from this gap needs, and what of it is there."""
        drawn = (len(self.arm(gap.first.place).outcomes), len(self.arm(gap.last.place).outcomes))
        log_e, blocks = 0.0, 0
        if gap.width == 1:
            contrast = drop_contrast(self._state, self._steps[gap.last.place])
            log_e, blocks = contrast.log_e, contrast.blocks
        return Proof(threshold=self._threshold, log_e=log_e, blocks=blocks, drawn=drawn)

    def probe(self, gap: Gap) -> Task[None]:
        """Draw the next forks of a gap."""
        first, last = self.arm(gap.first.place), self.arm(gap.last.place)
        if gap.width > 1:
            low = [end for end in (first, last) if len(end.outcomes) < _LEVELLED]
            if self._state.certified and low:
                yield from until(*((end, _LEVELLED) for end in low))
                return
            middle = self.arm((gap.first.place + gap.last.place) // 2)
            yield from until((middle, _BATCH // 2 if gap.fall >= _STEEP else _BATCH))
            return
        have = [len(first.outcomes), len(last.outcomes)]
        for _ in range(_BATCH):
            have[0 if have[0] <= have[1] else 1] += 1
        yield from until((first, have[0]), (last, have[1]))

    def file(self) -> None:
        """Keep the likeliest step as the one to look at."""
        best = self._likeliest()
        step = self._steps[best.step]
        self._state.likely.append(step)
        self._state.closed[step] = (
            "inconclusive",
            f"likely the place (chance {best.chance:.2f}), but the drop is not certified",
        )

    def file_larger(self, drop: float) -> bool:
        """Keep the step that likely loses more than the certified ones do, and tell whether there is one."""
        gaps = [look.gap for look in self.looks()]
        gap = max(gaps, key=lambda one: one.fall, default=None)
        if gap is None or gap.fall <= drop or gap.large <= 0.5:
            return False
        step = self._steps[gap.first.place + 1]
        self._state.likely.append(step)
        self._state.closed[step] = (
            "inconclusive",
            f"likely loses more than what is certified (chance {gap.large:.2f}), but that is not certified",
        )
        return True

    def guess(self) -> Guess:
        """Return where the drop is likeliest, what the model says of any loss, and what showing one takes."""
        best = self._likeliest()
        losses = [loss for look in self.looks() for loss in look.gap.losses(self._proof(look.gap))]
        mass = sum(chance for chance, _ in losses)
        forks = sum(chance * forks for chance, forks in losses)
        return Guess(
            first=self._steps[best.step],
            last=self._steps[best.last],
            loss=self._loss(),
            forks=math.ceil(forks / mass) if mass > 0 else None,
        )

    def _loss(self) -> float:
        """Return how likely some step loses, those in gaps that were not measured among them."""
        known = {knot.place: knot for knot in self.knots()}
        every = [known.get(place, Knot(place, 0, 0)) for place in range(-1, self.last + 1)]
        return Curve.of(every, steps=len(self._steps)).loss

    def _likeliest(self) -> Place:
        """Return where the drop is, if there is but one."""
        knots = [knot for knot in self.knots() if knot.place < self.last]
        return locate([(knot.place, knot.flips, knot.others) for knot in knots], steps=len(self._steps))
