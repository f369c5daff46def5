"""A finished experiment read from the store, and its numbers computed again from its trials."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tracefork_otel.errors import UsageError

from ..spelling import counted
from ..store import Store
from .findings import Effect, Findings
from .journal import TrialRecord, experiments, path_of, read, the_one
from .modes.value import VALUE
from .plan import SEARCH, Plan
from .result import BlameResult, Tables, finite
from .search import Search
from .state import State


def _experiment(store: Store, prefix: str) -> dict[str, Any]:
    """Return the row of the one finished experiment whose id begins so; `last` is the newest.

    Raises UsageError also where that one was interrupted, or goes on.
    """
    rows = {row["experiment_id"]: row for row in store.ask("blame_experiments")}
    begun = experiments(store.path)
    fitting = begun[-1:] if prefix == "last" else [one for one in begun if one.startswith(prefix)]
    if len(fitting) == 1 and fitting[0] not in rows:
        _, trials, _ = read(path_of(store.path, fitting[0]))
        ended = f"; of those that have, the newest is {list(rows)[-1][:8]}" if rows else ""
        raise UsageError(
            f"experiment {fitting[0][:8]} has not ended, after {counted(len(trials), 'fork')}: where it was "
            f"interrupted, go on with `tracefork-otel blame resume {fitting[0][:8]}`{ended}"
        )
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
    if _earlier(plan, row):
        found = _as_written(store, row, plan, trials)
    else:
        search = Search(plan)
        search.replay({one.trial_id: one.seen for one in trials})
        if not search.done:
            search.stop("budget" if row["stop_reason"] == "running" else row["stop_reason"])
        found = search.verdict()
    return BlameResult(
        experiment_id=row["experiment_id"],
        run_id=row["run_id"],
        findings=found,
        trials=trials,
        plan=plan,
        header={**row, "change": row["perturbation"], "oracle": row["oracle_name"]},
    )


def ongoing_result(
    experiment_id: str, header: Mapping[str, Any], trials: Sequence[TrialRecord]
) -> BlameResult:
    """Return what the trials of a journal say so far, of an experiment on steps that has not ended."""
    plan = _plan(header["plan"])
    search = Search(plan)
    search.replay({one.trial_id: one.seen for one in trials})
    return BlameResult(
        experiment_id=experiment_id,
        run_id=header["run_id"],
        findings=search.verdict(),
        trials=tuple(trials),
        plan=plan,
        header=dict(header),
    )


def _earlier(plan: Plan, row: Mapping[str, Any]) -> bool:
    """Tell whether another search decided what was asked for than the one that is built here."""
    return row["mode"] == VALUE.name and plan.search != SEARCH


def _as_written(store: Store, row: Mapping[str, Any], plan: Plan, trials: Sequence[TrialRecord]) -> Findings:
    """Return the findings of an earlier search, what each step lost computed from the trials."""
    effects = store.ask("blame_effects", id=row["experiment_id"])
    names = [field.name for field in dataclasses.fields(Effect)]
    ranked = sorted((one for one in effects if one["rank"] is not None), key=lambda one: one["rank"])
    return Findings(
        mode=row["mode"],
        effects=tuple(Effect(**{name: one[name] for name in names}) for one in effects),
        ranking=tuple(one["step"] for one in ranked),
        drops=VALUE.drops(_measured(plan, trials)),
        baseline_flips=row["baseline_flips"],
        baseline_trials=row["baseline_trials"],
        deterministic=row["deterministic"],
        trials=len(trials),
        controls=row["controls"],
        stop_reason=row["stop_reason"],
        message=row["message"],
    )


def _measured(plan: Plan, trials: Sequence[TrialRecord]) -> State:
    """Return what the trials of an earlier search measured."""
    state = State(plan)
    for one in trials:
        outcome, tail, shared = one.seen
        arm = state.ledger.keep(one.kept - 1, role=one.role)
        arm.record(one.replicate, outcome, tail, shared=shared)
    return state


def _plan(params: Mapping[str, Any]) -> Plan:
    """Return the plan that a row holds; what it says beyond a plan's fields is left aside."""
    known = {field.name: params[field.name] for field in dataclasses.fields(Plan) if field.name in params}
    return Plan(
        **{
            **known,
            "blocked": frozenset(params["blocked"]),
            "costs": tuple(params["costs"]),
            "attempts": tuple((a, b) for a, b in params.get("attempts", ())),
            "search": params.get("search", 1),
            "parts": tuple((name, tokens) for name, tokens in params.get("parts", ())),
        }
    )


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
    """Return the experiment's id, and each number that its trials do not give again: none if all is well.

    Of an experiment of an earlier search those are counts and money; its verdicts stand as written.
    """
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
    if _earlier(result.plan, row):
        state = _measured(result.plan, result.trials)
        for kept in stored:
            for name, value in VALUE.counts(state, kept["step"]).items():
                same(f"step {kept['step']} {name}", kept[name], value)
        return experiment_id, wrong
    same("steps", len(stored), len(found.effects))
    for kept, effect in zip(stored, found.effects, strict=False):
        for name, value in finite(dataclasses.asdict(effect)).items():
            same(f"step {effect.step} {name}", kept[name], value)
    return experiment_id, wrong
