"""What a way to search is asked for; as it stands, by contrasts of a changed step with the step kept."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...statistics import e_bh_adjusted
from ..contrast import Contrast
from ..findings import Drop, Effect, Findings, Guess, Verdict
from ..plan import Plan
from ..state import State
from ..tasks import Task
from ..trials import Arm, Sampler, TrialRequest

# Past this a float overflows; the log is reported too.
_LOG_MOST = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said of a mode's findings to people."""

    lost: str = "Changing step {step} saves this run."
    """The headline where the recorded run failed."""
    won: str = "Changing step {step} breaks this run."
    treated: str = "changed"
    """What happened to a step."""
    treated_fully: str = "changed"
    chart: str = (
        "Dots: how much more often the run ends differently when the step is {treated} than when it is kept. "
        "Bars: where the true effect may lie. At 0 the step makes no difference."
    )
    axis: str = "how much more often the run ends differently"
    unsettled: str = "Not settled"
    cautions: tuple[str, ...] = ()
    """What nobody should read into its findings, beside what is true of all modes."""


class Mode(ABC):
    """One way to search: how it runs, what it makes of what it saw, and how it is foretold."""

    name: str
    """As asked for."""
    found: str
    """As findings call it."""
    words = Words()
    redraws = False
    """It draws steps anew, whatever change was asked for."""
    compares = True
    """It has controls: what it shows of a step is an effect, not a rate."""
    assumes = "one step has an effect of {effect:g}"
    """What an estimate takes for granted."""
    counts_controls = True
    """Each fork is either a treatment or a control."""

    def settled(self, *, natural: bool) -> Mode:
        """Return the mode that this one comes to where the change is a redraw (`natural`), or is not."""
        return self

    @abstractmethod
    def search(self, state: State) -> Task[None]:
        """Run to the end; the state then holds the answer."""

    def places(self, plan: Plan) -> Sequence[int]:
        """Return the steps that may turn out to be the cause."""
        return plan.tested

    def foretold(
        self, plan: Plan, rng: random.Random, *, effect: float, baseline: float
    ) -> tuple[int, Sampler]:
        """Return a cause as `assumes` says, and outcomes of a run that has it."""
        places = self.places(plan)
        cause = rng.choice(places) if places else -1
        return cause, self.sampler(plan, rng, cause=cause, effect=effect, baseline=baseline)

    def sampler(
        self, plan: Plan, rng: random.Random, *, cause: int, effect: float, baseline: float
    ) -> Sampler:
        """Return outcomes of a run with that cause of that effect, -1 for none."""
        # An intervention flips on top of the noise, so that the difference of the two rates is the effect.
        own = min(1.0, effect / (1 - baseline)) if baseline < 1 else 0.0

        def flips(request: TrialRequest) -> bool:
            return rng.random() < baseline or (cause in request.altered and rng.random() < own)

        return flips

    def drops(self, state: State) -> tuple[Drop, ...]:
        """Return how the whole loss divides over the steps, where the mode measures that."""
        return ()

    def guess(self, state: State) -> Guess | None:
        """Return what a model says where no step is certified, where the mode has one."""
        return None

    def message(self, state: State, found: Findings) -> str | None:
        """Return the finding in one sentence, where the mode has words of its own for it."""
        return None

    def effects(self, state: State) -> list[Effect]:
        """Return what is known about each step, by step; may be asked for at any time."""
        q_values = self.q_values(state)
        effects: list[Effect] = []
        for step in range(state.plan.steps):
            verdict, reason = self.verdict(state, step)
            contrast = self.contrast(state, step)
            if contrast is None:
                numbers = self.counts(state, step)
            else:
                numbers = {**measured(contrast, level=1 - state.plan.alpha), "q_value": q_values.get(step)}
            effects.append(
                Effect(
                    step=step,
                    verdict=verdict,
                    reason=reason,
                    is_root=step in state.roots,
                    echo_of=state.echoes.get(step),
                    **numbers,
                )
            )
        return effects

    def q_values(self, state: State) -> dict[int, float]:
        """Return q-values scaled to the whole alpha, so that q ≤ alpha is what certifies."""
        share = state.singles_alpha / state.plan.alpha
        values = e_bh_adjusted(state.log_e()) if state.tested else []
        return {step: min(1.0, q / share) for step, q in zip(state.tested, values, strict=True)}

    def contrast(self, state: State, step: int) -> Contrast | None:
        """Return what a step was measured by; None if it was not."""
        return state.contrasts.get(step)

    def counts(self, state: State, step: int) -> dict[str, Any]:
        """Return the fields of Effect that are known of a step without a contrast."""
        arms = state.ledger.arms
        return counts(arms.get(f"alter:{step}"), arms.get(f"keep:{step}"))

    def verdict(self, state: State, step: int) -> tuple[Verdict, str]:
        """Return what is decided about a step, and why, in words."""
        if (part := attempt(state.plan, step)) is not None:
            return part
        if step in state.certified:
            return certified(state)
        if step == state.plan.output:
            return "output", "its text is the graded outcome, so changing it shows nothing"
        if step in state.plan.blocked:
            return "not_intervenable", "the intervention cannot be made here"
        if step in state.closed:
            return state.closed[step]
        if step in state.candidates:
            return "inconclusive", "stands out in screening; not settled before the end"
        return "untested", "the experiment ended before it was tested"

    def ranking(self, state: State, effects: Sequence[Effect]) -> tuple[int, ...]:
        """Order the steps that have something to say: roots, certified, sets, then what stayed open."""
        by_size = sorted(effects, key=lambda e: (-_size(e), e.step))
        sure = [e for e in by_size if e.verdict == "certified"]
        order = [e.step for e in sorted(sure, key=lambda e: not e.is_root)]
        for wanted in ("certified", "inconclusive"):
            order += [step for found in state.sets if found.verdict == wanted for step in found.steps]
        order += state.likely
        for verdict in ("inconclusive", "minor"):
            order += [e.step for e in by_size if e.verdict == verdict]
        return tuple(dict.fromkeys(order))


def _size(effect: Effect) -> float:
    return effect.effect if effect.effect is not None else effect.flip_rate or 0.0


def attempt(plan: Plan, step: int) -> tuple[Verdict, str] | None:
    """Return the verdict of a refused attempt, None of any other step."""
    answer = plan.answers.get(step)
    if answer is None:
        return None
    return "not_intervenable", f"a refused attempt at what step {answer} is the answer to: one step with it"


def certified(state: State) -> tuple[Verdict, str]:
    """Return the verdict of a certified step."""
    if state.deterministic:
        return "certified", "all its forks flipped, each alike, and unchanged re-runs were identical"
    return "certified", "flips more often than its control, at any stopping time"


def counts(treatment: Arm | None, control: Arm | None) -> dict[str, Any]:
    """Return the fields of Effect that count the trials of two arms."""
    found: dict[str, Any] = {}
    for arm, rate, role in ((treatment, "flip_rate", "treatment"), (control, "control_rate", "control")):
        if arm is not None:
            found[rate] = arm.rate
            found[f"n_{role}"] = len(arm.outcomes)
            found[f"flips_{role}"] = arm.flips
            found[f"undefined_{role}"] = arm.undefined
    return found


def measured(contrast: Contrast, *, level: float) -> dict[str, Any]:
    """Return the fields of Effect that a contrast gives."""
    found = counts(contrast.treatment, contrast.control)
    if contrast.blocks:
        low, high = contrast.interval(level=level)
        found.update(ci_low=low, ci_high=high, ci_kind="betting")
    bound_low, bound_high = contrast.bounds
    return {
        **found,
        "effect": contrast.effect,
        "pairs": contrast.blocks,
        "bound_low": bound_low,
        "bound_high": bound_high,
        "log_e": contrast.log_e,
        "e_value": math.exp(min(contrast.log_e, _LOG_MOST)),
    }
