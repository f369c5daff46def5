"""Which candidates repair, and how little of each: a search that has an answer at any time.

A candidate is tried by a quick test, shrunk by delta debugging whose every test is such a one, and confirmed
on trials that no part of the search has seen, each beside one of its own control. Only that last part can
make a repair of it: what comes before decides what is worth it, and costs money or repairs where it errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..blaming.asking import Asking
from ..blaming.contrast import Contrast
from ..blaming.controls import levels
from ..blaming.findings import StopReason
from ..blaming.modes.mode import measured
from ..blaming.screen import screen_arm
from ..blaming.tasks import Task, until
from ..blaming.trials import Arm, Ledger, Phase
from .shrinking import shrunk

Verdict: TypeAlias = Literal["confirmed", "not_confirmed", "budget", "nothing_found"]

# Unchanged re-runs from which the levels of the quick tests are set, twice as many where some succeed.
_FIRST = 6

# Wald's error rates of one quick test.
_ERROR = 0.05

# Forks that shrinking one candidate may take.
_MOST_SHRINKING = 150

# Pairs after which a candidate is given up, and before which none is.
_MOST_PAIRS = 60
_LEAST_PAIRS = 6
_DECISIVE = 0.3
_UNLIKELY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What a search is told of a candidate."""

    parts: int
    """Of how many parts it consists."""
    step: int
    kept: int
    """How many recorded responses a fork keeps that is changed so."""
    control: int
    """How many its control keeps."""
    known: tuple[int, int] = (0, 0)
    """How many of how many such controls of an earlier experiment succeeded."""
    cost_usd: float = 0.0
    """What one fork takes, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """What one search sets out to do, fixed before its first trial."""

    tries: tuple[Try, ...]
    alpha: float = 0.05
    """The chance of confirming any change that repairs nothing."""
    every: bool = False
    """Whether it goes on for further repairs after the first."""
    shrinking_usd: float = math.inf
    """What shrinking may take, over all candidates."""
    max_trials: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What is known of one candidate."""

    verdict: Verdict
    reason: str
    """Why this verdict, in words."""
    kept: frozenset[int]
    """The parts of it that were confirmed, or would have been next."""
    minimal: bool
    """Whether no single part of those can be dropped, as far as the quick tests tell."""
    forks: int
    """The forks made for it."""
    measured: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the fresh forks and their controls showed, by the names of `Effect`."""


@dataclass(slots=True)
class _State:
    """The memory of one search."""

    plan: RepairPlan
    ledger: Ledger = field(default_factory=Ledger)
    phase: Phase = "repair"
    stop_reason: StopReason = "running"
    low: float = 0.12
    high: float = 0.5
    deterministic: bool = False
    changes: dict[str, tuple[int, frozenset[int]]] = field(
        default_factory=dict[str, tuple[int, frozenset[int]]]
    )
    """What the trials of each arm change: parts of a candidate."""
    kept: dict[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])
    minimal: dict[int, bool] = field(default_factory=dict[int, bool])
    contrasts: dict[int, Contrast] = field(default_factory=dict[int, Contrast])
    closed: dict[int, tuple[Verdict, str]] = field(default_factory=dict[int, tuple[Verdict, str]])
    shrinking_usd: float = 0.0

    def changed(self, name: str, number: int, parts: frozenset[int]) -> Arm:
        """Return the arm whose trials make these parts of a candidate."""
        one = self.plan.tries[number]
        self.changes[name] = number, parts
        return self.ledger.trying(name, one.step, changed=True, kept=one.kept)


class RepairSearch(Asking):
    """One search for repairs; see `next_batch`, `observe`, `tried`."""

    def __init__(self, plan: RepairPlan) -> None:
        self.plan = plan
        self._state = _State(plan)
        super().__init__(self._state, _search(self._state), max_trials=plan.max_trials)

    def change_of(self, arm_id: str) -> tuple[int, frozenset[int]] | None:
        """Return which candidate an arm's trials make, and which of its parts; None of a control."""
        return self._state.changes.get(arm_id)

    @property
    def stop_reason(self) -> StopReason:
        """Why it ended."""
        return self._state.stop_reason

    @property
    def tried(self) -> Sequence[Tried]:
        """What is known of each candidate as of now."""
        return [self._tried(number) for number in range(len(self.plan.tries))]

    @property
    def verdict(self) -> Verdict:
        """The answer as of now: the best of what is known of the candidates."""
        told = {one.verdict for one in self.tried}
        for verdict in ("confirmed", "budget"):
            if verdict in told:
                return verdict
        return "not_confirmed" if self._state.contrasts else "nothing_found"

    def _tried(self, number: int) -> Tried:
        state, one = self._state, self.plan.tries[number]
        contrast = state.contrasts.get(number)
        verdict, reason = state.closed.get(number, ("budget", self._open(number)))
        arms = [state.ledger.arms[name] for name, (of, _) in state.changes.items() if of == number]
        forks = sum(len(arm.outcomes) for arm in arms)
        if contrast is not None:
            forks += len(contrast.control.outcomes)
        return Tried(
            verdict=verdict,
            reason=reason,
            kept=state.kept.get(number, frozenset(range(one.parts))),
            minimal=state.minimal.get(number, False),
            forks=forks,
            measured={} if contrast is None else measured(contrast, level=1 - self.plan.alpha),
        )

    def _open(self, number: int) -> str:
        """Return why nothing is decided of a candidate."""
        if _confirmed(self._state):
            return "not tried: another repair was confirmed before"
        if number in self._state.contrasts:
            return "the search ended before it was settled"
        return "the search ended before it was confirmed"


def _search(state: _State) -> Task[None]:
    """Try, shrink and confirm the candidates in their order, until one is confirmed."""
    for number, one in enumerate(state.plan.tries):
        yield from _baseline(state, one)
        every = frozenset(range(one.parts))
        arm = state.changed(f"try:{number}", number, every)
        repairs = yield from screen_arm(state, arm, false_positive=_ERROR, false_negative=_ERROR)
        if not repairs:
            state.closed[number] = "nothing_found", _unlike(state, arm, repairs)
            continue
        yield from _shrink(state, number, arm)
        if (yield from _confirm(state, number)) and not state.plan.every:
            break
    state.stop_reason = "certified" if _confirmed(state) else "none_found"


def _confirmed(state: _State) -> bool:
    return any(verdict == "confirmed" for verdict, _ in state.closed.values())


def _unlike(state: _State, arm: Arm, repairs: bool | None) -> str:
    if repairs is None:
        return f"none of {len(arm.outcomes)} forks with it could be graded"
    return (
        f"{arm.flips} of {len(arm.defined)} forks with it succeeded: nearer to what re-runs do by themselves "
        f"({state.low:.2f}) than to a repair ({state.high:.2f})"
    )


def _baseline(state: _State, one: Try) -> Task[None]:
    """Set the levels of the quick tests by what unchanged re-runs of the step do."""
    successes, trials = one.known
    arm = state.ledger.trying(f"unchanged:{one.control}", one.step, changed=False, kept=one.control)
    if trials < _FIRST:
        yield from until((arm, _FIRST))
        if arm.flips:
            yield from until((arm, 2 * _FIRST))
        successes, trials = successes + arm.flips, trials + len(arm.defined)
        state.deterministic = arm.told and arm.alike(False)
    state.low, state.high = levels((successes + 0.25) / (trials + 0.5))


def _shrink(state: _State, number: int, whole: Arm) -> Task[None]:
    """Find the fewest parts that still repair, as far as quick tests tell, money and forks suffice."""
    one = state.plan.tries[number]
    # What succeeds as often as the whole of it, about, is as good a repair.
    rate = (whole.flips + 0.5) / (len(whole.defined) + 1)
    state.high = max(state.high, min(0.9, rate - 0.15))
    forks = 0

    def repairs(parts: frozenset[int]) -> Task[bool | None]:
        nonlocal forks
        if forks >= _MOST_SHRINKING or state.shrinking_usd >= state.plan.shrinking_usd:
            return None
        arm = state.changed(f"shrink:{number}:{'+'.join(map(str, sorted(parts)))}", number, parts)
        found = yield from screen_arm(state, arm, false_positive=_ERROR, false_negative=_ERROR)
        forks += len(arm.outcomes)
        state.shrinking_usd += len(arm.outcomes) * one.cost_usd
        return bool(found)

    state.kept[number], state.minimal[number] = yield from shrunk(one.parts, repairs)


def fresh_arm(number: int) -> str:
    """Return the name of the arm whose trials may confirm a candidate."""
    return f"confirm:{number}:changed"


def _confirm(state: _State, number: int) -> Task[bool]:
    """Draw fresh pairs until the change is confirmed, or given up."""
    one, plan = state.plan.tries[number], state.plan
    # They share no answers: each pair is two forks that know nothing of each other.
    treated = state.changed(fresh_arm(number), number, state.kept[number])
    control = state.ledger.trying(f"confirm:{number}:unchanged", one.step, changed=False, kept=one.control)
    contrast = state.contrasts[number] = Contrast(treated, control)
    # Bonferroni over all candidates there are: so many could be confirmed by chance.
    threshold = math.log(len(plan.tries) / plan.alpha)
    while contrast.log_e < threshold or not contrast.excludes_zero(level=1 - plan.alpha):
        if contrast.blocks >= _LEAST_PAIRS and contrast.chance(_DECISIVE) < _UNLIKELY:
            why = f"an effect of {_DECISIVE} or more is unlikely after {contrast.blocks} fresh pairs"
            state.closed[number] = "not_confirmed", why
            return False
        if contrast.blocks >= _MOST_PAIRS or contrast.attempts >= 2 * _MOST_PAIRS:
            state.closed[number] = "not_confirmed", f"not settled after {contrast.blocks} fresh pairs"
            return False
        yield from contrast.draw(threshold)
    state.closed[number] = (
        "confirmed",
        "succeeds more often than its control, on fresh forks, at any stopping time",
    )
    return True
