"""The interval of one Bernoulli rate for a sample size fixed in advance."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (1927): coverage is about `level` if `trials` was fixed in advance.

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
