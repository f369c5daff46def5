"""Experiments as they stand: finished ones from the store, others from their journals."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tracefork_otel.errors import StoreError, UsageError

from ..blaming import journal
from ..blaming.lost import lost_trials
from ..blaming.modes.parts import PARTS
from ..blaming.verifying import ongoing_result, stored_tables
from ..report.experiment import report_of_result, report_of_stored
from ..report.html import values_of, values_of_parts
from ..report.parts import parts_told
from ..store import Store, open_store
from ..store.prices import bill

_EARLIER = 200
"""Experiments of a store that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One line of the list."""

    experiment_id: str
    run_id: str
    mode: str
    state: str
    """`running`, `interrupted`, or how it ended."""
    forks: int
    spent_usd: float | None
    message: str
    begun: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentShown:
    """One experiment, whole enough for its page."""

    experiment_id: str
    state: str
    template: str
    """What shows it: the report's own."""
    values: Mapping[str, Any]
    run_ids: tuple[str, ...]
    budget_usd: float | None
    spent_usd: float
    forks: int


def listed(store: Store) -> list[Experiment]:
    """Return the experiments of a store, the newest first."""
    earlier = _rows(store)
    begun = [one for one in journal.experiments(store.path)[-_EARLIER:] if one not in earlier]
    states = {one: state_of(store.path, one) for one in begun}
    rows = _rows(store) if begun else earlier  # asked after the states, as some may just have ended
    found: list[Experiment] = []
    for experiment_id, state in states.items():
        if experiment_id in rows:
            continue
        with suppress(StoreError, UsageError):
            header, trials, _ = journal.read(journal.path_of(store.path, experiment_id))
            found.append(
                Experiment(
                    experiment_id=experiment_id,
                    run_id=header["run_id"],
                    mode=header["plan"]["mode"],
                    state=state,
                    forks=len(trials),
                    spent_usd=sum(one.counts_usd(0.0) for one in trials),
                    message="",
                    begun=datetime.fromtimestamp(header["created_ns"] / 1e9, UTC).replace(tzinfo=None),
                )
            )
    for row in rows.values():
        found.append(
            Experiment(
                experiment_id=row["experiment_id"],
                run_id=row["run_id"],
                mode=row["mode"],
                state=row["stop_reason"],
                forks=row["forks"],
                spent_usd=row["spent_usd"],
                message=row["message"],
                begun=row["created_at"].replace(tzinfo=None),
            )
        )
    return sorted(found, key=lambda one: one.begun, reverse=True)


def shown(store: Store, prefix: str) -> ExperimentShown:
    """Return the experiment whose id begins so, as it stands now."""
    ids = [*dict.fromkeys([*journal.experiments(store.path), *_rows(store)])]
    experiment_id = journal.the_one(ids, prefix, "experiment")
    state = state_of(store.path, experiment_id)
    # Asked after its state, as it may just have ended; one that is gone on with has an end from before.
    if state != "running" and (row := _rows(store).get(experiment_id)):
        return _ended(store, experiment_id, row["stop_reason"], row)
    return _ongoing(store, experiment_id, state)


def _rows(store: Store) -> dict[str, Mapping[str, Any]]:
    return {row["experiment_id"]: row for row in store.ask("blame_experiments")}


def _ended(store: Store, experiment_id: str, state: str, row: Mapping[str, Any]) -> ExperimentShown:
    if row["mode"] == PARTS.name:
        told = parts_told(stored_tables(store, experiment_id))
        template, values = "parts_main.html", values_of_parts(told)
    else:
        template, values = "report_main.html", values_of(report_of_stored(store, experiment_id))
    return ExperimentShown(
        experiment_id=experiment_id,
        state=state,
        template=template,
        values=values,
        run_ids=(row["run_id"],),
        budget_usd=row["budget_usd"],
        spent_usd=(row["spent_usd"] or 0.0) + (row["grading_usd"] or 0.0),
        forks=row["forks"],
    )


def _ongoing(store: Store, experiment_id: str, state: str) -> ExperimentShown:
    header, trials, _ = journal.read(journal.path_of(store.path, experiment_id))
    told: dict[str, Any] = {
        "experiment_id": experiment_id,
        "state": state,
        "run_ids": (header["run_id"],),
        "budget_usd": header["budget_usd"],
        "spent_usd": sum(one.counts_usd(0.0) for one in trials),
        "forks": len(trials),
    }
    if header["plan"]["mode"] == PARTS.name:
        return ExperimentShown(template="experiment_counts.html", values={"trials": trials}, **told)
    result = ongoing_result(experiment_id, header, trials)
    report = report_of_result(store.run(header["run_id"]), result)
    return ExperimentShown(template="report_main.html", values=values_of(report), **told)


def ended_usd(store: Path, experiment_id: str) -> float | None:
    """Return what an experiment took that was ended from outside; None where a part of it is not known.

    Its trials count as in its budget, and the forks that ran then with the answers that they had got; a call
    whose answer had not come counts as much as the dearest of the recorded run or of those forks.
    """
    with open_store(store) as opened:
        header, trials, _ = journal.read(journal.path_of(store, experiment_id))
        if (header["settings"].get("oracle") or {}).get("judge"):
            return None  # what it was asked last is in no journal
        lost = lost_trials(opened, experiment_id, trials)
        usual = bill(opened.exchanges(header["run_id"])).dearest_usd
    dearest = max([usual, *(one.bill.dearest_usd for one in lost)])
    if not dearest and any(one.bill.unpriced for one in lost):
        return None
    return sum(one.counts_usd(0.0) for one in trials) + sum(one.at_most(dearest) for one in lost)


def begun_since(store: Path, run_id: str, started: float) -> str | None:
    """Return the newest experiment on the run whose journal was begun since then."""
    for experiment_id in reversed(journal.experiments(store)):
        with suppress(StoreError, UsageError):
            header, _, _ = journal.read(journal.path_of(store, experiment_id))
            if header["run_id"] == run_id and header["created_ns"] / 1e9 >= started:
                return experiment_id
    return None


def booked_usd(store: Path, experiment_id: str) -> float:
    """Return what its trials count with in a budget: a call without a price at the most that it takes."""
    _, trials, _ = journal.read(journal.path_of(store, experiment_id))
    return sum(one.counts_usd(0.0) for one in trials)


def state_of(store: Path, experiment_id: str) -> str:
    """Return whether a process holds the experiment's journal: `running`, else `interrupted`."""
    try:
        opened = os.open(journal.path_of(store, experiment_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return "interrupted"
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    finally:
        os.close(opened)
    return "interrupted"
