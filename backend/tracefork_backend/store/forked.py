"""What the root of a fork, or of a trial, says of it: in a run's head, and where it has no call to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..spelling import counted, run_name
from ..writeback.names import PROBLEM, PROBLEM_TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A fork as its root tells of it."""

    parent: str
    """The run and step that it was made of, `7a5c0c6e@1`."""
    change: str
    """What was changed, how far it held, and what answered after it."""
    problem: str | None
    """Why it is not what was asked for; None if it is."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Forked | None:
        """Return what a root's attributes say, None where it is no fork's."""
        step, parent = told.get("tracefork.fork.step"), told.get("tracefork.parent.run_id")
        if step is None or parent is None:
            return None
        change = [str(told.get("tracefork.fork.intervention") or "no change")]
        scope, of = told.get("tracefork.fork.scope"), told.get("tracefork.fork.held_of")
        if scope is not None and of is not None:
            held = told.get("tracefork.fork.held_in")
            change.append(f"{scope}: held in {held} of {counted(int(of), 'request')}")
        change.append(f"tail {told.get('tracefork.fork.tail')}")
        problem = told.get(PROBLEM)
        why = str(told.get(PROBLEM_TEXT) or "it does not say why")
        return cls(
            parent=f"{run_name(str(parent))}@{step}",
            change=", ".join(change),
            problem=None if problem is None else f"{str(problem).replace('_', ' ')}: {why}",
        )

    @property
    def without_calls(self) -> str:
        """Say why a fork that made no call has nothing to show."""
        why = self.problem or "it was killed, or is about to begin"
        return f"is a fork of {self.parent} ({self.change}) that made no call, so it is no run; {why}"
