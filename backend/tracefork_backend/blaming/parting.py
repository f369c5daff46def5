"""One experiment on parts of requests: sections of the system prompt, or tools, over one run or several."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request
from tracefork_otel.play.match import MatchMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.digest import digest_like
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.removing import system_texts, tools_of
from tracefork_otel.wire.rewriting import uncoded
from tracefork_otel.wire.sections import Level, level_of, sections_of
from tracefork_otel.wire.writing import tokens

from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle
from ..rerun import edits
from ..rerun.budget import Budget, Grading
from ..rerun.edits.removal import Removal
from ..rerun.estimate import Estimate as Estimated
from ..rerun.estimate import after, again
from ..rerun.forker import DEFAULT_TIMEOUT, Agent, Forker, Planned
from ..rerun.reconstruct import reconstruct
from ..spelling import counted, run_name, short
from ..store import Run
from ..store.prices import NONE_GIVEN, Given, rates_given
from . import drive, forecast
from .beforehand import admitted, check_kept, check_money, header_of
from .experiment import OnProgress, begun_with, go_on, progress_of
from .forecast import Estimate
from .journal import Journal, path_of
from .plan import Plan, What
from .result import BlameResult, StepShown
from .running import Running
from .search import Search
from .strata import PlannedIn, Strata
from .trials import TrialRequest
from .writing import write_back

_SHOWN = 60
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of requests."""

    name: str
    """As people read it."""
    tokens: int
    """About how many it is in each call that has it."""
    section: tuple[str, int] | None = None
    """Of a section its key, and its place among those of that key."""
    tool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that all runs have, and where each run is forked."""

    what: What
    parts: tuple[Part, ...]
    level: Level
    first: tuple[int, ...]
    """The first step of each run whose request has one of them."""
    told: tuple[str, ...] = ()
    """What a person should know of parts that are not among them, and of calls that are not reached."""

    def removal(self, gone: Collection[int]) -> Removal:
        """Return the edit that takes these out."""
        some = [self.parts[at] for at in gone]
        return Removal(
            sections=tuple(one.section for one in some if one.section is not None),
            tools=tuple(one.tool for one in some if one.tool is not None),
            level=self.level,
        )


def parts_of(tapes: Sequence[Tape], what: What) -> Parts:
    """Return the parts that the requests of these runs have in common, by their first appearance.

    Raises UsageError where a run has none, or all of them none in common.
    """
    level: Level = "headings"
    if what == "system":
        texts = [one.what for tape in tapes for asked in _asked(tape) for one in system_texts(asked)]
        level = level_of(list(dict.fromkeys(texts)))
    found = [_parts(tape, what, level) for tape in tapes]
    called = "system prompt" if what == "system" else "tools"
    for tape, parts in zip(tapes, found, strict=True):
        if not parts:
            raise UsageError(
                f"run {run_name(tape.run_id)} has no {called}: none of its calls of a model "
                f"{'says one' if what == 'system' else 'offers any'}, so there is nothing to remove"
            )
    common = [key for key in found[0] if all(key in other for other in found)]
    told: list[str] = []
    some = [key for other in found for key in other if key not in common]
    for key in dict.fromkeys(some):
        has = sum(key in other for other in found)
        told.append(f"{short(key[0], _SHOWN)} stands in {has} of {len(found)} runs, so it is not tried")
    if not common:
        raise UsageError(
            f"the {called} of the {len(tapes)} runs have no part in common: compare runs of one agent, or "
            "one run alone"
        )
    parts = tuple(found[0][key] for key in common)
    first, beside = zip(*(_reach(tape, what, level, common) for tape in tapes), strict=True)
    if any(beside):
        told.append(
            f"{counted(sum(beside), 'call')} that began beside the first keep what they have: they are "
            "served as they were recorded"
        )
    return Parts(what=what, parts=parts, level=level, first=tuple(first), told=tuple(told))


def _asked(tape: Tape) -> list[Request]:
    """Return the requests of a run below their codings."""
    return [uncoded(exchange.request) for exchange in tape.exchanges]


def _keys(asked: Request, what: What, level: Level) -> dict[tuple[str, int], Part]:
    """Return the parts of a request by what they are known by."""
    if what == "tools":
        found: dict[tuple[str, int], Part] = {}
        for one in tools_of(asked).offered:
            known = found.get((one.what, 1))
            size = one.size // _BYTES_PER_TOKEN + (known.tokens if known else 0)
            found[one.what, 1] = Part(name=one.what, tokens=max(1, size), tool=one.what)
        return found
    return {
        (one.key, one.nth): Part(
            name=short(one.key, _SHOWN) + (f" ({one.nth})" if one.nth > 1 else ""),
            tokens=tokens(one.text),
            section=(one.key, one.nth),
        )
        for one in sections_of([placed.what for placed in system_texts(asked)], level)
    }


def _parts(tape: Tape, what: What, level: Level) -> dict[tuple[str, int], Part]:
    """Return the parts of all requests of a run, by their first appearance."""
    found: dict[tuple[str, int], Part] = {}
    for asked in _asked(tape):
        for key, part in _keys(asked, what, level).items():
            found.setdefault(key, part)
    return found


def _reach(tape: Tape, what: What, level: Level, common: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Return the first step that has one of the parts, and how many calls that have began beside it."""
    having = [step for step, asked in enumerate(_asked(tape)) if set(_keys(asked, what, level)) & set(common)]
    forked = tape.exchanges[having[0]]
    beside = sum(
        forked.ended_ns is None or tape.exchanges[step].started_ns < forked.ended_ns for step in having[1:]
    )
    return having[0], beside


def _plan(parts: Parts, estimates: Sequence[Estimated], **settings: Any) -> Plan:
    """Return the plan of an experiment on these parts."""
    count = len(parts.parts)
    cost = sum(one.cost_usd for one in estimates) / len(estimates)
    return Plan(
        steps=count,
        mode="parts",
        parent_failed=False,  # a flip is a failure, however the recorded runs ended
        output=None,
        costs=(cost,) * (count + 1) if cost else (),
        parts=tuple((one.name, one.tokens) for one in parts.parts),
        strata=len(parts.first),
        deterministic="never",
        **settings,
    )


def _priced(tapes: Sequence[Tape], parts: Parts, prices: Given) -> list[Estimated]:
    """Return what a fork of each run is likely to take."""
    return [
        again([tape.exchanges[first], *after(tape, first)], given=prices)
        for tape, first in zip(tapes, parts.first, strict=True)
    ]


def _checked(runs: Sequence[Run], what: str) -> What:
    if what not in ("system", "tools"):
        raise UsageError(f"{what!r} are no parts: use system or tools")
    if not runs:
        raise UsageError("name at least one run")
    twice = next(
        (run for at, run in enumerate(runs) if run.run_id in {one.run_id for one in runs[:at]}), None
    )
    if twice is not None:
        raise UsageError(f"run {run_name(twice.run_id)} is named twice: forks are spread over runs evenly")
    return "system" if what == "system" else "tools"


def estimate(
    runs: Sequence[Run],
    *,
    parts: str,
    budget_usd: float | None = None,
    oracle: Oracle | None = None,
    prices: Given = NONE_GIVEN,
    alpha: float = 0.05,
    bound: float | None = None,
    max_trials: int | None = None,
) -> tuple[Estimate, Parts]:
    """Return what an experiment on parts would take, by simulating it, and the parts."""
    what = _checked(runs, parts)
    tapes = [reconstruct(run.store, run) for run in runs]
    found = parts_of(tapes, what)
    priced = _priced(tapes, found, prices)
    plan = _plan(found, priced, alpha=alpha, bound=bound, max_trials=max_trials)
    Budget(budget_usd)
    unknown = tuple(dict.fromkeys(why for one in priced for why in one.unknown))
    grading = drive.FREE
    if isinstance(oracle, Judge):
        oracle.priced(prices)
        grading = drive.Graders(oracle.likely_usd(graded_run(runs[0])), oracle.worst_usd)
        unknown += tuple(why for why in oracle.unknown if why not in unknown)
    plan = replace(plan, costs=plan.costs or (0.0,) * (plan.steps + 1))
    told = forecast.estimate(plan, budget=budget_usd, grading=grading, simulations=60)
    return replace(told, unknown=unknown), found


def blame_parts(
    runs: Sequence[Run],
    *,
    parts: str,
    oracle: Oracle,
    budget_usd: float | None = None,
    jobs: int = 1,
    alpha: float = 0.05,
    bound: float | None = None,
    max_trials: int | None = None,
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
    trust: bool = False,
    price: Sequence[str] = (),
    same_oracle: bool = False,
    executor: Executor | None = None,
    allow_drift: bool = False,
    on_bound: Callable[[str], None] | None = None,
    on_parts: Callable[[Parts], None] | None = None,
) -> BlameResult:
    """Find which parts of requests carry success: each taken out of them all, beside re-runs as they are.

    `parts` is `system`, its sections, or `tools`. Of several runs, trials are spread over them in turn and
    compared within each. With a `bound` it goes on until what shows no effect is shown to be followed by so
    much more failure at most. What else it takes is as `blame` takes it; `on_parts` is told what is tried,
    before anything is paid. Raises UsageError where a run has no such parts, or none in common with others.
    """
    what = _checked(runs, parts)
    known = ""
    if resume:
        known, budget_usd, max_trials = begun_with(
            path_of(runs[0].store.path, resume), oracle, budget_usd, max_trials, same_oracle=same_oracle
        )
    check_kept(runs[0], budget_usd, "experiment")
    budget, store = Budget(budget_usd), runs[0].store
    prices = rates_given(price)
    experiment_id = resume or secrets.token_hex(8)
    with ExitStack() as opened:
        forkers = [
            opened.enter_context(
                Forker(
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
                )
            )
            for run in runs
        ]
        tapes = [forker.tape for forker in forkers]
        found = parts_of(tapes, what)
        if on_parts is not None:
            on_parts(found)
        priced = _priced(tapes, found, prices)
        plan = _plan(found, priced, alpha=alpha, bound=bound, max_trials=max_trials)
        check_money(forkers[0], oracle, priced, prices, budget_usd=budget_usd, on_bound=on_bound)
        for forker, run in zip(forkers, runs, strict=True):
            admitted(forker, run, oracle)
        header = header_of(
            runs[0],
            plan,
            tape_sha256=_digest(tapes, known),
            parent=True,
            change=f"without {what}",
            oracle=oracle,
            budget_usd=budget_usd,
            coupling="fresh",
            settings=settings,
        )
        # Held until its end is written: to others it has one when it is free.
        with closing(Journal(store.path, experiment_id, None if resume else header)) as journal:
            search, strata = Search(plan), Strata(forkers)
            dearest = max(priced, key=lambda one: one.worst_usd)
            running = Running(
                forker=strata,
                journal=journal,
                search=search,
                planned=_Planner(tapes, found).planned,
                oracle=oracle,
                parent=True,
                budget=budget,
                prices=prices,
                call_usd=max(one.call_usd for one in priced),
                grading=Grading(budget, oracle),
                expects=lambda request: dearest,
            )
            if resume:
                go_on(running, header)
            running.grading.begin()
            told = None if on_progress is None else lambda: on_progress(progress_of(search, running))
            running.run(told)
            result = BlameResult(
                experiment_id=experiment_id,
                run_id=runs[0].run_id,
                findings=search.verdict(),
                trials=tuple(journal.trials),
                plan=plan,
                header={**journal.header, "budget_usd": budget_usd, **running.beside()},
                problem=running.commonest_problem,
                steps=tuple(StepShown(part=one.name, tokens=one.tokens) for one in found.parts),
            )
            write_back(
                store,
                tapes[0],
                result,
                roots=strata.roots,
                root_of_parent=forkers[0].root_of_parent,
                noted_at=found.first[0],
            )
            return result


def _digest(tapes: Sequence[Tape], known: str) -> str:
    """Return the digest of the runs: of one, its own."""
    if len(tapes) == 1:
        return digest_like(known, tapes[0].exchanges) or tapes[0].digest
    return hashlib.sha256("\n".join(tape.digest for tape in tapes).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Planner:
    """The forks of an experiment on parts."""

    tapes: Sequence[Tape]
    parts: Parts

    def planned(self, request: TrialRequest) -> Planned:
        """Return the fork that goes on live from the first request with a part, without those it is about."""
        stratum = request.replicate % len(self.tapes)
        tape, first = self.tapes[stratum], self.parts.first[stratum]
        edit = self.parts.removal(request.altered) if request.altered else edits.resample()
        return PlannedIn(change=edit.bind(tape, first), replicate=request.shares, stratum=stratum)
