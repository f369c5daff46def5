"""Intervals for one Bernoulli rate: Wilson's for a sample size fixed in advance, a mixture's for any look."""

from __future__ import annotations

import math
from statistics import NormalDist

# Halvings of [0, 1]: 50 leave an error under 1e-15, the precision of a float.
_HALVINGS = 50


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (Wilson 1927), whose coverage is about `level` if `trials` was fixed
    in advance.

    It is not valid under repeated looks: over 200 looks all of them hold in only half to two thirds of
    runs. Zero trials give (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / trials
    scale = 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # At the ends the formula is exact but its floating point is not.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def beta_mixture_log_e(successes: int, trials: int, rate: float) -> float:
    """Return the log e-value against `rate` of the Beta(½, ½) mixture (Robbins 1970), a martingale if it is
    true.

    By Ville's inequality the chance that it ever passes log(1/α) is at most α.
    """
    failures = trials - successes
    if (successes and rate <= 0.0) or (failures and rate >= 1.0):
        return math.inf
    mixture = _log_beta(successes + 0.5, failures + 0.5) - math.log(math.pi)
    likelihood = 0.0
    if successes:
        likelihood += successes * math.log(rate)
    if failures:
        likelihood += failures * math.log1p(-rate)
    return mixture - likelihood


def beta_mixture_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the rates that the Beta mixture has not rejected: they hold the true one at all looks at once
    with chance `level`.

    So it may be read after every trial and the experiment stopped by what it says (Darling & Robbins 1967).
    """
    if trials == 0:
        return 0.0, 1.0
    threshold = -math.log(1 - level)
    estimate = successes / trials

    def edge(outside: float) -> float:
        inside = estimate
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if beta_mixture_log_e(successes, trials, middle) < threshold:
                inside = middle
            else:
                outside = middle
        return outside

    return (0.0 if successes == 0 else edge(0.0)), (1.0 if successes == trials else edge(1.0))
