"""`fork`: replay a run up to a step, change one thing there, and let the agent go on; or a matrix of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracefork_otel.errors import UsageError

from . import fork_view as view
from .flags.edit import EditFlags
from .flags.options import STORE, BudgetOption, EstimateOption, JobsOption, JsonOption, StoreOption
from .flags.oracle import OracleFlags
from .flags.start import ReplayFlags, TailOption
from .opening import reading
from .output import FAILED, FINDING, print_json, say
from .refs import named_step

if TYPE_CHECKING:
    from ..matrices.matrix import Matrix


def fork(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="RUN@STEP…", help="`last@3`, a prefix or a tape file @ a step."),
    ],
    *,
    store: StoreOption = STORE,
    edit: EditFlags,
    tail: TailOption = "live",
    times: Annotated[int, typer.Option("--times", min=1, help="Forks of each.")] = 1,
    jobs: JobsOption = 1,
    oracle: OracleFlags,
    budget: BudgetOption = None,
    estimate: EstimateOption = False,
    start: ReplayFlags,
    as_json: JsonOption = False,
) -> int:
    """Fork a run at a step: what came before is replayed, one thing is changed, and the agent goes on.

    What is changed in the request by --set, --system and --model is one change; a flag given twice makes
    variants. Exit 1 if the agent left its tape before the step, 3 if the agent or the model failed.
    """
    from ..matrices.matrix import matrix, plan

    edits = edit.asked()
    trials: dict[str, Any] = {"times": times, "tail": tail, "oracle": oracle.asked(), "budget_usd": budget}
    with reading(store) as opened:
        runs_at = [named_step(opened, ref) for ref in refs]
        if estimate:
            view.print_plan(plan(runs_at, edits, agent=start.agent, **trials), as_json=as_json)
            return 0
        single = len(runs_at) * len(edits) * times == 1
        with view.progress(single=single) as on_change:
            made = matrix(
                runs_at,
                edits,
                jobs=jobs,
                store=opened,
                on_change=on_change,
                **trials,
                **start.asked(),
            )
        if not made.forks:
            raise UsageError(next((cell.why for cell in made.cells if cell.why), "no fork was made"))
        if as_json and single:
            print_json(view.fork_row(made.forks[0]))
        elif as_json:
            print_json({"summary": made.summary(), "cells": made.rows()})
        elif single:
            view.print_fork(made.forks[0])
        else:
            view.print_matrix(made)
    return _status(made)


def _status(made: Matrix) -> int:
    """Return 1 if an agent left its tape, 3 if no fork is what was asked for; a graded one always is."""
    if any(fork.problem is not None and fork.problem.kind in ("drift", "leak") for fork in made.forks):
        return FINDING
    failed = [fork.problem is not None and fork.outcome is None for fork in made.forks]
    if all(failed):
        return FAILED
    if count := sum(failed):
        say(f"tracefork-otel: {count} of {len(failed)} forks have a problem: `show` says more of each")
    return 0
