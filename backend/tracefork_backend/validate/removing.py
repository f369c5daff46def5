"""Suite P: parts of requests that carry success, cost it, or make no difference, over unsteady runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..blaming.drive import run
from ..blaming.plan import Plan
from ..blaming.search import Search
from .tally import Tally, generator
from .worlds import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsCell:
    """One kind of world of parts."""

    name: str
    make: Callable[[random.Random], Prompt]
    weight: float
    least: int
    """Runs that it is given at any rate, though a look asks for few."""
    tags: frozenset[str]
    suite: str = "P"

    def run(self, runs: int) -> Tally:
        """Return the counts of so many experiments times the weight, each on a world of its own."""
        rng = generator(f"{self.suite} {self.name}")
        counts = Tally()
        for _ in range(max(self.least, round(runs * self.weight))):
            world = self.make(rng)
            search = Search(
                Plan(
                    steps=world.parts,
                    mode="parts",
                    parent_failed=False,
                    output=None,
                    strata=len(world.rates),
                    deterministic="never",
                )
            )
            spent = run(search, lambda request, world=world: world.flips(request, rng))
            counts.add(world, spent.findings, spent.trials)
        return counts


def parts_cells() -> Iterator[PartsCell]:
    """Yield every cell of the suite."""
    for parts, rates in ((5, (0.05,)), (6, (0.0, 0.3, 0.9)), (10, (0.1, 0.5, 0.2)), (20, (0.1, 0.4))):
        yield PartsCell(
            name=f"{parts} parts that make no difference, {_failing(rates)}",
            make=lambda _, parts=parts, rates=rates: Prompt(parts=parts, rates=rates, effects={}),
            weight=1.5,
            least=30,
            tags=frozenset({"no part"}),
        )
    for parts, rates, effect in ((6, (0.05,), 0.9), (6, (0.8, 0.9), -0.8), (10, (0.1, 0.3, 0.2), 0.9)):
        what = "carries success" if effect > 0 else "costs success"
        yield PartsCell(
            name=f"{parts} parts, one of which {what}, {_failing(rates)}",
            make=lambda rng, parts=parts, rates=rates, effect=effect: Prompt(
                parts=parts, rates=rates, effects={rng.randrange(parts): effect}
            ),
            weight=1.0,
            least=20,
            tags=frozenset({"a part", "cover"}),
        )


def _failing(rates: tuple[float, ...]) -> str:
    return f"runs that fail {', '.join(map(str, rates))}"
