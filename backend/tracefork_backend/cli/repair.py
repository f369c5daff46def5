"""`repair`: which change, and how little of it, makes a failed run succeed, shown on fresh forks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tracefork_otel.errors import UnknownRun, UsageError

from ..spelling import money
from . import repair_view as view
from .experiments import Later, ShortRun
from .flags import expanded
from .flags.blame import MaxTrialsOption, SameOracleOption
from .flags.options import (
    STORE,
    BudgetOption,
    JsonOption,
    PriceOption,
    StoreOption,
    repeated,
    valued,
)
from .flags.oracle import OracleFlags
from .flags.start import StartFlags, TrustOption
from .flags.workers import WorkerFlags
from .interrupt import terminable
from .opening import reading, told
from .output import print_json, say
from .resumed import asked_before
from .searching import progress, resumable, status_of

if TYPE_CHECKING:
    from ..store import Run, Store


SearchArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="REPAIR", help="`last`, or a unique prefix of a search's id.")
]
KeepOption: TypeAlias = Annotated[
    Path | None, valued("--keep", "FILE", "Write the confirmed repair for `fork RUN@STEP --edit FILE`.")
]


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
    keep: KeepOption = None,
    every: Annotated[bool, typer.Option("--all", help="Go on for further repairs after the first.")] = False,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance of confirming a change that repairs nothing.")
    ] = 0.05,
    max_trials: MaxTrialsOption = None,
    budget: BudgetOption = None,
    price: PriceOption = [],  # noqa: B006
    workers: WorkerFlags,
    start: StartFlags,
    as_json: JsonOption = False,
) -> int:
    """Find the smallest change that makes a failed run succeed, confirmed on fresh forks beside controls.

    Tried are the edits of --try, what redraws of `blame` experiments on the run were answered when they
    succeeded, and what a model proposes (--propose). Exit 0 with an answer (also: nothing confirmed), 1 if
    the run does not replay, 3 if no fork could be graded.
    """
    from ..rerun.edits.files import read_edits

    edits = [pair for file in tries for pair in read_edits(file, "--try").items()]
    how = {**start.asked(), "alpha": alpha, "max_trials": max_trials, "price": price}
    trust = how.pop("trust")  # said anew each time: a journal is a file that anybody may write
    with reading(store) as opened, workers.at_work(trust=trust) as now:
        run = _run_of(opened, ref)
        how["over"] = [opened.run(name).run_id for name in over]
        asked = {"oracle": oracle.values, "change": {}, "how": how}
        what = {"edits": edits, "at": at, "propose": propose, "every": every}
        return _search(opened, run, asked, what, budget, now, keep=keep, as_json=as_json)


app.command("run")(expanded(run))


def resume(
    search: SearchArgument,
    *,
    store: StoreOption = STORE,
    budget: BudgetOption = None,
    price: PriceOption = [],  # noqa: B006
    max_trials: MaxTrialsOption = None,
    workers: WorkerFlags,
    same_oracle: SameOracleOption = False,
    trust: TrustOption = False,
    keep: KeepOption = None,
    as_json: JsonOption = False,
) -> int:
    """Go on with a search after an interrupt or a kill, or past its limits; pay for no fork twice."""
    from ..blaming import journal
    from ..repairing import resuming

    limits: dict[str, Any] = {"budget": budget, "max_trials": max_trials, "price": price}
    with reading(store) as opened, workers.at_work(trust=trust) as now:
        repair_id = resuming.find(opened.path, search)
        path = resuming.journal_of(opened.path, repair_id)
        resuming.check_tells(journal.read(path)[0])
        begun = asked_before(path, **limits, trust=trust)
        what = {"resume": repair_id, "same_oracle": same_oracle}
        run, budget = opened.run(begun.header["run_id"]), begun.budget_usd
        return _search(opened, run, begun.asked, what, budget, now, keep=keep, as_json=as_json)


app.command("resume", cls=Later)(expanded(resume))


@app.command("show", cls=Later)
def show(
    search: SearchArgument,
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


def _search(
    opened: Store,
    run: Run,
    asked: Mapping[str, Any],
    what: Mapping[str, Any],
    budget: float | None,
    now: Mapping[str, Any],
    *,
    keep: Path | None,
    as_json: bool,
) -> int:
    """Search to the end, carry a repair of requests over, and show it all; return the exit status."""
    from ..blaming import journal
    from ..grading.kinds import asked_for
    from ..repairing.carrying import carried
    from ..repairing.repair import repair as repaired
    from ..rerun.edits.files import write_edits
    from ..store.prices import rates_given

    how = dict(asked["how"])
    others = [opened.run(run_id) for run_id in how.pop("over", ())]
    graded_by = asked_for(asked["oracle"], run)
    with (
        terminable(),
        resumable("repair", lambda: journal.experiments(opened.path, journal.REPAIR), what.get("resume")),
        progress(view.progress_line) as on_progress,
    ):
        result = repaired(
            run,
            oracle=graded_by,
            budget_usd=budget,
            settings={**asked, "jobs": now["jobs"]},
            on_progress=on_progress,
            on_bound=lambda beyond: say(f"budget {money(budget)}: {beyond}"),
            **what,
            **{**how, **now},
        )
    beside = None
    if others and result.confirmed and not result.edit.answers:
        spent = result.cost_usd + (getattr(graded_by, "cost_usd", None) or 0.0)
        rates = rates_given(how.pop("price", ()))
        start = {name: value for name, value in how.items() if name not in ("alpha", "max_trials")}
        try:
            beside = carried(
                result.confirmed[0],
                others,
                oracle=graded_by,
                budget_usd=None if budget is None else max(0.0, budget - spent),
                store=opened,
                prices=rates,
                **{**start, **now},
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
