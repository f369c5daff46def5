"""What trials cost that ran when their experiment was ended: paid for, though its journal has them not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..rerun.most import most_of_open
from ..rerun.records import went_live
from ..store import Store
from ..store.prices import NONE_GIVEN, Bill, Given, bill
from .journal import TrialRecord


class Lost(NamedTuple):
    """What one of them took."""

    bill: Bill
    most_usd: tuple[float | None, ...]
    """What each of its calls can have cost at most that had not ended; None where nothing tells."""

    def at_most(self, call_usd: float) -> float:
        """Return what it can have cost at most, where a call that nothing tells of may cost so much."""
        told = sum(max(one or 0.0, call_usd) for one in self.most_usd)
        return self.bill.usd + told + (self.bill.unpriced - len(self.most_usd)) * call_usd


def lost_trials(
    store: Store, experiment_id: str, trials: Iterable[TrialRecord], prices: Given = NONE_GIVEN
) -> list[Lost]:
    """Return what each run of the experiment took that is none of these trials."""
    ran = {row["run_id"] for row in store.ask("trials_that_ran", id=experiment_id)}
    found: list[Lost] = []
    for run_id in ran - {one.run_id for one in trials}:
        live = [one for one in store.exchanges(run_id) if went_live(one)]
        told = bill(live, prices)
        running = [one for one in live if one.outcome == "in_flight" and bill([one], prices).unpriced]
        found.append(Lost(told, tuple(most_of_open(one, given=prices) for one in running)))
    return found
