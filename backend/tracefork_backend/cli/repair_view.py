"""Repairs as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..spelling import counted, money, run_name, total_money
from .blame_view import print_limit

if TYPE_CHECKING:
    from ..repairing.carrying import Carried
    from ..repairing.repair import Progress


def print_search(found: Mapping[str, Any]) -> None:
    """Print what repairs the run, how that is known, and what else was tried."""
    from ..repairing.result import SOURCES

    rows: Sequence[Mapping[str, Any]] = found["repairs"]
    confirmed = [row for row in rows if row["verdict"] == "confirmed"]
    if not confirmed:
        print(found["message"])
    for row in (*confirmed, *(row for row in rows if row["verdict"] != "confirmed")):
        if row["verdict"] == "confirmed":
            _print_confirmed(row)
        elif row["forks"] or not confirmed:
            source = SOURCES.get(row["source"], row["source"])
            print(f"step {row['step']}: {row['change']} ({source}): {row['reason']}")
    for why in found["left"] or ():
        print(f"not tried: {why}")
    if found["proposing_usd"]:
        print(f"asking for changes cost {money(found['proposing_usd'])}, counted below")
    print(
        f"repair {found['repair_id']} · {counted(found['forks'], 'fork')} · "
        f"{total_money(found['spent_usd'], found['unpriced'])} · ended: {found['verdict']}"
    )
    print_limit(found, f"repair resume {found['repair_id'][:8]}")


def _print_confirmed(row: Mapping[str, Any]) -> None:
    less = f" ({row['parts']} of {row['parts_tried']} differences)" if row["parts_tried"] > 1 else ""
    print(f"step {row['step']}: {row['change']}{less}")
    print(
        f"  success {row['flips_treatment']}/{row['n_treatment']} with it, "
        f"{row['flips_control']}/{row['n_control']} without, on fresh forks · "
        f"effect {row['effect']:+.2f}, {row['ci_low']:.2f} to {row['ci_high']:.2f}"
    )
    if row["without"]:
        print(f"  what else differed did not matter: {row['without']}")
    if not row["minimal"]:
        print("  it may not be the smallest: shrinking it ended at its share of the budget")
    if row["ends"]:
        print("  the agent asks nothing after it: it may be no more than what is graded, and no repair")
    elif row["answers"]:
        print("  another answer shows what went wrong; a prompt, a tool or a model has to change for good")


def print_carried(beside: Carried) -> None:
    """Print what the repair does to other runs."""
    low, high = beside.interval
    shown = f" (interval {low:.2f} to {high:.2f})" if beside.checked else ""
    print(
        f"on {counted(beside.checked, 'other recorded run')}: {len(beside.same)} as without it, "
        f"{len(beside.better)} better, {len(beside.worse)} worse{shown} · "
        f"{counted(beside.forks, 'fork')} · {total_money(beside.cost_usd, beside.unpriced)}"
    )
    for run_id in beside.worse:
        print(f"  worse: {run_name(run_id)}")
    if beside.left:
        print(f"  not told of {counted(len(beside.left), 'run')}: {', '.join(map(run_name, beside.left))}")


def progress_line(progress: Progress) -> str:
    """Return the search as it runs, in a line."""
    return (
        f"{counted(progress.forks, 'fork')}, {money(progress.spent_usd)} spent, "
        f"{money(progress.reserved_usd)} reserved"
    )
