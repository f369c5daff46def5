"""A run forked at a step: its prefix replayed, one thing changed, and the agent left to go on from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.files import own_folder, store_folder
from tracefork_otel.log import LOG
from tracefork_otel.play.intervention import Intervention, Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.tape import Tape

from ..grading.oracle import Oracle, grade, remarks_of
from ..grading.steady import Steady
from ..spelling import run_name
from ..store import Run, Store, open_store
from ..store.prices import NONE_GIVEN, Given, prices_told
from ..writeback.names import PROBLEM, PROBLEM_TEXT
from ..writeback.spans import RootSpan, SpanRef
from .accounting import Account
from .edits import Edit
from .elsewhere import Elsewhere
from .memory import Memories
from .problems import first_problem
from .result import Fork
from .said import Said
from .spending import Room
from .stage import Stage
from .starting import Agent, playable
from .told_changes import told_changes
from .work import work
from .workspace import TrialSpace

__all__ = ["Agent", "Fork", "Forker", "Gate", "OnDone", "Planned"]

OnDone: TypeAlias = Callable[[Fork], None]

_NAME_OF_FORK = re.compile(r"fork (?P<name>.*)@\d+", re.DOTALL)
DEFAULT_TIMEOUT = 600.0
"""Seconds: longer than agents take that somebody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fork to make."""

    change: Intervention
    """An edit bound to the tape."""
    replicate: str | None = None
    """Forks of one replicate share what models answered to equal requests of their tails; None: with none."""


class Gate(Protocol):
    """Says which of the planned forks start, such as those that a budget has room for."""

    def admit(self, at: int) -> bool:
        """Return whether the fork planned at that place starts; it may wait until others have ended."""
        ...

    def watching(self, at: int) -> Room | None:
        """Return what tells by what it spent whether the fork planned there may go on; None: it may."""
        ...

    def ended(self, at: int, fork: Fork) -> None:
        """Take in a fork that is not graded yet, in the thread that ran its agent to its end."""
        ...

    def failed(self, at: int) -> None:
        """Take in that the fork planned there came to no end: it was admitted, and something was raised."""
        ...


def check_jobs(jobs: int) -> None:
    """Raise UsageError where no fork would ever run."""
    if jobs < 1:
        raise UsageError(f"jobs={jobs}: at least one fork has to run at a time")


class Forker:
    """Makes forks of one run; a context manager, at whose end everything is in the store and nothing runs.

    For one call after the other: the warm process, the tape and the spans' writer are kept between them.
    """

    def __init__(
        self,
        source: Run | Tape,
        *,
        agent: Agent | None = None,
        jobs: int = 1,
        timeout: float | None = DEFAULT_TIMEOUT,
        store: Store | None = None,
        match: MatchMode = "exact",
        ignore: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
        skip_hosts: Sequence[str] = (),
        timing: Timing = "none",
        tools: ToolsMode | None = None,
        trust: bool = False,
        go_on: bool = False,
        prices: Given = NONE_GIVEN,
        executor: Executor | None = None,
        allow_drift: bool = False,
        experiment_id: str | None = None,
        warm: bool = True,
    ) -> None:
        """Raises UsageError if nothing says how to start the agent, StoreError if forks cannot be kept.

        `tools`, `trust` and `go_on` say what they say to `replay`. `warm` lets an agent
        function be forked from a process that imported it once. Trials of an experiment leave no notes in
        the parent's trace: it writes its own.
        """
        check_jobs(jobs)
        how = playable(
            "fork",
            match=match,
            ignore=ignore,
            timing=timing,
            allow_hosts=allow_hosts,
            skip_hosts=skip_hosts,
            tools=tools,
        )
        self.store = source.store if store is None and isinstance(source, Run) else store
        self.timeout = timeout
        self._experiment_id = experiment_id
        self._made = 0
        self._said: set[str] = set()
        self._steady = Steady()
        self.roots: dict[str, str] = {}
        """The root span of each fork made so far, by its run."""
        self._at_work: dict[str, RootSpan] = {}
        self._stage = Stage(
            source,
            how,
            agent=agent,
            store=self._directory(),
            trust=trust,
            warm=warm,
            go_on=go_on,
            given=prices,
            elsewhere=None
            if executor is None
            else Elsewhere(submit=partial(executor.submit, work), allow_drift=allow_drift),
        )
        self._prices = prices
        self.tape = self._stage.tape
        self.jobs = jobs if self._stage.way.concurrent else 1
        """How many agents run at a time, at most."""
        self._parent_is_here = self.store is not None and self.store.has_run(self.tape.run_id)
        self.root_of_parent = (
            self.store.root_of(self.tape.run_id) if self.store and self._parent_is_here else None
        )
        self._memories = Memories(self._stage.workspace.folder, lag=self.jobs, match=match, ignore=how.ignore)

    def _directory(self) -> Path | None:
        """Return the directory in which forks are kept, made if need be; None if they are not kept."""
        store = self.store
        if store is None:
            return None
        if not store.writable:
            if store.path.exists():
                raise StoreError(
                    f"{store.path} cannot be written, so no fork can be kept in it; name another store"
                )
            store_folder(store.path)
            own_folder(store.path / "wal")  # an empty folder is no store
            self.store = store = open_store(store.path)
        return store.path

    def __enter__(self) -> Forker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and self._experiment_id is None:
            self._interrupted(error)
        self._stage.__exit__(kind, error, trace)

    def _interrupted(self, error: KeyboardInterrupt) -> None:
        """Say in each fork that was at work, and with the error, that it is kept as far as it went."""
        why = "it was interrupted before it was done"
        told = {PROBLEM: "stopped", PROBLEM_TEXT: why}
        for root in self._at_work.values():
            with suppress(StoreError):  # that it was interrupted is what is to be seen
                root.end(status="ERROR", message=f"KeyboardInterrupt: {why}", attributes=told)
                if self.store is not None:
                    name = run_name(root.trace_id)
                    error.add_note(
                        f"fork {name} is kept as far as it went: tracefork-otel show {name}"
                        if self._stage.way.is_here
                        else f"fork {name} is lost: a worker had it, who ends it by itself"
                    )

    def fork(self, at: int, edit: Edit, *, tail: Tail = "live", oracle: Oracle | None = None) -> Fork:
        """Return the one fork of this edit at this step."""
        (made,) = self.forks([Planned(change=edit.bind(self.tape, at, tail=tail))], oracle=oracle)
        return made

    def stop(self) -> None:
        """Begin to end what runs, and start nothing more; for a thread other than the one that waits."""
        self._stage.stopper.stop()

    def remember(self, replicate: str, number: int, exchanges: Iterable[Exchange]) -> None:
        """Share calls of a trial from before, whose number is below zero, with forks of the replicate."""
        self._memories.add(replicate, number, exchanges)
        self._memories.ended(replicate, number)

    def forks(
        self,
        planned: Iterable[Planned],
        *,
        oracle: Oracle | None = None,
        on_done: OnDone | None = None,
        gate: Gate | None = None,
        settle: bool = True,
    ) -> list[Fork]:
        """Return the forks, in the order in which they were planned; `on_done` is given each when it is done.

        What the gate does not admit is left out. Without `settle` they reach the store when this closes.
        """
        self._memories.settled(self._made)
        made: dict[int, Fork] = {}
        for at, fork in self._done(list(planned), oracle, gate):
            made[at] = fork
            if on_done is not None:
                on_done(fork)
        if settle:
            self._stage.workspace.settle()
        return [made[at] for at in sorted(made)]

    def _done(
        self, planned: Sequence[Planned], oracle: Oracle | None, gate: Gate | None
    ) -> Iterator[tuple[int, Fork]]:
        """Yield the forks as they end, each with its place among those asked for."""
        # Roots are opened, and the gate is asked, when an agent is about to start: what waits is not running.
        rest = ((at, one) for at, one in enumerate(planned) if gate is None or gate.admit(at))
        jobs = min(self.jobs, len(planned))
        if jobs <= 1:
            for at, one in rest:
                attempt = self._begun(at, one, gate)
                yield at, self._graded(attempt, *self._ran(attempt, gate), oracle)
            return
        waiting: dict[Future[tuple[Fork, Said]], _Attempt] = {}
        with ThreadPoolExecutor(jobs, thread_name_prefix="tracefork-fork") as executor:

            def start(count: int) -> None:
                for at, one in islice(rest, count):
                    attempt = self._begun(at, one, gate)
                    waiting[executor.submit(self._ran, attempt, gate)] = attempt

            try:
                start(jobs)
                while waiting:
                    future = next(as_completed(waiting))
                    attempt = waiting.pop(future)
                    ran = future.result()
                    start(1)
                    yield attempt.at, self._graded(attempt, *ran, oracle)
            except BaseException:
                self._stage.stopper.stop()
                raise

    def _begun(self, at: int, planned: Planned, gate: Gate | None) -> _Attempt:
        """Open the fork's root and write its files; what raises is told to the gate, which others wait at."""
        try:
            return self._opened(at, planned)
        except BaseException:
            if gate is not None:
                gate.failed(at)
            raise

    def _opened(self, at: int, planned: Planned) -> _Attempt:
        change, told = told_changes(self.tape, planned.change, self._stage.redactor)
        forked = self.tape.exchanges[change.step]
        root = self._stage.spans.open_fork(
            change,
            name=name_of(self.tape),
            parent_run_id=self.tape.run_id,
            parent_root_span_id=self.root_of_parent,
            forked=SpanRef(trace_id=forked.told_in, span_id=forked.span_id),
            experiment_id=self._experiment_id,
            attributes={**self._stage.start_attributes(), **told},
        )
        self.roots[root.trace_id] = root.span_id
        self._at_work[root.trace_id] = root
        change = replace(change, fork_id=root.trace_id, experiment_id=self._experiment_id)
        number, self._made = self._made, self._made + 1
        space = self._stage.workspace.trial(change)
        if planned.replicate is not None and space.intervention is not None:
            self._memories.begin(planned.replicate, number, space.intervention)
        return _Attempt(at, number, change, planned.replicate, root, space)

    def _ran(self, attempt: _Attempt, gate: Gate | None) -> tuple[Fork, Said]:
        """Run the agent to its end and return the fork, not yet graded, and its output; from any thread."""
        change, replicate = attempt.change, attempt.replicate
        try:
            room = None if gate is None else gate.watching(attempt.at)
            ended, records = self._stage.run(attempt.space, attempt.root, timeout=self.timeout, room=room)
            if replicate is not None:
                self._memories.add(replicate, attempt.number, records.exchanges)
            if self._experiment_id is None:
                self._stage.spans.forward(records.spans, records.exchanges)
            if self._experiment_id is not None:
                self._say_once(records.written())
            account = Account(
                self.tape,
                change,
                attempt.space,
                records=records,
                ended=ended,
                how=self._stage.how,
                given=self._prices,
            )
            said = Said(ended=ended, records=records, space=attempt.space)
            fork = Fork(
                run_id=attempt.root.trace_id,
                parent_run_id=self.tape.run_id,
                step=change.step,
                kind=change.kind,
                intervention=change.label,
                tail=change.tail,
                trial=attempt.number,
                store=self.store,
                problem=first_problem(account),
                **account.fields(),
                **said.fields(),
            )
        except BaseException:
            if gate is not None:
                gate.failed(attempt.at)
            raise
        finally:
            if replicate is not None:
                self._memories.ended(replicate, attempt.number)
        if gate is not None:
            gate.ended(attempt.at, fork)
        return fork, said

    def _say_once(self, lines: Iterable[str]) -> None:
        """Log what trials have to say, of which none is shown by itself."""
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                LOG.warning("tracefork: in trials, %s", line)

    def _graded(self, attempt: _Attempt, fork: Fork, said: Said, oracle: Oracle | None) -> Fork:
        """Return the fork with its outcome, which its root says too; note it in its parent's trace."""
        problem = fork.problem
        told = {
            "tracefork.fork.cost_usd": fork.cost_usd,
            "tracefork.fork.unpriced": fork.unpriced,
            PROBLEM: problem and problem.kind,
        }
        try:
            if oracle is not None and fork.gradable:
                graded = fork.graded(said.graded())
                fork = replace(fork, outcome=grade(oracle, graded, limit_s=self.timeout))
                self._say_once(self._steady.after(oracle, graded, fork.outcome))
                self._say_once(remarks_of(oracle, graded))
                if fork.outcome is None and graded.left_out:
                    why = f"not graded: {graded.left_out} bytes in the middle of its output are not kept"
                    fork = replace(fork, notes=(*fork.notes, why))
        finally:
            said.close()
            self._at_work.pop(attempt.root.trace_id, None)
            attempt.root.end(
                outcome=fork.outcome,
                attributes={
                    **told,
                    **said.attributes(self._stage.redactor),
                    "tracefork.fork.prices": " ".join(prices_told(self._prices)) or None,
                    "tracefork.exit_status": fork.exit_status,
                    "tracefork.fork.held_in": None if fork.scope is None else fork.held_in,
                    "tracefork.fork.held_of": None if fork.scope is None else fork.held_of,
                    "tracefork.fork.forked_at": fork.forked_at,
                    "tracefork.fork.reconverged_at": fork.reconverged_at,
                    PROBLEM_TEXT: problem and problem.text,
                },
                status="ERROR" if problem else "UNSET",
                message=problem and problem.text,
            )
        if self._parent_is_here and self._experiment_id is None:
            self._stage.spans.note_fork(
                exchange=self.tape.exchanges[fork.step],
                kind=fork.kind,
                fork=attempt.root,
                attributes={
                    **told,
                    "tracefork.fork.intervention": fork.intervention,
                    "tracefork.fork.tail": fork.tail,
                    "tracefork.fork.outcome": fork.outcome,
                },
            )
        return fork


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A fork whose agent is about to run, or runs."""

    at: int
    """Its place among those asked for together."""
    number: int
    """Its number among all forks of its forker."""
    change: Intervention
    replicate: str | None
    root: RootSpan
    space: TrialSpace


def name_of(tape: Tape) -> str:
    """Return the name of the agent's run, also where the tape is that of a fork already."""
    found = _NAME_OF_FORK.fullmatch(tape.name)
    return found["name"] if found else tape.name
