"""Turn what a search knows into findings; may be called at any time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..statistics import e_bh_adjusted, wilson
from .contrast import Contrast
from .findings import Effect, Findings, StopReason
from .fixed import redraw_arm
from .state import State
from .trials import Arm
from .value import drop_contrast, drops, prefix

# Past this a float overflows; the log is reported too.
_LOG_MOST = 700.0


def findings(state: State) -> Findings:
    """Return the answer that the outcomes so far support."""
    if state.mode == "fixed":
        effects = [_fixed_effect(state, step) for step in range(state.plan.steps)]
    else:
        adjusted = _q_values(state)
        effects = [_effect(state, step, adjusted.get(step)) for step in range(state.plan.steps)]
    arms = state.ledger.arms.values()
    baseline = state.baseline
    result = Findings(
        mode=state.mode,
        effects=tuple(effects),
        ranking=_ranking(state, effects),
        sets=tuple(state.sets),
        drops=drops(state) if state.mode == "value" else (),
        baseline_flips=baseline.flips if baseline else 0,
        baseline_trials=len(baseline.defined) if baseline else 0,
        deterministic=state.deterministic,
        trials=sum(len(arm.outcomes) for arm in arms),
        controls=sum(len(arm.outcomes) for arm in arms if not arm.altered),
        stop_reason=state.stop_reason,
    )
    return replace(result, message=_message(state, result))


def _q_values(state: State) -> dict[int, float]:
    """Return q-values scaled to the whole alpha, so that q ≤ alpha is what certifies."""
    share = state.singles_alpha / state.plan.alpha
    values = e_bh_adjusted(state.log_e()) if state.tested else []
    return {step: min(1.0, q / share) for step, q in zip(state.tested, values, strict=True)}


def _counts(treatment: Arm | None, control: Arm | None) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    if treatment is not None:
        counts.update(
            flip_rate=treatment.rate,
            n_treatment=len(treatment.outcomes),
            flips_treatment=treatment.flips,
            undefined_treatment=treatment.undefined,
        )
    if control is not None:
        counts.update(
            control_rate=control.rate,
            n_control=len(control.outcomes),
            flips_control=control.flips,
            undefined_control=control.undefined,
        )
    return counts


def _effect(state: State, step: int, q: float | None) -> Effect:
    contrast = state.contrasts.get(step)
    if state.mode == "value" and contrast is None and _measured(state, step):
        contrast = drop_contrast(state, step)
    verdict, reason = _verdict(state, step)
    labels: dict[str, Any] = {"is_root": step in state.roots, "echo_of": state.echoes.get(step)}
    if contrast is None:
        arms = state.ledger.arms
        treatment, control = arms.get(f"alter:{step}"), arms.get(f"keep:{step}")
        if state.mode == "value":
            treatment = arms.get(f"keep:{step - 1}")
        shown = _counts(treatment, control)
        if state.deterministic and state.mode == "intervene" and treatment is not None and treatment.defined:
            flipped = float(treatment.outcomes[0] is True)
            shown.update(
                control_rate=0.0, effect=flipped, ci_low=flipped, ci_high=flipped, ci_kind="deterministic"
            )
        return Effect(step=step, verdict=verdict, reason=reason, **shown, **labels)
    if state.mode == "value":
        # What certified a step stays as it was, though later trials of its prefixes came in for others.
        if step not in state.certified:
            contrast.fold()
        # Bonferroni over all steps, which also covers choosing among them by the same trials.
        q = min(1.0, state.plan.steps * math.exp(-max(0.0, contrast.log_e)))
    shown = _counts(contrast.treatment, contrast.control)
    if contrast.blocks:
        low, high = contrast.interval(level=1 - state.plan.alpha)
        shown.update(ci_low=low, ci_high=high, ci_kind="betting")
    bound_low, bound_high = contrast.bounds
    return Effect(
        step=step,
        verdict=verdict,
        reason=reason,
        effect=contrast.effect,
        pairs=contrast.blocks,
        bound_low=bound_low,
        bound_high=bound_high,
        log_e=contrast.log_e,
        e_value=math.exp(min(contrast.log_e, _LOG_MOST)),
        q_value=q,
        **shown,
        **labels,
    )


def _measured(state: State, step: int) -> bool:
    """Tell whether both prefixes around a step have graded trials."""
    arms = state.ledger.arms
    before = arms.get(f"keep:{step - 1}")
    after = arms.get(f"keep:{step}")
    return bool(before and before.defined and after and after.defined)


def _verdict(state: State, step: int) -> tuple[Any, str]:
    if step in state.certified:
        if state.deterministic:
            return "certified", "all its forks flipped, each alike, and unchanged re-runs were identical"
        return "certified", "flips more often than its control, at any stopping time"
    if state.mode == "value":
        return state.closed.get(step) or _value_verdict(state, step)
    if step == state.plan.output:
        return "output", "its text is the graded outcome, so changing it shows nothing"
    if step in state.plan.blocked:
        return "not_intervenable", "the intervention cannot be made here"
    if step in state.closed:
        return state.closed[step]
    if step in state.candidates:
        return "inconclusive", "stands out in screening; not settled before the end"
    return "untested", "the experiment ended before it was tested"


def _value_verdict(state: State, step: int) -> tuple[Any, str]:
    """Judge a step by the measured prefixes around it."""
    for drop in drops(state):
        if drop.first <= step <= drop.last:
            chance = Contrast(prefix(state, drop.first - 1), prefix(state, drop.last)).chance(0.2)
            if drop.last == drop.first:
                words = f"this step accounts for {drop.drop:.2f} of the loss"
                return ("screened_out" if chance < 0.5 else "inconclusive"), words
            words = f"steps {drop.first} to {drop.last} together account for {drop.drop:.2f} of the loss"
            return ("screened_out" if chance < 0.5 else "untested"), words
    return "untested", "the experiment ended before it was tested"


def _fixed_effect(state: State, step: int) -> Effect:
    if step not in state.tested:
        verdict, reason = _verdict(state, step)
        return Effect(step=step, verdict=verdict, reason=reason)
    arm = redraw_arm(state, step)
    low, high = wilson(arm.flips, len(arm.defined), level=1 - state.plan.alpha)
    return Effect(
        step=step,
        verdict="inconclusive" if arm.outcomes else "untested",
        reason="a flip rate without a control: noise alone may be behind it",
        ci_low=low,
        ci_high=high,
        ci_kind="wilson",
        **_counts(arm, None),
    )


def _ranking(state: State, effects: list[Effect]) -> tuple[int, ...]:
    """Order the steps that have something to say: roots, certified, sets, then what stayed open."""

    def size(effect: Effect) -> float:
        return effect.effect if effect.effect is not None else effect.flip_rate or 0.0

    if state.mode == "fixed":
        ordered = sorted((e for e in effects if e.flip_rate is not None), key=lambda e: (-size(e), e.step))
        return tuple(effect.step for effect in ordered)
    certified = sorted(
        (e for e in effects if e.verdict == "certified"), key=lambda e: (not e.is_root, -size(e), e.step)
    )
    order = [effect.step for effect in certified]
    for wanted in ("certified", "inconclusive"):
        for found in state.sets:
            if found.verdict == wanted:
                order += found.steps
    order += state.likely
    for verdict in ("inconclusive", "minor"):
        order += [e.step for e in sorted(effects, key=lambda e: (-size(e), e.step)) if e.verdict == verdict]
    return tuple(dict.fromkeys(order))


def _message(state: State, found: Findings) -> str:
    reason: StopReason = found.stop_reason
    roots = [effect for effect in found.effects if effect.is_root]
    joint = [each for each in found.sets if each.verdict == "certified"]
    if roots:
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
            f"; likeliest is step {found.top}"
            if found.top is not None
            else f": none moves the outcome to about {state.high:.2f}"
        )
    elif reason == "fixed":
        message = "flip rates without controls; they do not tell a cause from noise"
    else:
        message = "no step is certified yet"
    if reason == "budget":
        message += " (the budget ended the search)"
    return message
