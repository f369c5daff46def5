"""A guess about an effect, used to decide where to spend: it certifies nothing."""

from __future__ import annotations

import math


def _moments(successes: int, trials: int) -> tuple[float, float]:
    """Return mean and variance of the Beta(½ + successes, ½ + failures) posterior."""
    mean = (successes + 0.5) / (trials + 1)
    return mean, mean * (1 - mean) / (trials + 2)


def chance_of_effect(at_least: float, *, treatment: tuple[int, int], control: tuple[int, int]) -> float:
    """Return about P(effect ≥ `at_least`) given (flips, trials) of both arms.

    Normal approximation to the difference of two Jeffreys posteriors: within 0.05 of the exact value from 6
    trials on, at a hundredth of the price. No guarantee rests on it.
    """
    mean, variance = _moments(*treatment)
    other, other_variance = _moments(*control)
    mean, variance = mean - other, variance + other_variance
    return 0.5 * math.erfc((at_least - mean) / math.sqrt(2 * variance))
