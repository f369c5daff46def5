"""One tape, and all that its agent is started again with: by a replay once, by forks as often as asked."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.redaction import redact
from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape

from ..agents.environment import as_recorded
from ..agents.supervise import Stopper
from ..network.agents import recorded_routes
from ..spelling import run_name
from ..store import Run
from ..store.prices import NONE_GIVEN, Given
from ..writeback.spans import Root, WriteBack
from .elsewhere import Elsewhere, InJobs
from .reconstruct import reconstruct, without_housekeeping
from .records import Records
from .spending import Room
from .starting import Agent, Ended, InPlace, InProcesses
from .state import GivenState, lacking, with_state
from .trust import permitted
from .watch import OnDrift
from .workspace import TrialSpace, Workspace

Way: TypeAlias = InPlace | InProcesses | InJobs


class Stage:
    """Starts the agent of one tape; a context manager, at whose end everything is kept and nothing runs."""

    def __init__(
        self,
        source: Run | Tape,
        how: Settings,
        *,
        agent: Agent | None,
        store: Path | None,
        trust: bool = False,
        warm: bool = False,
        go_on: bool = False,
        on_drift: OnDrift | None = None,
        given: Given = NONE_GIVEN,
        portable: bool | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`store` is where what runs is kept, None if nowhere; `warm` lets functions be imported once.

        A tape's agent is started in this folder where that has its files too, the one of a run is not: a tape
        is `portable` unless it is told otherwise. With `elsewhere` it is started by whoever works there.

        An agent that only tries again what its tape does not answer is ended, unless it may `go_on`.

        Raises UsageError if nothing says how to start the agent, or something that is not trusted does (see
        `trust.permitted`), StoreError if nothing can be kept.
        """
        if portable is None:
            portable = isinstance(source, Tape)
        self.how = how
        tape = (
            source if isinstance(source, Tape) else reconstruct(source.store, source, command=agent is None)
        )
        self.tape = permitted(tape, agent=agent, trust=trust, portable=portable)
        if lost := self.tape.start.changes_lost:
            done = "replayed" if how.mode == "replay" else "forked"
            raise UsageError(f"run {run_name(tape.run_id)} is a fork that cannot be {done}: {lost}")
        # The proxy knows no housekeeping: what it recorded is asked of it again.
        if how.mode == "replay" and not recorded_routes(self.tape.start):
            self.tape = without_housekeeping(self.tape, as_recorded(how, self.tape.start).skip_hosts)
        if self.tape.cut_short is not None:
            on_drift = None  # what goes beyond the end of a recording is none
        self.way: Way
        if callable(agent):
            if elsewhere is not None:
                raise UsageError(
                    "an executor's workers cannot call a function of this process: name one of a module that "
                    "they have too, agent='pkg.mod:fn'"
                )
            self.way = InPlace(agent, self.tape, how, on_drift=on_drift, given=given)
        elif elsewhere is not None:
            held_state = source.store.path if isinstance(source, Run) else None
            sent = self.tape if held_state is None else with_state(self.tape, held_state)
            if lacks := lacking(sent):
                raise UsageError(
                    f"the files that the agent begins with are too much to be sent to workers: {lacks}; "
                    "leave the executor out"
                )
            self.way = InJobs(agent, sent, how, elsewhere, portable=portable, go_on=go_on, given=given)
        else:
            self.way = InProcesses(
                agent, self.tape, how, portable=portable, go_on=go_on, on_drift=on_drift, given=given
            )
        self.stopper = Stopper()
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(contextlib.ExitStack())
            self.workspace = stack.enter_context(contextlib.closing(Workspace(store, self.tape)))
            self.spans = stack.enter_context(WriteBack(store))
            stack.callback(self.way.close)
            self._state = GivenState(source, self.tape, self.way.folder, self.workspace, held)
            # What a process that is shared has open, or has read, would be the same files for all.
            if warm and isinstance(self.way, InProcesses) and not self._state.kept:
                self.way.warm_up(self.workspace, draws=bool(self.tape.draws))
            self._ending = stack.pop_all()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopper.stop()
        self._ending.__exit__(kind, error, trace)

    def run(
        self,
        space: TrialSpace,
        root: Root,
        *,
        timeout: float | None,
        room: Room | None = None,
    ) -> tuple[Ended, Records]:
        """Return how the agent ended and what it recorded below this root; from any number of threads.

        An agent in processes of its own is ended once what it spent leaves it no more room; a function makes
        no further call.
        """
        # Who starts it elsewhere has its files from the tape, and tells what was changed there.
        given = self._state.given(space) if self.way.is_here else contextlib.nullcontext()
        with given as originals:
            ended = self.way.run(space, root, timeout, self.stopper, room)
            changed = ended.changed if originals is None else tuple(originals.changed())
        records = self.records(space)
        left = (*records.left, *ended.left)
        return ended, replace(records, changed=changed, left=left, ran=ended.ran)

    @cached_property
    def redactor(self) -> redact.Redactor:
        """What takes secrets out of what the agent prints, by the rules of its recording."""
        return redact.of(as_recorded(self.how, self.tape.start))

    def records(self, space: TrialSpace) -> Records:
        """Return what was recorded there so far."""
        allowed = self.how.allow_hosts
        left = [one for one in self.way.left if one.program not in allowed]
        return replace(Records.read(space.store, allowed=allowed), left=left)

    def start_attributes(self) -> dict[str, object]:
        """Return what a root says of how its agent is started, so that the run can be run again itself."""
        told = self.tape.start.attributes()
        return {name: value for name, value in told.items() if name != "tracefork.exit_status"}
