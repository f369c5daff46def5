"""Suite Q: experiments whose forecast says a chance of a verdict of 60 to 80 %, and how many end with one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..blaming.curve import drawn
from ..blaming.drive import run
from ..blaming.forecast import estimate
from ..blaming.plan import Plan
from ..blaming.search import Search
from .curves import MIDDLING, REAL, world
from .tally import Tally, generator
from .worlds import NoisyOr, Pivot, planted

_NOISE = 0.1
_EFFECT = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastCell:
    """One kind of run, and a budget in forks that is forecast to suffice in 60 to 80 % of experiments."""

    name: str
    make: Callable[[random.Random], NoisyOr | Pivot]
    steps: int
    forks: int
    tags: frozenset[str]
    weight: float
    least: int
    plan: dict[str, Any]
    suite: str = "Q"

    @property
    def chance(self) -> float:
        """The chance of a verdict that the forecast tells."""
        return estimate(self._plan(), effect=_EFFECT, controls=(2, 20), budget=self.forks).chance

    def run(self, runs: int) -> Tally:
        """Return the counts of so many experiments times the weight, within the budget."""
        rng = generator(f"{self.suite} {self.name}")
        counts = Tally()
        for _ in range(max(self.least, round(runs * self.weight))):
            planted_world = self.make(rng)
            spent = run(
                Search(self._plan()),
                lambda request, world=planted_world: world.flips(request, rng),
                budget=self.forks,
            )
            counts.add(planted_world, spent.findings, spent.trials)
            counts.ended += bool(spent.findings.certified)
        return counts

    def _plan(self) -> Plan:
        return Plan(steps=self.steps, deterministic="never", costs=(1.0,) * (self.steps + 1), **self.plan)


def forecast_cells() -> Iterator[ForecastCell]:
    """Yield every cell of the suite."""
    for steps, forks in ((4, 105), (8, 140)):
        yield ForecastCell(
            name=f"value, n={steps}, curves as the search expects them, {forks} forks",
            make=partial(_expected, steps=steps),
            steps=steps,
            forks=forks,
            tags=frozenset({"forecast"}),
            weight=2.0,
            least=100,
            plan={"mode": "value", "parent_failed": True},
        )
    yield ForecastCell(
        name=f"intervene, n=10, one cause of {_EFFECT} beside noise of {_NOISE}, 120 forks",
        make=partial(planted, steps=10, causes=1, noise=_NOISE, echoes=0, strength=(_STRENGTH, _STRENGTH)),
        steps=10,
        forks=120,
        tags=frozenset({"forecast"}),
        weight=2.0,
        least=100,
        plan={"mode": "intervene", "parent_failed": False},
    )
    for steps, forks in _REAL_FORKS.items():
        curves = [curve for curve in (*REAL.values(), *MIDDLING.values()) if len(curve) == steps + 1]
        yield ForecastCell(
            name=f"value, n={steps}, curves of a real model, {forks} forks",
            make=partial(_one_of, curves),
            steps=steps,
            forks=forks,
            tags=frozenset({"real forecast"}),
            weight=0.4 * len(curves),
            least=24 * len(curves),
            plan={"mode": "value", "parent_failed": True},
        )


# For runs of so many steps, each of whose curves counts alike.
_REAL_FORKS = {2: 85, 3: 95, 4: 105, 5: 120, 6: 130, 8: 140}
_STRENGTH = _EFFECT + _NOISE


def _one_of(curves: Sequence[tuple[float, ...]], rng: random.Random) -> Pivot:
    return world(rng.choice(curves))


def _expected(rng: random.Random, steps: int) -> Pivot:
    return world(drawn(steps, rng))
