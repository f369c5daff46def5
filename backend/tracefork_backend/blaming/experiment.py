"""One blame experiment with real forks: admitted, searched within its budget, journalled, written back."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.digest import digest_like
from tracefork_otel.tape.tape import Tape

from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle, digest_of, digests_of, modules_of, name_of, whose
from ..rerun import edits
from ..rerun.budget import Budget, Grading
from ..rerun.edits import Edit, checked
from ..rerun.estimate import Estimate as Estimated
from ..rerun.estimate import after, again, total
from ..rerun.estimate import estimate as priced
from ..rerun.forker import DEFAULT_TIMEOUT, Agent, Forker, Planned
from ..rerun.reconstruct import reconstruct
from ..spelling import counted, money, run_name
from ..store import Run
from ..store.prices import NONE_GIVEN, Given, rates_given
from . import changes, drive, forecast
from .attempts import attempts_of
from .beforehand import admitted, check_kept, check_money, header_of, unchanged
from .changes import Change
from .findings import Findings
from .forecast import Estimate
from .journal import Journal, TrialRecord, as_read, limits_of, path_of, read
from .modes import mode_named
from .plan import SEARCH, Coupling, ModeName, Plan
from .result import BlameResult, step_shown
from .running import Running
from .search import Search
from .trials import TrialRequest
from .writing import write_back

_FIXED = (
    "run_id",
    "tape_sha256",
    "parent_outcome",
    "change",
    "oracle",
    "coupling",
    "mode",
    "alpha",
    "k",
    "attempts",
    "parts",
    "strata",
    "bound",
)
"""What an experiment is gone on with as it was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """An experiment while it runs."""

    phase: str
    forks: int
    spent_usd: float
    reserved_usd: float
    findings: Findings


_TOLD = {
    "parent_outcome": "what the oracle says of the recorded run (True: success)",
    "tape_sha256": "the digest of the run",
}
"""What some of them are called by those who do not know the journal."""
_BEFORE: Mapping[str, Any] = {
    "coupling": "fresh",
    "attempts": [],
    "search": SEARCH,
    "every": False,
    "parts": [],
    "strata": 1,
    "bound": None,
}
"""What held before it was kept."""

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    plan: Plan
    fits: Mapping[int, Intervention]
    estimates: tuple[Estimated, ...]
    """What each fork takes that changes nothing, and each that changes one step."""


def prepare(
    tape: Tape,
    change: Change,
    *,
    parent_failed: bool = True,
    prices: Given = NONE_GIVEN,
    **settings: Any,
) -> _Prepared:
    """Return the plan of an experiment with this change, priced, and the edit of each step that it fits.

    Raises UsageError if there is nothing to compare, or if the change fits no step.
    """
    if settings.get("mode") == "parts":
        raise UsageError("mode parts compares parts of requests: say which, --parts system or --parts tools")
    if tape.steps < 2:
        raise UsageError(
            f"run {run_name(tape.run_id)} has {tape.steps} step{'' if tape.steps == 1 else 's'}, the last is "
            "its output: blame needs at least two"
        )
    fits, why = changes.bound(change, tape)
    attempts = attempts_of(tape)
    if not fits:
        first = min(why)
        raise UsageError(
            f"{change.name} fits no step of run {run_name(tape.run_id)}: step {first}: {why[first]}"
        )
    whole = again([tape.exchanges[0], *after(tape, 0)], given=prices)
    controls = [whole, *(again(after(tape, step), given=prices) for step in range(tape.steps))]
    changed = {step: priced(tape, fit, prices) for step, fit in fits.items()}
    costs = tuple(
        max(control.cost_usd, changed.get(kept, control).cost_usd) for kept, control in enumerate(controls)
    )
    plan = Plan(
        steps=tape.steps,
        natural=change.natural,
        repair=change.repair,
        parent_failed=parent_failed,
        output=tape.steps - 1 if change.rewrites else None,
        blocked=frozenset(why),
        attempts=attempts,
        costs=costs if any(costs) else (),
        **settings,
    )
    if not mode_named(plan.mode).places(plan):
        raise UsageError(f"{change.name} fits only the last step, whose text is the outcome: choose another")
    return _Prepared(plan=plan, fits=fits, estimates=(*controls, *changed.values()))


def estimate(
    run: Run | Tape,
    *,
    change: Change | None = None,
    budget_usd: float | None = None,
    oracle: Oracle | None = None,
    prices: Given = NONE_GIVEN,
    **settings: Any,
) -> Estimate:
    """Return what an experiment would take and how likely it is to reach a verdict, by simulating it.

    A judge as its oracle is counted as if each ending were one like the recorded run's.
    """
    tape = reconstruct(run.store, run) if isinstance(run, Run) else run
    prepared = prepare(tape, change or changes.resample(), prices=prices, **settings)
    Budget(budget_usd)
    unknown = total((one, 1) for one in prepared.estimates).unknown
    grading = drive.FREE
    if isinstance(oracle, Judge):
        oracle.priced(prices)
        grading = drive.Graders(oracle.likely_usd(graded_run(run)), oracle.worst_usd)
        unknown += tuple(why for why in oracle.unknown if why not in unknown)
    # Where no fork costs anything a plan counts calls, of which a budget in dollars says nothing.
    plan = replace(prepared.plan, costs=prepared.plan.costs or (0.0,) * (tape.steps + 1))
    return replace(forecast.estimate(plan, budget=budget_usd, grading=grading), unknown=unknown)


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
    every: bool = False,
    agent: Agent | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
    skip_hosts: Sequence[str] = (),
    timing: Timing = "none",
    resume: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
    coupling: Coupling = "fresh",
    trust: bool = False,
    price: Sequence[str] = (),
    same_oracle: bool = False,
    executor: Executor | None = None,
    allow_drift: bool = False,
    on_bound: Callable[[str], None] | None = None,
) -> BlameResult:
    """Find which steps of the run move its outcome, by forks that the oracle grades; keep it in its store.

    Without a change the steps' own responses are drawn anew. `resume` goes on with an experiment by its id,
    whose trials are not run again, within the limits it had where none are given; `settings` is kept with
    it, and `same_oracle` says that the oracle grades as it did though its file is another. Coupling
    `recorded` holds the recorded answers to requests that a fork makes as the run did: another question,
    whose control never flips. Value mode goes on for `every` step that may be certified, not only for large
    drops, and past 300 forks where `max_trials` is more. `trust`, `executor` and `allow_drift` say what they
    say to `fork`; `price` has `MODEL=IN/OUT`, what models cost for a million tokens, and `on_bound` is told
    how far the budget can be passed, before anything is paid. Raises UsageError if the run cannot be graded
    or the budget not be held, Drift or AgentFailed if the run does not replay.
    """
    known = ""
    if resume:
        known, budget_usd, max_trials = begun_with(
            path_of(run.store.path, resume), oracle, budget_usd, max_trials, same_oracle=same_oracle
        )
    check_kept(run, budget_usd, "experiment")
    budget, store = Budget(budget_usd), run.store
    if not isinstance(change, Change):
        change = changes.resample() if change is None else changes.of_edit(checked(change))
    if coupling == "recorded" and mode_named(mode).settled(natural=change.natural).redraws:
        raise UsageError(
            "value mode draws the whole rest anew, so it has no coupling `recorded`: take intervene or fixed"
        )
    prices = rates_given(price)
    experiment_id = resume or secrets.token_hex(8)
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
        experiment_id=experiment_id,
    ) as forker:
        tape = forker.tape
        prepared = prepare(
            tape, change, mode=mode, k=k, alpha=alpha, max_trials=max_trials, every=every, prices=prices
        )
        check_money(forker, oracle, prepared.estimates, prices, budget_usd=budget_usd, on_bound=on_bound)
        parent = admitted(forker, run, oracle)
        plan = dataclasses.replace(prepared.plan, parent_failed=not parent)
        header = header_of(
            run,
            plan,
            tape_sha256=digest_like(known, tape.exchanges) or tape.digest,
            parent=parent,
            change=change.name,
            oracle=oracle,
            budget_usd=budget_usd,
            coupling=coupling,
            settings=settings,
        )
        # Held until its end is written: to others it has one when it is free.
        with closing(Journal(store.path, experiment_id, None if resume else header)) as journal:
            search = Search(plan)
            tail: Tail = "recorded" if journal.header.get("coupling") == "recorded" else "live"
            forks = _Forks(tape=tape, plan=plan, fits=prepared.fits, tail=tail)
            running = Running(
                forker=forker,
                journal=journal,
                search=search,
                planned=forks.planned,
                oracle=oracle,
                parent=parent,
                budget=budget,
                prices=prices,
                call_usd=max(one.call_usd for one in prepared.estimates),
                grading=Grading(budget, oracle),
            )
            if resume:
                go_on(running, header)
            running.grading.begin()
            told = None if on_progress is None else lambda: on_progress(progress_of(search, running))
            running.run(told)
            found = search.verdict()
            result = BlameResult(
                experiment_id=experiment_id,
                run_id=run.run_id,
                findings=found,
                trials=tuple(journal.trials),
                plan=plan,
                header={**journal.header, "budget_usd": budget_usd, **running.beside()},
                problem=running.commonest_problem,
                steps=tuple(step_shown(exchange) for exchange in tape.exchanges),
            )
            write_back(store, tape, result, roots=forker.roots, root_of_parent=forker.root_of_parent)
            return result


@dataclass(slots=True, kw_only=True, eq=False)
class _Forks:
    """The forks of an experiment on the steps of a tape."""

    tape: Tape
    plan: Plan
    fits: Mapping[int, Intervention]
    tail: Tail

    def planned(self, request: TrialRequest) -> Planned:
        """Return the fork that keeps so many responses and changes those steps."""
        kept, altered = request.kept, request.altered
        if altered and altered[0] == kept:
            first, rest = self.fits[kept], altered[1:]
        else:
            first, rest = unchanged(self.tape, kept), altered
        change = edits.together(first, [self._later(step, first) for step in rest])
        return Planned(change=replace(change, tail=self.tail), replicate=request.shares)

    def _later(self, step: int, first: Intervention) -> Intervention:
        """Return the change of a step in the tail of another's, at the place that its call has there."""
        change = self.fits[step]
        return replace(change, step=self.plan.place(change.step, after=first.step))


def begun_with(
    path: Path, oracle: Oracle, budget_usd: float | None, max_trials: int | None, *, same_oracle: bool
) -> tuple[str, float | None, int | None]:
    """Return the digest of what the journal's experiment was begun on, and the limits that hold now.

    Raises UsageError, before anything is replayed, where it may take less than it took, or by another oracle.
    """
    begun, made, _ = read(path)
    kept = limits_of(begun)
    budget_usd = kept["budget_usd"] if budget_usd is None else budget_usd
    max_trials = kept["max_trials"] if max_trials is None else max_trials
    _check_limits(kept, {"budget_usd": budget_usd, "max_trials": max_trials}, _least_spent(made), made)
    _check_oracle(begun, oracle, same=same_oracle)
    return begun["tape_sha256"], budget_usd, max_trials


def go_on(running: Running, header: Mapping[str, Any]) -> None:
    """Tell the search the trials of its journal, and the budget what they cost.

    Raises UsageError if it is not the same experiment any more, or one that may take less than it took.
    """
    known, trials = running.journal.header, running.journal.trials
    was, now = ({**_BEFORE, **one, **one["plan"]} for one in (known, as_read(header)))
    for name in _FIXED:
        if was[name] != now[name]:
            raise UsageError(
                f"the experiment cannot be gone on with: {_TOLD.get(name, f'its {name}')} was "
                f"{was.get(name)!r}, now it is {now[name]!r}"
            )
    _check_limits(was, now, running.book(), trials)
    running.journal.limit(now["budget_usd"], now["max_trials"])
    running.search.replay({one.trial_id: one.seen for one in trials})
    running.remember()


def _check_limits(
    was: Mapping[str, Any], now: Mapping[str, Any], spent: float, trials: Sequence[TrialRecord]
) -> None:
    """Raise UsageError if the experiment may take less than it took."""
    for name, flag, used, told in (
        ("budget_usd", "--budget", spent, f"{money(spent)} is spent"),
        ("max_trials", "--max-trials", len(trials), f"{counted(len(trials), 'fork')} were made"),
    ):
        if now[name] is not None and now[name] != was[name] and now[name] < used:
            raise UsageError(f"{flag} {now[name]:g} is less than the experiment took: {told} already")


def _least_spent(trials: Sequence[TrialRecord]) -> float:
    """Return what the trials count with where their grading cost nothing that they do not tell."""
    return sum(one.counts_usd(0.0) for one in trials)


def _check_oracle(begun: Mapping[str, Any], oracle: Oracle, *, same: bool) -> None:
    """Raise UsageError if the oracle is not what graded the experiment, unless it is the `same`."""
    known = begun.get("oracle_sha256")
    if same or known is None or name_of(oracle) != begun["oracle"]:
        return  # of a journal that does not say it, nobody can tell
    how = "has changed"
    if known == digest_of(oracle):
        files = modules_of(oracle)
        now = digests_of(files)
        others = [name for name, was in begun.get("oracle_modules", {}).items() if now.get(name) != was]
        if not others:
            return
        first = min(others, key=lambda name: name not in now)
        more = f" and {counted(len(others) - 1, 'other module')}" if len(others) > 1 else ""
        which = f"{first} ({files[first]}){more}" if first in now else f"{first}{more}"
        how = f"imports {which}, which {'have' if more else 'has'} {'changed' if first in now else 'gone'}"
    raise UsageError(
        f"the oracle {whose(oracle)} {how} since the experiment began, so its forks may have been "
        "graded otherwise: give it back as it was, or, if it grades alike, go on by --same-oracle"
    )


def progress_of(search: Search, running: Running) -> Progress:
    """Return the experiment as it stands."""
    return Progress(
        phase=search.phase,
        forks=len(running.journal.trials),
        spent_usd=running.budget.spent_usd,
        reserved_usd=running.budget.reserved_usd,
        findings=search.verdict(),
    )
