"""Results of an experiment: rows of the `blame_*` views, spans, and numbers computed again from trials."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of

from ..store import Store
from ..writeback import BLAME, BLAME_NOTE, SpanRef, WriteBack, link
from .findings import Effect, Findings
from .journal import TrialRecord
from .modes import mode_found
from .plan import Plan
from .search import Search

NOTED = ("certified", "minor", "inconclusive")
"""The verdicts that have something to say in the parent's trace."""
_PREVIEW = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameResult:
    """What one experiment found, and the trials that it rests on."""

    experiment_id: str
    run_id: str
    findings: Findings
    trials: tuple[TrialRecord, ...]
    plan: Plan
    header: Mapping[str, Any]
    problem: str | None = None
    """What most often kept forks from being graded."""

    @property
    def cost_usd(self) -> float:
        """What all trials cost, as far as prices are known."""
        return sum(one.cost_usd or 0.0 for one in self.trials)

    @property
    def top(self) -> int | None:
        """The step most to blame, certified or not; None if nothing stands out."""
        return self.findings.top


def search_of(plan: Plan, trials: Sequence[TrialRecord], stop_reason: str) -> Search:
    """A search that was told these trials, and ended as it did then."""
    search = Search(plan)
    search.replay({one.trial_id: one.seen for one in trials})
    if not search.done:
        search.stop("budget" if stop_reason == "running" else stop_reason)  # type: ignore[arg-type]
    return search


def experiment_row(result: BlameResult) -> dict[str, Any]:
    """The experiment as a row of `blame_experiments`."""
    found, header = result.findings, result.header
    return {
        "experiment_id": result.experiment_id,
        "run_id": result.run_id,
        "tape_sha256": header["tape_sha256"],
        "created_ns": header["created_ns"],
        "n_steps": result.plan.steps,
        "parent_outcome": header["parent_outcome"],
        "mode": found.mode,
        "perturbation": "resample" if mode_found(found.mode).redraws else header["change"],
        "coupling": header.get("coupling", "fresh"),
        "oracle_name": header["oracle"],
        "oracle_note": header.get("oracle_note"),
        "grading_usd": header.get("grading_usd"),
        "alpha": result.plan.alpha,
        "multiplicity": "ebh",
        "params_json": json.dumps(dataclasses.asdict(result.plan), default=sorted),
        "budget_usd": header["budget_usd"],
        "spent_usd": result.cost_usd,
        "forks": len(result.trials),
        "controls": found.controls,
        "stop_reason": found.stop_reason,
        "baseline_flips": found.baseline_flips,
        "baseline_trials": found.baseline_trials,
        "deterministic": found.deterministic,
        "top_step": found.top,
        "message": found.message,
    }


def effect_rows(result: BlameResult, tape: Tape) -> list[dict[str, Any]]:
    """The effects as rows of `blame_effects`, each with what a person wants to see of its step."""
    ranks = {step: rank for rank, step in enumerate(result.findings.ranking, 1)}
    rows: list[dict[str, Any]] = []
    for effect in result.findings.effects:
        facts = facts_of(tape.exchanges[effect.step])
        own = [one for one in result.trials if effect.step in one.steps]
        rows.append(
            {
                "experiment_id": result.experiment_id,
                "run_id": result.run_id,
                "rank": ranks.get(effect.step),
                **_finite(dataclasses.asdict(effect)),
                "forks": len(own),
                "cost_usd": sum(one.cost_usd or 0.0 for one in own),
                "model": facts.model if facts else None,
                "tool": next((one.name for one in facts.reply if one.kind == "tool_use"), None)
                if facts
                else None,
                "preview": _preview(facts.reply) if facts else None,
            }
        )
    return rows


def _preview(reply: Sequence[Any]) -> str:
    said = " ".join(f"{one.name}({one.content})" if one.name else str(one.content) for one in reply)
    said = " ".join(said.split())
    return said if len(said) <= _PREVIEW else said[: _PREVIEW - 1] + "…"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row as JSON can hold it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def write_back(
    store: Store,
    tape: Tape,
    result: BlameResult,
    *,
    roots: Mapping[str, str] | None = None,
    root_of_parent: str | None = None,
) -> None:
    """The experiment has a trace with its arms and trials, and the parent's trace notes at its steps.

    `roots` are the root spans of its trials by their runs, and `root_of_parent` the recorded run's, where the
    caller knows them: the store need not be read then, which has just grown by all trials.
    """
    ends = [one.ended_ns for one in result.trials] or [time.time_ns()]
    starts = [one.started_ns for one in result.trials] or ends
    if roots is None or not {one.run_id for one in result.trials} <= roots.keys():
        # Asked before anything is written: each write makes the store read itself anew.
        roots = _roots_of_forks(store, result.experiment_id)
    if root_of_parent is None:
        root_of_parent = store.root_of(result.run_id)
    with WriteBack(store.path) as spans:
        told = {"tracefork.experiment.id": result.experiment_id, "tracefork.parent.run_id": result.run_id}
        row = experiment_row(result)
        root = spans.span(
            name=BLAME.format(name=tape.name),
            attributes={
                **told,
                "tracefork.blame.experiment": _json(row),
                "tracefork.blame.finding": row["message"],
            },
            started_ns=min(starts),
            ended_ns=max(ends),
            links=[] if root_of_parent is None else [link(result.run_id, root_of_parent, "parent")],
        )
        _write_arms(spans, root, roots, result)
        for name, rows in (("effect", effect_rows(result, tape)), ("set", _set_rows(result))):
            for one in rows:
                spans.span(
                    name=f"{name} {one.get('step', one.get('set_id'))} {one['verdict']}",
                    attributes={**told, f"tracefork.blame.{name}": _json(one)},
                    started_ns=max(ends),
                    ended_ns=max(ends),
                    parent=root,
                )
        for effect in result.findings.effects:
            if effect.verdict in NOTED:
                _note(spans, roots, tape, result, effect, root)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _set_rows(result: BlameResult) -> list[dict[str, Any]]:
    return [
        {
            "experiment_id": result.experiment_id,
            "set_id": "+".join(map(str, found.steps)),
            **_finite(dataclasses.asdict(found)),
        }
        for found in result.findings.sets
    ]


def _roots_of_forks(store: Store, experiment_id: str) -> dict[str, str]:
    """The root span of each trial of the experiment, by its run."""
    rows = store.rows(
        "select trace_id, span_id from spans where parent_span_id is null and name like 'fork %' "
        "and attributes like $it",
        {"it": f'%"{experiment_id}"%'},
    )
    return {row["trace_id"]: row["span_id"] for row in rows}


def _write_arms(spans: WriteBack, root: SpanRef, roots: Mapping[str, str], result: BlameResult) -> None:
    arms: dict[str, list[TrialRecord]] = {}
    for trial in result.trials:
        arms.setdefault(trial.arm_id, []).append(trial)
    for arm_id, trials in arms.items():
        first = trials[0]
        row = {
            "experiment_id": result.experiment_id,
            "arm_id": arm_id,
            "role": first.role,
            "start_step": first.kept,
            "steps": first.steps,
            "altered": first.altered,
            "trials": len(trials),
            "flips": sum(one.status == "flip" for one in trials),
            "undefined": sum(one.status == "undefined" for one in trials),
        }
        arm = spans.span(
            name=f"arm {arm_id}",
            attributes={"tracefork.experiment.id": result.experiment_id, "tracefork.blame.arm": _json(row)},
            started_ns=min(one.started_ns for one in trials),
            ended_ns=max(one.ended_ns for one in trials),
            parent=root,
        )
        for trial in trials:
            fork_root = roots.get(trial.run_id)
            told = {"experiment_id": result.experiment_id, **dataclasses.asdict(trial)}
            spans.span(
                name=f"trial {trial.trial_id} {trial.status}",
                attributes={"tracefork.blame.trial": _json(told)},
                started_ns=trial.started_ns,
                ended_ns=trial.ended_ns,
                parent=arm,
                links=[] if fork_root is None else [link(trial.run_id, fork_root, "fork")],
            )


_LINKS = 20
"""Flipped forks that one note leads to: a person opens a few of them."""


def _note(
    spans: WriteBack,
    forks: Mapping[str, str],
    tape: Tape,
    result: BlameResult,
    effect: Effect,
    root: SpanRef,
) -> None:
    """The step's exchange says what was found of it; the root cause is an error in words."""
    flipped = [one for one in result.trials if one.status == "flip" and effect.step in one.steps][:_LINKS]
    roots = [(one.run_id, forks.get(one.run_id)) for one in flipped]
    words = f"step {effect.step}: {effect.reason}"
    if effect.is_root:
        words = f"lost here: {result.findings.message}"
    shown = {f"tracefork.blame.{name}": value for name, value in _finite(dataclasses.asdict(effect)).items()}
    spans.note(
        exchange=tape.exchanges[effect.step],
        name=BLAME_NOTE.format(verdict=effect.verdict),
        links=[link(root.trace_id, root.span_id, "fork")]
        + [link(run_id, found, "fork") for run_id, found in roots if found is not None],
        attributes={
            **shown,
            "tracefork.experiment.id": result.experiment_id,
            "tracefork.blame.mode": result.findings.mode,
            "tracefork.blame.alpha": result.plan.alpha,
            "tracefork.blame.oracle": result.header["oracle"],
            "tracefork.blame.perturbation": result.header["change"],
            "tracefork.blame.forks": len(result.trials),
            "tracefork.blame.cost_usd": result.cost_usd,
        },
        status="ERROR" if effect.is_root else "UNSET",
        message=words if effect.is_root else None,
    )


def plan_of(params: Mapping[str, Any]) -> Plan:
    """The plan that a row holds; what it says beyond a plan's fields is left aside."""
    known = {field.name: params[field.name] for field in dataclasses.fields(Plan) if field.name in params}
    return Plan(**{**known, "blocked": frozenset(params["blocked"]), "costs": tuple(params["costs"])})


def experiment_of(store: Store, prefix: str) -> dict[str, Any]:
    """The row of the one finished experiment whose id begins so; `last` is the newest."""
    rows = store.rows("select * from blame_experiments order by created_at")
    found = (
        rows[-1:] if prefix == "last" else [one for one in rows if one["experiment_id"].startswith(prefix)]
    )
    if len(found) == 1:
        return found[0]
    near = ", ".join(one["experiment_id"][:8] for one in (found or rows)[-5:])
    what = "several experiments begin" if found else "no finished experiment begins"
    raise UsageError(f"{what} with {prefix}" + (f": there is {near}" if near else "; `blame RUN` makes one"))


def stored_trials(store: Store, experiment_id: str) -> list[TrialRecord]:
    """The trials of an experiment as the store's `blame_trials` has them."""
    rows = store.rows(
        "select * from blame_trials where experiment_id = $id order by seq", {"id": experiment_id}
    )
    names = [field.name for field in dataclasses.fields(TrialRecord)]
    made: list[TrialRecord] = []
    for row in rows:
        told: dict[str, Any] = {name: 0 if name.endswith("_ns") else row[name] for name in names}
        told["calls_memo"] = row["calls_memo"] or 0
        told |= {"steps": tuple(row["steps"]), "altered": tuple(row["altered"])}
        made.append(TrialRecord(**told))
    return made


def verify(store: Store, prefix: str) -> tuple[str, list[str]]:
    """The experiment's id, and each number that its trials do not give again: none if all is well."""
    row = experiment_of(store, prefix)
    experiment_id = row["experiment_id"]
    trials = stored_trials(store, experiment_id)
    findings = search_of(plan_of(json.loads(row["params_json"])), trials, row["stop_reason"]).verdict()
    wrong: list[str] = []

    def same(what: str, stored: Any, computed: Any) -> None:
        if isinstance(stored, float) and isinstance(computed, float):
            if math.isclose(stored, computed, rel_tol=1e-9, abs_tol=1e-12):
                return
        elif stored == computed:
            return
        wrong.append(f"{what}: stored {stored}, computed {computed}")

    for name in ("mode", "stop_reason", "baseline_flips", "baseline_trials", "deterministic", "controls"):
        same(name, row[name], getattr(findings, name))
    same("top_step", row["top_step"], findings.top)
    same("forks", row["forks"], len(trials))
    same("spent_usd", row["spent_usd"], sum(one.cost_usd or 0.0 for one in trials))
    stored = store.rows(
        "select * from blame_effects where experiment_id = $id order by step", {"id": experiment_id}
    )
    same("steps", len(stored), len(findings.effects))
    for kept, effect in zip(stored, findings.effects, strict=False):
        for name, value in _finite(dataclasses.asdict(effect)).items():
            same(f"step {effect.step} {name}", kept[name], value)
    return experiment_id, wrong
