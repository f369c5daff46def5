"""A quick yes or no about one rate: good enough to choose what to look at, never to blame."""

from __future__ import annotations

import math


class Sprt:
    """Wald's sequential probability ratio test (1945) of rate ≥ `high` against ≤ `low`, cut off at `cap`.

    Guarantee without the cap: a rate ≤ low passes with chance ≤ about `false_positive`, a rate ≥ high fails
    with chance ≤ about `false_negative`. At the cap the sign of the log ratio decides, which has no
    guarantee.
    """

    __slots__ = ("_accept", "_down", "_reject", "_up", "cap", "log_ratio", "trials")

    def __init__(
        self, *, low: float, high: float, false_positive: float, false_negative: float, cap: int
    ) -> None:
        self._up = math.log(high / low)
        self._down = math.log((1 - high) / (1 - low))
        self._accept = -math.log(false_positive)
        self._reject = math.log(false_negative)
        self.cap = cap
        self.log_ratio = 0.0
        self.trials = 0

    def update(self, flipped: bool) -> None:
        """Add one outcome."""
        self.log_ratio += self._up if flipped else self._down
        self.trials += 1

    @property
    def decision(self) -> bool | None:
        """True: the rate is high. False: it is low. None: more outcomes are needed."""
        if self.log_ratio >= self._accept:
            return True
        if self.log_ratio <= self._reject:
            return False
        if self.trials >= self.cap:
            return self.log_ratio > 0
        return None

    @property
    def least_more(self) -> int:
        """How many more outcomes the quickest decision needs: so many may run at once and none is wasted."""
        to_accept = math.ceil((self._accept - self.log_ratio) / self._up - 1e-9)
        to_reject = math.ceil((self._reject - self.log_ratio) / self._down - 1e-9)
        return max(1, min(to_accept, to_reject, self.cap - self.trials))
