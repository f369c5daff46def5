"""One blame experiment with real forks: admitted, searched within its budget, journalled, written back."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.play.intervention import Intervention, Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.tape.tape import Tape

from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle, grade, name_of
from ..rerun import edits
from ..rerun.budget import WORST, Budget, after, again
from ..rerun.edits import Edit, checked
from ..rerun.forking import DEFAULT_TIMEOUT, Agent, Fork, Forker, Planned
from ..rerun.reconstruct import reconstruct
from ..spelling import counted, money
from ..store import Run
from . import changes, forecast
from .changes import Change
from .findings import Findings
from .forecast import Estimate
from .journal import Journal, limits_of, path_of, read, record_of
from .modes import mode_named
from .plan import Coupling, ModeName, Plan
from .result import BlameResult, step_shown
from .search import Search
from .trials import TrialRequest
from .writing import write_back

_FIXED = ("run_id", "tape_sha256", "parent_outcome", "change", "oracle", "coupling", "mode", "alpha", "k")
"""What an experiment is gone on with as it was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """An experiment while it runs."""

    phase: str
    forks: int
    spent_usd: float
    reserved_usd: float
    findings: Findings


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    plan: Plan
    fits: Mapping[int, Intervention]
    unpriced: tuple[str, ...]


def prepare(tape: Tape, change: Change, *, parent_failed: bool = True, **settings: Any) -> _Prepared:
    """Return the plan of an experiment with this change, priced, and the edit of each step that it fits.

    Raises UsageError if there is nothing to compare, or if the change fits no step.
    """
    if tape.steps < 2:
        raise UsageError(
            f"run {tape.run_id[:8]} has {tape.steps} step{'' if tape.steps == 1 else 's'}, the last is its "
            "output: blame needs at least two"
        )
    fits, why = changes.bound(change, tape)
    if not fits:
        first = min(why)
        raise UsageError(f"{change.name} fits no step of run {tape.run_id[:8]}: step {first}: {why[first]}")
    whole = again([tape.exchanges[0], *after(tape, 0)])
    rest = [again(after(tape, step)) for step in range(tape.steps)]
    costs = (whole.cost_usd, *(one.cost_usd for one in rest))
    plan = Plan(
        steps=tape.steps,
        natural=change.natural,
        repair=change.repair,
        parent_failed=parent_failed,
        output=tape.steps - 1 if change.rewrites else None,
        blocked=frozenset(why),
        costs=costs if any(costs) else (),
        **settings,
    )
    if not mode_named(plan.mode).places(plan):
        raise UsageError(f"{change.name} fits only the last step, whose text is the outcome: choose another")
    return _Prepared(plan=plan, fits=fits, unpriced=whole.unknown)


def estimate(
    run: Run | Tape, *, change: Change | None = None, budget_usd: float | None = None, **settings: Any
) -> Estimate:
    """Return what an experiment would take and how likely it is to reach a verdict, by simulating it."""
    tape = reconstruct(run.store, run) if isinstance(run, Run) else run
    prepared = prepare(tape, change or changes.resample(), **settings)
    Budget(budget_usd)
    return forecast.estimate(prepared.plan, budget=budget_usd)


def blame(
    run: Run,
    *,
    oracle: Oracle,
    change: Change | Edit | None = None,
    mode: ModeName = "auto",
    budget_usd: float | None = None,
    jobs: int = 1,
    k: int = 10,
    alpha: float = 0.05,
    max_trials: int | None = None,
    agent: Agent | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
    resume: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
    coupling: Coupling = "fresh",
) -> BlameResult:
    """Find which steps of the run move its outcome, by forks that the oracle grades; keep it in its store.

    Without a change the steps' own responses are drawn anew. `resume` goes on with an experiment by its id,
    whose trials are not run again, within the limits it had where none are given; `settings` is kept with
    it. Coupling `recorded` holds the recorded answers to requests that a fork makes as the run did: another
    question, whose control never flips. Raises UsageError if the run cannot be graded or the budget not be
    held, Drift or AgentFailed if the run does not replay.
    """
    if resume:
        kept = limits_of(read(path_of(run.store.path, resume))[0])
        budget_usd = kept["budget_usd"] if budget_usd is None else budget_usd
        max_trials = kept["max_trials"] if max_trials is None else max_trials
    if budget_usd is not None and budget_usd <= 0:
        raise UsageError(f"a budget of ${budget_usd:g} pays for no fork: give dollars, such as 2.00")
    store = run.store
    if not store.writable:
        raise StoreError(f"{store.path} cannot be written, so no experiment can be kept in it")
    if not isinstance(change, Change):
        change = changes.resample() if change is None else changes.of_edit(checked(change))
    if coupling == "recorded" and mode_named(mode).settled(natural=change.natural).redraws:
        raise UsageError(
            "value mode draws the whole rest anew, so it has no coupling `recorded`: take intervene or fixed"
        )
    experiment_id = resume or secrets.token_hex(8)
    with Forker(
        run,
        agent=agent,
        jobs=jobs,
        timeout=timeout,
        match=match,
        ignore=ignore,
        allow_hosts=allow_hosts,
        experiment_id=experiment_id,
    ) as forker:
        tape = forker.tape
        prepared = prepare(tape, change, mode=mode, k=k, alpha=alpha, max_trials=max_trials)
        if prepared.unpriced and budget_usd is not None:
            names = ", ".join(prepared.unpriced)
            raise UsageError(f"the price of {names} is not known, so --budget cannot be held: leave it out")
        parent = _admitted(forker, run, oracle)
        plan = dataclasses.replace(prepared.plan, parent_failed=not parent)
        header = {
            "run_id": run.run_id,
            "tape_sha256": tape.digest,
            "parent_outcome": parent,
            "change": change.name,
            "oracle": name_of(oracle),
            "budget_usd": budget_usd,
            "created_ns": time.time_ns(),
            "coupling": coupling,
            "plan": dataclasses.asdict(plan),
            "settings": dict(settings or {}),
        }
        journal = Journal(store.path, experiment_id, None if resume else header)
        try:
            experiment = _Experiment(
                forker=forker,
                journal=journal,
                search=Search(plan),
                plan=plan,
                fits=prepared.fits,
                oracle=oracle,
                parent=parent,
                budget=Budget(budget_usd),
            )
            if resume:
                experiment.go_on(header)
            experiment.run(on_progress)
        finally:
            journal.close()
    found = experiment.search.verdict()
    result = BlameResult(
        experiment_id=experiment_id,
        run_id=run.run_id,
        findings=found,
        trials=tuple(journal.trials),
        plan=plan,
        header={**journal.header, "budget_usd": budget_usd, **_grading(oracle)},
        problem=experiment.commonest_problem,
        steps=tuple(step_shown(exchange) for exchange in tape.exchanges),
    )
    write_back(store, tape, result, roots=forker.roots, root_of_parent=forker.root_of_parent)
    return result


def _admitted(forker: Forker, run: Run, oracle: Oracle) -> bool:
    """Return the recorded run's outcome, after it replayed whole, without a live call that the tape has."""
    outcome = grade(oracle, graded_run(run))
    last = forker.tape.steps - 1
    unchanged = Planned(change=edits.noop().bind(forker.tape, last))
    (fork,) = forker.forks([unchanged], oracle=oracle, settle=False)
    if not fork.gradable:
        fork.raise_for_problem()
    # The recorded run's standard output is not kept, so its replay is what trials are like.
    outcome = fork.outcome if fork.outcome is not None else outcome
    if outcome is None:
        raise UsageError(
            f"the outcome of run {run.run_id[:8]} cannot be graded: {name_of(oracle)} says neither success "
            "nor failure of it, so no fork can be told to differ; give another oracle"
        )
    return outcome


def _grading(oracle: Oracle) -> dict[str, Any]:
    """Return what is known of the oracle's errors and price, if it is a judge."""
    if not isinstance(oracle, Judge):
        return {}
    return {"oracle_note": oracle.note, "grading_usd": oracle.cost_usd}


@dataclass(slots=True, kw_only=True, eq=False)
class _Experiment:
    """The search and the forks that it asks for, as the gate of its forker."""

    forker: Forker
    journal: Journal
    search: Search
    plan: Plan
    fits: Mapping[int, Intervention]
    oracle: Oracle
    parent: bool
    budget: Budget
    _batch: list[TrialRequest] = field(default_factory=list[TrialRequest])
    _ended: dict[str, TrialRequest] = field(default_factory=dict[str, TrialRequest])
    """Trials that are not graded yet, by their runs."""
    _reserved: dict[int, float] = field(default_factory=dict[int, float])
    _refused: bool = False
    _problems: Counter[str] = field(default_factory=Counter[str])

    @property
    def commonest_problem(self) -> str | None:
        """What most often kept forks from being graded."""
        return next((text for text, _ in self._problems.most_common(1)), None)

    def go_on(self, header: Mapping[str, Any]) -> None:
        """Tell the search the trials of its journal, and the budget what they cost.

        Raises UsageError if it is not the same experiment any more, or one that may take less than it took.
        """
        known, trials = self.journal.header, self.journal.trials
        was, now = ({**one, **one["plan"]} for one in (known, header))
        for name in _FIXED:
            if was.get(name, "fresh") != now[name]:
                raise UsageError(
                    f"the experiment cannot be gone on with: its {name} was {was.get(name)!r}, "
                    f"now it is {now[name]!r}"
                )
        spent = sum(one.cost_usd or 0.0 for one in trials) + self._lost()
        for name, flag, used, told in (
            ("budget_usd", "--budget", spent, f"{money(spent)} is spent"),
            ("max_trials", "--max-trials", len(trials), f"{counted(len(trials), 'fork')} were made"),
        ):
            if now[name] is not None and now[name] != was[name] and now[name] < used:
                raise UsageError(f"{flag} {now[name]:g} is less than the experiment took: {told} already")
        self.journal.limit(now["budget_usd"], now["max_trials"])
        self.search.replay({one.trial_id: one.seen for one in trials})
        self._remember()
        self.budget.reserve(0.0)
        self.budget.settle(0.0, spent)

    def _remember(self) -> None:
        """Let new trials share with those of before what models answered to these."""
        store = self.forker.store
        assert store is not None
        for seq, one in enumerate(trials := sorted(self.journal.trials, key=lambda one: one.started_ns)):
            shares = self.search.shares(one.arm_id, one.replicate)
            if shares is not None and one.calls_live:
                self.forker.remember(shares, seq - len(trials), store.exchanges(one.run_id))

    def _lost(self) -> float:
        """Return what trials cost that ran when the experiment was killed: paid for, though not known."""
        store = self.forker.store
        assert store is not None
        ran = store.ask("trials_that_ran", id=self.journal.experiment_id)
        known = {one.run_id for one in self.journal.trials}
        return sum(row["cost_usd"] or 0.0 for row in ran if row["run_id"] not in known)

    def run(self, on_progress: OnProgress | None) -> None:
        """Run the search to its end, or its budget's."""
        while not self.search.done:
            self._batch = list(self.search.next_batch())
            if not self._batch:
                raise StoreError("the journal lacks trials that the search waits for: start a new experiment")

            def done(fork: Fork) -> None:
                self._take(self._ended.pop(fork.run_id), fork)
                if on_progress is not None:
                    on_progress(self.progress())

            self.forker.forks(
                [self._planned(request) for request in self._batch],
                oracle=self.oracle,
                on_done=done,
                gate=self,
                settle=False,
            )
            if self._refused and not self.search.done:
                self.search.stop("budget")

    def progress(self) -> Progress:
        """Return the experiment as it stands."""
        return Progress(
            phase=self.search.phase,
            forks=len(self.journal.trials),
            spent_usd=self.budget.spent_usd,
            reserved_usd=self.budget.reserved_usd,
            findings=self.search.verdict(),
        )

    def _planned(self, request: TrialRequest) -> Planned:
        """Return the fork that keeps so many responses and changes those steps."""
        kept, altered = request.kept, request.altered
        if altered and altered[0] == kept:
            first, rest = self.fits[kept], altered[1:]
        elif kept == 0:
            first, rest = edits.resample().bind(self.forker.tape, 0), altered
        else:
            first, rest = edits.noop().bind(self.forker.tape, kept - 1), altered
        tail: Tail = "recorded" if self.journal.header.get("coupling") == "recorded" else "live"
        return Planned(
            change=replace(edits.together(first, [self.fits[step] for step in rest]), tail=tail),
            replicate=request.shares,
        )

    def admit(self, at: int) -> bool:
        """Set the worst that the trial may cost aside; return whether it starts."""
        request = self._batch[at]
        worst = self.plan.cost(request.kept) * WORST if self.plan.costs else 0.0
        if self._refused or not self.budget.reserve(worst, wait=True):
            self._refused = True
            return False
        self._reserved[at] = worst
        return True

    def ended(self, at: int, fork: Fork) -> None:
        """Book what the trial did cost."""
        self._ended[fork.run_id] = self._batch[at]
        self.budget.settle(self._reserved.pop(at), fork.cost_usd)

    def _take(self, request: TrialRequest, fork: Fork) -> None:
        """Keep the trial in the journal, then tell the search."""
        problem = None if fork.problem is None else fork.problem.kind
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
            started_ns=now - int(fork.seconds * 1e9),
            ended_ns=now,
        )
        self.journal.append(trial)
        flipped, tail, shared = trial.seen
        self.search.observe(request.trial_id, flipped, tail=tail, shared=shared)
