"""A limit in dollars that trials reserve from beforehand, and what is set aside for each while it runs."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError

from .spending import Share, Spending

if TYPE_CHECKING:
    from ..grading.oracle import Oracle

_ROUNDING = 1e-9
"""Dollars by which sums of floats may be off."""


class Budget:
    """A limit in dollars that no trial is started beyond; any thread may reserve and settle."""

    def __init__(self, limit_usd: float | None = None) -> None:
        if limit_usd is not None and not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise UsageError(f"a budget of {limit_usd} is none: give dollars, such as 2.00")
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        """What settled trials cost, as far as prices are known."""
        self.reserved_usd = 0.0
        """What is set aside for trials that run."""
        self.exhausted = False
        """Whether a trial was refused, or ended."""
        self._settled = threading.Condition()
        self._closed = False
        self._running = 0

    def reserve(self, usd: float, *, wait: bool = False) -> bool:
        """Set that much aside and return True; False where what is spent and reserved leaves no room for it.

        With `wait` it is only refused once nothing else is reserved that could be settled for less.
        """
        with self._settled:
            while not self._fits(usd):
                if self._closed or not wait or not self._running:
                    self.exhausted = not self._closed or self.exhausted
                    return False
                self._settled.wait()
            if self._closed:
                return False
            self._running += 1
            self.reserved_usd += usd
            return True

    def _fits(self, usd: float) -> bool:
        # What is thought to cost nothing may turn out otherwise: nothing starts once the limit is passed.
        return self.limit_usd is None or (
            self.spent_usd + self.reserved_usd + max(0.0, usd) <= self.limit_usd + _ROUNDING
        )

    def settle(self, reserved_usd: float, spent_usd: float | None) -> None:
        """Free what was reserved, and book what the trial cost; None if nobody knows."""
        with self._settled:
            self._running -= 1
            self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd) if self._running else 0.0
            self.spent_usd += spent_usd or 0.0
            self._settled.notify_all()

    def more(self, usd: float, *, at_least: float = 0.0) -> float:
        """Return how much more is set aside for a trial that runs: so much, or, without room, the least."""
        with self._settled:
            given = usd if self._fits(usd) else at_least
            self.reserved_usd += given
            return given

    def ends(self) -> None:
        """Take in that a trial is ended, as there is no room for its next call."""
        with self._settled:
            self.exhausted = True

    def spend(self, usd: float) -> None:
        """Book what no trial was: a judge's question."""
        with self._settled:
            self.spent_usd += usd

    def close(self) -> None:
        """Set nothing more aside, and let nobody wait for it."""
        with self._settled:
            self._closed = True
            self._settled.notify_all()


class Grading:
    """What an oracle costs that asks a model: set aside at its worst, and put right once it has graded."""

    def __init__(self, budget: Budget, oracle: Oracle | None) -> None:
        self._budget = budget
        self._oracle = oracle
        self.worst_usd: float = getattr(oracle, "worst_usd", 0.0)
        """What grading one run costs at most."""
        self._booked = 0.0

    def begin(self) -> None:
        """Book what was graded so far."""
        self._booked = self._told()
        self._budget.spend(self._booked)

    def graded(self) -> float:
        """Put right what was booked for a run that is graded now, and return what grading it cost."""
        told = self._told()
        cost, self._booked = told - self._booked, told
        self._budget.spend(cost - self.worst_usd)
        return cost

    def _told(self) -> float:
        return getattr(self._oracle, "cost_usd", None) or 0.0


def purse_of(share: Share) -> Purse:
    """Return the purse of a budget that has this share and no more."""
    budget = Budget(share.reserved_usd)
    budget.reserve(share.reserved_usd)
    return Purse(budget, share.reserved_usd, share.call_usd, most_usd=share.most_usd, at_once=share.at_once)


class Purse:
    """What is set aside for one trial: it grows as its calls are paid for, as long as there is room."""

    def __init__(
        self,
        budget: Budget,
        reserved_usd: float,
        call_usd: float,
        *,
        grading_usd: float = 0.0,
        most_usd: float | None = None,
        at_once: int = 1,
    ) -> None:
        """`reserved_usd` is reserved already, and what grading takes beside it.

        `call_usd` is kept aside for each call that runs, and more once one has cost more. `most_usd` is how
        much more a call may take that runs when the budget ends, and `at_once` of how many that was said.
        """
        self._grading = grading_usd
        self._budget = budget
        self._reserved = reserved_usd
        self._call = call_usd
        self._said = most_usd
        self._at_once = at_once
        self._most: tuple[float | None, ...] = ()

    def has_room(self, spent: Spending) -> bool:
        """Return whether a trial may go on that spent so much: its calls have room, or it makes none.

        So an agent that has only its end before it is let be, and what is spent beyond the budget is what
        those calls take that had begun. One that ended without a price is taken to cost what one is kept for.
        """
        self._call = max(self._call, spent.dearest_usd)
        self._most = spent.most_usd
        usd = spent.usd + spent.unpriced * self._call
        lacking = usd + max(self._call, self._kept(spent)) - self._reserved
        if lacking <= _ROUNDING:
            return True
        given = self._budget.more(lacking, at_least=max(0.0, usd - self._reserved))
        self._reserved += given
        goes_on = given >= lacking or not spent.running
        if not goes_on:
            self._budget.ends()
        return goes_on

    @property
    def share(self) -> Share:
        """What is set aside for it by now."""
        return Share(
            reserved_usd=self._reserved, call_usd=self._call, most_usd=self._said, at_once=self._at_once
        )

    def _kept(self, spent: Spending) -> float:
        """Return what is kept for the calls that run: the most that they can cost, but for what was said.

        It was said of so many calls at once, each of so much at most; of these it is what one likely takes.
        """
        told = sorted((one for one in spent.most_usd if one is not None), reverse=True)
        free = self._at_once
        kept = (spent.running - len(told)) * self._call
        for most in told:
            by_what_was_said = self._said is None or most <= self._said + _ROUNDING
            if by_what_was_said and free:
                free -= 1
                kept += min(most, self._call)
            else:
                kept += most
        return kept

    def settle(self, spent_usd: float | None, unpriced: int = 0) -> float:
        """Free what is left; book what the trial cost (None: nobody knows), and its grading at its worst.

        Where so many of its calls are `unpriced`, no less than all that was set aside is booked, and for each
        what the dearest one took, or the most that it could, if it ran when this was looked at last. Return
        what was booked for the trial itself.
        """
        spent = spent_usd or 0.0
        if unpriced:
            told = sorted((one for one in self._most if one is not None), reverse=True)[:unpriced]
            each = sum(max(one, self._call) for one in told) + (unpriced - len(told)) * self._call
            spent = max(spent + each, self._reserved)
        self._budget.settle(self._reserved + self._grading, spent + self._grading)
        return spent

    def failed(self) -> None:
        """Book all that was set aside for the trial, of which nobody knows what it cost, but no grading."""
        self._budget.settle(self._reserved + self._grading, self._reserved)
