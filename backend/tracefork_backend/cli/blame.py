"""`blame`: which step lost the run, by forks and statistics that hold at any stopping time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tracefork_otel.errors import UsageError

from ..blaming.plan import What
from ..spelling import money
from . import blame_view as view
from .experiments import Later, ShortRun
from .flags import expanded
from .flags.blame import ChangeFlags, MaxTrialsOption, SameOracleOption, SearchFlags
from .flags.options import (
    STORE,
    BudgetOption,
    EstimateOption,
    JsonOption,
    PriceOption,
    StoreOption,
    choice,
    valued,
)
from .flags.oracle import OracleFlags
from .flags.start import StartFlags, TrustOption
from .flags.workers import WorkerFlags
from .interrupt import terminable
from .opening import reading, told
from .output import FINDING, growing, print_json, say
from .parts_view import print_parts_tried, say_left_out
from .resumed import asked_before
from .searching import progress, resumable, status_of

if TYPE_CHECKING:
    from ..store import Store

ReportOption: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Also write the answer as a page.")
]
ExperimentArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="EXP", help="`last`, or a unique prefix of an experiment's id.")
]

_FORETELLING = "simulating such experiments, to foretell this one …"

app = typer.Typer(
    cls=ShortRun,
    no_args_is_help=True,
    help="Say which step of a run moves its outcome, and how sure that is. `blame RUN …` is short for "
    "`blame run RUN …`.",
)


def run(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="`last`, `last~2`, or a unique prefix; of several with --parts."),
    ],
    *,
    store: StoreOption = STORE,
    oracle: OracleFlags,
    parts: Annotated[
        What | None,
        choice(
            "--parts", What, "Not steps: sections of the system prompt or tools, removed from each request."
        ),
    ] = None,
    bound: Annotated[
        float | None,
        valued("--bound", "SHARE", "With --parts: go on until no effect means so much more failure at most."),
    ] = None,
    search: SearchFlags,
    change: ChangeFlags,
    budget: BudgetOption = None,
    estimate: EstimateOption = False,
    price: PriceOption = [],  # noqa: B006
    workers: WorkerFlags,
    start: StartFlags,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> int:
    """Fork a run until it is known which step moves its outcome, or the budget ends.

    Exit 0 with an answer (also: nothing certified), 1 if the run does not replay, 3 if no fork could be
    graded.
    """
    how = {**asdict(search), **start.asked(), "price": price}
    trust = how.pop("trust")  # said anew each time: a journal is a file that anybody may write
    if parts is not None:
        _check_parts(search, change)
        how = {**{name: value for name, value in how.items() if name not in _OF_STEPS}, "bound": bound}
    elif bound is not None:
        raise UsageError("--bound is of parts that show no effect: use it with --parts system|tools")
    elif len(refs) > 1:
        raise UsageError("blame looks at one run; several are compared by their parts: --parts system|tools")
    (ref, *_) = refs
    asked = {
        "oracle": oracle.values,
        "change": change.given if parts is None else {"parts": parts},
        "how": how,
    }
    with reading(store) as opened:
        if parts is not None:
            runs = [opened.run(one) for one in refs]
            if estimate:
                return _estimated_parts(
                    runs, parts, search, budget, price, as_json, bound=bound, oracle=oracle.asked()
                )
            asked["how"] = {**how, "runs": [one.run_id for one in runs]}
            with workers.at_work(trust=trust) as now:
                return _parts(opened, asked, budget, now, report=report, as_json=as_json)
        if estimate:
            asked_for = oracle.asked()
            return _estimated(opened.run(ref), search, change, budget, price, as_json, oracle=asked_for)
        with workers.at_work(trust=trust) as now:
            return _experiment(opened, ref, asked, budget, now, report=report, as_json=as_json)


app.command("run")(expanded(run))


def resume(
    experiment: ExperimentArgument,
    *,
    store: StoreOption = STORE,
    budget: BudgetOption = None,
    price: PriceOption = [],  # noqa: B006
    max_trials: MaxTrialsOption = None,
    workers: WorkerFlags,
    same_oracle: SameOracleOption = False,
    trust: TrustOption = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> int:
    """Go on with an experiment after an interrupt or a kill, or past its limits; pay for no trial twice."""
    from ..blaming import journal

    limits: dict[str, Any] = {"budget": budget, "max_trials": max_trials, "price": price}
    with reading(store) as opened, workers.at_work(trust=trust) as now:
        experiment_id = journal.find(opened.path, experiment)
        begun = asked_before(journal.path_of(opened.path, experiment_id), **limits, trust=trust)
        asked, header, budget = begun.asked, begun.header, begun.budget_usd
        asked["how"]["same_oracle"] = same_oracle
        if "parts" in asked["change"]:
            return _parts(opened, asked, budget, now, report=report, as_json=as_json, resume=experiment_id)
        return _experiment(
            opened,
            header["run_id"],
            asked,
            budget,
            now,
            resume=experiment_id,
            report=report,
            as_json=as_json,
        )


app.command("resume", cls=Later)(expanded(resume))


@app.command("show", cls=Later)
def show(
    experiment: ExperimentArgument,
    store: StoreOption = STORE,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a finished experiment with every step, and why it is judged so."""
    from ..blaming.verifying import stored_tables

    with reading(store) as opened:
        tables = stored_tables(opened, experiment)
        if as_json:
            print_json({**tables.to_dict(), **told(opened)})
        else:
            view.print_experiment(tables, every=True)
        _tell_where(opened, tables.experiment["experiment_id"], report, as_json=as_json)


@app.command("verify", cls=Later)
def verify(
    experiment: ExperimentArgument,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> int:
    """Compute every number of an experiment again from its trials; exit 1 if one differs."""
    from ..blaming.verifying import verify as verified

    with reading(store) as opened:
        experiment_id, wrong = verified(opened, experiment)
        lacking = told(opened)
    if as_json:
        print_json({"experiment_id": experiment_id, "wrong": wrong, **lacking})
    elif wrong:
        say("\n".join(wrong))
    else:
        print(f"{experiment_id}: every number follows from its trials")
    return FINDING if wrong or lacking else 0


_OF_STEPS = ("mode", "coupling", "k", "every")
"""What says how steps are compared."""


def _check_parts(search: SearchFlags, change: ChangeFlags) -> None:
    """Raise UsageError where something was asked for that only steps have."""
    asked = asdict(search)
    usual = asdict(SearchFlags())
    given = [f"--{'all' if name == 'every' else name}" for name in _OF_STEPS if asked[name] != usual[name]]
    given += [f"--{name}" for name in change.given]
    if given:
        raise UsageError(
            f"--parts takes parts out of requests, so {given[0]} has no place there: leave it out"
        )


def _estimated_parts(
    runs: list[Any],
    parts: str,
    search: SearchFlags,
    budget: float | None,
    price: list[str],
    as_json: bool,
    *,
    bound: float | None,
    oracle: Any,
) -> int:
    from ..blaming.parting import estimate
    from ..store.prices import rates_given

    with growing(_FORETELLING):
        found, which = estimate(
            runs,
            parts=parts,
            budget_usd=budget,
            oracle=oracle,
            prices=rates_given(price),
            alpha=search.alpha,
            bound=bound,
            max_trials=search.max_trials,
        )
    if as_json:
        print_json(
            {**asdict(found), "parts": [{"part": one.name, "tokens": one.tokens} for one in which.parts]}
        )
    else:
        print_parts_tried(which)
        view.print_estimate(found, budget, what="part")
    return 0


def _parts(
    opened: Store,
    asked: Mapping[str, Any],
    budget: float | None,
    now: Mapping[str, Any],
    *,
    report: Path | None,
    as_json: bool,
    resume: str | None = None,
) -> int:
    """Run an experiment on parts to its end and show it; return the exit status."""
    from ..blaming import journal
    from ..blaming.parting import blame_parts
    from ..blaming.result import tables_of
    from ..grading.kinds import asked_for

    how = dict(asked["how"])
    runs = [opened.run(one) for one in how.pop("runs")]
    oracle = asked_for(asked["oracle"], runs[0])
    with (
        terminable(),
        resumable("blame", lambda: journal.experiments(opened.path), resume),
        progress(view.progress_line) as on_progress,
    ):
        result = blame_parts(
            runs,
            parts=asked["change"]["parts"],
            oracle=oracle,
            budget_usd=budget,
            resume=resume,
            settings={**asked, "jobs": now["jobs"]},
            on_progress=on_progress,
            on_bound=lambda beyond: say(f"budget {money(budget)}: {beyond}"),
            on_parts=lambda which: say_left_out(which),
            **{**how, **now},
        )
    tables = tables_of(result)
    if as_json:
        print_json({**tables.to_dict(), **told(opened)})
    else:
        view.print_experiment(tables, every=False)
    _tell_where(opened, result.experiment_id, report, as_json=as_json)
    return status_of(result.findings.stop_reason, result.trials, result.problem)


def _tell_where(opened: Store, experiment: str, path: Path | None, *, as_json: bool) -> None:
    """Write the report, if one was asked for, and say where it and the page are that show the experiment."""
    from ..store.shown import page_url

    if path is not None:
        from ..report.experiment import page_of_stored
        from ..report.html import write

        say(f"report: {write(page_of_stored(opened, experiment), path)}")
    if not as_json and (page := page_url(opened.path, f"/blame/{experiment[:8]}")):
        print(f"page: {page}")


def _estimated(
    run: Any,
    search: SearchFlags,
    change: ChangeFlags,
    budget: float | None,
    price: list[str],
    as_json: bool,
    *,
    oracle: Any,
) -> int:
    from ..blaming.experiment import estimate
    from ..store.prices import rates_given

    how: dict[str, Any] = {
        "mode": search.mode,
        "k": search.k,
        "alpha": search.alpha,
        "max_trials": search.max_trials,
        "every": search.every,
    }
    how["prices"] = rates_given(price)
    with growing(_FORETELLING):
        found = estimate(run, change=change.asked(), budget_usd=budget, oracle=oracle, **how)
    if as_json:
        print_json(asdict(found))
    else:
        view.print_estimate(found, budget)
    return 0


def _experiment(
    opened: Store,
    ref: str,
    asked: Mapping[str, Any],
    budget: float | None,
    now: Mapping[str, Any],
    *,
    report: Path | None,
    as_json: bool,
    resume: str | None = None,
) -> int:
    """Run an experiment to its end and show it; return the exit status."""
    from ..blaming import journal
    from ..blaming.changes import from_flags
    from ..blaming.experiment import blame
    from ..blaming.modes import mode_found
    from ..blaming.result import tables_of
    from ..grading.kinds import asked_for
    from ..store.shown import page_url

    run = opened.run(ref)
    if watching := page_url(opened.path, "/blame"):
        say(f"watch it at {watching}")
    oracle = asked_for(asked["oracle"], run)
    with (
        terminable(),
        resumable("blame", lambda: journal.experiments(opened.path), resume),
        progress(view.progress_line) as on_progress,
    ):
        result = blame(
            run,
            oracle=oracle,
            change=from_flags(asked["change"]),
            budget_usd=budget,
            resume=resume,
            settings={**asked, "jobs": now["jobs"]},
            on_progress=on_progress,
            on_bound=lambda beyond: say(f"budget {money(budget)}: {beyond}"),
            **{**asked["how"], **now},
        )
    if mode_found(result.findings.mode).redraws and not result.plan.natural:
        say(
            "the run ends differently by itself too often to try a change at each step, so each step was "
            "drawn anew instead; --mode intervene tries the change all the same"
        )
    tables = tables_of(result)
    if as_json:
        print_json({**tables.to_dict(), **told(opened)})
    else:
        view.print_experiment(tables, every=False)
    _tell_where(opened, result.experiment_id, report, as_json=as_json)
    return status_of(result.findings.stop_reason, result.trials, result.problem)
