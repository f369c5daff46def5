"""Parts of requests as a person reads them: what carries success, and what shows no effect."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..spelling import counted, money
from .output import cell, print_narrow, say, table

if TYPE_CHECKING:
    from ..blaming.parting import Parts
    from ..blaming.result import Tables

_NAME = 60


def print_parts_tried(parts: Parts) -> None:
    """Print what is tried, before anything is spent."""
    say_left_out(parts)
    total = sum(one.tokens for one in parts.parts)
    what = "section" if parts.what == "system" else "tool"
    print(f"parts  {counted(len(parts.parts), what)}, about {counted(total, 'token')} a call together")


def say_left_out(parts: Parts) -> None:
    """Say what of the runs is not tried, and why."""
    for one in parts.told:
        say(one)


def print_parts(tables: Tables, *, every: bool) -> None:
    """Print the finding, the parts that change the outcome, and those that were not seen to."""
    found = tables.experiment
    print(found["message"])
    rows = sorted(tables.effects, key=lambda row: (-abs(row["effect"] or 0.0), row["step"]))
    sure = [row for row in rows if row["verdict"] == "certified"]
    none = [row for row in rows if row["verdict"] == "screened_out"]
    rest = [row for row in rows if row not in sure and row not in none]
    if sure:
        print("\nwhat changes the outcome, taken out of every request:")
        _table(sure, "effect on failure", _effect)
    if none:
        print("\nno effect found, bounded by so much more failure without it (there may be one):")
        _table(sorted(none, key=lambda row: (-(row["tokens"] or 0), row["step"])), "bounded by", _bound)
    if rest:
        print("\nnot settled:")
        _table(rest, "verdict", lambda row: row["verdict"])
    for one in tables.sets:
        _together(one, tables.effects)
    print()
    for row in sorted(tables.effects, key=lambda row: row["step"]) if every else ():
        print(f"{_name(row)}: {row['reason']}")
    print(_meaning(found, none))


def _table(rows: Sequence[Mapping[str, Any]], heading: str, told: Any) -> None:
    shown = table("part", "tokens a call", heading, "fails without", "fails with")
    for row in rows:
        shown.add_row(
            cell(_name(row), _NAME),
            "" if row["tokens"] is None else f"~{row['tokens']}",
            told(row),
            f"{row['flips_treatment']}/{row['n_treatment']}" if row["n_treatment"] else "",
            f"{row['flips_control']}/{row['n_control']}" if row["n_control"] else "",
        )
    print_narrow(shown)


def _name(row: Mapping[str, Any]) -> str:
    return row["part"] or f"part {row['step']}"


def _effect(row: Mapping[str, Any]) -> str:
    return f"{row['effect']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"


def _bound(row: Mapping[str, Any]) -> str:
    if row["ci_high"] is None:
        return "in a group"
    return f"{max(0.0, row['ci_high']):.2f}"


def _together(one: Mapping[str, Any], effects: Sequence[Mapping[str, Any]]) -> None:
    """Print what is known of those without an effect, taken out together."""
    of = [row for row in effects if row["step"] in one["steps"]]
    tokens = sum(row["tokens"] or 0 for row in of)
    print(f"all {len(of)} of those together, about {counted(tokens, 'token')} a call: {one['reason']}")


def _meaning(found: Mapping[str, Any], none: Sequence[Mapping[str, Any]]) -> str:
    """Return what is shown and what is not, and what it takes to know more."""
    plan = json.loads(found["params_json"])
    runs = "this run's task" if plan["strata"] == 1 else f"the tasks of these {plan['strata']} runs"
    said = f"This holds for {runs}, with the models and tools of today."
    if none:
        said += " What shows no effect may still have one up to its bound, and any on other tasks."
    elif not found["forks"]:
        return said
    if none and plan.get("bound") is None:
        forks = math.ceil(_PAIRS / _FINER) * (len(none) + 1)
        usd = found["spent_usd"] / found["forks"] * forks if found["spent_usd"] else 0.0
        price = f", {money(usd)}" if usd else ""
        said += f" For bounds of {_FINER} each: --bound {_FINER}, about {forks} forks{price} or more."
    if plan["strata"] == 1:
        said += " For more tasks name more runs."
    return said


_FINER = 0.15
_PAIRS = 5
"""Pairs that show a bound, times it, of an agent whose re-runs never fail."""
