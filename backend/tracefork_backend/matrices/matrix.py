"""Runs × variants × trials: estimated first, held to a budget, graded, with what was found so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.tape.tape import Tape

from ..grading.graded import graded_run
from ..grading.oracle import Oracle, grade, name_of
from ..rerun.budget import Budget, estimate
from ..rerun.edits import Edit, checked
from ..rerun.forking import DEFAULT_TIMEOUT, Agent, Fork, Forker, Planned, check_jobs
from ..rerun.reconstruct import reconstruct
from ..store import Run, Store
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
) -> Matrix:
    """Return the matrix before anything runs: what each cell is likely to take, and which cannot be.

    Raises UsageError if no cell can be, or if the oracle fails on a recorded run.
    """
    if times < 1:
        raise UsageError(f"times={times}: ask for at least one fork")
    if not runs_at or not edits:
        raise UsageError("a matrix needs at least one run@step and one change")
    names = names_of([checked(edit) for edit in edits])
    cells: list[Cell] = []
    for run, step in runs_at:
        tape = reconstruct(run.store, run, command=agent is None) if isinstance(run, Run) else run
        # Asked before anything is spent: the oracle may be broken.
        outcome = None if oracle is None else grade(oracle, graded_run(run))
        for edit, name in zip(edits, names, strict=True):
            change = expected = why = None
            try:
                change = edit.bind(tape, step, tail=tail)
                expected = estimate(tape, change)
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
    tools: ToolsMode | None = None,
    on_change: OnChange | None = None,
) -> Matrix:
    """Fork each run at its step by each edit, so many times, and show `on_change` the matrix as it grows.

    No trial starts that the budget has no room for: it ends with what was found so far. Runs are forked in
    their order, as many at a time as there are jobs. Raises UsageError as `plan` does, before anything runs.
    """
    check_jobs(jobs)
    planned = plan(runs_at, edits, times=times, tail=tail, oracle=oracle, budget_usd=budget_usd, agent=agent)
    board = _Board(planned, on_change)
    groups: list[_Group] = []
    for n, (run, _) in enumerate(runs_at):
        places = range(n * len(edits), (n + 1) * len(edits))
        if possible := [at for at in places if planned.cells[at].possible]:
            groups.append(_Group(board, run, possible))
    # One function cannot be called for two runs at once: it is served from one tape at a time.
    width = 1 if callable(agent) else min(len(groups), jobs)

    def run_group(group: _Group) -> None:
        with Forker(
            group.run,
            agent=agent,
            jobs=max(1, jobs // width),
            timeout=timeout,
            store=store,
            match=match,
            ignore=ignore,
            allow_hosts=allow_hosts,
            tools=tools,
            warm=len(group.cells) * times > 1,
        ) as forker:
            group.make(forker, oracle)

    if width == 1:
        for group in groups:
            run_group(group)
        return board.now()
    with ThreadPoolExecutor(width, thread_name_prefix="tracefork-matrix") as executor:
        futures = [executor.submit(run_group, group) for group in groups]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            board.stop()
            raise
    return board.now()


class _Board:
    """The matrix while its trials run, shared by all threads."""

    def __init__(self, planned: Matrix, on_change: OnChange | None) -> None:
        self._planned = planned
        self.budget = Budget(planned.budget_usd)
        self._on_change = on_change
        self._lock = threading.RLock()
        self.cells = list(planned.cells)
        self._forkers: list[Forker] = []
        self._stopped = False

    def add(self, at: int, fork: Fork) -> None:
        """Add the fork to the cell's trials."""
        with self._lock:
            cell = self.cells[at]
            self.cells[at] = replace(cell, forks=(*cell.forks, fork))
            if self._on_change is not None:
                self._on_change(self.now())

    def lacks(self, at: int, why: str) -> None:
        """Note why the cell has fewer trials than wanted."""
        with self._lock:
            self.cells[at] = replace(self.cells[at], why=why)

    def now(self) -> Matrix:
        """Return the matrix as it stands."""
        with self._lock:
            return replace(self._planned, cells=tuple(self.cells), exhausted=self.budget.exhausted)

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
        self._reserved: dict[int, float] = {}
        self._admitted: list[int] = []
        self._dearest: dict[int, float] = {}

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
        if expected.unknown and board.budget.limit_usd is not None:
            names = ", ".join(expected.unknown)
            board.lacks(place, f"the price of {names} is not known, so the budget cannot hold it")
            return False
        # What a trial of this cell did cost may be more than what was thought to be the worst.
        worst = max(expected.worst_usd, self._dearest.get(place, 0.0))
        if not board.budget.reserve(worst, wait=True):
            left = max(0.0, (board.budget.limit_usd or 0.0) - board.budget.spent_usd)
            board.lacks(place, f"the budget ended: ${left:.4f} left, a fork may take ${worst:.4f}")
            return False
        self._reserved[at] = worst
        self._admitted.append(place)
        return True

    def ended(self, at: int, fork: Fork) -> None:
        """Book what the trial did cost."""
        place = self._places[at]
        if fork.cost_usd is not None:
            self._dearest[place] = max(self._dearest.get(place, 0.0), fork.cost_usd)
        self.board.budget.settle(self._reserved.pop(at), fork.cost_usd)
