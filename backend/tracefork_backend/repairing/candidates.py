"""Changes that may repair a run: answers that were drawn already, and edits that somebody gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of

from ..grading.graded import Graded
from ..rerun.edits import Edit
from ..rerun.edits.files import spelled_edit
from ..spelling import counted
from ..store import Run, Store
from .hunks import Parts, answer_parts, parts_of

Source: TypeAlias = Literal["given", "redraw", "proposed"]
"""Who thought of it: somebody, the model itself when it was asked again, or one that was asked for it."""

MOST = 6
"""Candidates that are tried: the evidence for each has to be that many times as strong."""
_LOOKED_AT = 40
"""Redraws whose answers are read: of more, the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A change at a step that may turn the outcome."""

    source: Source
    step: int
    parts: Parts = field(repr=False)
    seen: tuple[int, int] = (0, 0)
    """How many of how many runs with this answer succeeded in the experiment that drew it."""

    @property
    def all(self) -> frozenset[int]:
        """All of its parts."""
        return frozenset(range(len(self.parts.hunks)))

    @property
    def edit(self) -> Edit:
        """The whole change."""
        return self.parts.edit(self.all)

    @property
    def key(self) -> str:
        """What it changes, the same for two that change the same."""
        return json.dumps([self.step, spelled_edit(self.edit)], sort_keys=True, default=repr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is to try, and what was left aside, in words."""

    candidates: tuple[Candidate, ...]
    left: tuple[str, ...] = ()


def given(tape: Tape, edits: Sequence[tuple[int, Edit]], graded: Graded) -> Found:
    """Return the candidates that somebody gave; UsageError for one that does not fit its step."""
    found: list[Candidate] = []
    left: list[str] = []
    for step, edit in edits:
        one = candidate(edit, tape, step, graded, source="given")
        if isinstance(one, Candidate):
            found.append(one)
        else:
            left.append(one)
    return Found(candidates=tuple(found), left=tuple(left))


def candidate(edit: Edit, tape: Tape, step: int, graded: Graded, *, source: Source) -> Candidate | str:
    """Return the edit as a candidate, or why it is none: it changes nothing, or only what is graded.

    `graded` is the end of the recorded run. Raises UsageError for an edit that does not fit its step.
    """
    parts = parts_of(edit, tape, step)
    if parts is None:
        return f"{edit.variant} at step {step} is what was recorded"
    if edit.answers and _is_output(tape, step, graded):
        return f"{edit.variant} at step {step} changes the answer that is what is graded, so it shows nothing"
    return Candidate(source=source, step=step, parts=parts)


def _is_output(tape: Tape, step: int, graded: Graded) -> bool:
    """Return whether the step's answer is the last, calls no tool, and is what the run put out."""
    facts = facts_of(tape.exchanges[step])
    if step != tape.steps - 1 or facts is None or any(one.kind == "tool_use" for one in facts.reply):
        return False
    said = facts.text.strip()
    return bool(said) and said in graded.text


def redraws(store: Store, run: Run, tape: Tape, *, at: int | None = None) -> Found:
    """Return the answers with which redraws of experiments on the run succeeded, the likeliest first.

    Those of the steps that the newest experiment names, of `at` alone where it is given.
    """
    ranked = named_steps(store, run) if at is None else [at]
    rows = store.ask("redraws", id=run.run_id)
    steps = ranked or sorted({row["kept"] for row in rows})
    drawn: dict[str, tuple[int, Parts, list[bool]]] = {}
    looked_at = sorted(
        (row for row in rows if row["kept"] in steps), key=lambda row: steps.index(row["kept"])
    )
    for row in looked_at[:_LOOKED_AT]:
        parts = _drawn(store, tape, row["kept"], row["run_id"])
        if parts is not None:
            one = Candidate(source="redraw", step=row["kept"], parts=parts)
            drawn.setdefault(one.key, (one.step, parts, []))[2].append(row["flipped"])
    found = [
        Candidate(source="redraw", step=step, parts=parts, seen=(sum(flipped), len(flipped)))
        for step, parts, flipped in drawn.values()
        if any(flipped)
    ]
    found.sort(key=lambda one: (steps.index(one.step), -_promise(one.seen)))
    return Found(candidates=tuple(found))


def named_steps(store: Store, run: Run) -> list[int]:
    """Return the steps that the newest experiment on the run names, the likeliest first."""
    return [row["step"] for row in store.ask("redrawn_steps", id=run.run_id)]


def _drawn(store: Store, tape: Tape, step: int, run_id: str) -> Parts | None:
    """Return in its parts what the redraw of the step was answered."""
    exchanges = store.exchanges(run_id)
    if step >= len(exchanges) or exchanges[step].response is None or exchanges[step].damage:
        return None
    answered = exchanges[step].response
    assert answered is not None
    try:
        return answer_parts(tape.exchanges[step], answered)
    except UsageError:
        return None


def _promise(seen: tuple[int, int]) -> float:
    successes, runs = seen
    return (successes + 0.5) / (runs + 1)


def chosen(found: Sequence[Found]) -> Found:
    """Return those that are tried, each once, and why others are not."""
    every: dict[str, Candidate] = {}
    left = [why for one in found for why in one.left]
    for candidate in (each for one in found for each in one.candidates):
        every.setdefault(candidate.key, candidate)
    most = list(every.values())
    if len(most) > MOST:
        left.append(f"{counted(len(most) - MOST, 'further candidate')}: {MOST} are tried in one search")
    return Found(candidates=tuple(most[:MOST]), left=tuple(left))
