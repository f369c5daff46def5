"""A tape's agent started again: in this process, in a fresh process tree, or forked from a warm process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tracefork_otel.decorators.main import NOT_STARTED
from tracefork_otel.errors import AgentFailed, UsageError
from tracefork_otel.play.match import MatchMode, parse_paths
from tracefork_otel.play.tools import TOOLS_MODES, ToolsMode
from tracefork_otel.settings import Mode, Settings, Timing
from tracefork_otel.tape.start import given_input
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.hosts import is_loopback
from tracefork_otel.wire.registry import port_of

from ..agents.environment import (
    as_recorded,
    executable,
    given_back,
    is_of_notebook,
    made_in_notebook,
    path_left_out,
    reaching,
    traced,
    unstartable,
    working_directory,
)
from ..agents.in_place import call, playing
from ..agents.left import Left, left_by, left_then
from ..agents.others import Others
from ..agents.output import Output
from ..agents.pool import Refused, WarmPool
from ..agents.program import Program, python_program
from ..agents.reach import reached, unwritable, why_nothing
from ..agents.supervise import Finished, Stopper, run_command
from ..network.agents import behind_proxy, recorded_routes
from ..spelling import run_name, shown
from ..store.prices import NONE_GIVEN, Given
from ..writeback.spans import Root
from .extent import lingering, longest_pause
from .reconstruct import script_folder
from .resting import resting
from .spending import MoneyWatch, Room
from .watch import DriftWatch, OnDrift, RestWatch
from .workspace import TrialSpace, Workspace

Agent: TypeAlias = str | Callable[..., Any]
"""`pkg.mod:fn`, or a function to call in this process."""

_ERROR_LENGTH = 4000
"""The agent's own error is shown whole up to this length, its end if it is longer."""


_LIMIT, _MOVED = "TRACEFORK_STATE_LIMIT", "TRACEFORK_MOVED"


def playable(
    mode: Mode,
    *,
    match: MatchMode,
    ignore: Sequence[str],
    timing: Timing,
    allow_hosts: Sequence[str],
    skip_hosts: Sequence[str],
    tools: ToolsMode | None,
) -> Settings:
    """Return the settings by which a tape is played; UsageError where none can be played so."""
    handed = Settings.from_env({name: os.environ.get(name, "") for name in (_LIMIT, _MOVED)})
    settings = Settings(
        mode=mode,
        match=match,
        ignore=tuple(ignore),
        timing=timing,
        allow_hosts=tuple(allow_hosts),
        skip_hosts=tuple(skip_hosts),
        tools=tools,
        # What is handed down of the caller's own settings: how much its disk may hold, and what moved where.
        state_limit=handed.state_limit,
        moved=handed.moved if mode == "fork" else (),
    )
    parse_paths(settings.ignore)
    if tools is not None and tools not in TOOLS_MODES:
        *modes, last = TOOLS_MODES
        raise UsageError(f"tools={tools!r}: use {', '.join(modes)} or {last}")
    return settings


def _in_space(settings: Settings, space: TrialSpace) -> Settings:
    """Return the settings that play this space's files, and record into its store."""
    return replace(
        settings,
        store=space.store,
        tape=space.tape,
        intervention=space.intervention,
        private=space.private,
        seal=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the agent ended."""

    exit_status: int | None
    """128+n if signal n ended it; in place 1 if it raised, else 0."""
    name: str
    """The agent, as a person calls it."""
    stdout: str = ""
    stderr: str = ""
    output: Output | None = None
    """All of its standard output, as far as it was kept."""
    result: object = None
    seconds: float = 0.0
    in_place: bool = False
    timed_out: float | None = None
    stopped: bool = False
    """Whether it was ended from here."""
    not_started: str | None = None
    """Why the agent was never at work."""
    given_up: str | None = None
    """Why it was ended from here: it only tried again what its tape does not answer."""
    rested: str | None = None
    """What it was at when it was ended from here: it only waited for somebody who asks, or for work."""
    no_room: str | None = None
    """Why it was ended from here: the budget had no room for its next call."""
    lost: str | None = None
    """Why nobody knows how it ended: it ran elsewhere, and nothing came back of it."""
    left: tuple[Left, ...] = ()
    """Programs that were seen to ask somebody, and that nothing plays to."""
    ran: tuple[str, ...] = ()
    """Known interpreters of other languages that were seen to run."""
    changed: tuple[str, ...] = ()
    """Files of another machine that it changed there, though it had copies."""
    notes: tuple[str, ...] = ()

    @property
    def too_long(self) -> str | None:
        """Say that it did not end in time, if it did not."""
        if self.timed_out is None:
            return None
        return (
            f"{self.name} did not end within {self.timed_out:g} s and was ended; raise --timeout if it "
            "needs longer"
        )


class InPlace:
    """A function of this process, called for one replay or fork at a time."""

    concurrent = False
    is_here = True
    """Whether it runs on this machine, and what it records is here meanwhile."""
    left: tuple[Left, ...] = ()
    """Programs that the command starts out of reach."""

    @property
    def folder(self) -> Path:
        """Where the agent is started."""
        return Path.cwd()

    def __init__(
        self,
        function: Callable[..., Any],
        tape: Tape,
        how: Settings,
        *,
        on_drift: OnDrift | None = None,
        given: Given = NONE_GIVEN,
    ) -> None:
        self._on_drift = on_drift
        self._given = given
        self._function = function
        self._arguments = tape.start.arguments
        self._how = as_recorded(how, tape.start)

    def run(
        self,
        space: TrialSpace,
        root: Root,
        timeout: float | None,
        stopper: Stopper,
        room: Room | None = None,
    ) -> Ended:
        """Call the function; what it raises is data here."""
        started = time.monotonic()
        status, error, result = 0, "", None
        watch = DriftWatch(space.claims, on_drift=self._on_drift)
        money = None
        if room is not None:
            money = MoneyWatch(space.folder, space.store, room, self._given, None)
        with (
            money or contextlib.nullcontext(),
            watch,
            playing(_in_space(self._how, space), root.trace_id, root.span_id),
        ):
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
            no_room=None if money is None else money.ended,
        )

    def close(self) -> None:
        """Hold nothing."""


class InProcesses:
    """A command, or a function of a module, in processes of its own each time."""

    concurrent = True
    is_here = True
    """Whether it runs on this machine, and what it records is here meanwhile."""

    def __init__(
        self,
        agent: str | None,
        tape: Tape,
        how: Settings,
        *,
        portable: bool,
        go_on: bool = False,
        on_drift: OnDrift | None = None,
        given: Given = NONE_GIVEN,
    ) -> None:
        self._go_on = go_on
        self._given = given
        self._on_drift = on_drift
        start = tape.start
        entrypoint = agent if agent is not None else start.calls
        self._stdin: bytes | None = None
        self._stdin_kind: str | None = None
        if agent is None and is_of_notebook(entrypoint, start.command):
            raise made_in_notebook(tape.run_id)
        if entrypoint is not None:
            if ":" not in entrypoint:
                raise UsageError(f"the agent {entrypoint!r} names no function: write it like pkg.mod:fn")
            if agent is None and start.arguments is None and start.arguments_lost:
                done = "replayed" if how.mode == "replay" else "forked"
                raise UsageError(
                    f"run {run_name(tape.run_id)} cannot be {done}: it is a call of {shown(entrypoint)}, and "
                    f"{start.arguments_lost}; name a function that makes it, and needs none: "
                    "--agent pkg.mod:fn"
                )
            self._argv: tuple[str, ...] = (sys.executable, "-m", "tracefork_otel.decorators.main", entrypoint)
            self._stdin = json.dumps(start.arguments).encode()
            start = replace(start, script=script_folder(start))
        elif start.command:
            self._argv = executable(start.command)
            if start.stdin_lost:
                done = "replayed" if how.mode == "replay" else "forked"
                raise UsageError(f"run {run_name(tape.run_id)} cannot be {done}: {start.stdin_lost}")
            self._stdin = None if start.stdin is None else given_input(start.stdin)
            self._stdin_kind = start.stdin_kind
        else:
            raise unstartable(tape.run_id, how.mode)
        self._entrypoint = entrypoint
        self._name = shown(entrypoint or " ".join(self._argv))
        self._service = next((one.service for one in tape.exchanges), tape.name)
        self._arguments = start.arguments
        self._how = as_recorded(how, start)
        self.folder = working_directory(start, portable=portable)
        """Where the agent is started."""
        # What goes by a proxy is played there, whoever asks.
        by_command = entrypoint is None and not recorded_routes(start)
        self.left: tuple[Left, ...] = (
            (*left_by(reaching(self._argv), self.folder, recording=False), *left_then(tape.notes))
            if by_command
            else ()
        )
        """Programs that the command starts out of reach."""
        self._base = given_back(start, os.environ, self.folder)
        self._notes: tuple[str, ...] = ()
        self._pool: WarmPool | None = None
        self._program: Program | None = None
        """A program that nobody has imported yet; its runs tell what they import."""
        self._warming = threading.Lock()
        self._routes = recorded_routes(start)
        self._linger, self._pause_s = lingering(tape), longest_pause(tape)
        # One thread may go beyond the end of a recording that was cut short before another is there.
        self._steps = tape.steps if tape.cut_short is not None else 0
        urls = [urlsplit(one.request.url) for one in tape.exchanges]
        self._recorded = frozenset(port_of(url) for url in urls if is_loopback(url.hostname or ""))
        self._tape_steps, self._was_ended = tape.steps, tape.cut_short is not None
        left = path_left_out(start, os.environ)
        self._hint = f"; no recording sets PYTHONPATH, set it as it was: {shown(left)}" if left else ""

    def warm_up(self, workspace: Workspace, *, draws: bool) -> None:
        """Let a process import the agent once; each run is then forked from it.

        A function is imported now; of a program the first run tells what it imports, and those after it are
        forked.
        """
        self._warm = partial(
            WarmPool, env=self._base, cwd=self.folder, tape=workspace.tape, settings=self._how, draws=draws
        )
        if self._entrypoint is not None:
            self._import(self._entrypoint)
        elif not self._routes and self._stdin_kind != "closed":
            told = workspace.folder / "imported.json"
            self._program = python_program(self._argv, env=self._base, folder=self.folder, imported=told)

    def _import(self, agent: str | Program) -> None:
        try:
            self._pool = self._warm(agent)
        except Refused as why:
            self._refuse(why)

    def _warmed(self) -> WarmPool | None:
        """Return the warm process, started now if a run has told by now what it is to import."""
        with self._warming:
            program = self._program
            if program is not None and program.imported.exists():
                self._program = None
                self._import(program)
            return self._pool

    @property
    def is_warm(self) -> bool:
        """Whether its runs are forked from a process that imported the agent."""
        return self._pool is not None

    def _refuse(self, why: Refused) -> None:
        self._pool = None
        self._notes = (f"each fork started its agent anew: {why}",)

    def run(
        self,
        space: TrialSpace,
        root: Root,
        timeout: float | None,
        stopper: Stopper,
        room: Room | None = None,
    ) -> Ended:
        """Run the agent to its end, after which nothing of its process tree is left."""
        settings, launch = _in_space(self._how, space), (root.trace_id, root.span_id)
        env = traced(self._base, settings, launch=launch)
        own = Stopper()
        end = None if self._go_on else own.stop
        watch = DriftWatch(space.claims, on_drift=self._on_drift, end=end, steps=self._steps)
        # It may go on with its calls until it is gone, so it gets no time to end by itself.
        at_once = partial(own.stop, at_once=True)
        money = None
        if room is not None:
            money = MoneyWatch(space.folder, space.store, room, self._given, at_once)
        rest = RestWatch(
            space.claims,
            own.commands,
            own.stop,
            steps=self._tape_steps,
            replays=self._how.mode == "replay",
            waited=self._was_ended,
            pause_s=self._pause_s,
        )
        # A fork may ask for real after its change, and the system does not tell before from after.
        others = Others(own.commands, recorded=self._recorded, allowed=self._how.allow_hosts)
        try:
            with (
                money or contextlib.nullcontext(),
                others if self._how.mode == "replay" else contextlib.nullcontext(),
                rest if self._entrypoint is None and not self._go_on else contextlib.nullcontext(),
                behind_proxy(self._routes, settings, launch=launch, name=self._service) as behind,
                stopper.over(own),
                watch,
            ):
                finished = self._finished({**env, **behind.environment}, timeout, own)
        except AgentFailed as error:
            return Ended(exit_status=None, name=self._name, not_started=str(error))
        ended = finished.reason == "stopped" and not stopper.stopped
        gave_up = ended and watch.ended is not None
        spent = money.ended if ended and money is not None else None
        rested = resting(self._argv, rest.ended) if ended and rest.ended is not None else None
        gave_up = gave_up and rested is None
        why: str | None = None
        if finished.reason == "exit":
            why = self._why_not_at_work(finished, space, root)
        return Ended(
            exit_status=None if gave_up or rested else finished.exit_status,
            name=self._name,
            stdout=finished.stdout,
            stderr=finished.stderr,
            output=finished.output,
            seconds=finished.seconds,
            timed_out=timeout if finished.reason == "timeout" else None,
            stopped=finished.reason == "stopped" and not gave_up and spent is None and rested is None,
            rested=rested,
            no_room=spent,
            not_started=why,
            given_up=watch.ended if gave_up else None,
            notes=self._notes,
            left=others.left,
            ran=others.ran,
        )

    def _finished(self, env: Mapping[str, str], timeout: float | None, stopper: Stopper) -> Finished:
        pool = self._warmed()
        if pool is not None:
            given = None if self._entrypoint is not None else self._stdin
            try:
                return pool.run(
                    env=env,
                    arguments=self._arguments,
                    timeout=timeout,
                    stdin=given,
                    stdin_kind=self._stdin_kind,
                    stopper=stopper,
                    linger=self._linger,
                )
            except Refused as why:
                self._refuse(why)
        telling = {"TRACEFORK_IMPORTED": str(program.imported)} if (program := self._program) else {}
        return run_command(
            reaching(self._argv),
            env={**env, **telling},
            cwd=self.folder,
            timeout=timeout,
            stdin=self._stdin,
            stdin_kind=self._stdin_kind,
            stopper=stopper,
            linger=self._linger,
        )

    def _why_not_at_work(self, finished: Finished, space: TrialSpace, root: Root) -> str | None:
        status, said = finished.exit_status, own_words(finished.stderr)
        if status == NOT_STARTED and self._argv[1:2] == ("-m",):
            return f"the agent {self._name} cannot be imported{self._hint}{said}"
        if any((space.store / "wal").glob("*.wal")):
            return None
        if status:
            return f"{self._name} ended with status {status}{self._hint}{said}"
        why = unwritable(space.store) or why_nothing(
            self._argv, *reached(space.store, root.trace_id), self.left
        )
        return f"{self._name} ran outside of the {self._how.mode}: {why}"

    def close(self) -> None:
        """End the warm process, if there is one."""
        if self._pool is not None:
            self._pool.close()


def own_words(stderr: str) -> str:
    """Return what an agent that failed said, as the end of a sentence."""
    text = stderr.strip()
    if len(text) > _ERROR_LENGTH:
        text = "…" + text[-_ERROR_LENGTH:]
    return f"; it said:\n{text}" if text else ""
