"""What a search knows while it runs: arms, contrasts, and what was decided about steps so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..statistics import e_bh
from .contrast import Contrast
from .findings import SetFinding, StopReason, Verdict
from .plan import Plan
from .trials import Arm, Ledger, Phase


@dataclass(slots=True)
class State:
    """The memory of one search, rebuilt by replaying its trials."""

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    phase: Phase = "control"
    mode: str = "undecided"
    """The mode that runs, as findings call it."""
    singles_share: float = 1.0
    """The part of alpha that goes to single steps; the rest is for sets."""
    baseline: Arm | None = None
    low: float = 0.12
    """A flip rate that screening takes for noise."""
    high: float = 0.5
    """A flip rate that screening takes for a cause."""
    deterministic: bool = False
    tested: tuple[int, ...] = ()
    """Steps over which alpha is divided."""
    contrasts: dict[int, Contrast] = field(default_factory=dict[int, Contrast])
    """Steps that were confirmed or measured, each against its own control."""
    turned: dict[int, Contrast] = field(default_factory=dict[int, Contrast])
    """Where both directions are claimed, the same blocks read for the other one."""
    certified: set[int] = field(default_factory=set[int])
    closed: dict[int, tuple[Verdict, str]] = field(default_factory=dict[int, tuple[Verdict, str]])
    """What was decided about steps that are not certified, and why."""
    candidates: list[int] = field(default_factory=list[int])
    sets: list[SetFinding] = field(default_factory=list[SetFinding])
    roots: set[int] = field(default_factory=set[int])
    echoes: dict[int, int] = field(default_factory=dict[int, int])
    likely: list[int] = field(default_factory=list[int])
    """Value mode: steps where the loss seems to be, the likeliest first."""
    stop_reason: StopReason = "running"

    @property
    def singles_alpha(self) -> float:
        """The part of alpha that single steps share."""
        return self.plan.alpha * self.singles_share

    @property
    def baseline_rate(self) -> float:
        """How often an unchanged re-run flips; a little above 0 before one has."""
        arm = self.baseline
        return (arm.flips + 0.25) / (len(arm.defined) + 0.5) if arm else 0.5

    def contrast(self, step: int) -> Contrast:
        """Return the contrast of a step against keeping it."""
        found = self.contrasts.get(step)
        if found is None:
            found = self.contrasts[step] = Contrast(self.ledger.alter((step,)), self.ledger.keep(step))
        return found

    def log_e(self) -> list[float]:
        """Return the log e-values of all tested steps; a step without a contrast has bet nothing, so 0."""
        return [self.contrasts[s].log_e if s in self.contrasts else 0.0 for s in self.tested]

    def rejected(self) -> set[int]:
        """Return the tested steps that e-BH rejects now and whose interval lies above 0.

        A step whose interval does not, counts as no evidence: so the rejected steps are closed all at once,
        their e-values stay as they are, and no later trial can take a verdict back. By e-BH the expected
        share of innocents among them is at most alpha, and where no step is a cause so is the chance of
        any.
        """
        level = 1 - self.plan.alpha
        log_e = [
            contrast.log_e
            if (contrast := self.contrasts.get(step)) is not None
            and contrast.log_e > 0
            and contrast.excludes_zero(level=level)
            else 0.0
            for step in self.tested
        ]
        return {self.tested[i] for i in e_bh(log_e, alpha=self.singles_alpha)}
