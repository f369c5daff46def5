"""What a search for repairs keeps of what it tries, so that it can be gone on with as it was begun."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefork_otel import shapes
from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.tape.tape import Tape

from ..blaming.journal import REPAIR, experiments, path_of, the_one
from ..rerun.edits.files import edit_of, spelled_edit
from .candidates import Candidate, Found
from .hunks import parts_of
from .result import SOURCES

_COUNTS = shapes.many(shapes.number())
_KEPT = shapes.record(
    {
        "candidates": shapes.many(
            shapes.record(
                {
                    "source": shapes.text(),
                    "step": shapes.number(),
                    "edit": shapes.anything,
                    "parts": shapes.number(),
                    "seen": _COUNTS,
                    "known": _COUNTS,
                    "cost_usd": shapes.amount,
                }
            )
        ),
        "left": shapes.many(shapes.text()),
        "every": shapes.boolean,
        "shrinking_usd": shapes.optional(shapes.amount),
        "proposing_usd": shapes.amount,
    }
)
_NAME = "repair"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a search set out with, beside its oracle and its limits."""

    found: Found
    known: Sequence[tuple[int, int]]
    """Of each candidate how many of how many controls of earlier experiments succeeded."""
    costs_usd: Sequence[float]
    """What a fork with each takes, about."""
    every: bool
    shrinking_usd: float
    proposing_usd: float

    def kept(self) -> dict[str, Any]:
        """Return it as settings of a journal, which its mark covers."""
        told = zip(self.found.candidates, self.known, self.costs_usd, strict=True)
        return {
            _NAME: {
                "candidates": [
                    {
                        "source": one.source,
                        "step": one.step,
                        "edit": spelled_edit(one.edit),
                        "parts": len(one.all),
                        "seen": one.seen,
                        "known": known,
                        "cost_usd": cost,
                    }
                    for one, known, cost in told
                ],
                "left": self.found.left,
                "every": self.every,
                "shrinking_usd": None if math.isinf(self.shrinking_usd) else self.shrinking_usd,
                "proposing_usd": self.proposing_usd,
            }
        }


def begun(header: Mapping[str, Any], path: Path, tape: Tape) -> Begun:
    """Return what the journal's search set out with.

    Raises UsageError where the journal does not tell it, or where it does not fit the run as it was.
    """
    check_tells(header)
    try:
        told = _KEPT(header["settings"][_NAME])
        candidates = tuple(_candidate(one, tape) for one in told["candidates"])
        known = [_pair(one["known"]) for one in told["candidates"]]
    except ValueError as error:
        raise StoreError(f"{path}: what the search tries cannot be read ({error})") from error
    return Begun(
        found=Found(candidates=candidates, left=tuple(told["left"])),
        known=known,
        costs_usd=[one["cost_usd"] for one in told["candidates"]],
        every=told["every"],
        shrinking_usd=math.inf if told["shrinking_usd"] is None else told["shrinking_usd"],
        proposing_usd=told["proposing_usd"],
    )


def check_tells(header: Mapping[str, Any]) -> None:
    """Raise UsageError for a journal of an older version, which did not keep what its search tries."""
    if _NAME not in header["settings"]:
        raise UsageError(
            f"search {header['experiment_id'][:8]} was begun by an older version, which did not keep what it "
            "tries: type its `repair` again"
        )


def find(store: Path, prefix: str) -> str:
    """Return the one search whose id begins so, `last` the newest; UsageError if there is none."""
    return the_one(experiments(store, REPAIR), prefix, "search for repairs", made_by="repair RUN")


def journal_of(store: Path, repair_id: str) -> Path:
    """Return where the journal of a search is."""
    return path_of(store, repair_id, REPAIR)


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    first, second = numbers
    return first, second


def _candidate(told: Mapping[str, Any], tape: Tape) -> Candidate:
    if told["source"] not in SOURCES:
        raise ValueError(f"{told['source']!r} is no source of candidates")
    step = told["step"]
    if step >= tape.steps:
        raise ValueError(f"there is no step {step}")
    parts = parts_of(edit_of(told["edit"]), tape, step)
    found = parts and Candidate(source=told["source"], step=step, parts=parts, seen=_pair(told["seen"]))
    if not found or len(found.all) != told["parts"] or not _same(spelled_edit(found.edit), told["edit"]):
        raise UsageError(
            f"the search cannot be gone on with: its change of step {step} is read otherwise now than "
            "when it was begun; type its `repair` again"
        )
    return found


def _same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
