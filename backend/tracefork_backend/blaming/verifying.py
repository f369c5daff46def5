"""A finished experiment read from the store, and its numbers computed again from its trials."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from ..store import Store
from .journal import TrialRecord, the_one
from .plan import Plan
from .result import BlameResult, Tables, finite
from .search import Search


def _experiment(store: Store, prefix: str) -> dict[str, Any]:
    """Return the row of the one finished experiment whose id begins so; `last` is the newest."""
    rows = {row["experiment_id"]: row for row in store.ask("blame_experiments")}
    return rows[the_one(list(rows), prefix, "finished experiment")]


def stored_tables(store: Store, prefix: str) -> Tables:
    """Return the tables of a finished experiment as they were written."""
    row = _experiment(store, prefix)
    experiment_id = row["experiment_id"]
    (unpriced,) = store.ask("blame_unpriced", id=experiment_id)
    return Tables(
        experiment={**row, "unpriced_forks": unpriced["forks"]},
        effects=store.ask("blame_effects", id=experiment_id),
        sets=store.ask("blame_sets", id=experiment_id),
    )


def stored_result(store: Store, prefix: str) -> BlameResult:
    """Return the result of a finished experiment, its findings computed again from the trials."""
    return _result(store, _experiment(store, prefix))


def _result(store: Store, row: Mapping[str, Any]) -> BlameResult:
    trials = _trials(store, row["experiment_id"])
    plan = _plan(json.loads(row["params_json"]))
    search = Search(plan)
    search.replay({one.trial_id: one.seen for one in trials})
    if not search.done:
        search.stop("budget" if row["stop_reason"] == "running" else row["stop_reason"])
    return BlameResult(
        experiment_id=row["experiment_id"],
        run_id=row["run_id"],
        findings=search.verdict(),
        trials=trials,
        plan=plan,
        header={**row, "change": row["perturbation"], "oracle": row["oracle_name"]},
    )


def _plan(params: Mapping[str, Any]) -> Plan:
    """Return the plan that a row holds; what it says beyond a plan's fields is left aside."""
    known = {field.name: params[field.name] for field in dataclasses.fields(Plan) if field.name in params}
    return Plan(**{**known, "blocked": frozenset(params["blocked"]), "costs": tuple(params["costs"])})


def _trials(store: Store, experiment_id: str) -> tuple[TrialRecord, ...]:
    """Return the trials of an experiment as `blame_trials` has them, in the order in which they ended."""
    names = {field.name for field in dataclasses.fields(TrialRecord)}
    trials: list[TrialRecord] = []
    for row in store.ask("blame_trials", id=experiment_id):
        told = {name: value for name, value in row.items() if name in names}
        told |= {"steps": tuple(row["steps"]), "altered": tuple(row["altered"])}
        trials.append(TrialRecord(**{**told, "calls_memo": row["calls_memo"] or 0}))
    return tuple(trials)


def verify(store: Store, prefix: str) -> tuple[str, list[str]]:
    """Return the experiment's id, and each number that its trials do not give again: none if all is well."""
    row = _experiment(store, prefix)
    experiment_id = row["experiment_id"]
    result = _result(store, row)
    found = result.findings
    wrong: list[str] = []

    def same(what: str, stored: Any, computed: Any) -> None:
        if isinstance(stored, float) and isinstance(computed, float):
            if math.isclose(stored, computed, rel_tol=1e-9, abs_tol=1e-12):
                return
        elif stored == computed:
            return
        wrong.append(f"{what}: stored {stored}, computed {computed}")

    stopped = row["stop_reason"]
    # An experiment that ended at any limit may say `budget` of it.
    if not (stopped == "budget" and found.stop_reason in ("max_trials", "aborted")):
        same("stop_reason", stopped, found.stop_reason)
    for name in ("mode", "baseline_flips", "baseline_trials", "deterministic", "controls"):
        same(name, row[name], getattr(found, name))
    same("top_step", row["top_step"], found.top)
    same("forks", row["forks"], len(result.trials))
    same("spent_usd", row["spent_usd"], result.cost_usd)
    stored = store.ask("blame_effects", id=experiment_id)
    same("steps", len(stored), len(found.effects))
    for kept, effect in zip(stored, found.effects, strict=False):
        for name, value in finite(dataclasses.asdict(effect)).items():
            same(f"step {effect.step} {name}", kept[name], value)
    return experiment_id, wrong
