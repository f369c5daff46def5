"""The report of an experiment as it ended: what the trials changed, read from the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tracefork_otel.errors import UnknownRun

from ..blaming.modes.parts import PARTS
from ..blaming.verifying import stored_result, stored_tables
from .content import About, Change, Report, change_between, timeline
from .html import render, render_parts
from .parts import parts_told

if TYPE_CHECKING:
    from ..blaming.journal import TrialRecord
    from ..blaming.result import BlameResult
    from ..store import Run, Store


def report_of_result(run: Run, result: BlameResult) -> Report:
    """Return the report of the recorded run and its experiment, beside the culprit a fork that flipped."""
    header = result.header
    began = min((trial.started_ns for trial in result.trials if trial.started_ns), default=0)
    ended = max((trial.ended_ns for trial in result.trials), default=0)
    about = About(
        experiment_id=result.experiment_id,
        intervention=str(header.get("change") or ""),
        oracle=str(header.get("oracle") or ""),
        oracle_note=str(header.get("oracle_note") or ""),
        alpha=result.plan.alpha,
        spent_usd=result.cost_usd,
        unpriced=result.unpriced,
        budget_usd=header.get("budget_usd"),
        grading_usd=header.get("grading_usd"),
        grading_unpriced=header.get("grading_unpriced") or 0,
        seconds=(ended - began) / 1e9 if began and ended > began else None,
        when=f"{datetime.fromtimestamp(began / 1e9, UTC):%Y-%m-%d %H:%M} UTC" if began else "",
    )
    return Report(
        run_id=run.run_id,
        name=run.name,
        parent_failed=result.plan.parent_failed,
        timeline=timeline(run.exchanges),
        findings=result.findings,
        about=about,
        change=None if result.top is None else _shown(run, result, result.top),
    )


def report_of_stored(store: Store, prefix: str) -> Report:
    """Return the report of a finished experiment, computed again from the trials in the store."""
    result = stored_result(store, prefix)
    return report_of_result(store.run(result.run_id), result)


def page_of_stored(store: Store, prefix: str) -> str:
    """Return the page of a finished experiment, on steps or on parts of requests."""
    tables = stored_tables(store, prefix)
    if tables.experiment["mode"] == PARTS.name:
        return render_parts(parts_told(tables))
    return render(report_of_stored(store, prefix))


def _shown(run: Run, result: BlameResult, step: int) -> Change | None:
    """Return what the first fork that flipped by this step alone had there, else the first changed there."""
    here = [
        trial
        for trial in result.trials
        if trial.run_id and (trial.altered == (step,) or (not trial.altered and trial.kept == step))
    ]
    # Where nothing was altered the step was drawn again, along with all that follows.
    for trial in sorted(here, key=lambda one: (not one.flipped, not one.altered, one.seq)):
        change = _change(run, trial, step)
        if change is not None:
            return change
    return None


def _change(run: Run, trial: TrialRecord, step: int) -> Change | None:
    try:
        made = run.store.run(trial.run_id).exchanges
    except UnknownRun:
        return None
    # What marks the end of a kept prefix is no change: the step after it was drawn again.
    altered = [each for each in made if each.intervention is not None] if trial.altered else []
    after = altered[0] if altered else made[step] if step < len(made) else None
    if after is None or step >= len(run.exchanges):
        return None
    return change_between(run.exchanges[step], after, step=step, flipped=trial.flipped is True)
