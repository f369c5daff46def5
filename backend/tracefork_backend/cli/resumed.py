"""What a journal says was asked for, to go on with under the limits that are given now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Resumed(NamedTuple):
    """An experiment, or a search for repairs, as it is gone on with."""

    header: Mapping[str, Any]
    asked: dict[str, Any]
    budget_usd: float | None


def asked_before(
    path: Path,
    *,
    budget: float | None,
    max_trials: int | None,
    price: Sequence[str],
    trust: bool,
) -> Resumed:
    """Return what the journal there was begun with; limits that are not given are those of then.

    Raises UsageError where what it would start is not trusted.
    """
    from ..blaming import journal

    header, _, _ = journal.read(path)
    settings = journal.settings_of(header, path)
    journal.check_from_here(header, settings, trust=trust)
    known = journal.limits_of(header)
    how = {**settings["how"], "max_trials": max_trials or known["max_trials"]}
    how["price"] = [*how.get("price", ()), *price]
    asked = {**settings, "how": how}
    return Resumed(header, asked, known["budget_usd"] if budget is None else budget)
