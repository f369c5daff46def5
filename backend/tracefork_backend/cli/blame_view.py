"""Blame as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..spelling import at_least, counted, money, total_money
from .output import cell, print_narrow, table
from .parts_view import print_parts

if TYPE_CHECKING:
    from ..blaming.experiment import Progress
    from ..blaming.forecast import Estimate
    from ..blaming.result import Tables

_LEADERS = 3
_PREVIEW = 60
_LIMITS = {"budget": "--budget USD", "max_trials": "--max-trials N"}
"""What to raise where an experiment ended at it."""


def print_estimate(found: Estimate, budget: float | None, *, what: str = "step") -> None:
    """Print what an experiment would take, before anything is spent."""
    print(f"forks  {found.forks_median} typically, {found.forks_p95} in 19 of 20 experiments")
    left_out = len(found.unknown)
    typical, most, none = (
        at_least(usd, left_out) for usd in (found.cost_median, found.cost_p95, found.null_cost_mean)
    )
    print(f"cost   {typical} typically, {most} in 19 of 20")
    for why in found.unknown:
        print(f"       left out: {why}; say it with --price MODEL=IN/OUT")
    if found.judge_usd:
        aside = "" if budget is None else f"; the budget sets {money(found.judge_worst_usd)} aside for each"
        print(f"       with the judge, {money(found.judge_usd)} for an ending like the recorded one{aside}")
    within = "" if budget is None else f" within {money(budget)}"
    print(f"chance of a verdict{within}: {found.chance:.0%}, if {found.assumed}")
    print(f"if no {what} has one: {found.null_forks_mean:.0f} forks, {none}")


def print_experiment(tables: Tables, *, every: bool) -> None:
    """Print the finding and the steps that have something to say, or every step with its reason."""
    found = tables.experiment
    if found["mode"] == "parts":
        print_parts(tables, every=every)
    else:
        _print_steps(tables, every=every)
    _print_footer(found)
    if not every:
        why = "each is judged so" if found["mode"] == "parts" else "a step is not named"
        print(f"why {why}: tracefork-otel blame show {found['experiment_id'][:8]}")
    print_limit(found, f"blame resume {found['experiment_id'][:8]}")


def _print_steps(tables: Tables, *, every: bool) -> None:
    found = tables.experiment
    print(found["message"])
    rows = sorted(tables.effects, key=lambda row: (row["rank"] is None, row["rank"] or 0, row["step"]))
    shown = table("step", "verdict", "effect", "interval", "flips", "control", "what it answered")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["rank"] is None and not every:
            continue
        shown.add_row(
            str(row["step"]),
            row["verdict"] + (" (root)" if row["is_root"] else ""),
            "" if row["effect"] is None else f"{row['effect']:+.2f}",
            "" if row["ci_low"] is None else f"{row['ci_low']:.2f} to {row['ci_high']:.2f}",
            f"{row['flips_treatment']}/{row['n_treatment']}" if row["n_treatment"] else "",
            f"{row['flips_control']}/{row['n_control']}" if row["n_control"] else "",
            cell(row["preview"], _PREVIEW),
        )
        reasons.setdefault(row["reason"], []).append(str(row["step"]))
    if shown.row_count:
        print_narrow(shown)
    for reason, steps in reasons.items() if every else ():
        print(f"step{'s' * (len(steps) > 1)} {', '.join(steps)}: {reason}")
    for one in tables.sets:
        print(f"steps {one['set_id']} together: {one['verdict']} ({one['reason']})")


def _print_footer(found: Mapping[str, Any]) -> None:
    """Print what the experiment was, and what it took."""
    from ..blaming.modes import mode_found

    controls = f", {found['controls']} of them controls" if mode_found(found["mode"]).counts_controls else ""
    print(
        f"experiment {found['experiment_id']} · {found['mode']}, {found['perturbation']}{_coupled(found)} · "
        f"{counted(found['forks'], 'fork')}{controls} · {_spent(found)} · ended: {found['stop_reason']}"
    )
    if found["oracle_note"]:
        grading = "price not known"
        if found["grading_usd"] is not None:
            grading = total_money(found["grading_usd"], found["grading_unpriced"], what="answer")
        print(f"{found['oracle_name']}: {found['oracle_note']} · {grading}")


def print_limit(found: Mapping[str, Any], verb: str) -> None:
    """Print by which verb to go on where a limit ended an experiment, or a search."""
    if found["stop_reason"] in _LIMITS:
        print(f"to go on: tracefork-otel {verb} {_LIMITS[found['stop_reason']]}")


def _coupled(found: Mapping[str, Any]) -> str:
    return ", coupling recorded" if found["coupling"] == "recorded" else ""


def _spent(found: Mapping[str, Any]) -> str:
    # Of an experiment that an older version made only the forks without a price are known.
    spent = total_money(found["spent_usd"], found["unpriced"] or found["unpriced_forks"])
    lost = money(found["lost_usd"])
    return f"{spent}, {lost} of it by forks that were lost when it was killed" if found["lost_usd"] else spent


def progress_line(progress: Progress) -> str:
    """Return the experiment as it runs, in a line or two."""
    found = progress.findings
    lines = [
        f"{progress.phase}: {progress.forks} forks, {money(progress.spent_usd)} spent, "
        f"{money(progress.reserved_usd)} reserved"
    ]
    for step in found.ranking[:_LEADERS]:
        effect = found.effects[step]
        moved = "" if effect.effect is None else f" {effect.effect:+.2f}"
        sure = "" if effect.ci_low is None else f" ({effect.ci_low:.2f} to {effect.ci_high:.2f})"
        lines.append(f"  {'part' if found.mode == 'parts' else 'step'} {step}: {effect.verdict}{moved}{sure}")
    return "\n".join(lines)
