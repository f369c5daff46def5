"""The first trials: how often does the run come out differently when nothing is changed?"""

from __future__ import annotations

from .state import State
from .tasks import Task, until

# Enough to see that a run is stable; eight more where it is not, to know how unstable (research: 14
# controls put the baseline within 0.1).
_FIRST = 6
_MORE = 8

# Above this the recorded outcome is not the usual one, and no step's effect can reach what screening looks
# for.
_UNSTABLE = 0.55

# Screening takes a rate this far above the baseline for noise, and one a further _GAP up for a cause.
_MARGIN = 0.08
_GAP = 0.35


def controls(state: State, *, steady: bool = False) -> Task[bool]:
    """Measure the baseline and set the screening rates; False if it already ends the experiment."""
    state.phase = "control"
    first = state.tested[0] if state.tested else 0
    # An arm of its own: it decides what is screened, so it must not serve again as the control of that step.
    arm = state.baseline = state.ledger.keep(first, use="baseline")
    yield from until((arm, _FIRST))
    if arm.flips or arm.undefined:
        yield from until((arm, _FIRST + _MORE))
    if not arm.defined:
        state.stop_reason = "aborted"
        return False
    set_rates(state)
    state.deterministic = state.plan.deterministic == "auto" and arm.told and arm.alike(False)
    if steady and state.baseline_rate > _UNSTABLE:
        yield from until((arm, 2 * (_FIRST + _MORE)))
        if state.baseline_rate > _UNSTABLE:
            state.stop_reason = "unstable"
            return False
        set_rates(state)
    return True


def remeasure(state: State, trials: int) -> Task[None]:
    """Draw more controls, twice as many if some flip, and set the screening rates anew."""
    arm = state.baseline
    assert arm is not None
    start = len(arm.outcomes)
    yield from until((arm, start + trials))
    if arm.flips:
        yield from until((arm, start + 2 * trials))
    set_rates(state)


def set_rates(state: State) -> None:
    """Set what screening takes for noise and for a cause by the baseline measured so far."""
    state.low, state.high = levels(state.baseline_rate)


def levels(baseline: float) -> tuple[float, float]:
    """Return the rates of flips that screening takes for noise and for a cause, by that of re-runs."""
    low = min(max(0.12, baseline + _MARGIN), 0.63)
    return low, max(0.5, min(low + _GAP, 0.9))
