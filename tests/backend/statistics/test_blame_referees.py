"""Blame's mathematics against scipy and statsmodels, which the product does not use."""

from __future__ import annotations

import math

import pytest
from scipy import stats
from scipy.integrate import quad
from simpler_rules import newcombe_low
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from tracefork_backend.statistics import chance_of_effect, wilson
from tracefork_backend.validate.tally import upper_bound


@pytest.mark.parametrize("trials", [1, 5, 20, 137])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_wilson_agrees(trials: int, level: float) -> None:
    """Wilson's interval is statsmodels' for every number of successes."""
    for successes in range(trials + 1):
        expected = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
        assert wilson(successes, trials, level=level) == pytest.approx(expected, abs=1e-9)


def test_upper_bound_agrees() -> None:
    """The gates' upper bound is Clopper and Pearson's."""
    for events, runs in ((0, 100), (3, 1000), (20, 150), (99, 100)):
        expected = stats.beta.ppf(0.95, events + 1, runs - events)
        assert upper_bound(events, runs) == pytest.approx(expected, abs=1e-6)
    assert upper_bound(5, 5) == 1.0


def test_newcombe_agrees() -> None:
    """The comparator's bound is statsmodels' Newcombe interval."""
    for treated, control, trials in ((9, 1, 10), (15, 3, 20), (20, 0, 20)):
        low, _ = confint_proportions_2indep(
            treated, trials, control, trials, method="newcomb", compare="diff"
        )
        assert newcombe_low(treated, control, trials, level=0.95) == pytest.approx(low, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [6, 12, 40])
def test_chance_of_effect_is_near_the_exact_one(trials: int) -> None:
    """The normal approximation that decides when to give up is within 0.05 of the exact posterior chance."""
    for treated in range(0, trials + 1, max(1, trials // 3)):
        for control in range(0, trials // 2 + 1, max(1, trials // 4)):
            exact, _ = quad(
                lambda y, t=treated, c=control: (
                    stats.beta.pdf(y, c + 0.5, trials - c + 0.5)
                    * stats.beta.sf(min(1.0, 0.4 + y), t + 0.5, trials - t + 0.5)
                ),
                0,
                0.6,
                limit=200,
            )
            told = chance_of_effect(0.4, treatment=(treated, trials), control=(control, trials))
            assert told == pytest.approx(exact, abs=0.05), (treated, control)
    assert math.isclose(chance_of_effect(0.0, treatment=(3, 6), control=(3, 6)), 0.5)
