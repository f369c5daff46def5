"""The search for repairs in worlds whose repairs are planted: what it confirms, and how little of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.repairing.search import RepairPlan, RepairSearch, Try
from tracefork_backend.repairing.shrinking import shrunk


def searched(
    needs: Sequence[frozenset[int] | None],
    *,
    success: float = 0.9,
    without: float = 0.1,
    parts: int = 6,
    seed: int = 1,
    lost: float = 0.0,
    **plan: object,
) -> RepairSearch:
    """Search candidates that repair if these of their parts are made, None for those that never do."""
    rng = random.Random(seed)
    tries = tuple(Try(parts=parts, step=2, kept=2, control=3, cost_usd=0.01) for _ in needs)
    search = RepairSearch(RepairPlan(tries=tries, **plan))  # type: ignore[arg-type]

    def outcome(request: TrialRequest) -> bool | None:
        if rng.random() < lost:
            return None
        change = search.change_of(request.arm_id)
        need = None if change is None else needs[change[0]]
        repaired = change is not None and need is not None and need <= change[1]
        return rng.random() < (success if repaired else without)

    while not search.done:
        batch = search.next_batch()
        assert batch
        for request in batch:
            search.observe(request.trial_id, outcome(request), tail=f"{request.trial_id} {rng.random()}")
    return search


def test_the_smallest_change_is_confirmed_and_ends_the_search() -> None:
    """Of a candidate of six parts two are needed; the candidate after it is not tried."""
    search = searched([frozenset({1, 4}), frozenset({0})], success=1.0, without=0.0)
    first, second = search.tried
    assert (first.verdict, first.kept, first.minimal) == ("confirmed", {1, 4}, True)
    assert first.measured["flips_treatment"] == first.measured["n_treatment"]
    assert first.measured["ci_low"] > 0
    assert (second.forks, second.reason) == (0, "not tried: another repair was confirmed before")
    assert search.verdict == "confirmed"
    assert search.stop_reason == "certified"


def test_every_repair_is_found_where_all_are_asked_for() -> None:
    """It goes on after the first; the one between that repairs nothing is no repair."""
    search = searched([frozenset({0}), None, frozenset({5})], success=1.0, without=0.0, every=True)
    assert [one.verdict for one in search.tried] == ["confirmed", "nothing_found", "confirmed"]


def test_where_nothing_repairs_hardly_anything_is_confirmed() -> None:
    """Six candidates that do nothing, on an agent that succeeds in four of ten re-runs by itself."""
    false = sum(searched([None] * 6, without=0.4, seed=seed).verdict == "confirmed" for seed in range(200))
    assert false <= 2


def test_forks_that_are_lost_are_read_at_their_worst() -> None:
    """Half of the forks cannot be graded: what repairs nothing stays unconfirmed, and the search ends."""
    found = [searched([None] * 3, without=0.3, lost=0.5, seed=seed).verdict for seed in range(60)]
    assert found.count("confirmed") <= 1


def test_repairs_of_a_noisy_agent_are_found_as_often_as_was_simulated() -> None:
    """Up to three candidates, half of them true, of six parts: 0.9 with and 0.1 without."""
    rng = random.Random(7)
    confirmed = false = possible = 0
    forks: list[int] = []
    for seed in range(150):
        needs = [
            frozenset(rng.sample(range(6), rng.choice((1, 2)))) if rng.random() < 0.5 else None for _ in "123"
        ]
        search = searched(needs, seed=seed)
        forks.append(sum(one.forks for one in search.tried))
        possible += any(needs)
        for need, one in zip(needs, search.tried, strict=True):
            confirmed += one.verdict == "confirmed" and need is not None
            false += one.verdict == "confirmed" and need is None
    assert confirmed / possible >= 0.9
    assert false == 0
    assert sorted(forks)[len(forks) // 2] <= 80


def test_the_limit_of_forks_ends_it_with_an_answer() -> None:
    """What is not settled then says so, and is no repair."""
    search = searched([frozenset({1, 4})], max_trials=12)
    assert search.verdict == "budget"
    assert search.stop_reason == "max_trials"
    assert search.tried[0].reason == "the search ended before it was confirmed"


def test_shrinking_ends_at_its_share_of_the_budget() -> None:
    """The change as far as it is shrunk is confirmed then, and it is said that it may be smaller."""
    search = searched([frozenset({1, 4})], success=1.0, without=0.0, shrinking_usd=0.02)
    (one,) = search.tried
    assert one.verdict == "confirmed"
    assert {1, 4} <= one.kept
    assert not one.minimal


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 12])
def test_shrinking_leaves_exactly_what_is_needed(parts: int) -> None:
    """With tests that do not err, for each need of one and of two parts."""
    needs = [frozenset({a, b}) for a in range(parts) for b in range(parts)]
    for need in needs:
        task = shrunk(parts, lambda chosen, need=need: _passed(need <= chosen))
        with pytest.raises(StopIteration) as ended:
            next(task)
        assert ended.value.value == (need, True)


def _passed(whether: bool):
    yield from ()
    return whether
