"""Blame's mathematics: guarantees by exact enumeration, and properties of the numbers."""

from __future__ import annotations

import ast
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracefork_backend import statistics as statistics_package
from tracefork_backend.statistics import (
    LOG_MAX_FACTOR,
    PairedDifferences,
    Sprt,
    TwoByTwo,
    e_bh,
    e_bh_adjusted,
    rate_bounds,
    wilson,
)

BLOCKS = tuple(itertools.product((False, True), repeat=2))
counts = st.integers(min_value=0, max_value=60)


def block_chance(block: tuple[bool, bool], treated: float, control: float) -> float:
    """Return the chance of one block of two independent arms."""
    x, y = block
    return (treated if x else 1 - treated) * (control if y else 1 - control)


def test_statistics_import_math_only() -> None:
    """No file of the package imports anything but the standard library's mathematics and its own modules."""
    allowed = {"__future__", "collections.abc", "math", "statistics"}
    for path in Path(statistics_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= allowed, path
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module in allowed, path
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, path


@pytest.mark.parametrize("control", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("below", [0.0, 0.05, 0.4])
def test_e_value_has_mean_at_most_one(control: float, below: float) -> None:
    """Over all outcomes of five blocks the e-value's exact mean is at most 1 whenever treatment ≤ control."""
    treated = max(0.0, control - below)
    mean = 0.0
    for blocks in itertools.product(BLOCKS, repeat=5):
        test = TwoByTwo()
        for x, y in blocks:
            test.update(x, y)
        mean += math.prod(block_chance(b, treated, control) for b in blocks) * math.exp(test.log_e)
    assert mean <= 1 + 1e-12


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.8])
def test_e_value_rarely_ever_reaches_twenty(rate: float) -> None:
    """The exact chance that two equal arms push the e-value to 20 at any of 9 looks is at most 5 %."""
    # The e-value depends on the order of blocks, so states are merged by counts and log e to 1e-9.
    states = {(0, 0, 0.0): 1.0}
    alarmed = 0.0
    for blocks in range(9):
        following: dict[tuple[int, int, float], float] = {}
        for (treated, control, log_e), chance in states.items():
            for block in BLOCKS:
                test = TwoByTwo()
                test.blocks, test.treatment_flips, test.control_flips = blocks, treated, control
                test.log_e = log_e
                test.update(*block)
                part = chance * block_chance(block, rate, rate)
                if test.log_e >= math.log(20):
                    alarmed += part
                else:
                    key = (test.treatment_flips, test.control_flips, round(test.log_e, 9))
                    following[key] = following.get(key, 0.0) + part
        states = following
    assert alarmed + sum(states.values()) == pytest.approx(1.0)
    assert 0 < alarmed <= 0.05


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_a_block_multiplies_the_e_value_by_less_than_four(blocks: list[tuple[bool, bool]]) -> None:
    """No block raises the e-value by more than its stated factor, which is what batches are sized by."""
    test = TwoByTwo()
    for x, y in blocks:
        before = test.log_e
        test.update(x, y)
        assert test.log_e - before < LOG_MAX_FACTOR


@given(counts, counts, counts, st.floats(-0.99, 0.98), st.floats(0.001, 0.5))
def test_capital_falls_as_the_mean_grows(plus: int, zero: int, minus: int, mean: float, step: float) -> None:
    """The bet against a larger mean never has more capital, so the rejected means are all below a bound."""
    pairs = PairedDifferences(plus=plus, zero=zero, minus=minus)
    assert pairs.log_e(min(0.999, mean + step)) <= pairs.log_e(mean) + 1e-9


def interval(pairs: PairedDifferences) -> tuple[float, float]:
    """Both bounds, which hold together at 95 %."""
    return pairs.lower(alpha=0.025), pairs.upper(alpha=0.025)


@given(counts, counts, counts)
def test_interval_holds_the_estimate_and_mirrors(plus: int, zero: int, minus: int) -> None:
    """The interval holds the mean of what was seen, and exchanging the arms mirrors it."""
    pairs = PairedDifferences(plus=plus, zero=zero, minus=minus)
    low, high = interval(pairs)
    total = plus + zero + minus
    assert -1 <= low <= high <= 1
    if total:
        assert low - 1e-5 <= (plus - minus) / total <= high + 1e-5
    mirrored = PairedDifferences(plus=minus, zero=zero, minus=plus)
    assert interval(mirrored) == pytest.approx((-high, -low))


def test_interval_without_blocks_is_everything() -> None:
    """Before the first block nothing is ruled out."""
    assert interval(PairedDifferences()) == pytest.approx((-1, 1), abs=1e-4)


@pytest.mark.parametrize(("treated", "control"), [(0.9, 0.1), (0.5, 0.5), (0.3, 0.0), (1.0, 1.0), (0.2, 0.6)])
def test_interval_covers_at_every_look(treated: float, control: float) -> None:
    """The exact chance that the interval holds the true effect at all of 40 looks is at least 95 %."""
    effect = treated - control
    up, down = treated * (1 - control), control * (1 - treated)
    threshold = math.log(40)
    states = {(0, 0): 1.0}
    for blocks in range(1, 41):
        following: dict[tuple[int, int], float] = {}
        for (plus, minus), chance in states.items():
            for key, part in (
                ((plus + 1, minus), up),
                ((plus, minus + 1), down),
                ((plus, minus), 1 - up - down),
            ):
                if part > 0:
                    following[key] = following.get(key, 0.0) + chance * part
        states = {
            (plus, minus): chance
            for (plus, minus), chance in following.items()
            if PairedDifferences(plus=plus, zero=blocks - plus - minus, minus=minus).log_e(effect) < threshold
            and PairedDifferences(plus=minus, zero=blocks - plus - minus, minus=plus).log_e(-effect)
            < threshold
        }
    assert sum(states.values()) >= 0.95


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
def test_wilson_is_not_for_many_looks(rate: float) -> None:
    """Over 100 looks Wilson's interval holds throughout with a chance below 85 %."""
    states = {0: 1.0}
    for trials in range(1, 101):
        following: dict[int, float] = {}
        for s, chance in states.items():
            following[s + 1] = following.get(s + 1, 0.0) + chance * rate
            following[s] = following.get(s, 0.0) + chance * (1 - rate)
        states = {
            s: chance
            for s, chance in following.items()
            if wilson(s, trials)[0] <= rate <= wilson(s, trials)[1]
        }
    assert sum(states.values()) < 0.85


@given(counts, counts)
def test_the_interval_of_a_rate_holds_the_estimate(successes: int, failures: int) -> None:
    """Wilson's interval holds the observed rate and touches 0 and 1 at the ends."""
    trials = successes + failures
    low, high = wilson(successes, trials)
    assert 0 <= low <= high <= 1
    if trials:
        assert low - 1e-9 <= successes / trials <= high + 1e-9
    assert (low == 0.0) == (successes == 0)
    assert (high == 1.0) == (failures == 0)


e_logs = st.lists(st.floats(-5, 12), min_size=1, max_size=12)


@given(e_logs, st.floats(0.01, 0.3))
def test_adjusted_values_are_the_smallest_alpha(log_e: list[float], alpha: float) -> None:
    """A position is rejected exactly when its adjusted value is at most alpha."""
    adjusted = e_bh_adjusted(log_e)
    if any(abs(value - alpha) < 1e-9 for value in adjusted):
        return
    assert e_bh(log_e, alpha=alpha) == {i for i, value in enumerate(adjusted) if value <= alpha}


@given(e_logs, st.data())
def test_more_evidence_never_rejects_less(log_e: list[float], data: st.DataObject) -> None:
    """Raising one e-value keeps every rejection, so freezing certified steps is safe."""
    index = data.draw(st.integers(0, len(log_e) - 1))
    more = list(log_e)
    more[index] += data.draw(st.floats(0, 5))
    assert e_bh(log_e, alpha=0.05) <= e_bh(more, alpha=0.05)


def test_e_bh_bounds_any_rejection_under_the_null() -> None:
    """With all-or-nothing bets, the worst kind, on three true hypotheses, some rejection has chance ≤
    alpha.
    """
    alpha, n = 0.1, 3
    for stake in (n / alpha, n / (2 * alpha), n / (3 * alpha)):
        any_rejected = 0.0
        for wins in itertools.product((False, True), repeat=n):
            chance = math.prod(1 / stake if win else 1 - 1 / stake for win in wins)
            logs = [math.log(stake) if win else -100.0 for win in wins]
            any_rejected += chance * bool(e_bh(logs, alpha=alpha))
        assert any_rejected <= alpha + 1e-12


@pytest.mark.parametrize(("rate", "passes"), [(0.12, False), (0.5, True)])
def test_sprt_errs_as_rarely_as_it_says(rate: float, passes: bool) -> None:
    """At its two rates the exact chance of a wrong decision is within Wald's bounds, the cap included."""
    states: dict[tuple[int, int], float] = {(0, 0): 1.0}
    wrong = 0.0
    while states:
        following: dict[tuple[int, int], float] = {}
        for (flips, trials), chance in states.items():
            for flipped, part in ((True, rate), (False, 1 - rate)):
                state = (flips + flipped, trials + 1)
                test = Sprt(low=0.12, high=0.5, false_positive=0.02, false_negative=0.03, cap=25)
                for index in range(trials + 1):
                    test.update(index < state[0])
                # Order decides only whether an earlier state was absorbed, which following a path does.
                if test.decision is None:
                    following[state] = following.get(state, 0.0) + chance * part
                elif test.decision != passes:
                    wrong += chance * part
        states = following
    assert wrong <= (0.03 if passes else 0.02) * 1.1


@given(st.lists(st.booleans(), max_size=30))
def test_sprt_never_decides_sooner_than_it_says(outcomes: list[bool]) -> None:
    """No outcomes can decide before the number that it names, so a batch of that size wastes nothing."""
    test = Sprt(low=0.18, high=0.53, false_positive=0.02, false_negative=0.03, cap=25)
    due = test.least_more
    for index, outcome in enumerate(outcomes):
        if test.decision is not None:
            assert index >= due
            return
        due = max(due, index + test.least_more)
        test.update(outcome)


@given(counts, counts, counts)
def test_bounds_hold_every_completion(flips: int, rest: int, undefined: int) -> None:
    """However the undefined trials would have come out, the rate over all trials lies within the bounds."""
    low, high = rate_bounds(flips=flips, defined=flips + rest, undefined=undefined)
    total = flips + rest + undefined
    if total == 0:
        assert (low, high) == (0.0, 1.0)
        return
    for extra in (0, undefined // 2, undefined):
        assert low <= (flips + extra) / total <= high
