"""`fork`: replay a run up to a step, change one thing there, and let the agent go on; or a matrix of that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracefork_otel.errors import UsageError

from . import fork_view as view
from .flags.edit import EditFlags
from .flags.options import (
    STORE,
    BudgetOption,
    EstimateOption,
    JsonOption,
    PriceOption,
    StoreOption,
    valued,
)
from .flags.oracle import OracleFlags
from .flags.start import ReplayFlags, TailOption
from .flags.workers import WorkerFlags
from .interrupt import terminable
from .opening import reading, told
from .output import FAILED, FINDING, print_json, say
from .refs import named_step, split
from .summary import Checked, tell_ci

if TYPE_CHECKING:
    from ..matrices.matrix import Matrix
    from ..rerun.edits import Edit


def fork(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="RUN@STEP…", help="`last@3`, a prefix or a tape file @ a step."),
    ],
    *,
    store: StoreOption = STORE,
    edit: EditFlags,
    edit_file: Annotated[
        Path | None,
        valued("--edit", "FILE", "The edit of the step in this file, such as `repair --keep` writes."),
    ] = None,
    tail: TailOption = "live",
    times: Annotated[int, typer.Option("--times", min=1, help="Forks of each.")] = 1,
    workers: WorkerFlags,
    oracle: OracleFlags,
    budget: BudgetOption = None,
    price: PriceOption = [],  # noqa: B006
    estimate: EstimateOption = False,
    gate: Annotated[
        str | None,
        valued("--gate", "RULE", "Exit 1 unless each cell is shown to keep it: 'pass_rate >= 0.8'."),
    ] = None,
    start: ReplayFlags,
    as_json: JsonOption = False,
) -> int:
    """Fork a run at a step: what came before is replayed, one thing is changed, and the agent goes on.

    What is changed in the request by --set, --system and --model is one change; a flag given twice makes
    variants. Exit 1 if the agent left its tape before the step, 3 if the agent or the model failed.
    """
    from ..matrices.gate import Gate
    from ..matrices.matrix import matrix, plan
    from ..store.prices import rates_given

    trials: dict[str, Any] = {"times": times, "tail": tail, "oracle": oracle.asked(), "budget_usd": budget}
    trials["prices"] = rates_given(price)
    kept = None if gate is None else Gate.asked(gate)
    if kept is not None and trials["oracle"] is None:
        raise UsageError("--gate counts successes: say what one is, such as --success-re BOOKED")
    with terminable(), reading(store) as opened:
        runs_at = [named_step(opened, ref) for ref in refs]
        edits = edit.asked() if edit_file is None else _of_file(edit_file, edit, [at for _, at in runs_at])
        if estimate:
            planned = plan(runs_at, edits, agent=start.agent, timeout=start.timeout, **trials)
            judge_usd = getattr(trials["oracle"], "worst_usd", 0.0)
            view.print_plan(planned, judge_usd=judge_usd, as_json=as_json)
            return 0
        single = len(runs_at) * len(edits) * times == 1
        with workers.at_work(1) as now, view.progress(single=single) as on_change:
            made = matrix(
                runs_at,
                edits,
                store=opened,
                on_change=on_change,
                parents=not single,  # of one fork it is not shown
                on_planned=lambda planned: view.print_bound(planned, now["jobs"]),
                **trials,
                **start.asked(),
                **now,
            )
        if not made.forks:
            raise UsageError(next((cell.why for cell in made.cells if cell.why), "no fork was made"))
        gated = () if kept is None else kept.of(made.cells)
        more = {} if kept is None else {"gate": [one.row() for one in gated]}
        if as_json and single:
            print_json({**view.fork_row(made.forks[0]), **more, **told(opened)})
        elif as_json:
            print_json({"summary": made.summary(), "cells": made.rows(), **more, **told(opened)})
        elif single:
            view.print_fork(made.forks[0], of=split(refs[0])[0])
        else:
            view.print_matrix(made)
    if gated and not as_json:
        view.print_gate(gated)
    if gate is not None:
        results = {"passes": "PASS", "fails": "FAIL", "not shown": "NOT SHOWN"}
        tell_ci(
            f"tracefork-otel fork: {gate}",
            [Checked(name=one.name, result=results[one.end], finding=one.text) for one in gated],
        )
    return _status(made) or (FINDING if any(one.end != "passes" for one in gated) else 0)


def _of_file(file: Path, flags: EditFlags, steps: list[int]) -> list[Edit]:
    """Return the edit that a file has for the step; UsageError where that is not one edit."""
    from ..rerun.edits.files import read_edits

    if flags.values:
        raise UsageError("one fork changes one thing: leave out --edit, or the other flags of changes")
    found = read_edits(file, "--edit")
    if len(set(steps)) > 1:
        raise UsageError(f"--edit {file} is for one step: name one, such as last@{steps[0]}")
    if steps[0] not in found:
        has = ", ".join(map(str, found))
        raise UsageError(f"--edit: {file} has no edit for step {steps[0]}, but for step {has}")
    return [found[steps[0]]]


def _status(made: Matrix) -> int:
    """Return 1 if an agent left its tape, 3 if no fork is what was asked for; a graded one always is."""
    if any(fork.problem is not None and fork.problem.kind in ("drift", "leak") for fork in made.forks):
        return FINDING
    failed = [fork.problem is not None and fork.outcome is None for fork in made.forks]
    if all(failed):
        if len(failed) > 1:
            for text in dict.fromkeys(str(fork.problem) for fork in made.forks):
                say(f"error: {text}")
        return FAILED
    if count := sum(failed):
        say(f"tracefork-otel: {count} of {len(failed)} forks have a problem: `show` says more of each")
    return 0
