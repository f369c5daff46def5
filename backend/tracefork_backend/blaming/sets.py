"""Steps that flip the run only together: shrink a group to its members, then test that each is needed."""

from __future__ import annotations

import math

from .confirm import MOST_ATTEMPTS, MOST_PAIRS
from .contrast import Contrast
from .controls import remeasure
from .findings import SetFinding
from .screen import screen_arm
from .state import State
from .tasks import Task, together

# The part of alpha that goes to single steps; the rest is for sets, most of it for the first. So looking
# for sets costs single steps a threshold only 1.33 times higher, and P(any innocent blamed) stays within
# alpha.
SINGLES_SHARE = 0.75

# One wrong answer among some twenty loses a member, so shrinking asks more of each test than screening does.
_FALSE_POSITIVE = 0.005
_FALSE_NEGATIVE = 0.01

# Controls drawn before shrinking, twice as many if some flip.
_RECHECK_TRIALS = 8

# A set of more members than this is reported as a group: what it says about single steps is next to nothing.
_MOST_MEMBERS = 6

# A member is given up once it is unlikely that leaving it out matters by this much.
_MATTERS = 0.3
_UNLIKELY = 0.05
_LEAST_PAIRS = 10


def find_sets(state: State, groups: list[tuple[int, ...]]) -> Task[list[int]]:
    """File what each group comes down to; return single steps that turned out to flip alone after all."""
    alone: list[int] = []
    for index, group in enumerate(groups):
        state.phase = "interact"
        if not (yield from _holds(state, group)):
            continue
        members = yield from _shrink(state, group)
        if len(members) == 1:
            alone.append(members[0])
        elif members not in {found.steps for found in state.sets}:
            yield from _certify(state, members, index + 1)
    return alone


def _holds(state: State, group: tuple[int, ...]) -> Task[bool]:
    """Test the group again with fresh forks and a better baseline: shrinking a group of noise never ends."""
    if not state.deterministic:
        yield from remeasure(state, _RECHECK_TRIALS)
    return bool((yield from _flips(state, group)))


def _flips(state: State, group: tuple[int, ...]) -> Task[bool | None]:
    return (
        yield from screen_arm(
            state,
            state.ledger.alter(group, use="shrink", role="group"),
            false_positive=_FALSE_POSITIVE,
            false_negative=_FALSE_NEGATIVE,
        )
    )


def _shrink(state: State, group: tuple[int, ...]) -> Task[tuple[int, ...]]:
    """Return a part of the group that still flips, no chunk of which can be left out (Zeller's ddmin)."""
    # Halves were already tested where the group came from halving; starting at quarters asks something new.
    chunks = min(len(group), 4 if len(group) >= 4 else 2)
    while len(group) > 1:
        size = math.ceil(len(group) / chunks)
        for start in range(0, len(group), size):
            rest = group[:start] + group[start + size :]
            if not rest:
                continue
            positive = yield from _flips(state, rest)
            if positive:
                group = rest
                chunks = max(2, min(chunks - 1, len(group)))
                break
        else:
            if chunks >= len(group):
                break
            chunks = min(len(group), 2 * chunks)
    return group


def _set_alpha(state: State, order: int) -> float:
    """Return the share of the n-th set; they fall with the square, so all of them stay within the whole."""
    whole = state.plan.alpha * (1 - SINGLES_SHARE)
    return whole * 6 / math.pi**2 / order**2


def _certify(state: State, members: tuple[int, ...], order: int) -> Task[None]:
    """Test with fresh forks that the set flips less without any one member; all must hold for the claim."""
    kind = "or" if state.plan.repair else "and"
    if len(members) > _MOST_MEMBERS:
        state.sets.append(
            SetFinding(
                steps=members,
                kind=kind,
                verdict="inconclusive",
                reason=f"{len(members)} steps flip the run together and none could be left out",
                flip_rate=None,
                log_e_min=None,
                n_trials=0,
            )
        )
        return
    use = f"set{order}"
    treatment = state.ledger.alter(members, use=use, role="group")
    tests = [Contrast(treatment, state.ledger.without(members, member, use=use)) for member in members]
    if state.deterministic:
        needed = yield from together([_needed_once(test) for test in tests])
    else:
        threshold = -math.log(_set_alpha(state, order))
        needed = yield from together(
            [
                test.settle(
                    threshold,
                    worth=_MATTERS,
                    unlikely=_UNLIKELY,
                    least=_LEAST_PAIRS,
                    most=MOST_PAIRS,
                    attempts=MOST_ATTEMPTS,
                )
                for test in tests
            ]
        )
    missing = [member for member, sure in zip(members, needed, strict=True) if not sure]
    state.sets.append(
        SetFinding(
            steps=members,
            kind=kind,
            verdict="inconclusive" if missing else "certified",
            reason=f"not shown that {', '.join(f'step {m}' for m in missing)} matters"
            if missing
            else "together they flip the run; leaving any one out stops it",
            flip_rate=treatment.rate,
            log_e_min=None if state.deterministic else min(test.log_e for test in tests),
            n_trials=len(treatment.outcomes) + sum(len(t.control.outcomes) for t in tests),
        )
    )


def _needed_once(test: Contrast) -> Task[bool]:
    yield from test.draw(math.inf, most=1)
    return test.treatment.outcomes[0] is True and test.control.outcomes[0] is False
