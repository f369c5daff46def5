"""Suite O: candidates that repair a run, or none that does, and how the search for repairs takes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..blaming.trials import TrialRequest
from ..repairing.search import RepairPlan, RepairSearch, Try
from .tally import Tally, generator

Needs: TypeAlias = Sequence[frozenset[int] | None]
"""Which parts of each candidate repair together; None of one that repairs nothing."""

_PARTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairCell:
    """One kind of world, with how often a fork succeeds that is repaired, and one that is not."""

    name: str
    make: Callable[[random.Random], Needs]
    success: float
    without: float
    weight: float
    tags: frozenset[str]
    suite: str = "O"

    def run(self, runs: int) -> Tally:
        """Return the counts of so many searches times the weight, each on a world of its own."""
        rng = generator(f"{self.suite} {self.name}")
        counts = Tally()
        for _ in range(max(10, round(runs * self.weight))):
            needs = self.make(rng)
            search = self._searched(needs, rng)
            confirmed = [one.verdict == "confirmed" for one in search.tried]
            counts.runs += 1
            counts.forks.append(sum(one.forks for one in search.tried))
            counts.stops[search.stop_reason] += 1
            pairs = list(zip(needs, search.tried, confirmed, strict=True))
            counts.recall += any(sure and need is not None for need, _, sure in pairs)
            counts.false_blame += any(sure and need is None for need, _, sure in pairs)
            counts.exact_sets += any(sure and need == one.kept for need, one, sure in pairs)
        return counts

    def _searched(self, needs: Needs, rng: random.Random) -> RepairSearch:
        """Return a search that was run to its end in this world."""
        tries = tuple(Try(parts=_PARTS, step=0, kept=0, control=1) for _ in needs)
        search = RepairSearch(RepairPlan(tries=tries))
        while not search.done:
            for request in search.next_batch():
                search.observe(request.trial_id, rng.random() < self._chance(search, needs, request))
        return search

    def _chance(self, search: RepairSearch, needs: Needs, request: TrialRequest) -> float:
        change = search.change_of(request.arm_id)
        need = None if change is None else needs[change[0]]
        return self.success if change is not None and need is not None and need <= change[1] else self.without


def repair_cells() -> Iterator[RepairCell]:
    """Yield every cell of the suite."""
    for without in (0.1, 0.2, 0.4):
        yield RepairCell(
            name=f"6 candidates that repair nothing, success {without} without",
            make=lambda rng: [None] * 6,
            success=without,
            without=without,
            weight=9.0,
            tags=frozenset({"no repair"}),
        )
    for success, without in ((0.9, 0.1), (0.7, 0.2)):
        tags = frozenset({"repair"} if success == 0.9 else ())
        yield RepairCell(
            name=f"up to 3 candidates, half of them repair, success {success} with and {without} without",
            make=_half,
            success=success,
            without=without,
            weight=4.0,
            tags=tags,
        )


def _half(rng: random.Random) -> Needs:
    """Return a world with three candidates, each of which repairs in one of two cases, at least one."""
    needs: list[frozenset[int] | None] = [
        frozenset(rng.sample(range(_PARTS), rng.choice((1, 2)))) if rng.random() < 0.5 else None
        for _ in range(3)
    ]
    return needs if any(needs) else _half(rng)
