"""Run experiments on planted worlds and count what came out."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from ..blaming.drive import run
from ..blaming.findings import Findings
from ..blaming.plan import Plan
from ..blaming.search import Search
from .worlds import Diverging, NoisyOr, Pivot, WrongOracle

SEED = "tracefork blame, first registered seed"
"""Every cell draws from a generator seeded by this and its own name, whatever runs before it."""


def generator(name: str) -> random.Random:
    """Return the generator of a cell."""
    return random.Random(f"{SEED}: {name}")


AnyWorld = NoisyOr | Pivot | WrongOracle | Diverging


def truth(world: AnyWorld) -> NoisyOr | Pivot:
    """Return the world whose effects are planted, under whatever disturbs it."""
    return world if isinstance(world, (NoisyOr, Pivot)) else world.world


@dataclass(slots=True)
class Tally:
    """Counts over the runs of a cell."""

    runs: int = 0
    top: int = 0
    recall: float = 0.0
    false_blame: int = 0
    shown: int = 0
    covered: int = 0
    exact_sets: int = 0
    echo_roots: int = 0
    stops: Counter[str] = field(default_factory=Counter[str])
    forks: list[int] = field(default_factory=list[int])

    def add(self, world: AnyWorld, found: Findings, forks: int) -> None:
        """Count one experiment against the truth of its world."""
        known = truth(world)
        self.runs += 1
        self.forks.append(forks)
        self.stops[found.stop_reason] += 1
        self.top += found.top in known.causes
        if known.causes:
            self.recall += sum(step in found.certified for step in known.causes) / len(known.causes)
        if isinstance(known, NoisyOr):
            innocent: frozenset[int] = known.innocent
            self.echo_roots += any(found.effects[step].is_root for step in known.echoes)
            self.exact_sets += any(
                each.verdict == "certified" and each.steps == known.causes for each in found.sets
            )
        else:
            innocent = frozenset(step for step in range(known.steps) if known.effect(step) <= 0)
        self.false_blame += any(step in innocent for step in found.certified)
        for effect in found.effects:
            if effect.pairs and effect.ci_low is not None and effect.ci_high is not None:
                self.shown += 1
                # Bounds are found by halving, so the last digits are open.
                self.covered += effect.ci_low - 1e-5 <= known.effect(effect.step) <= effect.ci_high + 1e-5

    def metrics(self) -> dict[str, float]:
        """Return the rates and means of the cell."""
        runs = self.runs
        ordered = sorted(self.forks)
        metrics = {
            "top": self.top / runs,
            "recall": self.recall / runs,
            "false_blame": self.false_blame / runs,
            "forks": sum(ordered) / runs,
            "forks_p95": float(ordered[int(0.95 * (runs - 1))]),
            "exact_sets": self.exact_sets / runs,
            "echo_roots": self.echo_roots / runs,
        }
        if self.shown:
            metrics["coverage"] = self.covered / self.shown
        for reason, count in sorted(self.stops.items()):
            metrics[f"stop_{reason}"] = count / runs
        return metrics


def tally(
    name: str,
    runs: int,
    make: Callable[[random.Random], AnyWorld],
    plan: Callable[[AnyWorld], Plan],
    *,
    tail: str = "",
) -> Tally:
    """Return the counts of so many experiments, each on a world of its own."""
    rng = generator(name)
    counts = Tally()
    for _ in range(runs):
        world = make(rng)
        flips = world.flips
        spent = run(Search(plan(world)), lambda request: flips(request, rng), tail=tail)  # noqa: B023
        counts.add(world, spent.findings, spent.trials)
    return counts


def pooled(tallies: list[Tally]) -> Tally:
    """Return the counts of several cells taken together."""
    whole = Tally()
    for each in tallies:
        for name in (known.name for known in fields(Tally)):
            setattr(whole, name, getattr(whole, name) + getattr(each, name))
    return whole


def upper_bound(events: int, runs: int, *, level: float = 0.95) -> float:
    """Return the exact one-sided upper bound of a rate (Clopper & Pearson 1934)."""
    if events >= runs:
        return 1.0
    low, high = events / runs, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(events, runs, middle) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, runs: int, rate: float) -> float:
    log_rate, log_rest = math.log(rate), math.log1p(-rate) if rate < 1 else -math.inf
    logs = (
        math.lgamma(runs + 1)
        - math.lgamma(k + 1)
        - math.lgamma(runs - k + 1)
        + k * log_rate
        + (runs - k) * log_rest
        for k in range(events + 1)
    )
    return math.fsum(math.exp(value) for value in logs)
