"""The forks that a search asks for: held to a budget, kept in a journal, told to the search."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.tape.tape import Tape

from ..grading.judge import Judge
from ..grading.oracle import Oracle
from ..rerun.budget import Budget, Grading, Purse
from ..rerun.estimate import Estimate
from ..rerun.estimate import estimate as priced
from ..rerun.forker import Fork, Gate, OnDone, Planned
from ..rerun.spending import Room
from ..store import Store
from ..store.prices import Given
from .asking import Asking
from .journal import Journal, record_of
from .lost import Lost, lost_trials
from .trials import TrialRequest


class Forks(Protocol):
    """What makes the forks: of one run, or of several."""

    @property
    def store(self) -> Store | None:
        """The store that they are kept in."""
        ...

    @property
    def tape(self) -> Tape:
        """The tape of the run, or of the first."""
        ...

    def remember(self, replicate: str, number: int, exchanges: Iterable[Exchange]) -> None:
        """Share calls of a trial from before with forks of the replicate."""
        ...

    def forks(
        self,
        planned: Iterable[Planned],
        *,
        oracle: Oracle | None = None,
        on_done: OnDone | None = None,
        gate: Gate | None = None,
        settle: bool = True,
    ) -> list[Fork]:
        """Make them; see `Forker.forks`."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """A search and the forks that it asks for, as the gate of its forker."""

    forker: Forks
    journal: Journal
    search: Asking
    planned: Callable[[TrialRequest], Planned]
    """Gives the fork that a trial is."""
    oracle: Oracle
    parent: bool
    budget: Budget
    prices: Given
    call_usd: float
    """What a call may cost that nobody counted."""
    grading: Grading
    expects: Callable[[TrialRequest], Estimate] | None = None
    """Gives what a trial is likely to take, where that is not a matter of one tape."""
    _estimates: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    """What trials take, by their arms."""
    _batch: list[TrialRequest] = field(default_factory=list[TrialRequest])
    _ended: dict[str, TrialRequest] = field(default_factory=dict[str, TrialRequest])
    """Trials that are not graded yet, by their runs."""
    _booked: dict[str, float] = field(default_factory=dict[str, float])
    """What is booked for each of them."""
    _purses: dict[int, Purse] = field(default_factory=dict[int, Purse])
    _dearest: dict[str, float] = field(default_factory=dict[str, float])
    """What the dearest trial of each arm cost."""
    _lost: list[Lost] = field(default_factory=list[Lost])
    """What trials took that were lost before it was gone on with."""
    _graded: float = 0.0
    """What grading cost until then."""
    _refused: bool = False
    _problems: Counter[str] = field(default_factory=Counter[str])

    @property
    def commonest_problem(self) -> str | None:
        """What most often kept forks from being graded."""
        return next((text for text, _ in self._problems.most_common(1)), None)

    def book(self) -> float:
        """Book what the journal's trials cost, and those that ran when it was killed; return the sum."""
        store = self.forker.store
        assert store is not None
        trials = self.journal.trials
        self._lost = lost_trials(store, self.journal.experiment_id, trials, self.prices)
        self._graded = sum(one.grading_usd or 0.0 for one in trials)
        spent = sum(one.counts_usd(self.grading.worst_usd) for one in trials)
        spent += sum(one.at_most(self.call_usd) for one in self._lost)
        self.budget.reserve(0.0)
        self.budget.settle(0.0, spent)
        return spent

    def remember(self) -> None:
        """Let new trials share with those of before what models answered to these."""
        store = self.forker.store
        assert store is not None
        for seq, one in enumerate(trials := sorted(self.journal.trials, key=lambda one: one.started_ns)):
            shares = self.search.shares(one.arm_id, one.replicate)
            if shares is not None and one.calls_live:
                self.forker.remember(shares, seq - len(trials), store.exchanges(one.run_id))

    def beside(self) -> dict[str, Any]:
        """Return what was paid beside the trials of the journal, and what is known of a judge."""
        told: dict[str, Any] = {
            "lost_usd": sum(one.bill.usd for one in self._lost),
            "lost_unpriced": sum(one.bill.unpriced for one in self._lost),
        }
        if isinstance(judge := self.oracle, Judge):
            now = judge.cost_usd
            told["oracle_note"] = judge.note
            told["grading_usd"] = now if now is None and not self._graded else (now or 0.0) + self._graded
            told["grading_unpriced"] = judge.unpriced
        return told

    def run(self, on_taken: Callable[[], None] | None = None) -> None:
        """Run the search to its end, or its budget's; `on_taken` is called after each trial."""
        while not self.search.done:
            self._batch = list(self.search.next_batch())
            if not self._batch:
                raise StoreError("the journal lacks trials that the search waits for: start a new experiment")

            def done(fork: Fork) -> None:
                self._take(self._ended.pop(fork.run_id), fork)
                if on_taken is not None:
                    on_taken()

            self.forker.forks(
                [self.planned(request) for request in self._batch],
                oracle=self.oracle,
                on_done=done,
                gate=self,
                settle=False,
            )
            if self._refused and not self.search.done:
                # Where it is what ended every fork, nothing is wrong with the oracle or the agent.
                self.search.stop(
                    "budget", anyhow=all(one.undefined_reason == "budget" for one in self.journal.trials)
                )

    def _expected(self, request: TrialRequest) -> Estimate:
        """Return what the trial is likely to take, with what it changes."""
        if request.arm_id not in self._estimates:
            if self.expects is not None:
                expected = self.expects(request)
            else:
                expected = priced(self.forker.tape, self.planned(request).change, self.prices)
            self._estimates[request.arm_id] = expected
        return self._estimates[request.arm_id]

    def admit(self, at: int) -> bool:
        """Set the worst that the trial may cost aside; return whether it starts."""
        request = self._batch[at]
        expected, grading = self._expected(request), self.grading.worst_usd
        # What such a trial did cost may be more than what was thought to be the worst.
        worst = max(expected.worst_usd, self._dearest.get(request.arm_id, 0.0))
        if self._refused or not self.budget.reserve(worst + grading, wait=True):
            self._refused = True
            return False
        self._purses[at] = Purse(
            self.budget,
            worst,
            expected.call_usd,
            grading_usd=grading,
            most_usd=expected.most_usd,
            at_once=expected.at_once,
        )
        return True

    def watching(self, at: int) -> Room | None:
        """Return what ends the trial, where there is a budget."""
        return None if self.budget.limit_usd is None else self._purses[at]

    def ended(self, at: int, fork: Fork) -> None:
        """Book what the trial did cost."""
        request = self._ended[fork.run_id] = self._batch[at]
        self._dearest[request.arm_id] = max(self._dearest.get(request.arm_id, 0.0), fork.cost_usd or 0.0)
        self._booked[fork.run_id] = self._purses.pop(at).settle(fork.cost_usd, fork.unpriced)

    def failed(self, at: int) -> None:
        """Book what was set aside: others may wait for it."""
        self._purses.pop(at).failed()

    def _take(self, request: TrialRequest, fork: Fork) -> None:
        """Keep the trial in the journal, then tell the search."""
        graded = self.grading.graded()
        problem = None if fork.problem is None else fork.problem.kind
        self._refused = self._refused or problem == "budget"
        if fork.outcome is None:
            self._problems[str(fork.problem or "the oracle could not tell")] += 1
        now = time.time_ns()
        trial = record_of(
            request,
            outcome=fork.outcome,
            parent=self.parent,
            why=problem,
            seq=len(self.journal.trials),
            run_id=fork.run_id,
            tail_sha256=fork.answers_sha256,
            calls_live=fork.calls_live,
            calls_memo=fork.calls_memo,
            cost_usd=fork.cost_usd,
            unpriced=fork.unpriced,
            grading_usd=graded,
            booked_usd=self._booked.pop(fork.run_id),
            started_ns=now - int(fork.seconds * 1e9),
            ended_ns=now,
        )
        self.journal.append(trial)
        flipped, tail, shared = trial.seen
        self.search.observe(request.trial_id, flipped, tail=tail, shared=shared)
