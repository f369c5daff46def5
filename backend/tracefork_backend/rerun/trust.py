"""What may be started: what this machine's own recorder recorded, or what the user says."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace

from tracefork_otel.errors import UsageError
from tracefork_otel.redaction.hidden import DUMMY
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.settings import yes
from tracefork_otel.tape.key import why_no_key
from tracefork_otel.tape.marks import is_from_here
from tracefork_otel.tape.start import HowStarted, given_input
from tracefork_otel.tape.tape import Tape

from ..agents.environment import given_names, recorded_settings, working_directory
from ..spelling import counted, run_name, shown
from .starting import Agent
from .state import recorded_state

TRUST = "TRACEFORK_TRUST"
_REACHING = "TRACEFORK_SKIP_HOSTS"
"""The one of a recording's settings that says what a replay sends for real."""
_SHOWN = 200
"""Characters of an input that are shown."""


class NotTrusted(UsageError):
    """Something would be started that did not come from this machine's own recorder."""


def permitted(tape: Tape, *, agent: Agent | None, trust: bool, portable: bool) -> Tape:
    """Return the tape with that of its start which may be followed; raise NotTrusted, which shows it.

    All of it may where it was recorded here and is started where it was, or is trusted. A function of the
    caller's gets the arguments of any tape, for these are data, but neither its folder nor its environment.
    """
    start = tape.start
    ours = is_from_here(tape)
    if ours and (agent is not None or not _moved(start, portable=portable)):
        return tape
    if trusted(trust=trust):
        return tape
    if agent is not None:
        return replace(tape, start=_arguments_alone(start))
    if not start.command and not start.entrypoint:
        return tape  # nothing that could be started
    lines = [f"  {line}" for line in told(start, portable=portable)]
    raise NotTrusted(
        "\n".join(
            [
                f"{_why(tape, ours=ours)}, so it was not started:",
                *lines,
                "start it with --trust (TRACEFORK_TRUST=1, trust=True), or a function of yours in its place: "
                "--agent PKG.MOD:FN",
            ]
        )
    )


def trusted(*, trust: bool) -> bool:
    """Return whether the caller, or the environment, says that whatever is recorded may be started."""
    return trust or yes(TRUST, os.environ.get(TRUST) or "0")


def told(start: HowStarted, *, portable: bool) -> list[str]:
    """Return what would be started, where and with what, a line each, fit for a terminal."""
    lines: list[str] = []
    if start.command:
        lines.append(f"command      {shown(shlex.join(start.command))}")
    if start.entrypoint:
        lines.append(f"function     {shown(start.entrypoint)}")
    if start.arguments:
        lines.append(f"arguments    {shown(json.dumps(start.arguments, ensure_ascii=False))}")
    if not lines:
        return ["nothing says how it is started"]
    lines.append(f"folder       {shown(str(working_directory(start, portable=portable)))}")
    if start.script:
        lines.append(f"modules of   {shown(start.script)}")
    if start.stdin:
        size = counted(len(given_input(start.stdin)), "byte")
        lines.append(f"input        {shown(json.dumps(start.stdin[:_SHOWN], ensure_ascii=False))} ({size})")
    if (state := recorded_state(start)) is not None:
        lines.append(f"state        {state}")
    names = given_names(start)
    lines.append(f"environment  {shown(', '.join(names)) or '(nothing of the recording)'}")
    return lines


def _why(tape: Tape, *, ours: bool) -> str:
    what = f"what run {run_name(tape.run_id)} says of its start"
    if ours:
        return f"{what} was recorded by you, but in another folder"
    if (lacks := why_no_key()) is not None:
        return f"{what} was not recorded by you on this machine as far as can be told ({lacks})"
    return f"{what} was not recorded by you on this machine, or was changed"


def _moved(start: HowStarted, *, portable: bool) -> bool:
    """Return whether the agent would be started in another folder than it was recorded in."""
    return bool(start.cwd) and str(working_directory(start, portable=portable)) != start.cwd


def _arguments_alone(start: HowStarted) -> HowStarted:
    """Return what any recording may say: its arguments, how it ended, and what its redaction replaced."""
    dummies = dict.fromkeys(start.withheld, DUMMY)
    return replace(
        start,
        command=None,
        cwd=None,
        environment={name: value for name, value in recorded_settings(start).items() if name != _REACHING},
        withheld=Redactor().environment(dummies)[1],
        entrypoint=None,
        script=None,
        stdin=None,
        state=None,
    )
