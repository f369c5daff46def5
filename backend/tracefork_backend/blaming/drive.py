"""Run a search to its end against anything that can give outcomes: a simulated world, or recorded trials."""

from __future__ import annotations

from dataclasses import dataclass

from .findings import Findings
from .search import Search
from .trials import Sampler


@dataclass(frozen=True, slots=True)
class Spent:
    """What a search came to, and at what price."""

    findings: Findings
    trials: int
    cost: float


@dataclass(frozen=True, slots=True)
class Graders:
    """What an oracle asks for that is paid: nothing, unless a model judges."""

    usd: float = 0.0
    """What grading one ending is likely to cost."""
    worst_usd: float = 0.0
    """What is set aside for it before its fork starts."""


FREE = Graders()


def run(
    search: Search,
    sample: Sampler,
    *,
    budget: float | None = None,
    tail: str = "",
    grading: Graders = FREE,
) -> Spent:
    """Answer every request by `sample` until the search is done or the next trial would pass the budget.

    The recorded run is graded once before the first, as each trial is after it.
    """
    plan = search.plan
    trials = 0
    cost = grading.usd
    while not search.done:
        for request in search.next_batch():
            price = plan.cost(request.kept)
            if budget is not None and cost + price + grading.worst_usd > budget:
                search.stop("budget")
                break
            cost += price + grading.usd
            trials += 1
            search.observe(request.trial_id, sample(request), tail=tail)
    return Spent(search.verdict(), trials, cost)
