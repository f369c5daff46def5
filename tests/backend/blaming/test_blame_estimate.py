"""The estimate that is shown before anything is spent."""

from __future__ import annotations

import itertools
import random

import pytest
from tracefork_backend.blaming.curve import drawn, likely
from tracefork_backend.blaming.drive import FREE, Graders
from tracefork_backend.blaming.forecast import estimate
from tracefork_backend.blaming.plan import Plan


def test_more_money_means_a_better_chance() -> None:
    """The chance grows with the budget from none to nearly certain, and no simulated run spends more."""
    plan = Plan(steps=8, mode="intervene", parent_failed=False)
    told = [estimate(plan, controls=(0, 6), budget=budget, simulations=60) for budget in (0.0, 500.0, 5000.0)]
    assert told[0].chance == 0.0
    assert told[0].chance < told[1].chance < told[2].chance
    assert told[2].chance >= 0.9
    assert told[2].chance_right >= 0.9
    for each, budget in zip(told, (0.0, 500.0, 5000.0), strict=True):
        assert each.cost_p95 <= budget


def test_the_same_seed_gives_the_same_estimate() -> None:
    """An estimate can be repeated exactly, and another seed draws other runs."""
    plan = Plan(steps=8, mode="intervene", parent_failed=False)
    one = estimate(plan, simulations=20, seed=4)
    assert one == estimate(plan, simulations=20, seed=4)
    assert one != estimate(plan, simulations=20, seed=5)


def test_a_noisy_baseline_costs_more() -> None:
    """Controls that flip make the estimate dearer and the verdict less likely for the same money."""
    plan = Plan(steps=10, mode="intervene", parent_failed=False)
    calm = estimate(plan, effect=0.6, controls=(0, 14), simulations=60, budget=700.0)
    noisy = estimate(plan, effect=0.6, controls=(4, 14), simulations=60, budget=700.0)
    assert noisy.chance < calm.chance


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["intervene", "value", "auto"])
def test_every_mode_has_an_estimate(mode: str) -> None:
    """Forks and money are estimated in each mode, with what a run without any cause would take."""
    plan = Plan(steps=8, mode=mode, natural=mode == "auto")  # type: ignore[arg-type]
    told = estimate(plan, simulations=20)
    assert 0 < told.forks_median <= told.forks_p95
    assert told.cost_median > told.forks_median
    assert told.null_forks_mean > 0
    assert told.chance > 0.5


@pytest.mark.slow
def test_value_mode_is_foretold_by_curves_as_real_runs_have_them() -> None:
    """Forty forks rarely suffice on such curves; one large drop between two levels was taken for granted."""
    plan = Plan(steps=4, mode="value", costs=(1.0,) * 5)
    told = [estimate(plan, budget=forks, simulations=60) for forks in (40, 400)]
    assert told[0].chance < 0.5 < 0.8 < told[1].chance
    assert told[0].assumed == "some step loses 0.1 or more, mostly as in failed runs of a small real model"


@pytest.mark.parametrize("steps", [2, 4, 12, 200])
def test_a_curve_that_is_expected_falls_somewhere_and_ends_at_nothing(steps: int) -> None:
    """So is each that is drawn, of any length."""
    rng = random.Random(steps)
    for curve in (drawn(steps, rng) for _ in range(30)):
        assert (len(curve), curve[-1]) == (steps + 1, 0.0)
        assert max(high - low for high, low in itertools.pairwise(curve)) >= 0.1
    for curve in (likely(steps, rng) for _ in range(30)):
        assert (len(curve), curve[-1]) == (steps + 1, 0.0)
        assert all(0 <= level < 1 for level in curve)


def test_the_budget_of_an_estimate_pays_the_judge_too() -> None:
    """Each ending costs what grading it does, and no fork starts without room for the worst of it."""
    plan = Plan(steps=8, mode="intervene", parent_failed=False)
    alone, judged, dear = (
        estimate(plan, controls=(0, 6), budget=800.0, simulations=60, grading=grading)
        for grading in (FREE, Graders(4.0, 4.0), Graders(4.0, 801.0))
    )
    assert alone.chance > judged.chance > dear.chance == 0.0
    assert judged.forks_mean < alone.forks_mean
    assert judged.cost_p95 <= 800.0
    assert dear.cost_p95 == 4.0, "the recorded run is graded first"
    free = estimate(plan, controls=(0, 6), simulations=20)
    paid = estimate(plan, controls=(0, 6), simulations=20, grading=Graders(4.0, 90.0))
    assert paid.cost_mean == pytest.approx(free.cost_mean + 4.0 * (free.forks_mean + 1))
    assert paid.chance == free.chance
