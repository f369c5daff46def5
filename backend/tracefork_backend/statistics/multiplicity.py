"""Which of many e-values are large enough, counting that there are many."""

from __future__ import annotations

import math
from collections.abc import Sequence


def _ranked(log_e: Sequence[float]) -> list[tuple[float, int]]:
    return sorted(((value, -index) for index, value in enumerate(log_e)), reverse=True)


def e_bh(log_e: Sequence[float], *, alpha: float) -> frozenset[int]:
    """Return the positions that e-BH rejects (Wang & Ramdas 2022): the k largest with e ≥ n/(αk).

    Guarantee: the expected share of true hypotheses among them is at most `alpha` whatever the dependence;
    where all are true, so is the chance of any.
    """
    ranked = _ranked(log_e)
    count = len(ranked)
    for k in range(count, 0, -1):
        if ranked[k - 1][0] >= math.log(count / (alpha * k)):
            return frozenset(-index for _, index in ranked[:k])
    return frozenset()


def e_bh_adjusted(log_e: Sequence[float]) -> list[float]:
    """Return for each e-value the smallest α at which `e_bh` rejects it, at most 1."""
    ranked = _ranked(log_e)
    count = len(ranked)
    adjusted = [1.0] * count
    smallest = 1.0
    for k in range(count, 0, -1):
        value, index = ranked[k - 1]
        # exp underflows to 0 for e-values past the range of a float, which is the right limit.
        smallest = min(smallest, count / k * math.exp(-value)) if value > 0 else smallest
        adjusted[-index] = smallest
    return adjusted
