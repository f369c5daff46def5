"""A repair carried over to other recorded runs: what becomes better with it, and what worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import UsageError

from ..grading.oracle import Oracle
from ..matrices.matrix import matrix
from ..rerun import edits
from ..statistics import wilson
from ..store import Run
from .result import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """How other runs end with the repair, each beside one fork of it that changes nothing."""

    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    """The runs whose fork with it fails where the one without succeeds."""
    same: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Runs that it does not fit, that could not be graded, or for which the budget had no room."""
    forks: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0

    @property
    def checked(self) -> int:
        """How many runs it was tried on."""
        return len(self.better) + len(self.worse) + len(self.same)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the share that becomes worse."""
        return wilson(len(self.worse), self.checked)


def carried(
    repair: Repair, runs: Sequence[Run], *, oracle: Oracle, budget_usd: float | None, **how: Any
) -> Carried:
    """Fork each run at the repair's step with it and without, and compare how the two end.

    `how` is as `matrix` takes it. Raises UsageError for a repair of an answer, which says nothing of others.
    """
    if repair.edit.answers:
        raise UsageError(
            "the repair is another answer, which is this run's alone: there is nothing to carry over"
        )
    made = matrix(
        [(run, repair.step) for run in runs],
        [repair.edit, edits.resample()],
        oracle=oracle,
        budget_usd=budget_usd,
        parents=False,
        **how,
    )
    better: list[str] = []
    worse: list[str] = []
    same: list[str] = []
    left: list[str] = []
    for mended, unchanged in zip(made.cells[::2], made.cells[1::2], strict=True):
        pair = [fork.outcome for cell in (mended, unchanged) for fork in cell.forks]
        if len(pair) < 2 or None in pair:
            into = left
        else:
            into = same if pair[0] == pair[1] else better if pair[0] else worse
        into.append(mended.run_id)
    return Carried(
        better=tuple(better),
        worse=tuple(worse),
        same=tuple(same),
        left=tuple(left),
        forks=len(made.forks),
        cost_usd=made.cost_usd,
        unpriced=made.unpriced,
    )
