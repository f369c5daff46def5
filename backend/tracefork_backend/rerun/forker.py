"""Forks of one tape: started several at once, graded, kept in the store, and written into its traces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.claims import claim_to
from tracefork_otel.play.intervention import Intervention, Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.tape.tape import Tape

from ..grading.oracle import Oracle, grade
from ..store import Run, Store, open_store
from ..writeback import RootSpan
from .accounting import Account, root_attributes
from .edits import Edit
from .memory import Memories
from .problems import Diagnosis
from .result import Fork
from .stage import Stage
from .starting import Agent, Playing
from .workspace import TrialSpace

_Checked: TypeAlias = tuple[Intervention, str | None]
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
        """Whether the fork planned at that place starts; it may wait until others have ended."""
        ...

    def ended(self, at: int, fork: Fork) -> None:
        """That fork's agent has ended, it is not graded yet; called from the thread that ran it."""
        ...


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
        tools: ToolsMode | None = None,
        kind: Literal["fork", "trial"] = "fork",
        experiment_id: str | None = None,
        warm: bool = True,
    ) -> None:
        """Raises UsageError if nothing says how to start the agent, StoreError if forks cannot be kept.

        `tools` says what calls of `@tool` functions get, as it does to `replay`. `warm` lets an agent
        function be forked from a process that imported it once. Trials (`kind`) leave no notes in the
        parent's trace: their experiment writes its own.
        """
        if jobs < 1:
            raise UsageError(f"jobs={jobs}: at least one fork has to run at a time")
        how = Playing(
            mode="fork", match=match, ignore=tuple(ignore), allow_hosts=tuple(allow_hosts), tools=tools
        )
        self.store = source.store if store is None and isinstance(source, Run) else store
        self._jobs = jobs
        self._timeout = timeout
        self._kind: Literal["fork", "trial"] = kind
        self._experiment_id = experiment_id
        self._how = how
        self._made = 0
        self.roots: dict[str, str] = {}
        """The root span of each fork made so far, by its run."""
        self._stage = Stage(source, how, agent=agent, store=self._directory(), warm=warm)
        self.tape = self._stage.tape
        self._parent_is_here = self.store is not None and self.store.has_run(self.tape.run_id)
        self.root_of_parent = (
            self.store.root_of(self.tape.run_id) if self.store and self._parent_is_here else None
        )
        self._concurrent = self._stage.way.concurrent
        self._memories = Memories(
            self._stage.workspace.folder, lag=jobs if self._concurrent else 1, match=match, ignore=how.ignore
        )

    def _directory(self) -> Path | None:
        """The directory in which forks are kept, if they are."""
        store = self.store
        if store is None:
            return None
        if not store.writable:
            if store.path.exists():
                raise StoreError(
                    f"{store.path} cannot be written, so no fork can be kept in it; name another store"
                )
            store.path.mkdir(mode=0o700, parents=True)
            (store.path / "wal").mkdir(mode=0o700)  # an empty folder is no store
            self.store = store = open_store(store.path)
        return store.path

    def __enter__(self) -> Forker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.__exit__(kind, error, trace)

    def fork(self, at: int, edit: Edit, *, tail: Tail = "live", oracle: Oracle | None = None) -> Fork:
        """The one fork of this edit at this step."""
        (made,) = self.forks([Planned(change=edit.bind(self.tape, at, tail=tail))], oracle=oracle)
        return made

    def stop(self) -> None:
        """What runs and what would still start is being ended; for a thread other than the one that waits."""
        self._stage.stopper.stop()

    def forks(
        self,
        planned: Iterable[Planned],
        *,
        oracle: Oracle | None = None,
        on_done: OnDone | None = None,
        gate: Gate | None = None,
        settle: bool = True,
    ) -> list[Fork]:
        """The forks, in the order in which they were planned; `on_done` is given each when it is done.

        What the gate does not admit is left out. Without `settle` they reach the store when this closes.
        """
        checked = [(one.change, one.replicate) for one in planned]
        self._memories.settled(self._made)
        made: dict[int, Fork] = {}
        for at, fork in self._done(checked, oracle, gate):
            made[at] = fork
            if on_done is not None:
                on_done(fork)
        if settle:
            self._stage.workspace.settle()
        return [made[at] for at in sorted(made)]

    def _done(
        self, checked: Sequence[_Checked], oracle: Oracle | None, gate: Gate | None
    ) -> Iterator[tuple[int, Fork]]:
        """The forks as they end, each with its place among those asked for."""
        # Roots are opened, and the gate is asked, when an agent is about to start: what waits is not running.
        rest = ((at, change) for at, change in enumerate(checked) if gate is None or gate.admit(at))
        jobs = min(self._jobs, len(checked)) if self._concurrent else 1
        if jobs <= 1:
            for at, change in rest:
                attempt = self._attempt(*change)
                yield at, attempt.graded(_ran(attempt, at, gate), oracle)
            return
        with ThreadPoolExecutor(jobs, thread_name_prefix="tracefork-fork") as executor:
            waiting: dict[Future[Fork], tuple[int, _Attempt]] = {}
            try:
                for at, change in _first(rest, jobs):
                    attempt = self._attempt(*change)
                    waiting[executor.submit(_ran, attempt, at, gate)] = at, attempt
                while waiting:
                    future = next(as_completed(waiting))
                    at, attempt = waiting.pop(future)
                    found = future.result()
                    for following, change in _first(rest, 1):
                        started = self._attempt(*change)
                        waiting[executor.submit(_ran, started, following, gate)] = following, started
                    yield at, attempt.graded(found, oracle)
            except BaseException:
                self._stage.stopper.stop()
                raise

    def _attempt(self, change: Intervention, replicate: str | None) -> _Attempt:
        forked = self.tape.exchanges[change.step]
        root = self._stage.spans.open_fork(
            name=name_of(self.tape),
            step=change.step,
            parent_run_id=self.tape.run_id,
            parent_root_span_id=self.root_of_parent,
            forked_span_id=forked.span_id,
            intervention=change.label,
            tail=change.tail,
            experiment_id=self._experiment_id,
            kind=self._kind,
            attributes=self._stage.start_attributes(),
        )
        self.roots[root.trace_id] = root.span_id
        change = replace(change, fork_id=root.trace_id, experiment_id=self._experiment_id)
        number, self._made = self._made, self._made + 1
        space = self._stage.workspace.trial(change)
        if replicate is not None and space.intervention is not None:
            self._memories.begin(replicate, number, space.intervention)
        return _Attempt(self, change, root, space, number, replicate)

    def remember(self, replicate: str, number: int, exchanges: Iterable[Exchange]) -> None:
        """Forks of the replicate share these calls of a trial from before, whose number is below zero."""
        self._memories.add(replicate, number, exchanges)
        self._memories.ended(replicate, number)

    def forget(self, attempt: _Attempt) -> None:
        """Nobody waits for what this attempt was answered."""
        if attempt.replicate is not None:
            self._memories.ended(attempt.replicate, attempt.number)

    def played(self, attempt: _Attempt) -> dict[str, Any]:
        """The fields of a Fork that its records decide, once its agent has ended."""
        ended, records = self._stage.run(attempt.space, attempt.root, timeout=self._timeout)
        if attempt.replicate is not None:
            self._memories.add(attempt.replicate, attempt.number, records.exchanges)
        account = Account(
            self.tape,
            attempt.change,
            records,
            ended,
            run_id=attempt.root.trace_id,
            delivered=attempt.space.claims.taken(claim_to("step", attempt.change.step)),
            replaced=attempt.change.result is None or attempt.space.claims.taken(claim_to("change", 0)),
            match=self._how.match,
            ignore=self._how.ignore,
        )
        return {**account.fields(), "problem": Diagnosis(account).first()}

    def note(self, fork: Fork, root: RootSpan) -> None:
        """The parent's trace says that it was forked, if it is here."""
        if not self._parent_is_here or self._kind == "trial":
            return
        self._stage.spans.note_fork(
            exchange=self.tape.exchanges[fork.step],
            kind=fork.kind,
            fork=root,
            attributes={
                "tracefork.fork.intervention": fork.intervention,
                "tracefork.fork.tail": fork.tail,
                "tracefork.fork.outcome": fork.outcome,
                "tracefork.fork.cost_usd": fork.cost_usd,
                "tracefork.fork.problem": None if fork.problem is None else fork.problem.kind,
            },
        )


class _Attempt:
    """One fork while it is made."""

    def __init__(
        self,
        forker: Forker,
        change: Intervention,
        root: RootSpan,
        space: TrialSpace,
        number: int,
        replicate: str | None,
    ) -> None:
        self._forker = forker
        self.change = change
        self.root = root
        self.space = space
        self.number = number
        self.replicate = replicate

    def run(self) -> Fork:
        """The fork, not yet graded: its agent has ended and its records are read."""
        forker = self._forker
        return Fork(
            run_id=self.root.trace_id,
            parent_run_id=forker.tape.run_id,
            step=self.change.step,
            kind=self.change.kind,
            intervention=self.change.label,
            tail=self.change.tail,
            trial=self.number,
            store=forker.store,
            **forker.played(self),
        )

    def forget(self) -> None:
        """Nobody waits for it any more."""
        self._forker.forget(self)

    def graded(self, fork: Fork, oracle: Oracle | None) -> Fork:
        """The fork with its outcome, which its root says too; its parent's trace holds a note of it."""
        problem = fork.problem
        outcome: bool | None = None
        try:
            if oracle is not None and fork.gradable:
                outcome = grade(oracle, fork.graded())
        finally:
            self.root.end(
                outcome=outcome,
                attributes=root_attributes(fork),
                status="UNSET" if problem is None else "ERROR",
                message=None if problem is None else problem.text,
            )
        fork = replace(fork, outcome=outcome)
        self._forker.note(fork, self.root)
        return fork


def _ran(attempt: _Attempt, at: int, gate: Gate | None) -> Fork:
    try:
        fork = attempt.run()
    finally:
        attempt.forget()
    if gate is not None:
        gate.ended(at, fork)
    return fork


def _first(items: Iterator[tuple[int, _Checked]], count: int) -> Iterator[tuple[int, _Checked]]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def name_of(tape: Tape) -> str:
    """The name of the agent's run, also where the tape is that of a fork already."""
    found = _NAME_OF_FORK.fullmatch(tape.name)
    return found["name"] if found else tape.name
