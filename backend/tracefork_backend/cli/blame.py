"""`blame`: which step lost the run, by forks and statistics that hold at any stopping time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from tracefork_otel.errors import UsageError

from . import blame_view as view
from .flags.common import (
    STORE,
    BudgetOption,
    EstimateOption,
    JobsOption,
    JsonOption,
    StoreOption,
    choice,
)
from .flags.oracle import OracleFlags
from .flags.start import StartFlags
from .output import FAILED, FINDING, print_json, say

if TYPE_CHECKING:
    from ..blaming.changes import Change
    from ..blaming.experiment import OnProgress
    from ..grading.oracle import Oracle
    from ..store import Store

Mode: TypeAlias = Literal["auto", "intervene", "value", "fixed"]
Coupling: TypeAlias = Literal["fresh", "recorded"]


def blame(
    refs: Annotated[
        list[str], typer.Argument(metavar="RUN | resume EXP | verify EXP | show EXP", help="What to blame.")
    ],
    *,
    store: StoreOption = STORE,
    oracle: OracleFlags,
    mode: Annotated[Mode, choice("--mode", Mode, "How the steps are compared.")] = "auto",
    coupling: Annotated[
        Coupling,
        choice("--coupling", Coupling, "`recorded`: requests that the run made get its answers."),
    ] = "fresh",
    ablate: Annotated[
        str | None, typer.Option("--ablate", metavar="TEXT", help="Each step answers this.")
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Each step is drawn anew (default).")] = False,
    noop: Annotated[bool, typer.Option("--noop", help="Nothing is changed: nobody must be blamed.")] = False,
    repair: Annotated[
        Path | None, typer.Option("--repair", metavar="FILE", help="JSON with better answers by step.")
    ] = None,
    fault: Annotated[
        str | None, typer.Option("--fault", metavar="CLASS", help="A fault class, or one of `fork --fault`.")
    ] = None,
    function: Annotated[
        str | None, typer.Option("--edit", metavar="PKG.MOD:FN", help="A function of (tape, step).")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Forks a step in fixed mode.")] = 10,
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of blaming an innocent.")] = 0.05,
    max_trials: Annotated[int | None, typer.Option("--max-trials", min=1, help="Forks at most.")] = None,
    budget: BudgetOption = None,
    estimate: EstimateOption = False,
    jobs: JobsOption = 4,
    start: StartFlags,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write the answer as a page.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Say which step of a run moves its outcome, and how sure that is.

    Exit 0 with an answer (also: nothing certified), 1 if the run does not replay or `verify` finds a wrong
    number, 3 if no fork could be graded.
    """
    asked = {
        "oracle": [
            *(oracle.success_re, oracle.failure_re, oracle.field, oracle.exit_code, oracle.oracle),
            [oracle.judge, oracle.judge_model, oracle.judge_rates],
        ],
        "change": [
            ablate,
            resample,
            noop,
            None if repair is None else str(repair.resolve()),
            fault,
            function,
        ],
        "how": {
            "mode": mode,
            "coupling": coupling,
            "k": k,
            "alpha": alpha,
            "max_trials": max_trials,
            **start.asked(),
        },
    }
    from ..store import open_store

    with open_store(store) as opened:
        if len(refs) == 2 and refs[0] in ("resume", "verify", "show"):
            if any(asked["oracle"][:-1]) or oracle.judge is not None or any(asked["change"]):
                raise UsageError(
                    f"`blame {refs[0]}` keeps to what its experiment was begun with: "
                    "leave oracle and change out"
                )
            status = _later(refs[0], refs[1], opened, budget, jobs, as_json)
            if report is not None:
                _report(opened, refs[1], report)
            return status
        if len(refs) != 1:
            raise UsageError("name one run, or one of: resume EXP, verify EXP, show EXP")
        if estimate:
            return _estimated(opened, refs[0], asked, budget, as_json)
        return _experiment(opened, refs[0], asked, budget, jobs, as_json, report=report)


def _report(opened: Store, experiment: str, path: Path) -> None:
    """The page is written, and where is said on standard error."""
    from ..report import report_of_stored, write

    say(f"report: {write(report_of_stored(opened, experiment), path)}")


def _change(given: Any) -> Change:
    """The one change that the flags ask for; a redraw if none."""
    from ..blaming import changes

    ablate, resample, noop, repair, fault, function = given
    wanted = (ablate is not None, resample, noop, repair is not None, fault is not None, function is not None)
    if sum(wanted) > 1:
        raise UsageError(
            "one experiment tries one kind of change: choose one of --ablate, --resample, --noop, --repair, "
            "--fault, --edit"
        )
    if ablate is not None:
        return changes.ablate(ablate)
    if repair is not None:
        return changes.repair(repair)
    if fault is not None:
        return changes.fault(fault)
    if function is not None:
        return changes.function(function)
    return changes.noop() if noop else changes.resample()


def _oracle(
    success_re: str | None,
    failure_re: str | None,
    field: str | None,
    exit_code: bool,
    function: str | None,
    judge: Sequence[str | None] = (None, None, None),
) -> Oracle | None:
    """The oracle of these values, as the journal keeps them."""
    rubric, model, rates = judge
    return OracleFlags(
        success_re=success_re,
        failure_re=failure_re,
        field=field,
        exit_code=exit_code,
        oracle=function,
        judge=rubric,
        judge_model=model,
        judge_rates=rates,
    ).asked()


def _estimated(opened: Store, ref: str, asked: Mapping[str, Any], budget: float | None, as_json: bool) -> int:
    import dataclasses

    from ..blaming.experiment import estimate

    how = {name: asked["how"][name] for name in ("mode", "k", "alpha", "max_trials")}
    found = estimate(opened.run(ref), change=_change(asked["change"]), budget_usd=budget, **how)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        view.print_estimate(found, budget)
    return 0


def _experiment(
    opened: Store,
    ref: str,
    asked: Mapping[str, Any],
    budget: float | None,
    jobs: int,
    as_json: bool,
    resume: str | None = None,
    report: Path | None = None,
) -> int:
    """The exit status, after the experiment ended and was shown."""
    from ..blaming.experiment import blame as run_experiment
    from ..blaming.modes import mode_found

    oracle = _oracle(*asked["oracle"])
    if oracle is None:
        raise UsageError(
            "say what a success is: --success-re with --failure-re, --field, --exit-code, --oracle or --judge"
        )
    try:
        with _progress() as on_progress:
            result = run_experiment(
                opened.run(ref),
                oracle=oracle,
                change=_change(asked["change"]),
                budget_usd=budget,
                jobs=jobs,
                resume=resume,
                settings={**asked, "jobs": jobs},
                on_progress=on_progress,
                **asked["how"],
            )
    except KeyboardInterrupt:
        say("interrupted; what was paid for is kept: tracefork-otel blame resume last")
        raise
    if mode_found(result.findings.mode).redraws and not result.plan.natural:
        say(
            "the run ends differently by itself too often to try a change at each step, so each step was "
            "drawn anew instead; --mode intervene tries the change all the same"
        )
    if as_json:
        print_json(view.as_json(opened, result.experiment_id))
    else:
        view.print_experiment(opened, result.experiment_id, every=False)
    if report is not None:
        _report(opened, result.experiment_id, report)
    if result.findings.stop_reason == "aborted":
        say(f"error: no fork could be graded: {result.problem or 'the oracle could not tell'}")
        return FAILED
    return 0


def _later(verb: str, prefix: str, opened: Store, budget: float | None, jobs: int, as_json: bool) -> int:
    """What is asked of an experiment that was begun before."""
    from ..blaming import journal, results

    if verb == "resume":
        experiment_id = journal.find(opened.path, prefix)
        header, _, _ = journal.read(opened.path / "blame" / f"{experiment_id}.journal.jsonl")
        asked = header["settings"]
        if "oracle" not in asked:
            raise UsageError(f"experiment {experiment_id} was begun from Python: resume it there")
        budget = header["budget_usd"] if budget is None else budget
        return _experiment(opened, header["run_id"], asked, budget, jobs, as_json, experiment_id)
    if verb == "show":
        experiment_id = results.experiment_of(opened, prefix)["experiment_id"]
        if as_json:
            print_json(view.as_json(opened, experiment_id))
        else:
            view.print_experiment(opened, experiment_id, every=True)
        return 0
    experiment_id, wrong = results.verify(opened, prefix)
    if as_json:
        print_json({"experiment_id": experiment_id, "wrong": wrong})
    elif wrong:
        say("\n".join(wrong))
    else:
        print(f"{experiment_id}: every number follows from its trials")
    return FINDING if wrong else 0


@contextlib.contextmanager
def _progress() -> Iterator[OnProgress | None]:
    """What shows an experiment on a terminal while it runs; None where standard error is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    begin = "replaying the run, to see that it still does what was recorded …"
    with Live(begin, console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(view.progress_line(progress))
