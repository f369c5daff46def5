"""The search over parts of requests, on simulated runs: what it certifies, and what it must not."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from tracefork_backend.blaming.drive import Spent, run
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import TrialRequest

from tracefork_otel.errors import UsageError


def searched(
    parts: int, rates: Sequence[float], effects: Mapping[int, float], seed: int, max_trials: int | None = None
) -> Spent:
    """A search over runs that fail so often, in each of which a part without which fails more, or less."""
    rng = random.Random(seed)

    def fails(request: TrialRequest) -> bool:
        rate = rates[request.replicate % len(rates)]
        for part in request.altered:
            effect = effects.get(part, 0.0)
            rate = rate + effect * (1 - rate) if effect > 0 else rate * (1 + effect)
        return rng.random() < rate

    plan = Plan(
        steps=parts, mode="parts", parent_failed=False, output=None, strata=len(rates), max_trials=max_trials
    )
    return run(Search(plan), fails)


def certified(spent: Spent) -> set[int]:
    """The parts that are certified alone."""
    return {one.step for one in spent.findings.effects if one.verdict == "certified"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "rates"),
    [(5, (0.05,)), (5, (0.0, 0.3, 0.9)), (10, (0.1, 0.5, 0.5, 0.2)), (20, (0.1,)), (30, (0.05, 0.5))],
)
def test_where_no_part_matters_few_experiments_certify_one(parts: int, rates: tuple[float, ...]) -> None:
    """Alone or together, over runs that fail as often as they like: in at most 5 % of experiments."""
    times = 400
    false = sum(bool(searched(parts, rates, {}, seed).findings.certified) for seed in range(times))
    assert false <= 0.05 * times


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "rates", "effects"),
    [
        (5, (0.02,), {2: 0.9}),
        (10, (0.1, 0.3, 0.2), {3: 0.9, 5: 0.9}),
        (10, (0.8, 0.9), {1: -0.8}),
        (30, (0.05,), {7: 0.9}),
    ],
)
def test_a_part_that_matters_is_found_in_either_direction(
    parts: int, rates: tuple[float, ...], effects: dict[int, float]
) -> None:
    """In nine of ten experiments all of them, and hardly ever another."""
    found = [certified(searched(parts, rates, effects, seed)) for seed in range(60)]
    assert sum(set(effects) <= one for one in found) >= 54
    assert sum(bool(one - set(effects)) for one in found) <= 3


def test_parts_that_stand_in_for_one_another_are_found_together() -> None:
    """Neither of two matters alone; without both the run fails, and that is said of all without an effect."""
    rng = random.Random(5)

    def fails(request: TrialRequest) -> bool:
        return {1, 3} <= set(request.altered) or rng.random() < 0.05

    plan = Plan(steps=5, mode="parts", parent_failed=False, output=None)
    spent = run(Search(plan), fails)
    assert certified(spent) == set()
    (together,) = spent.findings.sets
    assert (together.steps, together.verdict) == ((0, 1, 2, 3, 4), "certified")
    assert "one stands in for another" in spent.findings.message


def test_looks_are_taken_after_whole_turns_of_the_runs() -> None:
    """Of each part as many pairs are of one run as of another, wherever the search ends."""
    for most in (20, 50, 101):
        spent = searched(4, (0.1, 0.5, 0.9), {}, 1, max_trials=most)
        assert all(one.pairs % 3 == 0 for one in spent.findings.effects)


def test_what_shows_no_effect_is_never_called_more_than_bounded() -> None:
    """Each has an interval that holds 0, and says it; nothing is said to be without effect."""
    found = searched(6, (0.1,), {}, 3).findings
    for one in found.effects:
        assert one.verdict == "screened_out"
        assert one.ci_low is not None
        assert one.ci_high is not None
        assert one.ci_low <= 0 <= one.ci_high
        assert one.reason.startswith("no effect found in ")
        assert (
            f"without it the run fails at most {one.ci_high:.2f} more often, or {-one.ci_low:.2f} less"
            in one.reason
        )


def test_a_bound_is_reached_where_an_agent_is_steady() -> None:
    """Each part and all together are bounded so; one that no forks can show is refused."""
    plan = Plan(steps=3, mode="parts", parent_failed=False, output=None, bound=0.1)
    found = run(Search(plan), lambda request: False).findings
    assert all(one.ci_high is not None and one.ci_high <= 0.1 for one in (*found.effects, *found.sets))
    with pytest.raises(UsageError, match="a bound of 0 is not one that forks can show"):
        Plan(steps=3, mode="parts", bound=0.0)
