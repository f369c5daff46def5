"""Forks and matrices as a person reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..spelling import money
from .output import cell, console, print_json, say, table

if TYPE_CHECKING:
    from rich.table import Table

    from ..matrices.matrix import Cell, Matrix
    from ..rerun.result import Fork

_OUTPUT = 200


def print_fork(fork: Fork) -> None:
    """Print what came of one fork, and where to look next."""
    from ..writeback.names import jaeger_url

    print(headline(fork))
    output = cell(fork.output, _OUTPUT) or cell(fork.last_text, _OUTPUT)
    if output:
        print(f"output  {output}")
    if fork.reconverged_at is not None:
        print(f"at step {fork.reconverged_at} it is back at its parent's requests")
    if fork.tools is not None:
        print(f"tools   {fork.tools}")
    for note in fork.notes:
        print(f"note    {note}")
    url = jaeger_url(fork.run_id)
    if fork.forked_at is not None:
        print(f"compare: tracefork-otel diff {fork.parent_run_id[:8]} {fork.run_id[:8]}")
    if url:
        print(f"jaeger: {url}")
    if fork.problem is not None:
        say(f"error: {fork.problem}")


def headline(fork: Fork) -> str:
    """Return the fork in one line."""
    from ..rerun.edits import KINDS

    calls = [f"{fork.calls_replayed} served"]
    if fork.forked_at is not None and KINDS[fork.kind].edited:
        calls.append("1 edited")
    calls.append(f"{fork.calls_live} live")
    if fork.calls_memo:
        calls.append(f"{fork.calls_memo} from memory")
    parts = [f"fork {fork.run_id[:8]} of {fork.parent_run_id[:8]}@{fork.step}", ", ".join(calls)]
    parts.append(money(fork.cost_usd) if fork.cost_usd is not None else "cost unknown")
    if fork.unpriced and fork.cost_usd is not None:
        parts[-1] += f" and {fork.unpriced} calls of unknown price"
    parts.append(f"outcome: {_outcome(fork)}")
    return " · ".join(parts)


def _outcome(fork: Fork) -> str:
    if fork.outcome is not None:
        return "success" if fork.outcome else "failure"
    if fork.problem is not None:
        return fork.problem.kind.replace("_", " ")
    return "not graded" if fork.exit_status is None else f"not graded, exit status {fork.exit_status}"


def fork_row(fork: Fork) -> dict[str, Any]:
    """Return the fork as JSON."""
    row = {
        field.name: getattr(fork, field.name) for field in dataclasses.fields(fork) if field.name != "store"
    }
    for name in ("drift", "problem"):
        row[name] = None if row[name] is None else dataclasses.asdict(row[name])
    row["leaks"] = [dataclasses.asdict(leak) for leak in fork.leaks]
    return row


def print_matrix(made: Matrix) -> None:
    """Print the table and what it comes to."""
    console().print(matrix_table(made))
    print(made.summary())


def matrix_table(made: Matrix) -> Table:
    """Return the table of the cells, one a line."""
    shown = table(
        "RUN", "VARIANT", "FORKS", "PASS", "FAIL", "?", "RATE", "95 %", "COST", "WAS", "",
        right=("FORKS", "PASS", "FAIL", "?", "RATE", "COST"), grow=("VARIANT", ""),
    )  # fmt: skip
    for one in made.cells:
        graded = made.oracle is not None
        shown.add_row(
            f"{one.run_id[:8]}@{one.step}",
            one.variant,
            f"{len(one.forks)}/{one.wanted}" if one.possible else "-",
            str(one.passed) if graded else "",
            str(one.failed) if graded else "",
            str(one.undefined) if graded else "",
            "" if one.pass_rate is None else f"{one.pass_rate:.0%}",
            "" if one.interval is None else f"{one.interval[0]:.0%} to {one.interval[1]:.0%}",
            money(one.cost_usd) + (" + ?" if one.unpriced else "") if one.forks else "",
            {True: "success", False: "failure", None: ""}[one.parent_outcome],
            _remark(one),
        )
    return shown


def _remark(one: Cell) -> str:
    problems = [f"{count}× {kind.replace('_', ' ')}" for kind, count in one.problems.items()]
    return "; ".join([*problems, *([one.why] if one.why else [])])


def print_plan(planned: Matrix, *, as_json: bool) -> None:
    """Print what each cell would take, and all of them."""
    if as_json:
        print_json({"estimate": str(planned.estimate), "cells": planned.rows()})
        return
    shown = table(
        "RUN", "VARIANT", "FORKS", "CALLS", "COST", "", right=("FORKS", "CALLS", "COST"), grow=("VARIANT", "")
    )
    for one in planned.cells:
        expected = one.estimate
        shown.add_row(
            f"{one.run_id[:8]}@{one.step}",
            one.variant,
            str(one.wanted) if expected else "-",
            str(expected.calls * one.wanted) if expected else "",
            money(expected.cost_usd * one.wanted) if expected else "",
            one.why
            or (f"price unknown: {', '.join(expected.unknown)}" if expected and expected.unknown else ""),
        )
    console().print(shown)
    print(f"estimate: {planned.wanted} forks, {planned.estimate}; nothing was started")


@contextlib.contextmanager
def progress(*, single: bool) -> Iterator[Callable[[Matrix], None] | None]:
    """Yield what shows a growing matrix on a terminal's standard error; None for a single fork or a pipe."""
    if single or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console, Group
    from rich.live import Live

    with Live(console=Console(stderr=True, highlight=False), transient=True, refresh_per_second=8) as live:
        yield lambda made: live.update(Group(matrix_table(made), made.summary()))
