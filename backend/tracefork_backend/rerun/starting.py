"""The agent of a fork started: in this process, in a fresh process tree, or forked from a warm process."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tracefork_otel.decorators.main import NOT_STARTED
from tracefork_otel.errors import AgentFailed, UsageError
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import TOOLS_MODES, ToolsMode
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..agents import (
    Finished,
    Stopper,
    executable,
    given_back,
    kept_settings,
    run_command,
    traced,
    unstartable,
    working_directory,
)
from ..agents.in_place import call, playing
from ..agents.pool import Refused, WarmPool
from ..agents.reach import reached, why_nothing
from ..network.agents import behind_proxy, recorded_routes
from ..writeback import RootSpan
from .accounting import Ended
from .reconstruct import with_script_folder
from .workspace import TrialSpace

Agent: TypeAlias = str | Callable[..., Any]


def check_tools(asked: object) -> None:
    """Raise UsageError if this is no way to answer calls of tools."""
    if asked is not None and asked not in TOOLS_MODES:
        raise UsageError(f"tools={asked!r}: use {', '.join(TOOLS_MODES[:-1])} or {TOOLS_MODES[-1]}")


# The agent's own error is shown whole up to this length, its end if it is longer.
_ERROR_LENGTH = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Playing:
    """How the tape is played, the same for all forks of one call."""

    tape: Path
    match: MatchMode = "exact"
    ignore: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    tools: ToolsMode | None = None


class InPlace:
    """A function of this process, called for one fork at a time."""

    concurrent = False

    def __init__(self, function: Callable[..., Any], tape: Tape, how: Playing) -> None:
        self._function = function
        self._tape = tape
        self._how = how

    def run(self, space: TrialSpace, root: RootSpan, timeout: float | None, stopper: Stopper) -> Ended:
        """The function returned, or raised, which is data here."""
        settings = _settings(self._tape.start, self._how, space)
        name = getattr(self._function, "__qualname__", repr(self._function))
        started = time.monotonic()
        with playing(settings, root.trace_id, root.span_id):
            status, error, result = 0, "", None
            try:
                result = call(self._function, self._tape.start.arguments)
            except Exception:
                status, error = 1, traceback.format_exc()
        return Ended(
            exit_status=status,
            name=name,
            stderr=error,
            result=result,
            seconds=time.monotonic() - started,
            in_place=True,
        )

    def close(self) -> None:
        """Nothing is held."""


class InProcesses:
    """A command, or a function of a module, in processes of its own for each fork."""

    concurrent = True

    def __init__(self, tape: Tape, how: Playing, agent: str | None, *, portable: bool, warm: bool) -> None:
        start = tape.start
        entrypoint = agent if agent is not None else None if start.command else start.entrypoint
        self._stdin: bytes | None = None
        self._entrypoint = entrypoint
        if entrypoint is not None:
            self._argv: tuple[str, ...] = (sys.executable, "-m", "tracefork_otel.decorators.main", entrypoint)
            self._stdin = json.dumps(start.arguments).encode()
            start = with_script_folder(start)
        elif start.command:
            self._argv = executable(start.command)
        else:
            raise unstartable(tape.run_id, "forked by", "--fork RUN@STEP")
        self._name = entrypoint or " ".join(self._argv)
        self._start = start
        self._how = how
        self._cwd = working_directory(start, portable=portable)
        self._base = given_back(start, os.environ)
        self._notes: tuple[str, ...] = ()
        self._pool: WarmPool | None = None
        self._routes = recorded_routes(start)
        if warm and entrypoint is not None:
            self._warm_up(entrypoint, bool(tape.draws))

    def _warm_up(self, entrypoint: str, draws: bool) -> None:
        kept = kept_settings(self._start)
        tape = self._how.tape
        try:
            self._pool = WarmPool(
                entrypoint, env=self._base, cwd=self._cwd, tape=tape, settings=kept, draws=draws
            )
        except Refused as why:
            self._refuse(why)

    def _refuse(self, why: Refused) -> None:
        self._pool = None
        self._notes = (f"each fork started its agent anew: {why}",)

    def run(self, space: TrialSpace, root: RootSpan, timeout: float | None, stopper: Stopper) -> Ended:
        """The agent ended, and nothing of its process tree is left."""
        env = self._environment(self._start, space, root)
        launch = root.trace_id, root.span_id
        try:
            with behind_proxy(self._routes, self._settings(space), launch=launch, name="agent") as behind:
                finished = self._finished({**env, **behind.environment}, timeout, stopper)
        except AgentFailed as error:
            return Ended(exit_status=None, name=self._name, not_started=str(error))
        return self._ended(finished, space, root, timeout)

    def _settings(self, space: TrialSpace) -> Settings:
        return _settings(self._start, self._how, space)

    def _finished(self, env: Mapping[str, str], timeout: float | None, stopper: Stopper) -> Finished:
        pool = self._pool
        if pool is not None:
            try:
                return pool.run(env=env, arguments=self._start.arguments, timeout=timeout, stopper=stopper)
            except Refused as why:
                self._refuse(why)
        return run_command(
            self._argv, env=env, cwd=self._cwd, timeout=timeout, stdin=self._stdin, stopper=stopper
        )

    def _environment(self, start: HowStarted, space: TrialSpace, root: RootSpan) -> dict[str, str]:
        how = self._how
        return traced(
            self._base,
            mode="fork",
            store=space.store,
            trace_id=root.trace_id,
            span_id=root.span_id,
            settings={
                "TRACEFORK_TAPE": str(how.tape.absolute()),
                "TRACEFORK_INTERVENTION": str(space.intervention.absolute()),
                "TRACEFORK_MATCH": how.match,
                "TRACEFORK_IGNORE": ",".join(how.ignore),
                "TRACEFORK_ALLOW_HOSTS": ",".join(how.allow_hosts),
                "TRACEFORK_TOOLS": how.tools or "",
                "TRACEFORK_SEAL": "0",
                **kept_settings(start),
            },
        )

    def _ended(self, finished: Finished, space: TrialSpace, root: RootSpan, timeout: float | None) -> Ended:
        stderr = finished.stderr.text()
        why: str | None = None
        if finished.reason == "exit":
            why = self._why_not_at_work(finished.exit_status, stderr, space, root)
        return Ended(
            exit_status=finished.exit_status,
            name=self._name,
            stdout=finished.stdout.text(),
            stderr=stderr,
            seconds=finished.seconds,
            timed_out=timeout if finished.reason == "timeout" else None,
            stopped=finished.reason == "stopped",
            not_started=why,
            notes=self._notes,
        )

    def _why_not_at_work(self, status: int, stderr: str, space: TrialSpace, root: RootSpan) -> str | None:
        if status == NOT_STARTED and self._entrypoint is not None:
            return f"the agent {self._name} cannot be imported{_own_words(stderr)}"
        if any((space.store / "wal").glob("*.wal")):
            return None
        if status:
            return f"{self._name} ended with status {status}{_own_words(stderr)}"
        why = why_nothing(self._argv, *reached(space.store, root.trace_id))
        return f"{self._name} ran outside of the fork: {why}"

    def close(self) -> None:
        """The warm process, if there is one, has ended."""
        if self._pool is not None:
            self._pool.close()


def _settings(start: HowStarted, how: Playing, space: TrialSpace) -> Settings:
    """What plays the tape of a fork in this process."""
    return replace(
        Settings.from_env(kept_settings(start)),
        mode="fork",
        store=space.store,
        tape=how.tape,
        intervention=space.intervention,
        match=how.match,
        ignore=how.ignore,
        allow_hosts=how.allow_hosts,
        tools=how.tools,
        seal=False,
    )


Way: TypeAlias = InPlace | InProcesses


def way_of(agent: Agent | None, tape: Tape, how: Playing, *, portable: bool, warm: bool) -> Way:
    """How the agent of this tape is started; raises UsageError if nothing says how."""
    if callable(agent):
        return InPlace(agent, tape, how)
    return InProcesses(tape, how, agent, portable=portable, warm=warm)


def _own_words(stderr: str) -> str:
    text = stderr.strip()
    if len(text) > _ERROR_LENGTH:
        text = "…" + text[-_ERROR_LENGTH:]
    return f"; it said:\n{text}" if text else ""
