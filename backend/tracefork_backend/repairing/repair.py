"""A search for repairs with real forks: candidates gathered, tried within the budget, journalled."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.play.match import MatchMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.digest import digest_like
from tracefork_otel.tape.tape import Tape

from ..blaming.beforehand import admitted, check_kept, check_money, header_of, unchanged
from ..blaming.experiment import begun_with, go_on
from ..blaming.journal import REPAIR, Journal, check_from_here, read
from ..blaming.plan import Plan
from ..blaming.running import Running
from ..blaming.trials import TrialRequest
from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle, name_of
from ..rerun.budget import Budget, Grading
from ..rerun.edits import Edit, checked
from ..rerun.estimate import Estimate, check_priced
from ..rerun.estimate import estimate as priced
from ..rerun.forker import DEFAULT_TIMEOUT, Agent, Forker, Planned
from ..spelling import money, no_step, run_name
from ..store import Run
from ..store.prices import Given, rates_given
from .candidates import Candidate, Found, chosen, given, named_steps, redraws
from .proposing import Proposer
from .result import Repair, RepairResult
from .resuming import Begun, begun, journal_of
from .search import RepairPlan, RepairSearch, Try
from .writing import write_back

_SHRINKING = 0.5
"""The part of the first budget that finding the smallest change may take."""

_NOTHING: Mapping[str, Any] = {"oracle": {}, "change": {}, "how": {}}
"""What was asked for by a search that was begun from Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A search while it runs."""

    forks: int
    spent_usd: float
    reserved_usd: float


def repair(
    run: Run,
    *,
    oracle: Oracle,
    edits: Mapping[int, Edit] | Sequence[tuple[int, Edit]] = (),
    at: int | None = None,
    propose: str | None = None,
    budget_usd: float | None = None,
    jobs: int = 1,
    alpha: float = 0.05,
    max_trials: int | None = None,
    every: bool = False,
    agent: Agent | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
    skip_hosts: Sequence[str] = (),
    timing: Timing = "none",
    trust: bool = False,
    price: Sequence[str] = (),
    resume: str | None = None,
    same_oracle: bool = False,
    settings: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    allow_drift: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_bound: Callable[[str], None] | None = None,
) -> RepairResult:
    """Find a change that makes the failed run succeed, the least of it that does, confirmed on fresh forks.

    Tried are these edits by their steps, the answers with which redraws of earlier experiments on the run
    succeeded, at the steps that they name or `at` one step, and what the model `propose` says: it is asked
    once, with the key of the environment, and shown how the run ended and what was said in these steps.

    It goes on for `every` repair, or ends with the first. `resume` goes on with a search by its id: with what
    that one tries, and none of its forks is made again. The other arguments say what they say to `blame`.
    Raises UsageError where there is nothing to try, or the run did not fail, Drift or AgentFailed if the run
    does not replay.
    """
    known = ""
    if resume:
        path = journal_of(run.store.path, resume)
        if edits or at is not None or propose is not None:
            raise UsageError("a search that is gone on with tries what it began with: give it no edits")
        known, budget_usd, max_trials = begun_with(
            path, oracle, budget_usd, max_trials, same_oracle=same_oracle
        )
    check_kept(run, budget_usd, "repair")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: give a chance between 0 and 1, for example 0.05")
    prices = rates_given(price)
    repair_id = resume or secrets.token_hex(8)
    budget, store = Budget(budget_usd), run.store
    with Forker(
        run,
        agent=agent,
        jobs=jobs,
        timeout=timeout,
        match=match,
        ignore=ignore,
        allow_hosts=allow_hosts,
        skip_hosts=skip_hosts,
        timing=timing,
        trust=trust,
        prices=prices,
        executor=executor,
        allow_drift=allow_drift,
        experiment_id=repair_id,
    ) as forker:
        tape = forker.tape
        if resume:
            header, _, _ = read(journal_of(store.path, resume))
            check_from_here(header, {**_NOTHING, **header["settings"]}, trust=trust)
            start = begun(header, journal_of(store.path, resume), tape)
            budget.spend(start.proposing_usd)
        else:
            start = _start(
                forker,
                run,
                oracle,
                gathered(run, tape, edits, at=at),
                None if propose is None else Proposer(propose, prices=prices),
                budget=budget,
                at=at,
                every=every,
                prices=prices,
            )
        found = start.found
        forks = _Forks(tape=tape, candidates=found.candidates)
        estimates = _priced(tape, found, prices)
        check_money(forker, oracle, estimates, prices, budget_usd=budget_usd, on_bound=on_bound)
        if resume:
            _check_failed(forker, run, oracle)
        plan = RepairPlan(
            tries=tuple(_tries(tape, start)),
            alpha=alpha,
            every=start.every,
            shrinking_usd=start.shrinking_usd,
            max_trials=max_trials,
        )
        header = header_of(
            run,
            Plan(steps=tape.steps, alpha=alpha, max_trials=max_trials, repair=True, every=start.every),
            tape_sha256=digest_like(known, tape.exchanges) or tape.digest,
            parent=False,
            change="repair",
            oracle=oracle,
            budget_usd=budget_usd,
            coupling="fresh",
            settings={**(settings or {}), **start.kept()},
        )
        # Held until its end is written: to others it has one when it is free.
        with closing(Journal(store.path, repair_id, None if resume else header, kind=REPAIR)) as journal:
            search = forks.search = RepairSearch(plan)
            running = Running(
                forker=forker,
                journal=journal,
                search=search,
                planned=forks.planned,
                oracle=oracle,
                parent=False,
                budget=budget,
                prices=prices,
                call_usd=max(one.call_usd for one in estimates),
                grading=Grading(budget, oracle),
            )
            if resume:
                go_on(running, header)
            running.grading.begin()

            def told() -> None:
                if on_progress is not None:
                    forks = len(journal.trials)
                    on_progress(
                        Progress(forks=forks, spent_usd=budget.spent_usd, reserved_usd=budget.reserved_usd)
                    )

            running.run(told)
            result = RepairResult(
                repair_id=repair_id,
                run_id=run.run_id,
                verdict=search.verdict,
                repairs=tuple(
                    Repair(candidate=one, tried=tried, cost_usd=_spent(search, number, journal))
                    for number, (one, tried) in enumerate(zip(found.candidates, search.tried, strict=True))
                ),
                trials=tuple(journal.trials),
                header={**journal.header, "budget_usd": budget_usd, **running.beside()},
                stop_reason=search.stop_reason,
                left=found.left,
                problem=running.commonest_problem,
                proposing_usd=start.proposing_usd,
            )
            write_back(store, tape, result, roots=forker.roots, root_of_parent=forker.root_of_parent)
            return result


def _start(
    forker: Forker,
    run: Run,
    oracle: Oracle,
    found: Found,
    proposer: Proposer | None,
    *,
    budget: Budget,
    at: int | None,
    every: bool,
    prices: Given,
) -> Begun:
    """Return what a new search sets out with, after the run replayed and the model was asked for changes."""
    tape, limit = forker.tape, budget.limit_usd
    if not found.candidates and proposer is None:
        if not isinstance(oracle, Judge):  # nobody pays to hear that there is nothing to do
            _check_failed(forker, run, oracle)
        raise nothing_to_try(run, found)
    if proposer is not None:
        check_proposer(proposer, limit)
    check_money(forker, oracle, _priced(tape, found, prices), prices, budget_usd=limit, on_bound=None)
    _check_failed(forker, run, oracle)
    proposing_usd = 0.0
    if proposer is not None:
        steps = [at] if at is not None else named_steps(run.store, run) or list(range(tape.steps))
        found = chosen([found, proposer.found(tape, steps, graded_run(run), oracle)])
        proposing_usd = proposer.paid.cost_usd or 0.0
        budget.spend(proposing_usd)
        if not found.candidates:
            raise nothing_to_try(run, found)
    controls = [_control(tape, one)[1] for one in found.candidates]
    rows = {row["kept"]: row for row in run.store.ask("unchanged_reruns", id=run.run_id)}
    return Begun(
        found=found,
        known=[(rows[at]["flips"], rows[at]["trials"]) if at in rows else (0, 0) for at in controls],
        costs_usd=[one.cost_usd for one in _priced(tape, found, prices)],
        every=every,
        shrinking_usd=math.inf if limit is None else _SHRINKING * limit,
        proposing_usd=proposing_usd,
    )


def _check_failed(forker: Forker, run: Run, oracle: Oracle) -> None:
    """Raise UsageError where the run succeeds, Drift or AgentFailed where it does not replay."""
    if admitted(forker, run, oracle):
        raise UsageError(
            f"run {run_name(run.run_id)} succeeds by {name_of(oracle)}: there is nothing to repair; "
            "name one that failed"
        )


def gathered(
    run: Run, tape: Tape, edits: Mapping[int, Edit] | Sequence[tuple[int, Edit]], *, at: int | None
) -> Found:
    """Return what there is to try without asking anybody; UsageError for a step that is none."""
    if at is not None and not 0 <= at < tape.steps:
        raise UsageError(no_step(run.run_id, at, tape.steps))
    pairs = list(edits.items() if isinstance(edits, Mapping) else edits)
    asked = [(step, checked(edit)) for step, edit in pairs if at is None or step == at]
    return chosen([given(tape, asked, graded_run(run)), redraws(run.store, run, tape, at=at)])


def nothing_to_try(run: Run, found: Found) -> UsageError:
    """Return what is said of a run for which nobody has anything to try."""
    why = f" ({'; '.join(found.left)})" if found.left else ""
    return UsageError(
        f"there is nothing to try for run {run_name(run.run_id)}{why}: no experiment on it drew an "
        "answer that succeeded; give edits by --try FILE, ask a model for some by --propose MODEL, or run "
        "blame first, whose redraws are tried"
    )


def check_proposer(proposer: Proposer, budget_usd: float | None) -> None:
    """Raise UsageError where a budget would not hold what asking for changes costs."""
    check_priced((), budget_usd, proposer.paid)
    if budget_usd is not None and proposer.worst_usd > budget_usd:
        raise UsageError(
            f"asking {proposer.paid.model} for changes may cost {money(proposer.worst_usd)}, more than the "
            f"budget of {money(budget_usd)}: raise it, or name a cheaper model"
        )


def _priced(tape: Tape, found: Found, prices: Given) -> list[Estimate]:
    return [priced(tape, one.edit.bind(tape, one.step), prices) for one in found.candidates]


@dataclass(slots=True, kw_only=True)
class _Forks:
    """The forks of a search for repairs."""

    tape: Tape
    candidates: Sequence[Candidate]
    search: RepairSearch | None = None

    def planned(self, request: TrialRequest) -> Planned:
        """Return the fork that makes these parts of a candidate, or changes nothing."""
        assert self.search is not None
        change = self.search.change_of(request.arm_id)
        if change is None:
            return Planned(change=unchanged(self.tape, request.kept), replicate=request.shares)
        number, parts = change
        one = self.candidates[number]
        return Planned(change=one.parts.edit(parts).bind(self.tape, one.step), replicate=request.shares)


def _control(tape: Tape, one: Candidate) -> tuple[int, int]:
    """Return how many recorded responses a fork with the candidate keeps, and how many its control does."""
    bound = one.edit.bind(tape, one.step)
    return bound.step, bound.step if bound.goes_live else bound.step + 1


def _tries(tape: Tape, start: Begun) -> list[Try]:
    tries: list[Try] = []
    for one, known, cost in zip(start.found.candidates, start.known, start.costs_usd, strict=True):
        kept, control = _control(tape, one)
        tries.append(
            Try(parts=len(one.all), step=one.step, kept=kept, control=control, known=known, cost_usd=cost)
        )
    return tries


def _spent(search: RepairSearch, number: int, journal: Journal) -> float:
    """Return what the forks of a candidate cost, and their fresh controls."""
    costs = 0.0
    for one in journal.trials:
        change = search.change_of(one.arm_id)
        own = one.arm_id == f"confirm:{number}:unchanged" if change is None else change[0] == number
        costs += (one.cost_usd or 0.0) * own
    return costs
