"""What one experiment found, and the rows of the `blame_*` views that it becomes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.wire.facts import facts_of

from ..displayed import Displayed
from ..spelling import short
from .findings import Findings
from .journal import TrialRecord
from .modes import mode_found
from .plan import Plan

_PREVIEW = 120
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShown:
    """What a person wants to see of a step beside its numbers."""

    model: str | None = None
    tool: str | None = None
    """The first tool that it called."""
    preview: str | None = None
    """The beginning of its answer."""
    part: str | None = None
    """What it is called where it is no step, but a part of requests."""
    tokens: int | None = None
    """About how many tokens the part is in each call that has it."""


def step_shown(exchange: Exchange) -> StepShown:
    """Return what is shown of a recorded exchange."""
    facts = facts_of(exchange)
    if facts is None:
        return StepShown()
    said = " ".join(f"{one.name}({one.content})" if one.name else str(one.content) for one in facts.reply)
    return StepShown(
        model=facts.model,
        tool=next((one.name for one in facts.reply if one.kind == "tool_use"), None),
        preview=short(said, _PREVIEW),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameResult(Displayed):
    """What one experiment found, and the trials that it rests on."""

    experiment_id: str
    run_id: str
    findings: Findings
    trials: tuple[TrialRecord, ...]
    plan: Plan
    header: Mapping[str, Any]
    problem: str | None = None
    """What most often kept forks from being graded."""
    steps: Sequence[StepShown] = ()

    @property
    def cost_usd(self) -> float:
        """What all trials cost, as far as prices are known, with those that were lost when it was killed."""
        lost: float = self.header.get("lost_usd") or 0.0
        return sum(one.cost_usd or 0.0 for one in self.trials) + lost

    @property
    def unpriced(self) -> int:
        """How many live calls of all trials, lost ones too, have no price."""
        lost: int = self.header.get("lost_unpriced") or 0
        return unpriced(self.trials) + lost

    @property
    def top(self) -> int | None:
        """The step most to blame, certified or not; None if nothing stands out."""
        return self.findings.top


def unpriced(trials: Iterable[TrialRecord]) -> int:
    """Return how many live calls of the trials have no price: of a trial that does not say, one or none."""
    return sum(
        (one.calls_live > 0 and one.cost_usd is None) if one.unpriced is None else one.unpriced
        for one in trials
    )


_OF_PARTS = ("part", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """One experiment as the views have it."""

    experiment: Mapping[str, Any]
    """The row of `blame_experiments`, and `unpriced_forks`."""
    effects: Sequence[Mapping[str, Any]]
    sets: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment's row with its effects and sets."""
        return {**self.experiment, "effects": list(map(_told, self.effects)), "sets": self.sets}


def _told(effect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row without what only parts of requests have, where it is of a step."""
    return {name: value for name, value in effect.items() if value is not None or name not in _OF_PARTS}


def tables_of(result: BlameResult) -> Tables:
    """Return the tables of a result in hand."""
    row = experiment_row(result)
    created = _EPOCH + timedelta(microseconds=row.pop("created_ns") // 1000)
    lacking = sum(unpriced([one]) > 0 for one in result.trials)
    return Tables(
        experiment={**row, "created_at": created, "unpriced_forks": lacking},
        effects=effect_rows(result),
        sets=set_rows(result),
    )


def experiment_row(result: BlameResult) -> dict[str, Any]:
    """Return the experiment as a row of `blame_experiments`, its time as nanoseconds."""
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
        "grading_unpriced": header.get("grading_unpriced", 0),
        "lost_usd": header.get("lost_usd", 0.0),
        "lost_unpriced": header.get("lost_unpriced", 0),
        "alpha": result.plan.alpha,
        "multiplicity": "ebh",
        "params_json": json.dumps(dataclasses.asdict(result.plan), default=sorted),
        "budget_usd": header["budget_usd"],
        "spent_usd": result.cost_usd,
        "unpriced": result.unpriced,
        "forks": len(result.trials),
        "controls": found.controls,
        "stop_reason": found.stop_reason,
        "baseline_flips": found.baseline_flips,
        "baseline_trials": found.baseline_trials,
        "deterministic": found.deterministic,
        "top_step": found.top,
        "message": found.message,
    }


def effect_rows(result: BlameResult) -> list[dict[str, Any]]:
    """Return the effects as rows of `blame_effects`, each with what a person wants to see of its step."""
    ranks = {step: rank for rank, step in enumerate(result.findings.ranking, 1)}
    rows: list[dict[str, Any]] = []
    for effect in result.findings.effects:
        own = [one for one in result.trials if effect.step in one.steps]
        rows.append(
            {
                "experiment_id": result.experiment_id,
                "run_id": result.run_id,
                "rank": ranks.get(effect.step),
                **finite(dataclasses.asdict(effect)),
                "forks": len(own),
                "cost_usd": sum(one.cost_usd or 0.0 for one in own),
                **dataclasses.asdict(result.steps[effect.step]),
            }
        )
    return rows


def set_rows(result: BlameResult) -> list[dict[str, Any]]:
    """Return the sets as rows of `blame_sets`."""
    return [
        {
            "experiment_id": result.experiment_id,
            "set_id": "+".join(map(str, found.steps)),
            **finite(dataclasses.asdict(found)),
        }
        for found in result.findings.sets
    ]


def arm_row(experiment_id: str, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return the arm of these trials as a row of `blame_arms`."""
    first = trials[0]
    return {
        "experiment_id": experiment_id,
        "arm_id": first.arm_id,
        "role": first.role,
        "start_step": first.kept,
        "steps": first.steps,
        "altered": first.altered,
        "trials": len(trials),
        "flips": sum(one.status == "flip" for one in trials),
        "undefined": sum(one.status == "undefined" for one in trials),
    }


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as JSON can hold it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
