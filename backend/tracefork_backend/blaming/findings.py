"""What an experiment found: plain data, each number recomputable from the trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal[
    "certified", "minor", "inconclusive", "screened_out", "untested", "not_intervenable", "output"
]
StopReason = Literal[
    "certified",
    "none_found",
    "budget",
    "max_trials",
    "systematic",
    "unstable",
    "aborted",
    "fixed",
    "running",
]
IntervalKind = Literal["betting", "wilson", "deterministic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What is known about one step."""

    step: int
    verdict: Verdict
    reason: str
    """Why this verdict, in words."""
    flip_rate: float | None = None
    control_rate: float | None = None
    effect: float | None = None
    """`flip_rate` - `control_rate`, over the trials that could be graded."""
    ci_low: float | None = None
    ci_high: float | None = None
    ci_kind: IntervalKind | None = None
    """`wilson`: an interval of the flip rate, not of the effect."""
    bound_low: float | None = None
    bound_high: float | None = None
    """The effect that the undefined trials leave possible."""
    log_e: float | None = None
    e_value: float | None = None
    """Evidence against "no effect": its mean is at most 1 if there is none."""
    q_value: float | None = None
    """The smallest alpha at which the step would be certified, the number of steps counted in."""
    pairs: int = 0
    """The blocks of one treatment and one control that interval and e-value rest on."""
    n_treatment: int = 0
    flips_treatment: int = 0
    undefined_treatment: int = 0
    n_control: int = 0
    flips_control: int = 0
    undefined_control: int = 0
    is_root: bool = False
    echo_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFinding:
    """Steps that flip the run together; each is needed if certified."""

    steps: tuple[int, ...]
    kind: Literal["and", "or"]
    """`and`: only breaking all breaks the run. `or`: each broke it, so only mending all mends it."""
    verdict: Verdict
    reason: str
    flip_rate: float | None
    log_e_min: float | None
    """The log e-value of the member with the least evidence; None where the agent is deterministic."""
    n_trials: int
    effect: float | None = None
    """By how much more often they flip it together than nothing changed does, where that was measured."""
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How much of the whole loss fell between two measured prefixes; all drops add up to the whole loss."""

    first: int
    last: int
    drop: float
    """Rate of flips before `first` was kept, minus the rate once `last` is."""
    n_before: int
    n_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a model of the curve says where no step is certified: a chance, no proof."""

    first: int
    last: int
    """The likeliest stretch of steps, if there is one drop."""
    loss: float
    """How likely some step loses 0.25 or more."""
    forks: int | None
    """About how many more would certify that step, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The answer, whenever it is asked for; an experiment that was cut short has one too."""

    mode: str
    """The mode that ran, `undecided` where `auto` had not chosen yet."""
    effects: tuple[Effect, ...]
    """One for each step, by step."""
    ranking: tuple[int, ...]
    """Steps that have something to say, the most to blame first."""
    sets: tuple[SetFinding, ...] = ()
    drops: tuple[Drop, ...] = ()
    guess: Guess | None = None
    baseline_flips: int = 0
    baseline_trials: int = 0
    """The first control arm: unchanged re-runs, those that could be graded."""
    deterministic: bool = False
    trials: int = 0
    controls: int = 0
    stop_reason: StopReason = "running"
    message: str = ""
    """The finding in one sentence."""

    @property
    def certified(self) -> tuple[int, ...]:
        """The steps that are blamed, alone or as members of a set."""
        alone = [effect.step for effect in self.effects if effect.verdict == "certified"]
        joint = [step for found in self.sets if found.verdict == "certified" for step in found.steps]
        return tuple(sorted({*alone, *joint}))

    @property
    def top(self) -> int | None:
        """The step most to blame, certified or not; None if nothing stands out."""
        return self.ranking[0] if self.ranking else None
