"""Which steps are worth a closer look: errors cost money or recall here, and blame no innocent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..statistics import Sprt
from .controls import remeasure
from .state import State
from .tasks import Task, together, until
from .trials import Arm

# Up to so many steps each is tested alone; above, halving finds one cause with fewer forks.
_SINGLES = 12

# Wald's error rates and cut-off of one test (research 3.3); the first group's miss cannot be made good, so
# it is rarer.
_FALSE_POSITIVE = 0.02
_FALSE_NEGATIVE = 0.03
_FIRST_FALSE_NEGATIVE = 0.01
_CAP = 25

# An arm that was never gradable in so many trials is given up.
_UNDEFINED_LIMIT = 6

# So many positive groups without a step to show for it suggest that the baseline was underestimated.
_SUSPICIOUS = 4
_RECHECK_TRIALS = 8


class Levels(Protocol):
    """What a search takes for noise and for a cause."""

    low: float
    high: float
    deterministic: bool


def screen_arm(
    state: Levels,
    arm: Arm,
    *,
    false_positive: float = _FALSE_POSITIVE,
    false_negative: float = _FALSE_NEGATIVE,
) -> Task[bool | None]:
    """Decide whether an arm flips more than noise does; None if its forks cannot be graded.

    A deterministic agent's single fork decides.
    """
    if state.deterministic:
        yield from until((arm, 1))
        return arm.outcomes[0]
    test = Sprt(
        low=state.low,
        high=state.high,
        false_positive=false_positive,
        false_negative=false_negative,
        cap=_CAP,
    )
    seen = 0
    while test.decision is None:
        for outcome in arm.outcomes[seen:]:
            seen += 1
            if outcome is not None:
                test.update(outcome)
                if test.decision is not None:
                    return test.decision
        if seen >= _UNDEFINED_LIMIT and not arm.defined:
            return None
        if seen >= 2 * _CAP:
            return test.log_ratio > 0
        yield from until((arm, seen + test.least_more))
    return test.decision


def _singles(state: State, steps: Sequence[int]) -> Task[None]:
    """Test each step alone and file it as candidate, screened out or not intervenable."""
    found = yield from together([screen_arm(state, state.ledger.alter((step,))) for step in steps])
    for step, positive in zip(steps, found, strict=True):
        _file(state, step, positive)


def _file(state: State, step: int, positive: bool | None) -> None:
    arm = state.ledger.alter((step,))
    if positive is None:
        state.closed[step] = (
            "not_intervenable",
            f"none of {len(arm.outcomes)} forks here could be graded",
        )
    elif positive:
        state.candidates.append(step)
    else:
        state.closed[step] = (
            "screened_out",
            f"{arm.flips} of {len(arm.defined)} forks flipped: nearer to noise ({state.low:.2f}) than "
            f"to a cause ({state.high:.2f})",
        )


def screen(state: State) -> Task[list[tuple[int, ...]]]:
    """Fill the candidates; return the groups that flip though none of their parts did."""
    state.phase = "screen"
    steps = list(state.tested)
    if len(steps) > _SINGLES:
        return (yield from _halve(state, tuple(steps)))
    yield from _singles(state, steps)
    rest = tuple(step for step in steps if state.closed.get(step, ("",))[0] == "screened_out")
    if state.candidates or len(rest) < 2:
        return []
    positive = yield from screen_arm(state, state.ledger.alter(rest))
    return [rest] if positive else []


def _halve(state: State, steps: tuple[int, ...]) -> Task[list[tuple[int, ...]]]:
    """Test groups level by level: a group that does not flip is dropped whole, one that does is halved."""
    joint: list[tuple[int, ...]] = []
    parents: list[tuple[int, ...] | None] = [None]
    level = [steps]
    positives = 0
    rechecked = False
    while level:
        miss = _FIRST_FALSE_NEGATIVE if level[0] == steps else _FALSE_NEGATIVE
        results = yield from together(
            [screen_arm(state, state.ledger.alter(group), false_negative=miss) for group in level]
        )
        productive = {
            parent for parent, positive in zip(parents, results, strict=True) if positive is not False
        }
        joint += [p for p in dict.fromkeys(parents) if p is not None and p not in productive]
        live: list[tuple[int, ...]] = []
        for group, positive in zip(level, results, strict=True):
            if len(group) == 1:
                _file(state, group[0], positive)
            elif positive is False:
                _drop(state, group)
            else:
                live.append(group)
        positives += len(live)
        # Many live branches: either the baseline was underestimated, or the effects are dense. Halving
        # would only repeat what single tests find, but on a noisy agent the baseline is worth asking first.
        dense = len(state.candidates) + len(live) > max(4, len(steps) // 4)
        branched = (
            len(live) > len({parent for parent in parents if parent in productive})
            or positives >= _SUSPICIOUS
        )
        if (dense or branched) and not rechecked and not state.candidates:
            rechecked = True
            yield from remeasure(state, _RECHECK_TRIALS)
        elif dense:
            yield from _singles(state, [step for group in live for step in group])
            return joint
        parents, level = [], []
        for group in live:
            middle = len(group) // 2
            parents += [group, group]
            level += [group[:middle], group[middle:]]
    return joint


def _drop(state: State, group: tuple[int, ...]) -> None:
    arm = state.ledger.alter(group)
    for step in group:
        state.closed[step] = (
            "screened_out",
            f"changing steps {group[0]} to {group[-1]} together flipped {arm.flips} of {len(arm.defined)} "
            f"forks, nearer to noise ({state.low:.2f}) than to a cause ({state.high:.2f})",
        )
