"""The interval shown beside an effect: valid however often it is looked at."""

from __future__ import annotations

import math

# Stakes over which the bet is spread evenly: the midpoints of 24 equal cells of (0, 1). Small stakes win on
# small effects and long arms, large ones on large effects and short arms.
_STAKES = tuple((i + 0.5) / 24 for i in range(24))
_LOG_REST = tuple(math.log(1 - stake) for stake in _STAKES)

# Halvings of an interval of length 2: the error is under 1e-5, always outwards, far below what is ever
# printed.
_HALVINGS = 18


class PairedDifferences:
    """Counts of D = treatment - control over blocks of one trial of each, D in {-1, 0, 1}.

    Source: betting on a bounded mean, Waudby-Smith & Ramdas (arXiv 2010.09686), stakes mixed over a fixed
    grid, so that the capital depends on the three counts alone.
    Guarantee: over all looks at once the lower bound exceeds the true mean with chance at most α, and so
    does the upper bound fall below it; no assumption but that each block has that mean given those before
    it.
    """

    __slots__ = ("minus", "plus", "zero")

    def __init__(self, *, plus: int = 0, zero: int = 0, minus: int = 0) -> None:
        self.plus = plus
        self.zero = zero
        self.minus = minus

    def update(self, treatment: bool, control: bool) -> None:
        """Add one block."""
        if treatment == control:
            self.zero += 1
        elif treatment:
            self.plus += 1
        else:
            self.minus += 1

    def log_e(self, mean: float) -> float:
        """Return the log capital of betting that the true mean is above `mean`; an e-value if it is not."""
        return _log_capital(self.plus, self.zero, self.minus, mean)

    def within(self, bound: float, *, alpha: float) -> bool:
        """Tell whether `upper` is at most `bound`, without working it out."""
        return _log_capital(self.minus, self.zero, self.plus, -bound) >= -math.log(alpha)

    def lower(self, *, alpha: float) -> float:
        """Return the bound below which the true mean lies with chance at most `alpha`, at any look."""
        return _lower(self.plus, self.zero, self.minus, alpha)

    def upper(self, *, alpha: float) -> float:
        """Return the bound above which the true mean lies with chance at most `alpha`, at any look."""
        return -_lower(self.minus, self.zero, self.plus, alpha)


def _log_capital(plus: int, zero: int, minus: int, mean: float) -> float:
    if mean <= -1.0:
        return math.inf if plus + zero else 0.0
    # The factor of a block is 1 + λ(D - mean)/(1 + mean) = 1 - λ + λ(1 + D)/(1 + mean).
    unit = 1 / (1 + mean)
    log = math.log
    exp = math.exp
    logs = [
        plus * log(1 + stake * (2 * unit - 1)) + zero * log(1 + stake * (unit - 1)) + minus * rest
        for stake, rest in zip(_STAKES, _LOG_REST, strict=True)
    ]
    peak = max(logs)
    return peak + log(sum([exp(value - peak) for value in logs]) / len(logs))


def _lower(plus: int, zero: int, minus: int, alpha: float) -> float:
    """Return the largest mean that is rejected: the capital falls as the mean grows, so halving finds it."""
    threshold = -math.log(alpha)
    rejected, kept = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (rejected + kept) / 2
        if _log_capital(plus, zero, minus, middle) >= threshold:
            rejected = middle
        else:
            kept = middle
    return rejected
