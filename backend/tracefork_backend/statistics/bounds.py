"""What can be said of a rate when some trials could not be graded."""

from __future__ import annotations


def rate_bounds(*, flips: int, defined: int, undefined: int) -> tuple[float, float]:
    """Return the least and greatest rate that undefined trials leave open (Manski 1990), 0 and 1 for none.

    Guarantee: the rate over all trials lies within, whatever made trials undefined.
    """
    trials = defined + undefined
    if trials == 0:
        return 0.0, 1.0
    return flips / trials, (flips + undefined) / trials
