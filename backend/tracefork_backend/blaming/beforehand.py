"""What blame and repair do before their first fork: check, price, admit the recorded run, begin a journal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.tape.tape import Tape

from ..grading.graded import graded_run
from ..grading.judge import Judge
from ..grading.oracle import Oracle, digest_of, digests_of, grade, modules_of, name_of
from ..rerun import edits
from ..rerun.estimate import Estimate, check_priced, total
from ..rerun.forker import Forker, Planned
from ..spelling import run_name
from ..store import Run
from ..store.prices import Given
from .plan import Plan


def check_kept(run: Run, budget_usd: float | None, what: str) -> None:
    """Raise UsageError for a budget that pays for nothing, StoreError where the store cannot keep `what`."""
    if budget_usd is not None and budget_usd <= 0:
        raise UsageError(f"a budget of ${budget_usd:g} pays for no fork: give dollars, such as 2.00")
    if not run.store.writable:
        raise StoreError(f"{run.store.path} cannot be written, so no {what} can be kept in it")


def check_money(
    forker: Forker,
    oracle: Oracle,
    estimates: Sequence[Estimate],
    prices: Given,
    *,
    budget_usd: float | None,
    on_bound: Callable[[str], None] | None,
) -> None:
    """Tell `on_bound` how far the budget can be passed; UsageError where it would hold what has no price."""
    if isinstance(oracle, Judge):
        oracle.priced(prices)
    check_priced(estimates, budget_usd, oracle)
    if budget_usd is not None and on_bound is not None:
        on_bound(total((one, 1) for one in estimates).beyond(forker.jobs))


def admitted(forker: Forker, run: Run, oracle: Oracle) -> bool:
    """Return the recorded run's outcome, after it replayed whole, without a live call that the tape has."""
    # A judge is asked once, about the replay.
    asked = not isinstance(oracle, Judge)
    outcome = grade(oracle, graded_run(run), limit_s=forker.timeout) if asked else None
    last = forker.tape.steps - 1
    unchanged = Planned(change=edits.noop().bind(forker.tape, last))
    (fork,) = forker.forks([unchanged], oracle=oracle, settle=False)
    if not fork.gradable:
        fork.raise_for_problem()
    # The recorded run's output may not be kept, or not all of it, so its replay is what trials are like.
    outcome = fork.outcome if fork.outcome is not None else outcome
    if outcome is None:
        raise UsageError(
            f"the outcome of run {run_name(run.run_id)} cannot be graded: {name_of(oracle)} says neither "
            "success nor failure of it, so no fork can be told to differ; give another oracle"
        )
    return outcome


def unchanged(tape: Tape, kept: int) -> Intervention:
    """Return the fork that keeps so many responses and changes nothing."""
    return edits.noop().bind(tape, kept - 1) if kept else edits.resample().bind(tape, 0)


def header_of(
    run: Run,
    plan: Plan,
    *,
    tape_sha256: str,
    parent: bool,
    change: str,
    oracle: Oracle,
    budget_usd: float | None,
    coupling: str,
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a journal begins with."""
    return {
        "run_id": run.run_id,
        "tape_sha256": tape_sha256,
        "parent_outcome": parent,
        "change": change,
        "oracle": name_of(oracle),
        "oracle_sha256": digest_of(oracle),
        "oracle_modules": digests_of(modules_of(oracle)),
        "budget_usd": budget_usd,
        "created_ns": time.time_ns(),
        "coupling": coupling,
        "plan": dataclasses.asdict(plan),
        "settings": dict(settings or {}),
    }
