"""A tape's agent started again: in this process, in a fresh process tree, or forked from a warm process."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tracefork_otel.decorators.main import NOT_STARTED
from tracefork_otel.errors import AgentFailed, UsageError
from tracefork_otel.play.match import parse_paths
from tracefork_otel.play.tools import TOOLS_MODES
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import CALLED, HowStarted
from tracefork_otel.tape.tape import Tape

from ..agents.environment import as_recorded, executable, given_back, traced, unstartable, working_directory
from ..agents.in_place import call, playing
from ..agents.pool import Refused, WarmPool
from ..agents.reach import reached, why_nothing
from ..agents.supervise import Finished, Stopper, run_command
from ..network.agents import behind_proxy, recorded_routes
from ..writeback.spans import RootSpan
from .reconstruct import with_script_folder
from .workspace import TrialSpace, Workspace

Agent: TypeAlias = str | Callable[..., Any]
"""`pkg.mod:fn`, or a function to call in this process."""

_ERROR_LENGTH = 4000
"""The agent's own error is shown whole up to this length, its end if it is longer."""


def playable(settings: Settings) -> Settings:
    """Return the settings; UsageError where no tape can be played so."""
    parse_paths(settings.ignore)
    if settings.tools is not None and settings.tools not in TOOLS_MODES:
        *modes, last = TOOLS_MODES
        raise UsageError(f"tools={settings.tools!r}: use {', '.join(modes)} or {last}")
    return settings


def _in_space(settings: Settings, space: TrialSpace) -> Settings:
    """Return the settings that play this space's files, and record into its store."""
    return replace(settings, store=space.store, tape=space.tape, intervention=space.intervention, seal=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the agent ended."""

    exit_status: int | None
    """128+n if signal n ended it; in place 1 if it raised, else 0."""
    name: str
    """The agent, as a person calls it."""
    stdout: str = ""
    stderr: str = ""
    result: object = None
    seconds: float = 0.0
    in_place: bool = False
    timed_out: float | None = None
    stopped: bool = False
    """Whether it was ended from here."""
    not_started: str | None = None
    """Why the agent was never at work."""
    notes: tuple[str, ...] = ()


class InPlace:
    """A function of this process, called for one replay or fork at a time."""

    concurrent = False

    def __init__(self, function: Callable[..., Any], tape: Tape, how: Settings) -> None:
        self._function = function
        self._arguments = tape.start.arguments
        self._how = as_recorded(how, tape.start)

    def run(self, space: TrialSpace, root: RootSpan, timeout: float | None, stopper: Stopper) -> Ended:
        """Call the function; what it raises is data here."""
        started = time.monotonic()
        status, error, result = 0, "", None
        with playing(_in_space(self._how, space), root.trace_id, root.span_id):
            try:
                result = call(self._function, self._arguments)
            except Exception:
                status, error = 1, traceback.format_exc()
        return Ended(
            exit_status=status,
            name=getattr(self._function, "__qualname__", repr(self._function)),
            stderr=error,
            result=result,
            seconds=time.monotonic() - started,
            in_place=True,
        )

    def close(self) -> None:
        """Hold nothing."""


class InProcesses:
    """A command, or a function of a module, in processes of its own each time."""

    concurrent = True

    def __init__(self, agent: str | None, tape: Tape, how: Settings, *, portable: bool) -> None:
        start = tape.start
        entrypoint = agent if agent is not None else _called(start)
        self._stdin: bytes | None = None
        if entrypoint is not None:
            if ":" not in entrypoint:
                raise UsageError(f"the agent {entrypoint!r} names no function: write it like pkg.mod:fn")
            self._argv: tuple[str, ...] = (sys.executable, "-m", "tracefork_otel.decorators.main", entrypoint)
            self._stdin = json.dumps(start.arguments).encode()
            start = with_script_folder(start)
        elif start.command:
            self._argv = executable(start.command)
        else:
            raise unstartable(tape.run_id, how.mode)
        self._entrypoint = entrypoint
        self._name = entrypoint or " ".join(self._argv)
        self._service = next((one.service for one in tape.exchanges), tape.name)
        self._arguments = start.arguments
        self._how = as_recorded(how, start)
        self._cwd = working_directory(start, portable=portable)
        self._base = given_back(start, os.environ)
        self._notes: tuple[str, ...] = ()
        self._pool: WarmPool | None = None
        self._routes = recorded_routes(start)

    def warm_up(self, workspace: Workspace, *, draws: bool) -> None:
        """Let a process import an agent function once; each run is then forked from it."""
        if self._entrypoint is None:
            return
        try:
            self._pool = WarmPool(
                self._entrypoint,
                env=self._base,
                cwd=self._cwd,
                tape=workspace.tape,
                settings=self._how,
                draws=draws,
            )
        except Refused as why:
            self._refuse(why)

    def _refuse(self, why: Refused) -> None:
        self._pool = None
        self._notes = (f"each fork started its agent anew: {why}",)

    def run(self, space: TrialSpace, root: RootSpan, timeout: float | None, stopper: Stopper) -> Ended:
        """Run the agent to its end, after which nothing of its process tree is left."""
        settings, launch = _in_space(self._how, space), (root.trace_id, root.span_id)
        env = traced(self._base, settings, launch=launch)
        try:
            with behind_proxy(self._routes, settings, launch=launch, name=self._service) as behind:
                finished = self._finished({**env, **behind.environment}, timeout, stopper)
        except AgentFailed as error:
            return Ended(exit_status=None, name=self._name, not_started=str(error))
        why: str | None = None
        if finished.reason == "exit":
            why = self._why_not_at_work(finished, space, root)
        return Ended(
            exit_status=finished.exit_status,
            name=self._name,
            stdout=finished.stdout,
            stderr=finished.stderr,
            seconds=finished.seconds,
            timed_out=timeout if finished.reason == "timeout" else None,
            stopped=finished.reason == "stopped",
            not_started=why,
            notes=self._notes,
        )

    def _finished(self, env: Mapping[str, str], timeout: float | None, stopper: Stopper) -> Finished:
        pool = self._pool
        if pool is not None:
            try:
                return pool.run(env=env, arguments=self._arguments, timeout=timeout, stopper=stopper)
            except Refused as why:
                self._refuse(why)
        return run_command(
            self._argv, env=env, cwd=self._cwd, timeout=timeout, stdin=self._stdin, stopper=stopper
        )

    def _why_not_at_work(self, finished: Finished, space: TrialSpace, root: RootSpan) -> str | None:
        status, said = finished.exit_status, own_words(finished.stderr)
        if status == NOT_STARTED and self._argv[1:2] == ("-m",):
            return f"the agent {self._name} cannot be imported{said}"
        if any((space.store / "wal").glob("*.wal")):
            return None
        if status:
            return f"{self._name} ended with status {status}{said}"
        why = why_nothing(self._argv, *reached(space.store, root.trace_id))
        return f"{self._name} ran outside of the {self._how.mode}: {why}"

    def close(self) -> None:
        """End the warm process, if there is one."""
        if self._pool is not None:
            self._pool.close()


def _called(start: HowStarted) -> str | None:
    """Return the function that is called at this start, also where our own command called it."""
    command: tuple[str, ...] = start.command or ()
    if len(command) > 3 and command[1] == "-m" and command[2] in CALLED:
        return command[3]
    return None if command else start.entrypoint


Way: TypeAlias = InPlace | InProcesses


def own_words(stderr: str) -> str:
    """Return what an agent that failed said, as the end of a sentence."""
    text = stderr.strip()
    if len(text) > _ERROR_LENGTH:
        text = "…" + text[-_ERROR_LENGTH:]
    return f"; it said:\n{text}" if text else ""
