"""The test that certifies: does a treatment arm flip more often than its control, at any stopping time?"""

from __future__ import annotations

import math

# The pseudo-count of Turner, Ly & Grünwald's prior: their numerical optimum for two groups of one trial each.
_PRIOR = 0.18

LOG_MAX_FACTOR = math.log(4)
"""One block multiplies the e-value by less than 4: each of its two ratios is at most 2."""


class TwoByTwo:
    """The one-sided safe test of P(flip | treatment) ≤ P(flip | control) over blocks of one trial each.

    Source: Turner, Ly & Grünwald, "Generic E-variables for exact sequential k-sample tests" (arXiv
    2106.02693).
    Guarantee: if the hypothesis is true, `exp(log_e)` has mean ≤ 1 at every stopping time, and the chance
    that it ever reaches 1/α is at most α. Blocks must be independent of each other; bets use earlier blocks
    only.

    Why it holds for every q ≤ c: with m = (a+b)/2 and d = (a-m)/(m(1-m)) ≥ 0 the factor's mean is (1 +
    (q-m)d)(1 - (c-m)d) ≤ (1 + (c-m)d)(1 - (c-m)d) ≤ 1.
    """

    __slots__ = ("blocks", "control_flips", "log_e", "treatment_flips")

    def __init__(self) -> None:
        self.blocks = 0
        self.treatment_flips = 0
        self.control_flips = 0
        self.log_e = 0.0

    def update(self, treatment: bool, control: bool) -> None:
        """Add one block; `log_e` then covers it."""
        count = self.blocks + 2 * _PRIOR
        a = (self.treatment_flips + _PRIOR) / count
        b = (self.control_flips + _PRIOR) / count
        # Where the control leads so far there is no bet to make: the factor is 1.
        if a > b:
            middle = (a + b) / 2
            treated, either_treated = (a, middle) if treatment else (1 - a, 1 - middle)
            kept, either_kept = (b, middle) if control else (1 - b, 1 - middle)
            self.log_e += math.log(treated * kept / (either_treated * either_kept))
        self.blocks += 1
        self.treatment_flips += treatment
        self.control_flips += control
