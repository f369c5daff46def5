"""`fork`: replay a run up to a step, change one thing there, and let the agent go on; or a matrix of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tracefork_otel.errors import UsageError

from . import fork_view as view
from .options import (
    STORE,
    AgentOption,
    AllowHostOption,
    IgnoreOption,
    JsonOption,
    MatchOption,
    StoreOption,
    TimeoutOption,
    ToolsOption,
    one_of,
)
from .oracle_flags import (
    ExitCodeOption,
    FailureOption,
    FieldOption,
    JudgeModelOption,
    JudgeOption,
    JudgeRatesOption,
    OracleOption,
    SuccessOption,
    oracle_of,
)
from .output import print_json, say
from .replay import FINDING, MATCHES, tools_asked
from .variants import variants

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape

    from ..matrices.matrix import Matrix
    from ..rerun.edits import Edit
    from ..store import Run, Store

FAILED = 3
TAILS = ("live", "recorded", "offline")


def _several(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{text} Repeatable.")


def _one(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text)


Several: TypeAlias = list[str] | None
RefsArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="RUN@STEP…", help="`last@3`, a prefix or a tape file @ a step."),
]
TextOption: TypeAlias = Annotated[Several, _several("--text", "TEXT", "The model answers this.")]
ToolInputOption: TypeAlias = Annotated[
    Several, _several("--tool-input", "JSON", "The model calls its tool with this.")
]
ToolOption: TypeAlias = Annotated[str | None, _one("--tool", "NAME", "Which call --tool-input means.")]
ResponseOption: TypeAlias = Annotated[Several, _several("--response", "FILE", "The response's whole body.")]
SetOption: TypeAlias = Annotated[
    Several, _several("--set", "PATH=VALUE", "The request goes out with this value.")
]
SystemOption: TypeAlias = Annotated[Several, _several("--system", "TEXT|@FILE", "… with this system prompt.")]
ModelOption: TypeAlias = Annotated[Several, _several("--model", "MODEL", "… for this model.")]
FaultOption: TypeAlias = Annotated[
    Several, _several("--fault", "FAULT", "429, 500, 529, timeout or disconnect.")
]
ResampleOption: TypeAlias = Annotated[
    bool, typer.Option("--resample", help="The model is asked the same anew.")
]
NoopOption: TypeAlias = Annotated[bool, typer.Option("--noop", help="Nothing is changed.")]
ToolResultOption: TypeAlias = Annotated[
    Several, _several("--tool-result", "NAME=VALUE", "The tool that the answer calls gives this.")
]
TailOption: TypeAlias = Annotated[
    str, typer.Option("--tail", help="What answers afterwards: `live`, `recorded` or `offline`.")
]
TimesOption: TypeAlias = Annotated[int, typer.Option("--times", min=1, help="Forks of each.")]
JobsOption: TypeAlias = Annotated[int, typer.Option("--jobs", min=1, help="Agents at a time.")]
BudgetOption: TypeAlias = Annotated[float | None, _one("--budget", "USD", "Start no fork beyond this.")]
EstimateOption: TypeAlias = Annotated[
    bool, typer.Option("--estimate", help="Say what it would take, and start nothing.")
]


def fork(
    refs: RefsArgument,
    store: StoreOption = STORE,
    text: TextOption = None,
    tool_input: ToolInputOption = None,
    tool: ToolOption = None,
    response: ResponseOption = None,
    set: SetOption = None,
    system: SystemOption = None,
    model: ModelOption = None,
    fault: FaultOption = None,
    resample: ResampleOption = False,
    noop: NoopOption = False,
    tool_result: ToolResultOption = None,
    tail: TailOption = "live",
    times: TimesOption = 1,
    jobs: JobsOption = 1,
    success_re: SuccessOption = None,
    failure_re: FailureOption = None,
    field: FieldOption = None,
    exit_code: ExitCodeOption = False,
    oracle: OracleOption = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_rates: JudgeRatesOption = None,
    budget: BudgetOption = None,
    estimate: EstimateOption = False,
    agent: AgentOption = None,
    match: MatchOption = "exact",
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = 600.0,
    allow_host: AllowHostOption = None,
    tools: ToolsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Fork a run at a step: what came before is replayed, one thing is changed, and the agent goes on.

    What is changed in the request by --set, --system and --model is one change; a flag given twice makes
    variants. Exit 1 if the agent left its tape before the step, 3 if the agent or the model failed.
    """
    one_of("--tail", tail, TAILS)
    one_of("--match", match, MATCHES)
    edits = variants(
        text=text or (),
        tool_input=tool_input or (),
        tool=tool,
        response=response or (),
        set=set or (),
        system=system or (),
        model=model or (),
        fault=fault or (),
        resample=resample,
        noop=noop,
        tool_result=tool_result or (),
    )
    planned: dict[str, Any] = {
        "times": times,
        "tail": tail,
        "oracle": oracle_of(
            success_re, failure_re, field, exit_code, oracle, (judge, judge_model, judge_rates)
        ),
        "budget_usd": budget,
    }
    started: dict[str, Any] = {
        "agent": agent,
        "jobs": jobs,
        "timeout": timeout,
        "match": match,
        "ignore": tuple(ignore or ()),
        "allow_hosts": tuple(allow_host or ()),
        "tools": tools_asked(tools),
    }
    return _forked(store, refs, edits, planned, None if estimate else started, as_json=as_json)


def _forked(
    store: Path,
    refs: Sequence[str],
    edits: Sequence[Edit],
    planned: dict[str, Any],
    started: dict[str, Any] | None,
    *,
    as_json: bool,
) -> int:
    """The exit status, after the forks were made and shown, or only what they would take."""
    from ..matrices.matrix import matrix, plan
    from ..store import open_store

    with open_store(store) as opened:
        runs_at = [_run_at(opened, ref) for ref in refs]
        if started is None:
            _print_estimate(plan(runs_at, edits, **planned), as_json)
            return 0
        single = len(runs_at) * len(edits) * planned["times"] == 1
        with view.progress(single=single) as on_change:
            made = matrix(runs_at, edits, **planned, **started, store=opened, on_change=on_change)
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


def _run_at(opened: Store, ref: str) -> tuple[Run | Tape, int]:
    """The run, or the tape of that file, and the step."""
    from tracefork_otel.tape.tape import Tape

    from ..store import parse_ref

    name, step = parse_ref(ref)
    source = Tape.load(name) if Path(name).is_file() else opened.run(name)
    if step is None:
        raise UsageError(f"{ref}: say at which step, such as {name}@0")
    return source, step


def _print_estimate(planned: Matrix, as_json: bool) -> None:
    if as_json:
        print_json({"estimate": str(planned.estimate), "cells": planned.rows()})
        return
    view.print_plan(planned)


def _status(made: Matrix) -> int:
    """1 if an agent left its tape, 3 if no fork is what was asked for; what an oracle graded is."""
    if any(fork.problem is not None and fork.problem.kind in ("drift", "leak") for fork in made.forks):
        return FINDING
    failed = [fork.problem is not None and fork.outcome is None for fork in made.forks]
    if all(failed):
        return FAILED
    count = sum(failed)
    if count:
        say(f"tracefork-otel: {count} of {len(failed)} forks have a problem: `show` says more of each")
    return 0
