"""Finished searches for repairs, read from the store as they were written."""

from __future__ import annotations

from typing import Any

from tracefork_otel.errors import UsageError

from ..blaming.journal import REPAIR, experiments, path_of, read, the_one
from ..spelling import counted
from ..store import Store


def stored_search(store: Store, prefix: str) -> dict[str, Any]:
    """Return the one finished search whose id begins so, as `RepairResult` tells it; `last` is the newest.

    Raises UsageError also where that one was interrupted, or is not done.
    """
    rows = {row["repair_id"]: row for row in store.ask("repair_searches")}
    begun = experiments(store.path, REPAIR)
    known = [*(one for one in rows if one not in begun), *begun]
    repair_id = the_one(known, prefix, "search for repairs", made_by="repair RUN")
    if repair_id not in rows:
        _, trials, _ = read(path_of(store.path, repair_id, REPAIR))
        raise UsageError(
            f"search {repair_id[:8]} has not ended, after {counted(len(trials), 'fork')}: where it was "
            f"interrupted, go on with `tracefork-otel repair resume {repair_id[:8]}`"
        )
    return {**rows[repair_id], "repairs": store.ask("repair_candidates", id=repair_id)}
