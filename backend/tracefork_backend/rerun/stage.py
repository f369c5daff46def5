"""One tape, and all that its agent is started again with: by a replay once, by forks as often as asked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape

from ..agents.supervise import Stopper
from ..store import Run
from ..writeback.spans import RootSpan, WriteBack
from .reconstruct import reconstruct
from .records import Records
from .starting import Agent, Ended, InPlace, InProcesses, Way
from .workspace import TrialSpace, Workspace


class Stage:
    """Starts the agent of one tape; a context manager, at whose end everything is kept and nothing runs."""

    def __init__(
        self,
        source: Run | Tape,
        how: Settings,
        *,
        agent: Agent | None,
        store: Path | None,
        warm: bool = False,
    ) -> None:
        """`store` is where what runs is kept, None if nowhere; `warm` lets functions be imported once.

        Raises UsageError if nothing says how to start the agent, StoreError if nothing can be kept.
        """
        portable = isinstance(source, Tape)
        self.how = how
        self.tape = reconstruct(source.store, source, command=agent is None) if not portable else source
        self.way: Way = (
            InPlace(agent, self.tape, how)
            if callable(agent)
            else InProcesses(agent, self.tape, how, portable=portable)
        )
        self.stopper = Stopper()
        with contextlib.ExitStack() as stack:
            self.workspace = stack.enter_context(contextlib.closing(Workspace(store, self.tape)))
            self.spans = stack.enter_context(WriteBack(store))
            stack.callback(self.way.close)
            if warm and isinstance(self.way, InProcesses):
                self.way.warm_up(self.workspace, draws=bool(self.tape.draws))
            self._ending = stack.pop_all()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopper.stop()
        self._ending.__exit__(kind, error, trace)

    def run(self, space: TrialSpace, root: RootSpan, *, timeout: float | None) -> tuple[Ended, Records]:
        """Return how the agent ended and what it recorded below this root; from any number of threads."""
        ended = self.way.run(space, root, timeout, self.stopper)
        return ended, Records.read(space.store)

    def start_attributes(self) -> dict[str, object]:
        """Return what a root says of how its agent is started, so that the run can be run again itself."""
        told = self.tape.start.attributes()
        return {name: value for name, value in told.items() if name != "tracefork.exit_status"}
