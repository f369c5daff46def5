"""Forks and matrices as a person reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..spelling import NOT_GRADED, at_least, ending, money, outcome_word, run_name, total_money
from .output import cell, console, growing, print_json, print_text, say, table

if TYPE_CHECKING:
    from rich.table import Table

    from ..matrices.gate import Gated
    from ..matrices.matrix import Cell, Matrix
    from ..rerun.result import Fork

_OUTPUT = 200


def print_fork(fork: Fork, *, of: str) -> None:
    """Print what came of one fork, and where to look next; `of` is the name that was typed."""
    from ..writeback.names import jaeger_url

    print(headline(fork))
    # What it came to stands at the end: libraries print of themselves when they begin.
    output = ending(cell(fork.output, sys.maxsize), _OUTPUT) or ending(fork.last_text or "", _OUTPUT)
    if output:
        print(f"output  {output}")
    if fork.held is not None:
        print(f"scope   {fork.scope}: {fork.held}")
    if fork.reconverged_at is not None:
        print(f"at step {fork.reconverged_at} it is back at its parent's requests")
    if fork.tools is not None:
        print(f"tools   {fork.tools}")
    for note in fork.notes:
        print(f"note    {note}")
    url = jaeger_url(fork.run_id)
    if fork.forked_at is not None:
        # Of a tape the run may be in no store here.
        kept = fork.store is not None and fork.store.has_run(fork.parent_run_id)
        parent = run_name(fork.parent_run_id) if kept else shlex.quote(of)
        print(f"compare: tracefork-otel diff {parent} {run_name(fork.run_id)}")
    if url:
        print(f"jaeger: {url}")
    if page := _page(fork):
        print(f"page: {page}")
    if fork.problem is not None:
        say(f"error: {fork.problem}")


def _page(fork: Fork) -> str | None:
    """Return where a page shows the fork beside its parent, None where none is there."""
    from ..store.shown import page_url

    if fork.store is None or fork.forked_at is None or not fork.store.has_run(fork.parent_run_id):
        return None
    return page_url(fork.store.path, f"/diff/{run_name(fork.parent_run_id)}/{run_name(fork.run_id)}")


def headline(fork: Fork) -> str:
    """Return the fork in one line."""
    from ..rerun.edits import KINDS

    calls = [f"{fork.calls_replayed} served"]
    if fork.forked_at is not None and KINDS[fork.kind].edited:
        calls.append("1 edited")
    calls.append(f"{fork.calls_live} live")
    if fork.calls_memo:
        calls.append(f"{fork.calls_memo} from memory")
    parts = [f"fork {run_name(fork.run_id)} of {run_name(fork.parent_run_id)}@{fork.step}", ", ".join(calls)]
    parts.append(total_money(fork.cost_usd, fork.unpriced))
    parts.append(f"outcome: {_outcome(fork)}")
    return " · ".join(parts)


def _outcome(fork: Fork) -> str:
    if fork.outcome is not None:
        return outcome_word(fork.outcome)
    if fork.problem is not None and fork.problem.kind != "exit_status":
        return fork.problem.kind.replace("_", " ")
    return NOT_GRADED if fork.exit_status is None else f"{NOT_GRADED}, exit status {fork.exit_status}"


def fork_row(fork: Fork) -> dict[str, Any]:
    """Return the fork as JSON."""
    row = {
        field.name: getattr(fork, field.name) for field in dataclasses.fields(fork) if field.name != "store"
    }
    row["held_partly"] = dict(fork.held_partly)
    for name in ("drift", "problem"):
        row[name] = None if row[name] is None else dataclasses.asdict(row[name])
    row["leaks"] = [dataclasses.asdict(leak) for leak in fork.leaks]
    return row


def print_matrix(made: Matrix) -> None:
    """Print the table and what it comes to."""
    console().print(matrix_table(made))
    for line in made.scopes():
        print_text(f"scope   {line}")
    print(made.summary())


def print_gate(gated: Sequence[Gated]) -> None:
    """Print what a gate says of each cell, one a line."""
    for one in gated:
        print_text(f"gate    {one.end}: {one.text}")


def matrix_table(made: Matrix) -> Table:
    """Return the table of the cells, one a line."""
    shown = table(
        "RUN", "VARIANT", "FORKS", "SUCCESS", "FAILURE", "NOT GRADED", "RATE", "95 %", "COST", "WAS", "",
        right=("FORKS", "SUCCESS", "FAILURE", "NOT GRADED", "RATE", "COST"), grow=("VARIANT", ""),
    )  # fmt: skip
    for one in made.cells:
        graded = made.oracle is not None
        shown.add_row(
            f"{run_name(one.run_id)}@{one.step}",
            one.variant,
            f"{len(one.forks)}/{one.wanted}" if one.possible else "-",
            str(one.passed) if graded else "",
            str(one.failed) if graded else "",
            str(one.undefined) if graded else "",
            "" if one.pass_rate is None else f"{one.pass_rate:.0%}",
            "" if one.interval is None else f"{one.interval[0]:.0%} to {one.interval[1]:.0%}",
            at_least(one.cost_usd, one.unpriced) if one.forks else "",
            outcome_word(one.parent_outcome, NOT_GRADED if graded else ""),
            _remark(one),
        )
    return shown


def _remark(one: Cell) -> str:
    problems = [f"{count}× {kind.replace('_', ' ')}" for kind, count in one.problems.items()]
    return "; ".join([*problems, *([one.why] if one.why else [])])


def print_bound(planned: Matrix, jobs: int) -> None:
    """Say before anything is paid by how much a budget can be passed."""
    if planned.budget_usd is not None and planned.estimate.call_usd:
        say(f"budget {money(planned.budget_usd)}: {planned.estimate.beyond(min(jobs, planned.wanted))}")


def print_plan(planned: Matrix, *, judge_usd: float, as_json: bool) -> None:
    """Print what each cell would take, and all of them; and what the judge of each ending may take."""
    # Of a single fork it is not asked how its run ended.
    runs = len({one.run_id for one in planned.cells}) if planned.wanted > 1 else 0
    judge_usd *= planned.wanted + runs
    if as_json:
        rows = {"estimate": str(planned.estimate), "cells": planned.rows()}
        print_json({**rows, "judge_worst_usd": judge_usd})
        return
    shown = table(
        "RUN", "VARIANT", "FORKS", "CALLS", "COST", "", right=("FORKS", "CALLS", "COST"), grow=("VARIANT", "")
    )
    for one in planned.cells:
        expected = one.estimate
        shown.add_row(
            f"{run_name(one.run_id)}@{one.step}",
            one.variant,
            str(one.wanted) if expected else "-",
            str(expected.calls * one.wanted) if expected else "",
            at_least(expected.cost_usd * one.wanted, len(expected.unknown)) if expected else "",
            one.why
            or (f"price unknown: {', '.join(expected.unknown)}" if expected and expected.unknown else ""),
        )
    console().print(shown)
    judge = f", and up to {money(judge_usd)} for the judge" if judge_usd else ""
    print(f"estimate: {planned.wanted} forks, {planned.estimate}{judge}; nothing was started")


@contextlib.contextmanager
def progress(*, single: bool) -> Iterator[Callable[[Matrix], None]]:
    """Yield what is told of a growing matrix, and shows it if not `single`.

    Where the block is interrupted it is said what was made, and that it is kept.
    """
    from rich.console import Group

    made: list[Matrix] = []
    with contextlib.ExitStack() as stack:
        tell = None if single else stack.enter_context(growing("", per_second=8))

        def on_change(now: Matrix) -> None:
            made[:] = [now]
            if tell is not None:
                tell(now.summary(), Group(matrix_table(now), now.summary()))

        try:
            yield on_change
        except KeyboardInterrupt:
            stack.close()
            kept = f"; made so far, and kept: {made[0].summary()}" if made and not single else ""
            say(f"interrupted{kept}")
            raise
