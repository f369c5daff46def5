"""`run`: record any command, with no change to its code."""

from __future__ import annotations

from typing import Annotated

import typer

from tracefork_otel.errors import UsageError

from ..spelling import counted, json_line, run_name
from .flags.options import STORE, RedactOption, SkipHostOption, StateOption, StoreOption
from .output import say

# What stands behind the first word is the agent's own.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def run(
    context: typer.Context,
    store: StoreOption = STORE,
    provider: Annotated[
        bool,
        typer.Option(
            "--provider", help="Set a global TracerProvider, for an agent that sets none of its own."
        ),
    ] = False,
    proxy: Annotated[
        bool,
        typer.Option(
            "--proxy",
            help="Record from outside, between the agent and its providers' base URLs: for any language.",
        ),
    ] = False,
    draws: Annotated[
        bool,
        typer.Option(
            "--draws", help="Record clocks, ids and randomness too, so that a replay reads the same values."
        ),
    ] = False,
    redact: RedactOption = None,
    skip_host: SkipHostOption = [],  # noqa: B006 (typer makes a list of its own)
    state: StateOption = [],  # noqa: B006
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Say what was recorded as one line of JSON, the last one on standard error."
        ),
    ] = False,
) -> int:
    """Run a command and record every model call of its processes: run -- python agent.py"""
    from ..agents.recording import record

    command = list(context.args)
    if not command:
        raise UsageError("no command to run: tracefork-otel run -- python agent.py")
    recorded = record(
        store,
        command,
        provider=provider,
        proxy=proxy,
        draws=draws,
        rules=redact,
        skip_hosts=skip_host,
        state=state,
    )
    if as_json:
        runs = [{"run_id": made.run_id, "steps": made.steps} for made in recorded.runs]
        told = {"runs": runs, "exit_status": recorded.exit_status, "problems": list(recorded.problems)}
        say(json_line(told))
        return recorded.exit_status
    for problem in recorded.problems:
        say(f"tracefork-otel: {problem}")
    for made in recorded.runs:
        run_id, steps = run_name(made.run_id), counted(made.steps, "step")
        say(f"tracefork-otel: run {run_id} recorded, {steps}: tracefork-otel show {run_id}")
    return recorded.exit_status
