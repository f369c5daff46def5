"""The answer of a search, whenever it is asked for."""

from __future__ import annotations

import math
from dataclasses import replace

from ..spelling import counted
from .findings import Findings, StopReason
from .modes import mode_found
from .state import State

# On flat curves the model's chance of a loss of 0.25 is at most 0.07 in nine of ten searches at their end.
_NO_LOSS = 0.07
# More forks than anybody would make for one answer.
_TOO_MANY = 1000


def findings(state: State) -> Findings:
    """Return the answer that the outcomes so far support."""
    mode = mode_found(state.mode)
    effects = mode.effects(state)
    arms = state.ledger.arms.values()
    baseline = state.baseline
    result = Findings(
        mode=state.mode,
        effects=tuple(effects),
        ranking=mode.ranking(state, effects),
        sets=tuple(state.sets),
        drops=mode.drops(state),
        guess=mode.guess(state),
        baseline_flips=baseline.flips if baseline else 0,
        baseline_trials=len(baseline.defined) if baseline else 0,
        deterministic=state.deterministic,
        trials=sum(len(arm.outcomes) for arm in arms),
        controls=sum(len(arm.outcomes) for arm in arms if not arm.altered),
        stop_reason=state.stop_reason,
    )
    return replace(result, message=_message(state, result))


def _message(state: State, found: Findings) -> str:
    reason: StopReason = found.stop_reason
    roots = [effect for effect in found.effects if effect.is_root]
    joint = [each for each in found.sets if each.verdict == "certified"]
    own = mode_found(found.mode).message(state, found)
    if own is not None:
        message = own
    elif roots:
        effect = max(roots, key=lambda e: e.effect or 0.0)
        # Of a run that went well nothing is the cause of a loss: the step can lose it.
        role = "is the root cause" if state.plan.parent_failed else "decides the run"
        message = f"step {effect.step} {role}"
        if effect.effect is not None and not found.deterministic:
            message += (
                f": it moves the outcome by {effect.effect:.2f}, {effect.ci_low:.2f} to {effect.ci_high:.2f}"
            )
        elif found.deterministic:
            message += ": what follows it is deterministic, so a few forks show it"
    elif found.certified and not joint:
        message = f"step {found.certified[0]} moves the outcome"
        if found.top not in found.certified:
            message += f"; step {found.top} likely moves it more, which is not certified"
    elif joint:
        message = f"steps {', '.join(map(str, joint[0].steps))} together are the cause, none of them alone"
    elif reason == "systematic" and found.deterministic:
        message = (
            f"{found.baseline_trials} full re-runs came out byte-identical: the agent looks deterministic, "
            "so no redraw can tell; try a change: --ablate TEXT, --fault CLASS or --repair FILE"
        )
    elif reason == "systematic":
        message = (
            f"the failure is systematic: no redraw rescued it in {found.baseline_trials} full re-runs; "
            "change a prompt, a tool or the input"
        )
    elif reason == "unstable":
        message = (
            f"unchanged re-runs flip in {found.baseline_flips} of {found.baseline_trials}: the recorded "
            "outcome is not the usual one, so no single step can be shown to cause it; try value mode"
        )
    elif reason == "aborted":
        message = "no fork could be graded: check the oracle and the agent"
    elif reason == "none_found":
        if not state.tested:
            return "no step can be tried: the only one is the output, or the intervention fits none"
        message = "no step is certified" + (
            _guessed(state, found)
            if found.guess is not None
            else f"; likeliest is step {found.top}"
            if found.top is not None
            else f": none moves the outcome to about {state.high:.2f}"
        )
    else:
        message = "no step is certified yet" + (
            _guessed(state, found) if found.guess is not None else _so_far(state, found)
        )
    if reason == "budget":
        message += " (the budget ended the search)"
    elif reason == "max_trials":
        message += f" (the number of forks ended the search: {state.plan.max_trials} at most)"
    return message


def _so_far(state: State, found: Findings) -> str:
    """Say what a limit left of a search that has nothing to go by but its counts."""
    if not found.trials:
        return ": no fork was made"
    said = f" after {counted(found.trials, 'fork')}"
    if found.top is not None:
        return f"{said}; likeliest is step {found.top}"
    flips = sum(arm.flips for arm in state.ledger.arms.values())
    if not flips:
        return f"{said}, none of which ended otherwise than the recorded run"
    return f"{said}; nothing tells the steps apart so far"


def _guessed(state: State, found: Findings) -> str:
    """Say what the model of the curve makes of the forks so far: a chance, which is no proof."""
    guess = found.guess
    assert guess is not None
    chance = f"{guess.loss:.0%}" if guess.loss >= 0.01 else "under 1%"
    if guess.loss < _NO_LOSS:
        return (
            f" after {found.trials} forks: as far as they tell, none loses 0.25 or more "
            f"(by the model the chance of one is {chance})"
        )
    if guess.first == guess.last:
        where = f"likeliest is step {guess.first}"
    elif guess.first <= min(state.tested) and max(state.tested) <= guess.last:
        where = "nothing tells the steps apart so far"
    else:
        where = f"likeliest is one of steps {guess.first} to {guess.last}"
    more = ""
    if guess.forks is not None and guess.forks <= _TOO_MANY:
        most = math.ceil((found.trials + 2 * guess.forks) / 10) * 10
        limits = ["--budget USD"] if found.stop_reason == "budget" else []
        # Where only money ended it, so many forks may be made already as a person allows.
        if not limits or 0 < (state.plan.max_trials or 0) < most:
            limits.append(f"--max-trials {most}")
        more = (
            f": if one does, about {guess.forks} more forks may certify it: "
            f"blame resume last {' '.join(limits)}"
        )
    return (
        f" after {found.trials} forks; {where}, and by the model the chance that some step "
        f"loses 0.25 or more is {chance}{more}"
    )
