"""`repair`: which change, and how little of it, makes a failed run succeed, shown on fresh forks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UnknownRun, UsageError

from ..spelling import money
from . import repair_view as view
from .experiments import Later, ShortRun
from .flags import expanded
from .flags.blame import MaxTrialsOption
from .flags.options import (
    STORE,
    BudgetOption,
    JobsOption,
    JsonOption,
    PriceOption,
    StoreOption,
    repeated,
    valued,
)
from .flags.oracle import OracleFlags
from .flags.start import StartFlags
from .interrupt import terminable
from .opening import reading, told
from .output import print_json, say
from .searching import progress, status_of

if TYPE_CHECKING:
    from ..store import Run, Store


app = typer.Typer(
    cls=ShortRun,
    no_args_is_help=True,
    help="Find the smallest change that makes a failed run succeed, confirmed on fresh forks beside "
    "controls. `repair RUN …` is short for `repair run RUN …`.",
)


def run(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="RUN|EXP", help="`last`, `last~2`, a unique prefix, or that of an experiment."
        ),
    ],
    *,
    store: StoreOption = STORE,
    oracle: OracleFlags,
    at: Annotated[
        int | None, typer.Option("--at", min=0, help="Try what changes this step, and nothing else.")
    ] = None,
    tries: Annotated[
        list[Path], repeated("--try", "FILE", "JSON with edits by step, as `blame --repair` takes it.")
    ] = [],  # noqa: B006
    propose: Annotated[
        str | None,
        valued("--propose", "MODEL", "Ask this model for changes too; it is shown the run, by your key."),
    ] = None,
    over: Annotated[
        list[str],
        repeated("--over", "RUN", "Then make a repair of requests in this run too: what becomes worse?"),
    ] = [],  # noqa: B006
    keep: Annotated[
        Path | None, valued("--keep", "FILE", "Write the confirmed repair for `fork RUN@STEP --edit FILE`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Go on for further repairs after the first.")] = False,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance of confirming a change that repairs nothing.")
    ] = 0.05,
    max_trials: MaxTrialsOption = None,
    budget: BudgetOption = None,
    price: PriceOption = [],  # noqa: B006
    jobs: JobsOption = 4,
    start: StartFlags,
    as_json: JsonOption = False,
) -> int:
    """Find the smallest change that makes a failed run succeed, confirmed on fresh forks beside controls.

    Tried are the edits of --try, what redraws of `blame` experiments on the run were answered when they
    succeeded, and what a model proposes (--propose). Exit 0 with an answer (also: nothing confirmed), 1 if
    the run does not replay, 3 if no fork could be graded.
    """
    from ..grading.kinds import asked_for
    from ..repairing.carrying import carried
    from ..repairing.repair import repair as repaired
    from ..rerun.edits.files import read_edits, write_edits
    from ..store.prices import rates_given

    edits = [pair for file in tries for pair in read_edits(file, "--try").items()]
    with reading(store) as opened:
        run = _run_of(opened, ref)
        others = [opened.run(name) for name in over]
        graded_by = asked_for(oracle.values, run)
        try:
            with terminable(), progress(view.progress_line) as on_progress:
                result = repaired(
                    run,
                    oracle=graded_by,
                    edits=edits,
                    at=at,
                    propose=propose,
                    budget_usd=budget,
                    jobs=jobs,
                    alpha=alpha,
                    max_trials=max_trials,
                    every=every,
                    price=price,
                    settings={"oracle": oracle.values},
                    on_progress=on_progress,
                    on_bound=lambda beyond: say(f"budget {money(budget)}: {beyond}"),
                    **start.asked(),
                )
        except KeyboardInterrupt:
            say("interrupted; the forks that were made are kept in the store")
            raise
        beside = None
        if others and result.confirmed and not result.edit.answers:
            spent = result.cost_usd + (getattr(graded_by, "cost_usd", None) or 0.0)
            try:
                beside = carried(
                    result.confirmed[0],
                    others,
                    oracle=graded_by,
                    budget_usd=None if budget is None else max(0.0, budget - spent),
                    jobs=jobs,
                    store=opened,
                    prices=rates_given(price),
                    **start.asked(),
                )
            except UsageError as error:  # what was found is to be shown all the same
                say(f"--over: {error}")
        if as_json:
            carried_over = None if beside is None else {**asdict(beside), "checked": beside.checked}
            print_json({**result.to_dict(), "over": carried_over, **told(opened)})
        else:
            view.print_search(result.to_dict())
            if beside is not None:
                view.print_carried(beside)
            elif others and result.confirmed and result.edit.answers:
                print("  --over: another answer is this run's alone, so nothing is carried over")
    if keep is not None:
        if result.confirmed:
            one = result.confirmed[0]
            write_edits(keep, {one.step: one.edit})
            say(f"kept: {keep}")
        else:
            say(f"{keep} is not written: no repair is confirmed")
    return status_of(result.stop_reason, result.trials, result.problem)


app.command("run")(expanded(run))


@app.command("show", cls=Later)
def show(
    search: Annotated[
        str, typer.Argument(metavar="REPAIR", help="`last`, or a unique prefix of a search's id.")
    ],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Show a finished search for repairs: what is confirmed, how that is known, and what else was tried."""
    from ..repairing.stored import stored_search

    with reading(store) as opened:
        found = stored_search(opened, search)
        if as_json:
            print_json({**found, **told(opened)})
        else:
            view.print_search(found)


def _run_of(opened: Store, ref: str) -> Run:
    """Return the run of that name, or the one that an experiment of that name was made on."""
    from ..blaming.journal import the_one

    try:
        return opened.run(ref)
    except UnknownRun:
        runs = {row["experiment_id"]: row["run_id"] for row in opened.ask("blame_experiments")}
        if not any(one.startswith(ref) for one in runs):
            raise
        return opened.run(runs[the_one(list(runs), ref, "experiment")])
