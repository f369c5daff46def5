"""`fork`: replay a run up to a step, change one thing there, and let the agent go on; or a matrix of that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tracefork_otel._errors import UsageError

from . import _fork_view as view
from ._options import (
    STORE,
    AgentOption,
    AllowHostOption,
    IgnoreOption,
    JsonOption,
    MatchOption,
    StoreOption,
    TimeoutOption,
)
from ._output import print_json, print_rows, say
from ._variants import variants
from .replay import FINDING, MATCHES

if TYPE_CHECKING:
    from tracefork_otel.tape import Tape

    from ..matrix import Matrix
    from ..oracle import Oracle
    from ..store import Run, Store

FAILED = 3
TAILS = ("live", "recorded", "offline")


def _several(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{text} Repeatable.")


def fork(
    refs: Annotated[
        list[str], typer.Argument(metavar="RUN@STEP…", help="`last@3`, a unique prefix @ a step.")
    ],
    store: StoreOption = STORE,
    text: Annotated[list[str] | None, _several("--text", "TEXT", "The model answers this.")] = None,
    tool_input: Annotated[
        list[str] | None, _several("--tool-input", "JSON", "The model calls its tool with this.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option("--tool", metavar="NAME", help="Which call --tool-input means.")
    ] = None,
    response: Annotated[
        list[str] | None, _several("--response", "FILE", "The response's body, whole.")
    ] = None,
    set: Annotated[
        list[str] | None, _several("--set", "PATH=VALUE", "The request goes out with this value.")
    ] = None,
    system: Annotated[
        list[str] | None, _several("--system", "TEXT|@FILE", "… with this system prompt.")
    ] = None,
    model: Annotated[list[str] | None, _several("--model", "MODEL", "… for this model.")] = None,
    fault: Annotated[
        list[str] | None, _several("--fault", "FAULT", "429, 500, 529, timeout or disconnect.")
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help="The model is asked the same anew.")] = False,
    noop: Annotated[bool, typer.Option("--noop", help="Nothing is changed.")] = False,
    tool_result: Annotated[str | None, typer.Option("--tool-result", hidden=True)] = None,
    tail: Annotated[
        str, typer.Option("--tail", help="What answers afterwards: `live`, `recorded` or `offline`.")
    ] = "live",
    times: Annotated[int, typer.Option("--times", min=1, help="Forks of each.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Agents at a time.")] = 1,
    success_re: Annotated[
        str | None, typer.Option("--success-re", metavar="REGEX", help="Output that means success.")
    ] = None,
    failure_re: Annotated[
        str | None, typer.Option("--failure-re", metavar="REGEX", help="Output that means failure.")
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", metavar="PATH=VALUE", help="JSON output that means success.")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Status 0 means success.")] = False,
    oracle: Annotated[
        str | None, typer.Option("--oracle", metavar="PKG.MOD:FN", help="A function that says so.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD", help="Start no fork beyond this.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would take, and start nothing.")
    ] = False,
    agent: AgentOption = None,
    match: MatchOption = "exact",
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = 600.0,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> int:
    """Fork a run at a step: what came before is replayed, one thing is changed, and the agent goes on.

    What is changed in the request by --set, --system and --model is one change; a flag given twice makes
    variants. Exit 1 if the agent left its tape before the step, 3 if the agent or the model failed.
    """
    from ..matrix import matrix, plan
    from ..store import open_store

    _check("--tail", tail, TAILS)
    _check("--match", match, MATCHES)
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
        tool_result=tool_result,
    )
    grading = _oracle(success_re, failure_re, field, exit_code, oracle)
    with open_store(store) as opened:
        runs_at = [_run_at(opened, ref) for ref in refs]
        shared: dict[str, Any] = {
            "times": times,
            "tail": tail,
            "oracle": grading,
            "budget_usd": budget,
        }
        if estimate:
            _print_estimate(plan(runs_at, edits, **shared), as_json)
            return 0
        single = len(runs_at) * len(edits) * times == 1
        with view.progress(single=single) as on_change:
            made = matrix(
                runs_at,
                edits,
                **shared,
                agent=agent,
                jobs=jobs,
                timeout=timeout,
                store=opened,
                match=cast("Any", match),
                ignore=tuple(ignore or ()),
                allow_hosts=tuple(allow_host or ()),
                on_change=on_change,
            )
        if not made.forks:
            raise UsageError(next((cell.why for cell in made.cells if cell.why), "no fork was made"))
        if as_json:
            print_rows(view.fork_row(fork) for fork in made.forks) if single else print_json(
                {"summary": made.summary(), "cells": made.rows()}
            )
        elif single:
            view.print_fork(made.forks[0])
        else:
            view.print_matrix(made)
    return _status(made)


def _check(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value}: use {', '.join(allowed[:-1])} or {allowed[-1]}")


def _run_at(opened: Store, ref: str) -> tuple[Run | Tape, int]:
    """The run, or the tape of that file, and the step."""
    from tracefork_otel.tape import Tape

    from ..store import parse_ref

    name, step = parse_ref(ref)
    source = Tape.load(name) if Path(name).is_file() else opened.run(name)
    if step is None:
        raise UsageError(f"{ref}: say at which step, such as {name}@0")
    return source, step


def _oracle(
    success_re: str | None, failure_re: str | None, field: str | None, exit_code: bool, function: str | None
) -> Oracle | None:
    from .. import oracle
    from ..interventions import from_flags

    regex = success_re is not None or failure_re is not None
    if regex + (field is not None) + exit_code + (function is not None) > 1:
        raise UsageError(
            "one oracle grades a run: choose one of --success-re with --failure-re, --field, "
            "--exit-code, --oracle"
        )
    if regex:
        return oracle.regex(success_re, failure_re)
    if field is not None:
        try:
            ((path, value),) = from_flags(set=[field]).changes
        except UsageError:
            raise UsageError(f"--field {field!r} is not PATH=VALUE: write it like status=confirmed") from None
        return oracle.field(path, value)
    if function is not None:
        return oracle.function(function)
    return oracle.exit_code() if exit_code else None


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
