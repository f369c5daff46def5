"""The statistics themselves, under a true null and at every look."""

from __future__ import annotations

import math

from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.forecast import estimate
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.statistics import PairedDifferences, TwoByTwo
from tracefork_backend.validate.tally import generator
from tracefork_backend.validate.worlds import planted

# (rate of flips under treatment, under control) of the cells of research 3.2.
CELLS = ((0.05, 0.05), (0.2, 0.2), (0.5, 0.5), (0.9, 0.1), (0.7, 0.2), (0.9, 0.0))


def anytime_coverage(treated: float, control: float, *, runs: int, looks: int, level: float = 0.95) -> float:
    """Return the share of runs in which the interval held the true effect at each of the looks."""
    rng = generator(f"coverage {treated} {control}")
    threshold = -math.log((1 - level) / 2)
    effect = treated - control
    held = 0
    for _ in range(runs):
        pairs = PairedDifferences()
        for _ in range(looks):
            pairs.update(rng.random() < treated, rng.random() < control)
            # The bound passes the true effect exactly when the bet against it has grown to the threshold.
            mirrored = PairedDifferences(plus=pairs.minus, zero=pairs.zero, minus=pairs.plus)
            if pairs.log_e(effect) >= threshold or mirrored.log_e(-effect) >= threshold:
                break
        else:
            held += 1
    return held / runs


def false_alarm(rate: float, *, runs: int, looks: int, alpha: float = 0.05) -> float:
    """Return the share of runs of two equal arms in which the e-value ever reached 1/alpha."""
    rng = generator(f"alarm {rate}")
    threshold = -math.log(alpha)
    alarms = 0
    for _ in range(runs):
        test = TwoByTwo()
        for _ in range(looks):
            test.update(rng.random() < rate, rng.random() < rate)
            if test.log_e >= threshold:
                alarms += 1
                break
    return alarms / runs


def estimate_error(steps: int, budget: float, noise: float, *, runs: int) -> tuple[float, float]:
    """Return the estimated chance of a verdict, and the share of planted runs that then reached one."""
    effect = 0.7
    plan = Plan(steps=steps, mode="intervene", parent_failed=False)
    # About as many controls as the search itself draws, at the planted rate.
    controls = (round(20 * noise), 20)
    told = estimate(plan, effect=effect, controls=controls, budget=budget, simulations=runs, seed=1)
    rng = generator(f"estimate {steps} {budget} {noise}")
    strength = effect + noise
    reached = 0
    for _ in range(runs):
        world = planted(rng, steps, causes=1, noise=noise, echoes=0, strength=(strength, strength))
        flips = world.flips
        spent = run(Search(plan), lambda request: flips(request, rng), budget=budget)  # noqa: B023
        reached += bool(spent.findings.certified)
    return told.chance, reached / runs
