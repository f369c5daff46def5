"""Runs × variants × trials: estimated first, held to a budget, graded, with what was found so far."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any, TypeAlias

from tracefork_otel.errors import AgentFailed, TapeError, UsageError
from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.tape import Tape

from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle, grade, name_of
from ..rerun.budget import Budget, Grading, Purse
from ..rerun.edits import Edit, checked
from ..rerun.estimate import check_priced, estimate
from ..rerun.forker import DEFAULT_TIMEOUT, Agent, Fork, Forker, Planned, check_jobs
from ..rerun.reconstruct import reconstruct
from ..rerun.replaying import replay
from ..rerun.spending import Room
from ..rerun.trust import permitted
from ..spelling import money
from ..store import Run, Store
from ..store.prices import NONE_GIVEN, Given
from .cells import Cell, Matrix, names_of

__all__ = ["Cell", "Matrix", "OnChange", "matrix", "plan"]

OnChange: TypeAlias = Callable[[Matrix], None]
RunsAt: TypeAlias = Sequence[tuple[Run | Tape, int]]


def plan(
    runs_at: RunsAt,
    edits: Sequence[Edit],
    *,
    times: int = 1,
    tail: Tail = "live",
    oracle: Oracle | None = None,
    budget_usd: float | None = None,
    agent: Agent | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    prices: Given = NONE_GIVEN,
) -> Matrix:
    """Return the matrix before anything runs: what each cell is likely to take, and which cannot be.

    Raises UsageError if no cell can be, or if the oracle fails on a recorded run, or takes longer for it.
    """
    return _planned(
        runs_at, edits, times, tail, oracle, budget_usd, agent, timeout, prices, look=lambda run, tape: None
    )


def _planned(
    runs_at: RunsAt,
    edits: Sequence[Edit],
    times: int,
    tail: Tail,
    oracle: Oracle | None,
    budget_usd: float | None,
    agent: Agent | None,
    timeout: float | None,
    prices: Given,
    *,
    look: Callable[[Run | Tape, Tape], object],
) -> Matrix:
    """Return the plan; each run's tape is looked at before anything is asked of it."""
    if times < 1:
        raise UsageError(f"times={times}: ask for at least one fork")
    if not runs_at or not edits:
        raise UsageError("a matrix needs at least one run@step and one change")
    names = names_of([checked(edit) for edit in edits])
    cells: list[Cell] = []
    for run, step in runs_at:
        tape = reconstruct(run.store, run, command=agent is None) if isinstance(run, Run) else run
        look(run, tape)
        # Asked before anything is spent: the oracle may be broken. A judge is asked within the budget.
        outcome = None
        if oracle is not None and not isinstance(oracle, Judge):
            outcome = grade(oracle, graded_run(run), limit_s=timeout)
        for edit, name in zip(edits, names, strict=True):
            change = expected = why = None
            try:
                change = edit.bind(tape, step, tail=tail)
                expected = estimate(tape, change, prices)
            except UsageError as error:
                why = str(error)
            cells.append(
                Cell(
                    run_id=run.run_id,
                    run_name=run.name,
                    step=step,
                    variant=name,
                    wanted=times,
                    change=change,
                    estimate=expected,
                    parent_outcome=outcome,
                    why=why,
                )
            )
    if not any(cell.possible for cell in cells):
        raise UsageError(cells[0].why or "no cell of the matrix can be run")
    Budget(budget_usd)  # one that is none is refused here
    return Matrix(
        cells=tuple(cells), oracle=None if oracle is None else name_of(oracle), budget_usd=budget_usd
    )


def matrix(
    runs_at: RunsAt,
    edits: Sequence[Edit],
    *,
    times: int = 1,
    tail: Tail = "live",
    agent: Agent | None = None,
    oracle: Oracle | None = None,
    budget_usd: float | None = None,
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
    on_change: OnChange | None = None,
    on_planned: OnChange | None = None,
    parents: bool = True,
) -> Matrix:
    """Fork each run at its step by each edit, so many times, and show `on_change` the matrix as it grows.

    No trial starts that the budget has no room for: it ends with what was found so far. A trial that takes
    more than was set aside for it is ended before its next call. Where a price is not known and there is a
    budget, nothing is run: `prices` says what a model costs. Runs are forked in their order, as many at a
    time as there are jobs; `executor` and `allow_drift` say what they say to `fork`. How a recorded run ended
    is found out too, by a replay here where its output was not kept, unless `parents` is False. Raises
    UsageError as `plan` does, and where the start of one of them is not trusted, before anything runs.
    """
    check_jobs(jobs)

    def look(run: Run | Tape, tape: Tape) -> None:
        permitted(tape, agent=agent, trust=trust, portable=isinstance(run, Tape))

    planned = _planned(runs_at, edits, times, tail, oracle, budget_usd, agent, timeout, prices, look=look)
    if isinstance(oracle, Judge):
        oracle.priced(prices)
    check_priced((cell.estimate for cell in planned.cells if cell.estimate is not None), budget_usd, oracle)
    if on_planned is not None:
        on_planned(planned)
    board = _Board(planned, on_change, oracle)
    groups: list[_Group] = []
    for n, (run, _) in enumerate(runs_at):
        places = range(n * len(edits), (n + 1) * len(edits))
        if possible := [at for at in places if planned.cells[at].possible]:
            groups.append(_Group(board, run, possible))
    # One function cannot be called for two runs at once: it is served from one tape at a time.
    width = 1 if callable(agent) else min(len(groups), jobs)

    how: dict[str, Any] = {
        "agent": agent,
        "timeout": timeout,
        "store": store,
        "match": match,
        "ignore": ignore,
        "allow_hosts": allow_hosts,
        "skip_hosts": skip_hosts,
        "timing": timing,
        "tools": tools,
        "trust": trust,
        "go_on": go_on,
    }

    def run_group(group: _Group) -> None:
        if oracle is not None and parents and group.parent_outcome is None:
            with board.grading_one() as has_room:
                if has_room:
                    group.is_known(_recorded_outcome(group.run, oracle, how))
        warm = len(group.cells) * times > 1
        with Forker(
            group.run,
            jobs=max(1, jobs // width),
            warm=warm,
            prices=prices,
            executor=executor,
            allow_drift=allow_drift,
            **how,
        ) as forker:
            group.make(forker, oracle)

    if width == 1:
        for group in groups:
            run_group(group)
        return board.now()
    with ThreadPoolExecutor(width, thread_name_prefix="tracefork-matrix") as threads:
        futures = [threads.submit(run_group, group) for group in groups]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            board.stop()
            raise
    return board.now()


def _recorded_outcome(run: Run | Tape, oracle: Oracle, how: Mapping[str, Any]) -> bool | None:
    """Return the outcome of a recorded run, by a replay where its output was not kept; None if that fails.

    Forks are graded by what their agents put out, and so has to be what they are compared with.
    """
    graded = graded_run(run)
    if not graded.partial:
        return grade(oracle, graded, limit_s=how["timeout"])
    try:
        return replay(run, oracle=oracle, **how).outcome
    except (AgentFailed, TapeError):
        return None


class _Board:
    """The matrix while its trials run, shared by all threads."""

    def __init__(self, planned: Matrix, on_change: OnChange | None, oracle: Oracle | None) -> None:
        self._planned = planned
        self.budget = Budget(planned.budget_usd)
        self.grading = Grading(self.budget, oracle)
        self.grading.begin()
        self._on_change = on_change
        self._lock = threading.RLock()
        self.cells = list(planned.cells)
        self._forkers: list[Forker] = []
        self._stopped = False

    def add(self, at: int, fork: Fork) -> None:
        """Add the fork to the cell's trials."""
        with self._lock:
            self.grading.graded()
            cell = self.cells[at]
            self.cells[at] = replace(cell, forks=(*cell.forks, fork))
            if self._on_change is not None:
                self._on_change(self.now())

    @contextlib.contextmanager
    def grading_one(self) -> Iterator[bool]:
        """Set aside, within the block, what grading a run costs at most; give whether there is room."""
        worst = self.grading.worst_usd
        if worst and not self.budget.reserve(worst, wait=True):
            yield False
            return
        try:
            yield True
        finally:
            if worst:
                with self._lock:
                    self.budget.settle(worst, worst)
                    self.grading.graded()

    def lacks(self, at: int, why: str) -> None:
        """Note why the cell has fewer trials than wanted."""
        with self._lock:
            self.cells[at] = replace(self.cells[at], why=why)

    def now(self) -> Matrix:
        """Return the matrix as it stands."""
        with self._lock:
            return replace(
                self._planned,
                cells=tuple(self.cells),
                exhausted=self.budget.exhausted,
                booked_usd=self.budget.spent_usd,
            )

    def enter(self, forker: Forker) -> None:
        """Take in a forker, which is stopped with the others."""
        with self._lock:
            self._forkers.append(forker)
            if self._stopped:
                forker.stop()

    def stop(self) -> None:
        """Begin to end whatever runs, and start nothing more."""
        self.budget.close()
        with self._lock:
            self._stopped = True
            for forker in self._forkers:
                forker.stop()


class _Group:
    """The cells of one run, as the gate of its forker."""

    def __init__(self, board: _Board, run: Run | Tape, cells: Sequence[int]) -> None:
        self.board = board
        self.run = run
        self.cells = cells
        self._places: list[int] = []
        """The cell of each planned fork: all of them once, then again, so that a budget ends them alike."""
        self._purses: dict[int, Purse] = {}
        self._admitted: list[int] = []
        self._dearest: dict[int, float] = {}

    @property
    def parent_outcome(self) -> bool | None:
        """What the oracle says of the run as it was recorded, as far as that is known."""
        return self.board.cells[self.cells[0]].parent_outcome

    def is_known(self, outcome: bool | None) -> None:
        """Note how the recorded run ended."""
        for at in self.cells:
            self.board.cells[at] = replace(self.board.cells[at], parent_outcome=outcome)

    def make(self, forker: Forker, oracle: Oracle | None) -> None:
        """Make the trials of all cells, as far as the budget goes."""
        board = self.board
        board.enter(forker)
        times = max(board.cells[at].wanted for at in self.cells)
        self._places = [at for _ in range(times) for at in self.cells]
        changes = [board.cells[at].change for at in self._places]
        planned = [Planned(change=change) for change in changes if change is not None]
        forker.forks(
            planned,
            oracle=oracle,
            # A fork's number counts those that were started, and so does the list of what was admitted.
            on_done=lambda fork: board.add(self._admitted[fork.trial], fork),
            gate=self,
        )

    def admit(self, at: int) -> bool:
        """Set aside the worst that a trial may cost and return True, or note why it does not start."""
        board, place = self.board, self._places[at]
        expected = board.cells[place].estimate
        assert expected is not None
        # What a trial of this cell did cost may be more than what was thought to be the worst.
        worst = max(expected.worst_usd, self._dearest.get(place, 0.0))
        grading = board.grading.worst_usd
        if not board.budget.reserve(worst + grading, wait=True):
            left = max(0.0, (board.budget.limit_usd or 0.0) - board.budget.spent_usd)
            most = money(worst + grading) + (f", {money(grading)} of it its judge" if grading else "")
            # Where nothing was spent yet, nothing ended: it never sufficed for one.
            ended = "the budget ended" if board.budget.spent_usd else "the budget is too small"
            room = math.ceil((board.budget.spent_usd + worst + grading) * 1e4) / 1e4
            board.lacks(
                place,
                f"{ended}: {money(left)} left, a fork may take {most}; --budget {room:.4f} has room for it",
            )
            return False
        self._purses[at] = Purse(
            board.budget,
            worst,
            expected.call_usd,
            grading_usd=grading,
            most_usd=expected.most_usd,
            at_once=expected.at_once,
        )
        self._admitted.append(place)
        return True

    def watching(self, at: int) -> Room | None:
        """Return what ends the trial, where there is a budget."""
        return None if self.board.budget.limit_usd is None else self._purses[at]

    def ended(self, at: int, fork: Fork) -> None:
        """Book what the trial did cost."""
        place = self._places[at]
        if fork.cost_usd is not None:
            self._dearest[place] = max(self._dearest.get(place, 0.0), fork.cost_usd)
        self._purses.pop(at).settle(fork.cost_usd, fork.unpriced)

    def failed(self, at: int) -> None:
        """Book what was set aside: others may wait for it."""
        self._purses.pop(at).failed()
