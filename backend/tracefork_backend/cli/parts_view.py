"""Parts of requests as a person reads them: what carries success, and what shows no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report import parts as told_of
from ..spelling import counted
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
    told = told_of.parts_told(tables)
    print(tables.experiment["message"])
    for heading, column, value, rows in (
        (told_of.CHANGES, "effect on failure", told_of.effect, told.sure),
        (told_of.NONE_FOUND, "bounded by", told_of.bound, told.none),
        (told_of.UNSETTLED, "verdict", told_of.verdict, told.rest),
    ):
        if rows:
            print(f"\n{heading}:")
            _table(rows, column, value)
    for line in told.together:
        print(line)
    print()
    for row in sorted(tables.effects, key=lambda row: row["step"]) if every else ():
        print(f"{told_of.name(row)}: {row['reason']}")
    print(told.meaning)


def _table(
    rows: Sequence[Mapping[str, Any]], heading: str, value: Callable[[Mapping[str, Any]], str]
) -> None:
    shown = table("part", "tokens a call", heading, "fails without", "fails with")
    for row in rows:
        shown.add_row(
            cell(told_of.name(row), _NAME),
            "" if row["tokens"] is None else f"~{row['tokens']}",
            value(row),
            told_of.fails(row, "treatment"),
            told_of.fails(row, "control"),
        )
    print_narrow(shown)
