"""A matrix as it stands: runs × variants, each cell its trials, pass rate and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..rerun.estimate import Estimate, total
from ..rerun.result import held
from ..spelling import at_least, counted, money
from ..statistics import wilson

if TYPE_CHECKING:
    from tracefork_otel.play.intervention import Intervention
    from tracefork_otel.play.onward import Scope

    from ..rerun.edits import Edit
    from ..rerun.result import Fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run, changed at one step in one way, as often as was asked for."""

    run_id: str
    run_name: str
    step: int
    variant: str
    """The change, told apart from the other variants."""
    wanted: int
    """How many trials were asked for."""
    change: Intervention | None = None
    """The change bound to the run; None if there can be no trial."""
    estimate: Estimate | None = None
    """What one trial is likely to take; None if there can be none."""
    parent_outcome: bool | None = None
    """What the oracle says of the run as it was recorded."""
    forks: tuple[Fork, ...] = ()
    why: str | None = None
    """Why there are fewer trials than wanted, or none: the run has no such step, the budget ended."""

    @property
    def possible(self) -> bool:
        """Whether the run has the step, and the change fits it."""
        return self.estimate is not None

    @property
    def passed(self) -> int:
        """Trials that ended in success."""
        return sum(1 for fork in self.forks if fork.outcome is True)

    @property
    def failed(self) -> int:
        """Trials that ended in failure."""
        return sum(1 for fork in self.forks if fork.outcome is False)

    @property
    def undefined(self) -> int:
        """Trials that were not graded, or could not be: they count neither way."""
        return len(self.forks) - self.passed - self.failed

    @property
    def pass_rate(self) -> float | None:
        """The share of successes among the graded trials, None if there are none."""
        graded = self.passed + self.failed
        return self.passed / graded if graded else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the pass rate."""
        graded = self.passed + self.failed
        return wilson(self.passed, graded) if graded else None

    @property
    def cost_usd(self) -> float:
        """What its trials cost, as far as prices are known."""
        return sum(fork.cost_usd or 0.0 for fork in self.forks)

    @property
    def unpriced(self) -> int:
        """Live calls whose price is not known."""
        return sum(fork.unpriced for fork in self.forks)

    @property
    def scope(self) -> Scope | None:
        """How far the change was to hold; None where there is no choice, or no trial yet."""
        return next((fork.scope for fork in self.forks), None)

    @property
    def problems(self) -> dict[str, int]:
        """How many trials are not what was asked for, by what kind of problem."""
        return dict(Counter(fork.problem.kind for fork in self.forks if fork.problem is not None))

    def row(self) -> dict[str, Any]:
        """Return the cell as JSON."""
        return {
            "run_id": self.run_id,
            "run_name": self.run_name,
            "step": self.step,
            "variant": self.variant,
            "wanted": self.wanted,
            "trials": len(self.forks),
            "passed": self.passed,
            "failed": self.failed,
            "undefined": self.undefined,
            "pass_rate": self.pass_rate,
            "interval": self.interval,
            "parent_outcome": self.parent_outcome,
            "cost_usd": self.cost_usd,
            "unpriced": self.unpriced,
            "scope": self.scope,
            "held_in": sum(fork.held_in for fork in self.forks),
            "held_of": sum(fork.held_of for fork in self.forks),
            "estimated_usd": None if self.estimate is None else self.estimate.cost_usd,
            "estimated_calls": None if self.estimate is None else self.estimate.calls,
            "problems": self.problems,
            "why": self.why,
            "forks": [fork.run_id for fork in self.forks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Runs × variants: what is estimated, and what came of it so far."""

    cells: tuple[Cell, ...]
    """Run by run, in each the variants in their order."""
    oracle: str | None = None
    """The name of what grades the trials."""
    budget_usd: float | None = None
    booked_usd: float = 0.0
    """What counts as spent of the budget: calls without a price at what was set aside, and grading, too."""
    exhausted: bool = False
    """Whether trials were left out because the budget had no room for them."""

    @property
    def forks(self) -> tuple[Fork, ...]:
        """All trials."""
        return tuple(fork for cell in self.cells for fork in cell.forks)

    @property
    def estimate(self) -> Estimate:
        """What all of it is likely to take."""
        return total((cell.estimate, cell.wanted) for cell in self.cells if cell.estimate is not None)

    @property
    def wanted(self) -> int:
        """How many trials can be made of those that were asked for."""
        return sum(cell.wanted for cell in self.cells if cell.possible)

    @property
    def cost_usd(self) -> float:
        """What the trials cost, as far as prices are known."""
        return sum(cell.cost_usd for cell in self.cells)

    @property
    def unpriced(self) -> int:
        """Live calls whose price is not known."""
        return sum(cell.unpriced for cell in self.cells)

    def scopes(self) -> list[str]:
        """Return one line for each variant that has a scope: how far it was to hold, and where it did."""
        variants = list(dict.fromkeys(cell.variant for cell in self.cells))
        lines: list[str] = []
        for variant in variants:
            forks = [fork for cell in self.cells if cell.variant == variant for fork in cell.forks]
            words = held(forks)
            if words is not None:
                scope = next(fork.scope for fork in forks if fork.scope is not None)
                lines.append(f"{scope}: {words}" + (f" ({variant})" if len(variants) > 1 else ""))
        return lines

    def rows(self) -> list[dict[str, Any]]:
        """Return the cells as JSON."""
        return [cell.row() for cell in self.cells]

    def summary(self) -> str:
        """Return one line: trials, cost, and what kept others from being made."""
        parts = [f"{len(self.forks)} of {self.wanted} forks", at_least(self.cost_usd, self.unpriced)]
        if self.budget_usd is not None:
            parts[-1] += f" of {money(self.budget_usd)}"
        if self.unpriced:
            held = "" if self.budget_usd is None else f", with which {money(self.booked_usd)} counts as spent"
            parts.append(f"{counted(self.unpriced, 'call')} without a price{held}")
        if self.oracle is not None:
            passed, failed = (sum(getattr(c, name) for c in self.cells) for name in ("passed", "failed"))
            rest = len(self.forks) - passed - failed
            counts = ((passed, "success"), (failed, "failure"), (rest, "not graded"))
            parts.append(", ".join(f"{count} {word}" for count, word in counts if count))
        if self.exhausted:
            parts.append("stopped at the budget")
        return " · ".join(filter(None, parts))


def names_of(edits: Sequence[Edit]) -> list[str]:
    """Return a name for each variant: what it changes, and to what; numbered where that is not enough."""
    names = [edit.variant for edit in edits]
    return [name if names.count(name) == 1 else f"{name} #{n + 1}" for n, name in enumerate(names)]
