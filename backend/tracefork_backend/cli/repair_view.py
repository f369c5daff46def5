"""Repairs as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..spelling import counted, money, run_name, total_money

if TYPE_CHECKING:
    from ..repairing.carrying import Carried
    from ..repairing.repair import Progress
    from ..repairing.result import Repair, RepairResult


def summary(result: RepairResult) -> dict[str, Any]:
    """Return what was found for machines."""
    return {
        **result.search_row(),
        "left": list(result.left),
        "proposing_usd": result.proposing_usd,
        "repairs": result.rows(),
    }


def print_result(result: RepairResult) -> None:
    """Print what repairs the run, how that is known, and what else was tried."""
    from ..repairing.result import SOURCES

    if not result.confirmed:
        print(result.message)
    for one in sorted(result.repairs, key=lambda one: one.verdict != "confirmed"):
        if one.verdict == "confirmed":
            _print_confirmed(one)
        elif one.tried.forks or not result.confirmed:
            print(f"step {one.step}: {one.words} ({SOURCES[one.candidate.source]}): {one.tried.reason}")
    for why in result.left:
        print(f"not tried: {why}")
    if result.proposing_usd:
        print(f"asking for changes cost {money(result.proposing_usd)}, counted below")
    print(
        f"repair {result.repair_id} · {counted(len(result.trials), 'fork')} · "
        f"{total_money(result.cost_usd, result.unpriced)} · ended: {result.verdict}"
    )


def _print_confirmed(one: Repair) -> None:
    shown, whole = one.tried.measured, len(one.candidate.all)
    less = f" ({len(one.tried.kept)} of {whole} differences)" if whole > 1 else ""
    print(f"step {one.step}: {one.words}{less}")
    print(
        f"  success {shown['flips_treatment']}/{shown['n_treatment']} with it, "
        f"{shown['flips_control']}/{shown['n_control']} without, on fresh forks · "
        f"effect {shown['effect']:+.2f}, {shown['ci_low']:.2f} to {shown['ci_high']:.2f}"
    )
    if one.without:
        print(f"  what else differed did not matter: {one.without}")
    if not one.tried.minimal:
        print("  it may not be the smallest: shrinking it ended at its share of the budget")
    if one.edit.answers:
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
