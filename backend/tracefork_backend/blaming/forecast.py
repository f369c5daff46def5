"""Before anything is spent: what would this experiment cost, and how likely is it to reach a verdict?"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .drive import FREE, Graders, Spent, run
from .modes import mode_named
from .plan import Plan
from .search import Search
from .trials import Sampler

# Before the first control the baseline is taken to be about 0.1, as if from five trials.
_PRIOR = (0.5, 4.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What simulated experiments came to, if what they take for granted holds."""

    simulations: int
    effect: float
    """The effect that was assumed, where the mode assumes one."""
    forks_mean: float
    forks_median: int
    forks_p95: int
    cost_mean: float
    cost_median: float
    cost_p95: float
    chance: float
    """Share of simulated experiments that certified something within the budget."""
    chance_right: float
    """Share that put the planted step first."""
    null_forks_mean: float
    """Forks where no step has an effect."""
    null_cost_mean: float
    unknown: tuple[str, ...] = ()
    """Why prices of calls are not known, which no cost has in it."""
    assumed: str = ""
    """What was taken for granted, in words."""
    judge_usd: float = 0.0
    """What a judge is likely to cost for each ending, which costs and chance have in them."""
    judge_worst_usd: float = 0.0
    """What a budget sets aside for it before each fork."""


def estimate(
    plan: Plan,
    *,
    effect: float = 0.7,
    controls: tuple[int, int] = (0, 0),
    budget: float | None = None,
    grading: Graders = FREE,
    simulations: int = 200,
    seed: int = 0,
) -> Estimate:
    """Simulate the search itself on runs with one cause of that effect at a random step.

    Where the mode has a model of runs, they are drawn from that: it is what its search goes by.

    The baseline is what `controls` (flips, trials) suggest, about 0.1 without any; a budget near the cost of
    an experiment makes the chance sensitive to it. Costs are in the unit of `plan.costs`; so are the budget
    and what grading costs, of which each ending is taken to be another one.
    """
    rng = random.Random(seed)
    flips, trials = controls
    baseline = (flips + _PRIOR[0]) / (trials + sum(_PRIOR))
    spent: list[tuple[int, float]] = []
    nulls: list[tuple[int, float]] = []
    certified = right = 0
    # An agent may turn out deterministic, which is cheaper; that is not counted on.
    plan = replace(plan, deterministic="never")
    mode = mode_named(plan.mode).settled(natural=plan.natural)

    def simulated(sample: Sampler) -> Spent:
        return run(Search(plan), sample, budget=budget, grading=grading)

    for index in range(simulations):
        cause, sample = mode.foretold(plan, rng, effect=effect, baseline=baseline)
        result = simulated(sample)
        spent.append((result.trials, result.cost))
        certified += bool(result.findings.certified)
        right += result.findings.top == cause
        if index % 4 == 0:
            null = simulated(mode.sampler(plan, rng, cause=-1, effect=0.0, baseline=baseline))
            nulls.append((null.trials, null.cost))
    forks = sorted(trial for trial, _ in spent)
    costs = sorted(cost for _, cost in spent)
    return Estimate(
        simulations=simulations,
        effect=effect,
        forks_mean=sum(forks) / simulations,
        forks_median=forks[simulations // 2],
        forks_p95=forks[int(0.95 * (simulations - 1))],
        cost_mean=sum(costs) / simulations,
        cost_median=costs[simulations // 2],
        cost_p95=costs[int(0.95 * (simulations - 1))],
        chance=certified / simulations,
        chance_right=right / simulations,
        null_forks_mean=sum(trial for trial, _ in nulls) / len(nulls),
        null_cost_mean=sum(cost for _, cost in nulls) / len(nulls),
        assumed=mode.assumes.format(effect=effect),
        judge_usd=grading.usd,
        judge_worst_usd=grading.worst_usd,
    )
