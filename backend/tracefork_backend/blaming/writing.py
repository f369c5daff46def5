"""An experiment written back as spans: a trace of its own, and notes in the trace of its run."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tracefork_otel.tape.tape import Tape

from ..store import Store
from ..writeback.names import BLAME, BLAME_NOTE
from ..writeback.spans import SpanRef, WriteBack, link
from .findings import Effect
from .journal import TrialRecord
from .result import BlameResult, arm_row, effect_rows, experiment_row, finite, set_rows

NOTED = ("certified", "minor", "inconclusive")
"""The verdicts that have something to say in the parent's trace."""
_LINKS = 20
"""Flipped forks that one note leads to: a person opens a few of them."""


def write_back(
    store: Store,
    tape: Tape,
    result: BlameResult,
    *,
    roots: Mapping[str, str] | None = None,
    root_of_parent: str | None = None,
    noted_at: int | None = None,
) -> None:
    """Write the experiment with its arms and trials as a trace, and notes at the steps of its parent's.

    `roots` are the root spans of its trials by their runs, and `root_of_parent` the recorded run's, where the
    caller knows them: the store need not be read then, which has just grown by all trials. What is no step is
    noted at the step `noted_at`.
    """
    ends = [one.ended_ns for one in result.trials] or [time.time_ns()]
    starts = [one.started_ns for one in result.trials] or ends
    roots = roots_of(store, result.experiment_id, result.trials, roots)
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
        write_arms(spans, root, roots, result.experiment_id, result.trials)
        for name, rows in (("effect", effect_rows(result)), ("set", set_rows(result))):
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
                _note(
                    spans, roots, tape, result, effect, root, at=effect.step if noted_at is None else noted_at
                )


def roots_of(
    store: Store, experiment_id: str, trials: Sequence[TrialRecord], known: Mapping[str, str] | None
) -> Mapping[str, str]:
    """Return the root spans of the trials by their runs: what is known, or what the store has."""
    if known is not None and {one.run_id for one in trials} <= known.keys():
        return known
    # Asked before anything is written: each write makes the store read itself anew.
    found = store.ask("roots_of_forks", named=f'%"{experiment_id}"%')
    return {row["trace_id"]: row["span_id"] for row in found}


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def write_arms(
    spans: WriteBack,
    root: SpanRef,
    roots: Mapping[str, str],
    experiment_id: str,
    made: Sequence[TrialRecord],
) -> None:
    """Write these trials below the experiment's root, those of one arm together, each linked to its fork."""
    arms: dict[str, list[TrialRecord]] = {}
    for trial in made:
        arms.setdefault(trial.arm_id, []).append(trial)
    for arm_id, trials in arms.items():
        arm = spans.span(
            name=f"arm {arm_id}",
            attributes={
                "tracefork.experiment.id": experiment_id,
                "tracefork.blame.arm": _json(arm_row(experiment_id, trials)),
            },
            started_ns=min(one.started_ns for one in trials),
            ended_ns=max(one.ended_ns for one in trials),
            parent=root,
        )
        for trial in trials:
            told = {"experiment_id": experiment_id, **dataclasses.asdict(trial)}
            spans.span(
                name=f"trial {trial.trial_id} {trial.status}",
                attributes={"tracefork.blame.trial": _json(told)},
                started_ns=trial.started_ns,
                ended_ns=trial.ended_ns,
                parent=arm,
                links=trial_links(roots, [trial]),
            )


def trial_links(roots: Mapping[str, str], trials: Sequence[TrialRecord]) -> list[dict[str, object]]:
    """Return links to the forks that these trials are, as far as a person opens them."""
    return [link(one.run_id, roots[one.run_id], "fork") for one in trials[:_LINKS] if one.run_id in roots]


def _note(
    spans: WriteBack,
    roots: Mapping[str, str],
    tape: Tape,
    result: BlameResult,
    effect: Effect,
    root: SpanRef,
    *,
    at: int,
) -> None:
    """Say at the step's exchange what was found of it; the root cause is an error in words."""
    flipped = [one for one in result.trials if one.status == "flip" and effect.step in one.steps]
    shown = {f"tracefork.blame.{name}": value for name, value in finite(dataclasses.asdict(effect)).items()}
    spans.note(
        exchange=tape.exchanges[at],
        name=BLAME_NOTE.format(verdict=effect.verdict),
        links=[link(root.trace_id, root.span_id, "fork"), *trial_links(roots, flipped)],
        attributes={
            **shown,
            "tracefork.experiment.id": result.experiment_id,
            "tracefork.blame.mode": result.findings.mode,
            "tracefork.blame.alpha": result.plan.alpha,
            "tracefork.blame.oracle": result.header["oracle"],
            "tracefork.blame.perturbation": result.header["change"],
            "tracefork.blame.forks": len(result.trials),
            "tracefork.blame.cost_usd": result.cost_usd,
            "tracefork.blame.unpriced": result.unpriced,
        },
        status="ERROR" if effect.is_root else "UNSET",
        message=f"lost here: {result.findings.message}" if effect.is_root else None,
    )
