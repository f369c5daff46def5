"""What trials cost that ran when their experiment was ended: paid for, though its journal has them not."""

from __future__ import annotations

from collections.abc import Iterable

from ..rerun.records import went_live
from ..store import Store
from ..store.prices import NONE_GIVEN, Bill, Given, bill
from .journal import TrialRecord


def lost_bills(
    store: Store, experiment_id: str, trials: Iterable[TrialRecord], prices: Given = NONE_GIVEN
) -> list[Bill]:
    """Return a bill for each run of the experiment that is none of these trials."""
    ran = {row["run_id"] for row in store.ask("trials_that_ran", id=experiment_id)}
    lost = ran - {one.run_id for one in trials}
    return [bill(filter(went_live, store.exchanges(run_id)), prices) for run_id in lost]
