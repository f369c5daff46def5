"""Simpler rules on the same worlds: what blame is worth is what it does better than these."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tracefork_backend.statistics import wilson
from tracefork_backend.validate.tally import generator
from tracefork_backend.validate.worlds import NoisyOr, planted


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a simpler rule does with the worlds."""

    rule: str
    cell: str
    top: float | None
    """Share of runs in which it names a true cause; None where there is none to name."""
    false_blame: float
    """Share of runs in which it blames an innocent step."""
    forks: float


# The rule of the nearest rival: Benjamini & Hochberg at q over binomial tests of a constant null rate.
_BH_Q = 0.10
_BH_NULL = 0.05

# A flip rate from which the seed project calls a step suggestive.
_SUGGESTIVE = 0.3

# Forks per arm that the comparator tries, coarse as in the research, so read factors to a quarter.
_GRID = (6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150)


def _draw(rng: random.Random, trials: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(trials))


def _tail(flips: int, trials: int, rate: float) -> float:
    """Return P(at least so many flips)."""
    return math.fsum(
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(flips, trials + 1)
    )


def bh_constant_null(flips: Sequence[int], trials: int) -> set[int]:
    """Return the steps that Benjamini & Hochberg reject when every innocent is taken to flip at 5 %."""
    ordered = sorted((_tail(count, trials, _BH_NULL), step) for step, count in enumerate(flips))
    for k in range(len(ordered), 0, -1):
        if ordered[k - 1][0] <= _BH_Q * k / len(ordered):
            return {step for _, step in ordered[:k]}
    return set()


def newcombe_low(treated: int, control: int, trials: int, *, level: float) -> float:
    """Return the lower bound of a difference of two rates of fixed sample size (Newcombe 1998, method 10)."""
    rate, other = treated / trials, control / trials
    low, _ = wilson(treated, trials, level=level)
    _, high = wilson(control, trials, level=level)
    return rate - other - math.sqrt((rate - low) ** 2 + (high - other) ** 2)


def _rates(world: NoisyOr, step: int) -> tuple[float, float]:
    control = world.noise[step + 1]
    return control + world.effect(step), control


def fixed_forks_for(recall: float, steps: int, noise: float, *, runs: int) -> int:
    """Return the forks that a fixed number per step, with as many controls, needs for this recall.

    The comparator is valid: Newcombe's interval at Bonferroni's level must lie above 0.
    """
    level = 2 * NormalDist().cdf(NormalDist().inv_cdf(1 - 0.05 / (steps - 1))) - 1
    for k in _GRID:
        rng = generator(f"fixed {steps} {noise} {k}")
        hits = 0.0
        for _ in range(runs):
            world = planted(rng, steps, causes=1, noise=noise)
            for step in world.causes:
                rate, control = _rates(world, step)
                low = newcombe_low(_draw(rng, k, rate), _draw(rng, k, control), k, level=level)
                hits += (low > 0) / len(world.causes)
        if hits / runs >= recall:
            return 2 * k * (steps - 1)
    return 2 * 200 * (steps - 1)


def _rule(name: str, rng: random.Random, world: NoisyOr) -> tuple[int, set[int], int]:
    """Return the step that a rule names, all that it blames, and the forks it took."""
    last = world.steps - 2
    if name == "last step":
        return last, {last}, 0
    if name == "random":
        step = rng.randrange(world.steps - 1)
        return step, {step}, 0
    kind, k = name.rsplit(" k=", 1)
    trials = int(k)
    flips = [_draw(rng, trials, _rates(world, step)[0]) for step in range(world.steps - 1)]
    top = max(range(len(flips)), key=lambda step: (flips[step], -step))
    if kind == "raw flip rate":
        blamed = {step for step, count in enumerate(flips) if count / trials >= _SUGGESTIVE}
    else:
        blamed = bh_constant_null(flips, trials)
    return top, blamed, trials * len(flips)


RULES = (
    "last step",
    "random",
    "raw flip rate k=10",
    "raw flip rate k=20",
    "BH, constant null k=10",
    "BH, constant null k=20",
    "BH, constant null k=50",
)


def baseline(name: str, cell: str, runs: int, make: Callable[[random.Random], NoisyOr]) -> Baseline:
    """Return what one rule does on the worlds of a cell."""
    rng = generator(f"{name} {cell}")
    top = blamed = 0
    forks = 0
    causes = 0
    for _ in range(runs):
        world = make(rng)
        named, accused, spent = _rule(name, rng, world)
        causes += bool(world.causes)
        top += named in world.causes
        blamed += bool(accused & world.innocent)
        forks += spent
    return Baseline(
        rule=name,
        cell=cell,
        top=top / causes if causes else None,
        false_blame=blamed / runs,
        forks=forks / runs,
    )
