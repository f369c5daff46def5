"""A search for repairs with real forks: candidates gathered, tried within the budget, journalled."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.play.match import MatchMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.tape import Tape

from ..blaming.beforehand import admitted, check_kept, check_money, header_of, unchanged
from ..blaming.journal import REPAIR, Journal
from ..blaming.plan import Plan
from ..blaming.running import Running
from ..blaming.trials import TrialRequest
from ..grading.graded import graded_run
from ..grading.oracle import Oracle, name_of
from ..rerun.budget import Budget, Grading
from ..rerun.edits import Edit, checked
from ..rerun.estimate import Estimate, check_priced
from ..rerun.estimate import estimate as priced
from ..rerun.forking import DEFAULT_TIMEOUT, Agent, Forker, Planned
from ..spelling import money, run_name
from ..store import Run
from ..store.prices import Given, rates_given
from .candidates import Candidate, Found, chosen, given, named_steps, redraws
from .proposing import Proposer
from .result import Repair, RepairResult
from .search import RepairPlan, RepairSearch, Try
from .writing import write_back

_SHRINKING = 0.5
"""The part of a budget that finding the smallest change may take."""


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
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_bound: Callable[[str], None] | None = None,
) -> RepairResult:
    """Find a change that makes the failed run succeed, the least of it that does, confirmed on fresh forks.

    Tried are these edits by their steps, the answers with which redraws of earlier experiments on the run
    succeeded, at the steps that they name or `at` one step, and what the model `propose` says: it is asked
    once, with the key of the environment, and shown how the run ended and what was said in these steps.

    It goes on for `every` repair, or ends with the first. The other arguments say what they say to `blame`.
    Raises UsageError where there is nothing to try, or the run did not fail, Drift or AgentFailed if the run
    does not replay.
    """
    check_kept(run, budget_usd, "repair")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: give a chance between 0 and 1, for example 0.05")
    prices = rates_given(price)
    repair_id = secrets.token_hex(8)
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
        experiment_id=repair_id,
    ) as forker:
        tape = forker.tape
        found = gathered(run, tape, edits, at=at)
        proposer = None if propose is None else Proposer(propose, prices=prices)
        if not found.candidates and proposer is None:
            raise nothing_to_try(run, found)
        if proposer is not None:
            check_proposer(proposer, budget_usd)
        check_money(
            forker, oracle, _priced(tape, found, prices), prices, budget_usd=budget_usd, on_bound=None
        )
        if admitted(forker, run, oracle):
            raise UsageError(
                f"run {run_name(run.run_id)} succeeds by {name_of(oracle)}: there is nothing to repair; "
                "name one that failed"
            )
        if proposer is not None:
            steps = [at] if at is not None else named_steps(store, run) or list(range(tape.steps))
            found = chosen([found, proposer.found(tape, steps, graded_run(run), oracle)])
            budget.spend(proposer.paid.cost_usd or 0.0)
            if not found.candidates:
                raise nothing_to_try(run, found)
        forks = _Forks(tape=tape, candidates=found.candidates)
        estimates = _priced(tape, found, prices)
        check_money(forker, oracle, estimates, prices, budget_usd=budget_usd, on_bound=on_bound)
        plan = RepairPlan(
            tries=tuple(_tries(run, tape, found.candidates, estimates)),
            alpha=alpha,
            every=every,
            shrinking_usd=math.inf if budget_usd is None else _SHRINKING * budget_usd,
            max_trials=max_trials,
        )
        header = header_of(
            run,
            Plan(steps=tape.steps, alpha=alpha, max_trials=max_trials, repair=True),
            tape_sha256=tape.digest,
            parent=False,
            change="repair",
            oracle=oracle,
            budget_usd=budget_usd,
            coupling="fresh",
            settings=settings,
        )
        header["candidates"] = [[one.source, one.key] for one in found.candidates]
        journal = Journal(store.path, repair_id, header, kind=REPAIR)
        search = forks.search = RepairSearch(plan)
        try:
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
            running.grading.begin()

            def told() -> None:
                if on_progress is not None:
                    forks = len(journal.trials)
                    on_progress(
                        Progress(forks=forks, spent_usd=budget.spent_usd, reserved_usd=budget.reserved_usd)
                    )

            running.run(told)
        finally:
            journal.close()
    result = RepairResult(
        repair_id=repair_id,
        run_id=run.run_id,
        verdict=search.verdict,
        repairs=tuple(
            Repair(candidate=one, tried=tried, cost_usd=_spent(search, number, journal))
            for number, (one, tried) in enumerate(zip(found.candidates, search.tried, strict=True))
        ),
        trials=tuple(journal.trials),
        header=journal.header,
        stop_reason=search.stop_reason,
        left=found.left,
        problem=running.commonest_problem,
        proposing_usd=0.0 if proposer is None else proposer.paid.cost_usd or 0.0,
    )
    write_back(store, tape, result, roots=forker.roots, root_of_parent=forker.root_of_parent)
    return result


def gathered(
    run: Run, tape: Tape, edits: Mapping[int, Edit] | Sequence[tuple[int, Edit]], *, at: int | None
) -> Found:
    """Return what there is to try without asking anybody; UsageError for a step that is none."""
    if at is not None and not 0 <= at < tape.steps:
        raise UsageError(f"run {run_name(run.run_id)} has no step {at}: its steps are 0..{tape.steps - 1}")
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


def _tries(run: Run, tape: Tape, candidates: Sequence[Candidate], estimates: Sequence[Estimate]) -> list[Try]:
    known = {row["kept"]: row for row in run.store.ask("unchanged_reruns", id=run.run_id)}
    tries: list[Try] = []
    for one, estimate in zip(candidates, estimates, strict=True):
        bound = one.edit.bind(tape, one.step)
        control = bound.step if bound.goes_live else bound.step + 1
        row = known.get(control)
        tries.append(
            Try(
                parts=len(one.all),
                step=one.step,
                kept=bound.step,
                control=control,
                known=(0, 0) if row is None else (row["flips"], row["trials"]),
                cost_usd=estimate.cost_usd,
            )
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
