"""Value mode on curves of V: how many forks, what is certified, whom it blames. `--runs 200 --seed S`."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from report import Figure, report
from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.validate.curves import FLAT, MIDDLING, REAL, flat, single, world
from tracefork_backend.validate.worlds import Pivot, pivot


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the experiments on one curve came to."""

    name: str
    forks: list[int]
    certified: float
    """Share that certified the largest drop."""
    soon: float
    """Share that did within 150 forks."""
    found: float
    """Share of the drops of 0.3 or more that were certified."""
    named: float
    innocents: int
    starved: int
    """Experiments in which a prefix had over 60 forks while both its neighbours had under 12."""
    cpu_ms: float
    """Processor time for each fork asked for."""

    def line(self) -> str:
        ordered = sorted(self.forks)
        at90 = ordered[int(0.9 * (len(ordered) - 1))]
        return (
            f"{self.name:44} {statistics.median(ordered):.0f}/{statistics.mean(ordered):.0f}/{at90}/{ordered[-1]}"
            f"  certified {self.certified:.0%}, within 150 forks {self.soon:.0%}, named {self.named:.0%}"
            f", innocents {self.innocents} of {len(ordered)}"
        )


def _worlds(name: str, seed: int) -> tuple[Pivot | None, float, int]:
    """Return the world of a name, or the noise and steps of those that are drawn anew for each run."""
    if name.startswith("pivot"):
        _, steps, noise = name.split()
        return None, float(noise), int(steps)
    return CURVES[name], 0.0, seed


def measure(name: str, runs: int, seed: int) -> Measured:
    """Run so many experiments on one curve."""
    fixed, noise, steps = _worlds(name, seed)
    forks: list[int] = []
    certified = soon = named = innocents = starved = 0
    found: list[bool] = []
    begun = time.process_time()
    for number in range(runs):
        rng = random.Random(f"{name} {seed} {number}")
        here = fixed or pivot(rng, steps, noise=noise)
        search = Search(Plan(steps=here.steps, mode="value", deterministic="never"))
        spent = run(search, lambda request, here=here, rng=rng: here.flips(request, rng))
        blamed = set(spent.findings.certified)
        forks.append(spent.trials)
        hit = set(here.causes) <= blamed and bool(here.causes)
        certified += hit
        soon += hit and spent.trials <= 150
        named += spent.findings.top in here.causes
        innocents += bool(blamed & here.innocent)
        found += [step in blamed for step in range(here.steps) if here.effect(step) >= 0.3 - 1e-9]
        starved += _starved(search)
    return Measured(
        name=name,
        forks=forks,
        certified=certified / runs,
        soon=soon / runs,
        found=sum(found) / len(found) if found else 1.0,
        named=named / runs,
        innocents=innocents,
        starved=starved,
        cpu_ms=1000 * (time.process_time() - begun) / sum(forks),
    )


def _starved(search: Search) -> bool:
    drawn = {effect.step: effect.n_control for effect in search.verdict().effects}
    steps = sorted(drawn)
    return any(
        drawn[step] > 60 and all(0 < drawn.get(near, 0) < 12 for near in (step - 1, step + 1))
        for step in steps[:-1]
    )


CURVES = {
    **{name: world(curve) for name, curve in {**REAL, **MIDDLING}.items()},
    **{
        f"n={steps}, {high} to 0, {place}": single(steps, high, place)
        for steps in (4, 8, 12)
        for high in (0.3, 0.5, 0.7, 0.9, 1.0)
        for place in ("early", "middle", "late")
    },
    **{f"n={steps}, 0.3 to 0, middle": single(steps, 0.3, "middle") for steps in (20, 50, 100, 200)},
    "n=200, 0.3 to 0, late": single(200, 0.3, "late"),
    "n=12, 0.5 to 0.1, middle": single(12, 0.5, "middle", 0.1),
    "n=50, 0.5 to 0.1, middle": single(50, 0.5, "middle", 0.1),
    "demo .5 .5 .5 0 0 0": world((0.5, 0.5, 0.5, 0.0, 0.0, 0.0)),
    "steep .95 .95 .05 .05 0": world((0.95, 0.95, 0.05, 0.05, 0.0)),
    "two drops, n=8": world((0.8,) * 2 + (0.4,) * 3 + (0.0,) * 4),
    "two drops, n=12": world((0.9,) * 4 + (0.5,) * 4 + (0.1,) * 4 + (0.0,)),
    "two drops, n=18": world((0.95,) * 5 + (0.5,) * 8 + (0.0,) * 6),
    "slope .9 to 0": world(tuple(0.9 - 0.1 * kept for kept in range(10))),
    "mixed .5 .2": world((0.5,) * 3 + (0.2,) * 3),
    "mixed .6 .3": world((0.6,) * 6 + (0.3,) * 7),
    "mixed .3 .5 .2": world((0.3,) * 4 + (0.5,) * 4 + (0.2,) * 5),
    **{f"n={steps} flat {level}": flat(steps, level) for steps, level in FLAT},
}
PIVOTS = tuple(f"pivot {steps} {noise}" for steps in (10, 20, 50) for noise in (0.05, 0.1))
SINGLE = tuple(name for name in CURVES if name.startswith(("n=4,", "n=8,", "n=12,")) and "to 0," in name)
NULL = tuple(name for name in CURVES if name.startswith("mixed") or "flat" in name)


def figures(of: dict[str, Measured]) -> Iterator[Figure]:
    """Yield what the search is held to (the flat curves with ten times the runs)."""
    clerk = of["clerk .27 .17 .20 0 0"]
    ordered = sorted(clerk.forks)
    yield Figure("clerk .27 .17 .20 0 0: certified", clerk.certified, "", 0.95, at_least=True)
    yield Figure("the same: forks, median", statistics.median(ordered), "", 125)
    yield Figure("the same: forks, p90", ordered[int(0.9 * (len(ordered) - 1))], "", 200)
    real = [of[name] for name in REAL]
    yield Figure("real curves with one main drop: certified, the worst", min(one.certified for one in real), "", 0.93, at_least=True)  # fmt: skip
    middle = of["n=12, 0.5 to 0.1, middle"]
    yield Figure("n=12, .5 to .1: certified", middle.certified, "", 0.93, at_least=True)
    yield Figure("n=12, .5 to .1: forks, mean", statistics.mean(middle.forks), "", 115)
    singles = [of[name] for name in SINGLE]
    yield Figure("one drop from .3 or more to 0: certified, the worst", min(one.certified for one in singles), "", 0.95, at_least=True)  # fmt: skip
    yield Figure("the same within 150 forks, the worst", min(one.soon for one in singles), "", 0.80, at_least=True)  # fmt: skip
    yield Figure("n=12, .3 to 0: forks, median", statistics.median(of["n=12, 0.3 to 0, middle"].forks), "", 105)  # fmt: skip
    growth = [statistics.median(of[f"n={steps}, 0.3 to 0, middle"].forks) for steps in (20, 200)]
    yield Figure("forks at n=200 over n=20, .3 to 0", growth[1] / growth[0], "x", 1.8)
    yield Figure("a drop at the last of 200 steps: certified", of["n=200, 0.3 to 0, late"].certified, "", 0.9, at_least=True)  # fmt: skip
    yield Figure("steep: forks, mean", statistics.mean(of["steep .95 .95 .05 .05 0"].forks), "", 34)
    yield Figure("the demo's curve: forks, median", statistics.median(of["demo .5 .5 .5 0 0 0"].forks), "", 50)  # fmt: skip
    two = [of[name].found for name in of if name.startswith("two drops")]
    yield Figure("two drops of about .4: found, the worst", min(two), "", 0.7, at_least=True)
    yield Figure("most forks of any experiment", max(max(one.forks) for one in of.values()), "", 340)
    yield Figure("experiments in which a prefix starves its neighbours", sum(one.starved for one in of.values()), "", 0)  # fmt: skip
    null = [of[name] for name in NULL]
    yield Figure("flat and mixed curves: an innocent is blamed, the worst", max(one.innocents / len(one.forks) for one in null), "", 0.015)  # fmt: skip
    flats = [of[name] for name in NULL if "flat" in name]
    yield Figure("flat curves: forks, median, the worst", max(statistics.median(one.forks) for one in flats), "", 130)  # fmt: skip
    for name, least in zip(PIVOTS, (0.62, 0.5, 0.62, 0.5, 0.62, 0.44), strict=True):
        yield Figure(f"{name}: the cause is certified", of[name].certified, "", least, at_least=True, note=f"named {of[name].named:.0%}")  # fmt: skip
    yield Figure("processor time a fork, n=200", of["n=200, 0.3 to 0, middle"].cpu_ms, "ms", 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    names = [*CURVES, *PIVOTS]
    of: dict[str, Measured] = {}
    with ProcessPoolExecutor() as pool:
        counts = [asked.runs * (10 if name in NULL else 1) for name in names]
        for one in pool.map(measure, names, counts, [asked.seed] * len(names)):
            print(one.line(), flush=True)
            of[one.name] = one
    report("value", figures(of))


if __name__ == "__main__":
    main()
