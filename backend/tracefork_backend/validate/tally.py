"""Run experiments on planted worlds and count what came out."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field, fields

from ..blaming.findings import Findings
from .worlds import NoisyOr, Pivot, Prompt

SEED = "tracefork blame, first registered seed"
"""Every cell draws from a generator seeded by this and its own name, whatever runs before it."""


def generator(name: str) -> random.Random:
    """Return the generator of a cell."""
    return random.Random(f"{SEED}: {name}")


@dataclass(slots=True)
class Tally:
    """Counts over the runs of a cell."""

    runs: int = 0
    top: int = 0
    recall: float = 0.0
    false_blame: int = 0
    ended: int = 0
    """Experiments that ended with a verdict, where that was counted."""
    shown: int = 0
    covered: int = 0
    exact_sets: int = 0
    echo_roots: int = 0
    stops: Counter[str] = field(default_factory=Counter[str])
    forks: list[int] = field(default_factory=list[int])

    def add(self, world: NoisyOr | Pivot | Prompt, found: Findings, forks: int) -> None:
        """Count one experiment against the truth of its world."""
        self.runs += 1
        self.forks.append(forks)
        self.stops[found.stop_reason] += 1
        self.top += found.top in world.causes
        if world.causes:
            self.recall += sum(step in found.certified for step in world.causes) / len(world.causes)
        self.false_blame += any(step in world.innocent for step in found.certified)
        self.echo_roots += any(found.effects[step].is_root for step in world.echoes)
        self.exact_sets += any(
            each.verdict == "certified" and each.steps == world.causes for each in found.sets
        )
        for effect in found.effects:
            if effect.pairs and effect.ci_low is not None and effect.ci_high is not None:
                self.shown += 1
                # Bounds are found by halving, so the last digits are open.
                self.covered += effect.ci_low - 1e-5 <= world.effect(effect.step) <= effect.ci_high + 1e-5

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


def pooled(tallies: list[Tally]) -> Tally:
    """Return the counts of several cells taken together."""
    whole = Tally()
    for each in tallies:
        for count in fields(Tally):
            setattr(whole, count.name, getattr(whole, count.name) + getattr(each, count.name))
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
