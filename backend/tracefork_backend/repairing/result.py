"""What a search for repairs found: rows, and the finding in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracefork_otel.errors import UsageError

from ..blaming.journal import TrialRecord
from ..blaming.result import finite, unpriced
from ..rerun.edits import Edit
from ..rerun.edits.files import spelled_edit
from ..spelling import counted
from .candidates import Candidate
from .search import Tried, Verdict, fresh_arm

SOURCES: Mapping[str, str] = {
    "given": "given by you",
    "redraw": "drawn by an experiment",
    "proposed": "proposed by a model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One candidate, and what is known of it."""

    candidate: Candidate = field(repr=False)
    tried: Tried
    cost_usd: float = 0.0

    @property
    def step(self) -> int:
        """The step that is changed."""
        return self.candidate.step

    @property
    def verdict(self) -> Verdict:
        """What is shown of it."""
        return self.tried.verdict

    @property
    def edit(self) -> Edit:
        """The change, as little of it as was found to do."""
        return self.candidate.parts.edit(self.tried.kept)

    @property
    def words(self) -> str:
        """The change as a person reads it."""
        return self.candidate.parts.words(self.tried.kept)

    @property
    def without(self) -> str:
        """What else the candidate had otherwise, and need not."""
        rest = self.candidate.all - self.tried.kept
        return ", ".join(dict.fromkeys(self.candidate.parts.hunks[at].what for at in sorted(rest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What one search for repairs found, and the trials that it rests on."""

    repair_id: str
    run_id: str
    verdict: Verdict
    repairs: tuple[Repair, ...]
    """Every candidate, in the order in which they were tried."""
    trials: tuple[TrialRecord, ...]
    header: Mapping[str, Any]
    stop_reason: str
    left: tuple[str, ...] = ()
    """What was not tried, and why."""
    problem: str | None = None
    """What most often kept forks from being graded."""
    proposing_usd: float = 0.0
    """What asking a model for changes cost."""

    @property
    def confirmed(self) -> tuple[Repair, ...]:
        """The repairs that are shown to be some."""
        return tuple(one for one in self.repairs if one.verdict == "confirmed")

    @property
    def edit(self) -> Edit:
        """The change of the first confirmed repair; UsageError where none is."""
        if not self.confirmed:
            raise UsageError(f"no repair of run {self.run_id} is confirmed: {self.message}")
        return self.confirmed[0].edit

    @property
    def cost_usd(self) -> float:
        """What all forks cost, lost ones too, and asking for changes, as far as prices are known."""
        lost: float = self.header.get("lost_usd") or 0.0
        return self.proposing_usd + sum(one.cost_usd or 0.0 for one in self.trials) + lost

    @property
    def unpriced(self) -> int:
        """How many live calls of all forks, lost ones too, have no price."""
        lost: int = self.header.get("lost_unpriced") or 0
        return unpriced(self.trials) + lost

    @property
    def message(self) -> str:
        """The finding in one sentence."""
        if self.confirmed:
            one = self.confirmed[0]
            return f"step {one.step}: {one.words}"
        some, every = sum(one.tried.forks > 0 for one in self.repairs), len(self.repairs)
        tried = counted(every, "candidate") if some == every else f"{some or 'none'} of {every} candidates"
        return {
            "budget": f"no repair is confirmed yet: the {_LIMITS.get(self.stop_reason, 'search')} ended "
            f"after {tried}",
            "not_confirmed": f"no repair is confirmed: what looked like one did not hold ({tried})",
            "nothing_found": f"no repair was found: nothing that was tried looked like one ({tried})",
        }[self.verdict]

    def fresh_arm(self, number: int) -> str:
        """Return the arm of the forks that confirmed a candidate, by its place among all."""
        return fresh_arm(number)

    def to_dict(self) -> dict[str, Any]:
        """Return the search with its candidates, as it is kept and shown."""
        return {**self.search_row(), "repairs": self.rows()}

    def search_row(self) -> dict[str, Any]:
        """Return what is kept of the search as a whole."""
        return {
            "repair_id": self.repair_id,
            "run_id": self.run_id,
            "verdict": self.verdict,
            "message": self.message,
            "oracle_name": self.header["oracle"],
            "budget_usd": self.header["budget_usd"],
            "spent_usd": self.cost_usd,
            "unpriced": self.unpriced,
            "forks": len(self.trials),
            "stop_reason": self.stop_reason,
            "left": list(self.left),
            "proposing_usd": self.proposing_usd,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the view `repairs`."""
        return [self._row(rank, one) for rank, one in enumerate(self.repairs, 1)]

    def _ends(self, number: int) -> bool:
        """Return whether the agent asked nothing after the change, in any of the fresh forks with it."""
        arm = self.fresh_arm(number)
        made = [one for one in self.trials if one.arm_id == arm]
        return bool(made) and not any(one.calls_live or one.calls_memo for one in made)

    def _row(self, rank: int, one: Repair) -> dict[str, Any]:
        shown = one.tried.measured
        return finite(
            {
                "repair_id": self.repair_id,
                "run_id": self.run_id,
                "rank": rank,
                "step": one.step,
                "source": one.candidate.source,
                "verdict": one.verdict,
                "reason": one.tried.reason,
                "change": one.words,
                "edit": json.dumps(spelled_edit(one.edit), ensure_ascii=False),
                "parts": len(one.tried.kept),
                "parts_tried": len(one.candidate.all),
                "minimal": one.tried.minimal,
                "without": one.without,
                "answers": one.edit.answers,
                "ends": one.edit.answers and self._ends(rank - 1),
                **{name: shown.get(name) for name in _SHOWN},
                "forks": one.tried.forks,
                "cost_usd": one.cost_usd,
                "created_ns": self.header["created_ns"],
            }
        )


_SHOWN: Sequence[str] = (
    "effect",
    "ci_low",
    "ci_high",
    "e_value",
    "pairs",
    "n_treatment",
    "flips_treatment",
    "undefined_treatment",
    "n_control",
    "flips_control",
    "undefined_control",
)
_LIMITS = {"budget": "budget", "max_trials": "number of forks"}
