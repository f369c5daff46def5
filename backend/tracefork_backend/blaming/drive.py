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


def run(search: Search, sample: Sampler, *, budget: float | None = None, tail: str = "") -> Spent:
    """Answer every request by `sample` until the search is done or the next trial would pass the budget."""
    plan = search.plan
    trials = 0
    cost = 0.0
    while not search.done:
        for request in search.next_batch():
            price = plan.cost(request.kept)
            if budget is not None and cost + price > budget:
                search.stop("budget")
                break
            cost += price
            trials += 1
            search.observe(request.trial_id, sample(request), tail=tail)
    return Spent(search.verdict(), trials, cost)
