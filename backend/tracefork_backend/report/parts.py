"""What an experiment on parts of requests says to people: its two tables, what they mean, and its page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from ..spelling import counted, money
from .wording import Tone

if TYPE_CHECKING:
    from ..blaming.result import Tables

CHANGES = "what changes the outcome, taken out of every request"
NONE_FOUND = "no effect found, bounded by so much more failure without it (there may be one)"
UNSETTLED = "not settled"

_FINER = 0.15
_PAIRS = 5
"""Pairs that show a bound, times it, of an agent whose re-runs never fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsTold:
    """An experiment on parts, its rows as `Tables` has them, by what is known of them."""

    tables: Tables
    sure: Sequence[Mapping[str, Any]]
    """The parts that change the outcome, those that do most first."""
    none: Sequence[Mapping[str, Any]]
    """Those that showed no effect, the longest first."""
    rest: Sequence[Mapping[str, Any]]

    @property
    def plan(self) -> Mapping[str, Any]:
        """What the experiment set out to do."""
        return json.loads(self.tables.experiment["params_json"])

    @property
    def runs(self) -> str:
        """The runs that it is about, in words."""
        strata = self.plan["strata"]
        return "this run's task" if strata == 1 else f"the tasks of these {strata} runs"

    @property
    def together(self) -> tuple[str, ...]:
        """What is known of those without an effect, taken out together."""
        return tuple(_together(one, self.tables.effects) for one in self.tables.sets)

    @property
    def meaning(self) -> str:
        """What is shown and what is not, and what it takes to know more."""
        found, plan = self.tables.experiment, self.plan
        said = f"This holds for {self.runs}, with the models and tools of today."
        if self.none:
            said += " What shows no effect may still have one up to its bound, and any on other tasks."
        elif not found["forks"]:
            return said
        if self.none and plan.get("bound") is None:
            forks = math.ceil(_PAIRS / _FINER) * (len(self.none) + 1)
            usd = found["spent_usd"] / found["forks"] * forks if found["spent_usd"] else 0.0
            price = f", {money(usd)}" if usd else ""
            said += f" For bounds of {_FINER} each: --bound {_FINER}, about {forks} forks{price} or more."
        if plan["strata"] == 1:
            said += " For more tasks name more runs."
        return said

    @property
    def headline(self) -> str:
        """The finding in one short sentence."""
        if self.tables.experiment["stop_reason"] == "aborted":
            return "Nothing could be found out: no fork could be graded."
        if len(self.sure) == 1:
            (row,) = self.sure
            return f"{name(row)} {'carries' if row['effect'] > 0 else 'costs'} success."
        if self.sure:
            return f"{len(self.sure)} of {len(self.tables.effects)} parts change how often the run fails."
        if any(one["verdict"] == "certified" for one in self.tables.sets):
            return "No part alone was seen to matter, but together they do."
        return "No part was shown to matter."

    @property
    def when(self) -> str:
        """The minute in which it began."""
        return f"{self.tables.experiment['created_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def parts_told(tables: Tables) -> PartsTold:
    """Return the rows of an experiment on parts as people read them."""
    rows = sorted(tables.effects, key=lambda row: (-abs(row["effect"] or 0.0), row["step"]))
    sure = [row for row in rows if row["verdict"] == "certified"]
    none = [row for row in rows if row["verdict"] == "screened_out"]
    return PartsTold(
        tables=tables,
        sure=sure,
        none=sorted(none, key=lambda row: (-(row["tokens"] or 0), row["step"])),
        rest=[row for row in rows if row not in sure and row not in none],
    )


def name(row: Mapping[str, Any]) -> str:
    """Return what a part is called."""
    return row["part"] or f"part {row['step']}"


def effect(row: Mapping[str, Any]) -> str:
    """Return how much more often the run fails without a part that matters, with its interval."""
    return f"{row['effect']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"


def bound(row: Mapping[str, Any]) -> str:
    """Return how much more often the run may fail without a part that showed no effect."""
    return "in a group" if row["ci_high"] is None else f"{max(0.0, row['ci_high']):.2f}"


def verdict(row: Mapping[str, Any]) -> str:
    """Return what is decided of a part of which nothing is shown."""
    grouped = row["verdict"] == "inconclusive" and not row["n_treatment"]
    return f"{row['verdict']}, in a group" if grouped else row["verdict"]


def fails(row: Mapping[str, Any], arm: str) -> str:
    """Return how many forks of an arm failed, of those that were made."""
    return f"{row[f'flips_{arm}']}/{row[f'n_{arm}']}" if row[f"n_{arm}"] else ""


def tone(row: Mapping[str, Any]) -> Tone:
    """Return how loudly to show a part."""
    return {"certified": "cause", "screened_out": "clear", "inconclusive": "open"}.get(  # type: ignore[return-value]
        row["verdict"], "quiet"
    )


def _together(one: Mapping[str, Any], effects: Sequence[Mapping[str, Any]]) -> str:
    of = [row for row in effects if row["step"] in one["steps"]]
    tokens = sum(row["tokens"] or 0 for row in of)
    return f"all {len(of)} of those together, about {counted(tokens, 'token')} a call: {one['reason']}"
