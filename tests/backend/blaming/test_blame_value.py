"""Value mode: where a run that could have gone well was lost."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefork_backend.blaming import bisection, curve
from tracefork_backend.blaming.bisection import locate
from tracefork_backend.blaming.curve import Curve, Knot
from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.validate.worlds import Pivot, pivot


def sampler(world: Pivot, seed: int):
    """Return outcomes drawn from a generator of their own."""
    rng = random.Random(seed)
    return lambda request: world.flips(request, rng)


def steep(steps: int, at: int, high: float = 0.7, low: float = 0.03) -> Pivot:
    """Return a curve that falls once, when step `at` is kept."""
    curve = (*[high if kept <= at else low for kept in range(steps)], 0.0)
    return Pivot(steps=steps, curve=curve, causes=(at,))


@pytest.mark.parametrize("at", [0, 1, 7, 13, 14])
def test_the_drop_is_found_wherever_it_is(at: int) -> None:
    """A single steep drop is certified at its step, the first and the last among them."""
    found = run(Search(Plan(steps=15, mode="value")), sampler(steep(15, at), at)).findings
    assert found.certified == (at,)
    assert found.top == at
    effect = found.effects[at]
    assert effect.is_root
    assert effect.ci_low is not None
    assert effect.ci_high is not None
    assert 0 < effect.ci_low <= 0.7 <= effect.ci_high


def test_two_drops_are_both_found() -> None:
    """What one drop leaves unexplained is searched for another."""
    curve = (*[0.95] * 5, *[0.5] * 8, *[0.0] * 5, 0.0)
    world = Pivot(steps=18, curve=curve, causes=(4, 12))
    hits = 0
    for seed in range(5):
        found = run(Search(Plan(steps=18, mode="value")), sampler(world, seed)).findings
        assert set(found.certified) <= {4, 12}
        hits += len(found.certified)
    assert hits >= 7


@pytest.mark.parametrize("seed", range(6))
def test_the_parts_add_up_to_the_whole_loss(seed: int) -> None:
    """The drops between measured prefixes cover every step once and add up to the flip rate of a full re-
    run.
    """
    world = pivot(random.Random(seed), 20, noise=0.05)
    search = Search(Plan(steps=20, mode="value"))
    spent = run(search, sampler(world, seed))
    drops = spent.findings.drops
    assert [drop.first for drop in drops] == [0, *(drop.last + 1 for drop in drops[:-1])]
    assert drops[-1].last == 19
    whole = spent.findings.baseline_flips / spent.findings.baseline_trials
    assert sum(drop.drop for drop in drops) == pytest.approx(whole)


def test_a_systematic_failure_is_an_answer() -> None:
    """If no redraw rescues the run, from its start or later, the search says so and stops after 32 forks."""
    spent = run(Search(Plan(steps=20, mode="value")), lambda request: False)
    assert spent.findings.stop_reason == "systematic"
    assert spent.trials == 16 + 3 * 4 + 4
    assert "systematic" in spent.findings.message
    assert spent.findings.certified == ()


@pytest.mark.parametrize(("end", "blamed"), [(0.0, {9}), (0.5, set())], ids=["last response", "outside"])
def test_a_flat_curve_is_the_last_response_or_nobody(end: float, blamed: set[int]) -> None:
    """If every prefix leaves the same chance, the last response decides, unless the run flips with all kept
    too.

    Then the chance is not in the responses at all (a flaky tool, a flaky oracle), and no step is blamed.
    """
    found: list[int] = []
    for seed in range(10):
        rng = random.Random(seed)

        def flat(request: TrialRequest, rng: random.Random = rng) -> bool:
            return rng.random() < (end if request.kept == 10 else 0.5)

        found += run(Search(Plan(steps=10, mode="value")), flat).findings.certified
    assert set(found) == blamed
    assert len(found) >= 8 * len(blamed)


def test_a_deterministic_agent_cannot_be_redrawn() -> None:
    """Sixteen identical re-runs say that redraws tell nothing, and the search stops there."""
    spent = run(Search(Plan(steps=10, mode="value")), lambda request: False, tail="same")
    assert spent.trials == 16 + 4
    assert spent.findings.deterministic
    assert spent.findings.stop_reason == "systematic"
    assert "deterministic" in spent.findings.message


def test_an_agent_that_mostly_fails_in_the_same_words_is_not_called_deterministic() -> None:
    """An agent of two endings is blamed where it chose, whatever its first re-runs were."""
    for seed in range(20):
        world, draw = steep(10, 2, high=0.3, low=0.0), random.Random(seed)
        search = Search(Plan(steps=10, mode="value"))
        while requests := search.next_batch(1):
            for request in requests:
                flipped = world.flips(request, draw)
                search.observe(request.trial_id, flipped, tail=str(flipped))
        found = search.verdict()
        assert not found.deterministic
        assert found.top == 2


def test_value_trials_alter_nothing() -> None:
    """Every fork keeps a prefix and re-runs the rest; prefixes are shared by the steps around them."""
    world = steep(12, 5)
    seen: list[TrialRequest] = []
    draw = sampler(world, 1)

    def noted(request: TrialRequest) -> bool:
        seen.append(request)
        return draw(request)

    run(Search(Plan(steps=12, mode="value")), noted)
    assert {request.role for request in seen} == {"value"}
    assert all(not request.altered and request.arm_id == f"keep:{request.kept - 1}" for request in seen)
    assert max(request.kept for request in seen) == 12


def test_a_run_of_one_step_is_redrawn_whole() -> None:
    """The only step carries the whole loss."""
    rng = random.Random(2)
    found = run(Search(Plan(steps=1, mode="value")), lambda r: r.kept == 0 and rng.random() < 0.8).findings
    assert found.certified == (0,)


@given(
    st.integers(1, 40),
    st.dictionaries(st.integers(-1, 38), st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=10),
)
def test_the_place_is_that_of_the_plain_posterior(steps: int, drawn: dict[int, tuple[int, int]]) -> None:
    """Working by segments gives the posterior that working by steps gives."""
    counts = sorted((prefix, s, f) for prefix, (s, f) in drawn.items() if prefix <= steps - 2 and s + f)
    place = locate(counts, steps=steps)
    plain = []
    for step in range(steps):
        rows = []
        for high, no_high, low, no_low in bisection._PAIRS:
            rows.append(
                sum(
                    s * high + f * no_high if prefix < step else s * low + f * no_low
                    for prefix, s, f in counts
                )
            )
        plain.append(math.fsum(math.exp(row) for row in rows))
    total = math.fsum(plain)
    assert place.chance == pytest.approx(max(plain) / total, rel=1e-6)
    assert plain[place.step] == pytest.approx(max(plain), rel=1e-6)
    assert plain[place.last] == pytest.approx(plain[place.step], rel=1e-6)


@given(
    st.dictionaries(
        st.integers(0, 3), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=2
    ),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(max_examples=12, deadline=None)
def test_the_curve_is_that_of_all_paths(drawn: dict[int, tuple[int, int]], first: tuple[int, int]) -> None:
    """Forward and backward give what a sum over every path of levels gives, the chance of a loss too."""
    knots = [Knot(-1, *first), *(Knot(place, *drawn[place]) for place in sorted(drawn))]
    steps = 4
    levels, prior = curve._LEVELS, curve._PRIOR
    whole: list[dict[tuple[int, int], float]] = [{} for _ in knots[1:]]
    total = lost = 0.0
    for changes in curve._CHANGES:
        change = min(curve._MOST_CHANGE, changes / steps)
        for path in itertools.product(range(len(levels)), repeat=len(knots)):
            # The chance of each way to get from level to level: it stayed, or it was drawn anew.
            weight = prior[path[0]]
            chances: list[tuple[float, float]] = []
            for before, after, x, y in zip(knots, knots[1:], path, path[1:], strict=False):
                stay = (1 - change) ** (after.place - before.place)
                chances.append((stay * (x == y), (1 - stay) * prior[y]))
            for knot, level in zip(knots, path, strict=True):
                weight *= levels[level] ** knot.flips * (1 - levels[level]) ** knot.others
            whole_path = weight * math.prod(a + b for a, b in chances)
            total += whole_path
            falls = any(levels[x] - levels[y] >= curve.LOSS for x, y in itertools.pairwise(path))
            lost += whole_path * falls
            for index, (x, y) in enumerate(itertools.pairwise(path)):
                rest = math.prod(a + b for at, (a, b) in enumerate(chances) if at != index)
                whole[index][x, y] = whole[index].get((x, y), 0.0) + weight * rest * chances[index][1]
    found = Curve.of(knots, steps=steps)
    assert found.loss == pytest.approx(lost / total, rel=1e-6, abs=1e-9)
    for gap, masses in zip(found.gaps, whole, strict=True):
        for (x, y), mass in masses.items():
            got = sum(left[x] * right[y] for left, right in gap.parts)
            assert got == pytest.approx(mass / total, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    "curve_", [(0.27, 0.17, 0.20, 0.0, 0.0), (0.5,) * 7 + (0.1,) * 6], ids=["clerk", "middle"]
)
def test_no_prefix_takes_all_forks(curve_: tuple[float, ...]) -> None:
    """A search ends within 340 forks, and never draws one prefix on and on while its neighbours starve."""
    for seed in range(8):
        rng = random.Random(seed)
        search = Search(Plan(steps=len(curve_) - 1, mode="value", deterministic="never"))
        spent = run(search, lambda request, rng=rng: rng.random() < curve_[request.kept])
        assert spent.trials <= 340
        drawn = [len(arm.outcomes) for arm in search._state.ledger.arms.values()]
        assert max(drawn) <= 60 or sorted(drawn)[-2] >= 12


def test_outcomes_in_any_order_ask_for_the_same_forks() -> None:
    """The search waits for all that it asked for, so its course does not depend on what ends first."""
    courses = []
    for backwards in (False, True):
        search = Search(Plan(steps=8, mode="value", deterministic="never"))
        asked: list[list[str]] = []
        while batch := list(search.next_batch()):
            asked.append(sorted(request.trial_id for request in batch))
            for request in reversed(batch) if backwards else batch:
                draw = random.Random(request.trial_id).random()
                search.observe(request.trial_id, draw < (0.5 if request.kept < 5 else 0.0))
        courses.append(asked)
    assert courses[0] == courses[1]


def test_what_is_not_certified_is_told_as_a_chance() -> None:
    """A slope that no step explains ends with where it is likeliest and the model's chance of a loss."""
    rng = random.Random(3)
    slope = [0.5 - 0.05 * kept for kept in range(10)] + [0.0]
    search = Search(Plan(steps=10, mode="value", deterministic="never", max_trials=60))
    found = run(search, lambda request: rng.random() < slope[request.kept]).findings
    assert found.certified == ()
    assert found.guess is not None
    assert "by the model the chance" in found.message


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("flat", [0.1, 0.5, 0.95])
def test_forks_are_offered_for_a_loss_that_is_said_to_be_a_chance(flat: float, seed: int) -> None:
    """Where nothing is lost a limit's end says so, or of what its offer depends: never both in one breath."""
    rng = random.Random(seed)
    search = Search(Plan(steps=4, mode="value", deterministic="never", max_trials=16))
    told = run(search, lambda request: rng.random() < flat).findings.message
    if "none of which ended otherwise" in told or "as far as they tell, none loses" in told:
        assert "more forks may" not in told
    else:
        offer = r"loses 0.25 or more is \d+%: if one does, about \d+ more forks may certify it: "
        assert re.search(offer, told)


@pytest.mark.slow
def test_as_many_forks_as_are_told_certify_a_loss_in_most_experiments() -> None:
    """Of curves some step of which loses 0.25 or more; twice as many are what it says to go on with."""
    rng, hits = random.Random(5), {1: 0, 2: 0}
    seen = 0
    while seen < 80:
        curve_ = curve.drawn(6, rng)
        if max(high - low for high, low in itertools.pairwise(curve_)) < curve.LOSS:
            continue
        told: dict[str, bool] = {}

        def outcome(request: TrialRequest, told: Any = told, curve_: Any = curve_) -> bool:
            return told.setdefault(request.trial_id, rng.random() < curve_[request.kept])

        plan = Plan(steps=6, mode="value", deterministic="never", max_trials=16)
        guess = run(Search(plan), outcome).findings.guess
        if guess is None or guess.forks is None:
            continue
        seen += 1
        for times in hits:
            more = replace(plan, max_trials=16 + times * guess.forks)
            hits[times] += bool(run(Search(more), outcome).findings.certified)
    assert 0.35 <= hits[1] / seen <= 0.75
    assert hits[2] / seen >= 0.75


@pytest.mark.parametrize(
    ("forks", "where"),
    [
        (6, "after 6 forks; nothing tells the steps apart so far, and by the model"),
        (10, "after 10 forks; likeliest is one of steps 3 to 5, and by the model"),
        (20, "after 20 forks; likeliest is step 1, and by the model"),
    ],
)
def test_where_a_loss_is_likeliest_is_told_as_far_as_it_is_known(forks: int, where: str) -> None:
    """A stretch that is the whole run is none."""
    rng = random.Random(0)
    curve_ = [0.5] * 4 + [0.0] * 3 if forks == 10 else [0.6] * 3 + [0.0] * 4
    search = Search(Plan(steps=6, mode="value", deterministic="never", max_trials=forks))
    assert where in run(search, lambda request: rng.random() < curve_[request.kept]).findings.message


@pytest.mark.parametrize(
    ("most", "said"), [(None, r"last --budget USD \("), (40, r"last --budget USD --max-trials \d+ \(")]
)
def test_what_the_budget_ended_goes_on_with_a_higher_budget(most: int | None, said: str) -> None:
    """More forks alone would be none: it names the limits that are in the way."""
    rng = random.Random(3)
    search = Search(Plan(steps=6, mode="value", deterministic="never", max_trials=most))
    drop = (0.6, 0.6, 0.3, 0.3, 0.0, 0.0, 0.0)
    ended = run(search, lambda request: rng.random() < drop[request.kept], budget=60.0).findings
    assert ended.stop_reason == "budget"
    assert re.search(said, ended.message), ended.message


def test_a_search_at_its_end_goes_on_where_more_forks_are_allowed() -> None:
    """Its trials are told again, and what it asks for then comes after them."""
    curve_ = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
    for seed in range(40):
        rng = random.Random(seed)
        told: dict[str, tuple[bool | None, str, bool]] = {}

        def drawn(request: TrialRequest, rng: random.Random = rng, told: Any = told) -> bool:
            flipped = rng.random() < curve_[request.kept]
            told[request.trial_id] = (flipped, "", False)
            return flipped

        plan = Plan(steps=6, mode="value", deterministic="never")
        ended = run(Search(plan), drawn)
        if ended.trials < 300 or ended.findings.certified:
            continue
        assert "more forks may certify it: blame resume last --max-trials" in ended.findings.message
        more = Search(replace(plan, max_trials=900))
        assert more.replay(told) == ended.trials
        assert not more.done
        assert run(more, drawn).trials > 0
        return
    raise AssertionError("no search came to its end with nothing certified")


def test_all_goes_on_after_a_certificate() -> None:
    """With `every` a search looks for smaller drops, too."""
    curve_ = (0.95,) * 4 + (0.15,) * 4 + (0.0,) * 2
    counts = []
    for every in (False, True):
        forks = 0
        for seed in range(5):
            rng = random.Random(seed)
            plan = Plan(steps=9, mode="value", deterministic="never", every=every)
            forks += run(Search(plan), lambda request, rng=rng: rng.random() < curve_[request.kept]).trials
        counts.append(forks)
    assert counts[1] > counts[0]


def test_two_forks_tell_nothing_of_any_step() -> None:
    """A search that a budget ended at once screens no step out."""
    search = Search(Plan(steps=4, mode="value", max_trials=2))
    found = run(search, lambda request: False).findings
    assert {effect.verdict for effect in found.effects} == {"untested"}
