"""The search as a state machine: order, interruption, budgets, undefined forks and each mode's answer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import get_args

import pytest
from tracefork_backend.blaming.contrast import PAIRED_SHARE
from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.findings import Findings
from tracefork_backend.blaming.modes import MODES
from tracefork_backend.blaming.plan import ModeName, Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.statistics import PairedDifferences, TwoByTwo
from tracefork_backend.validate.worlds import NoisyOr, conjunction, noise_of, planted

from tracefork_otel.errors import UsageError

Sampler = Callable[[TrialRequest], bool | None]


def world(steps: int = 8, *, cause: int | None = 3, own: float = 0.9, noise: float = 0.05) -> NoisyOr:
    """Return a world with at most one cause and no echoes."""
    chances = tuple(own if step == cause else 0.0 for step in range(steps))
    return NoisyOr(
        steps=steps,
        noise=noise_of(steps, noise),
        own=chances,
        causes=() if cause is None else (cause,),
    )


def fixed_sampler(planted_world: NoisyOr, seed: int = 0) -> Sampler:
    """Return outcomes that depend on the trial's id alone, so that order cannot matter by itself."""
    return lambda request: planted_world.flips(request, random.Random(f"{seed} {request.trial_id}"))


def passing(steps: int, **settings: object) -> Plan:
    """Return an intervene plan for a run that succeeded."""
    return Plan(**{"steps": steps, "mode": "intervene", "parent_failed": False, **settings})  # type: ignore[arg-type]


def run_scrambled(
    plan: Plan, sample: Sampler, seed: int, jobs: int
) -> tuple[Findings, dict[str, TrialRequest]]:
    """Run a search with so many workers, whose trials end in random order."""
    rng = random.Random(seed)
    search = Search(plan)
    running: list[TrialRequest] = []
    asked: dict[str, TrialRequest] = {}
    while not search.done:
        for request in search.next_batch(jobs - len(running)):
            assert request.trial_id not in asked
            asked[request.trial_id] = request
            running.append(request)
        done = running.pop(rng.randrange(len(running)))
        search.observe(done.trial_id, sample(done))
        if jobs == 3:
            # Looking changes nothing: the answer so far is asked for after every trial.
            assert len(search.verdict().effects) == plan.steps
    return search.verdict(), asked


@pytest.mark.parametrize(
    ("plan", "planted_world"),
    [
        (passing(8), world()),
        (passing(30), planted(random.Random(1), 30, causes=2, noise=0.1)),
        (passing(10), conjunction(random.Random(2), 10, members=2, noise=0.1)),
        (Plan(steps=12, mode="value"), world(12, cause=None, noise=0.4)),
        (Plan(steps=6, mode="fixed", k=7), world(6)),
    ],
    ids=["singles", "halving", "set", "value", "fixed"],
)
def test_order_of_arrival_changes_nothing(plan: Plan, planted_world: NoisyOr) -> None:
    """One worker or nine, in any order: the same trials are asked for and the findings are equal."""
    sample = fixed_sampler(planted_world)
    one, asked = run_scrambled(plan, sample, 1, 1)
    for seed, jobs in ((2, 3), (3, 9), (4, 64)):
        assert run_scrambled(plan, sample, seed, jobs) == (one, asked)
    assert one.trials == len(asked)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_an_interrupted_search_resumes_without_paying_twice(share: float) -> None:
    """Recorded trials put a new search where the old one was, and only the missing ones are asked for."""
    plan, sample = passing(20), fixed_sampler(planted(random.Random(5), 20, causes=1, noise=0.1))
    whole, asked = run_scrambled(plan, sample, 1, 4)
    search = Search(plan)
    recorded: dict[str, tuple[bool | None, str, bool]] = {}
    while not search.done and len(recorded) < share * len(asked):
        for request in search.next_batch(4):
            recorded[request.trial_id] = (sample(request), "", False)
            search.observe(request.trial_id, *recorded[request.trial_id][:1])
    resumed = Search(plan)
    assert resumed.replay(recorded) == len(recorded)
    fresh: set[str] = set()
    while not resumed.done:
        for request in resumed.next_batch(5):
            fresh.add(request.trial_id)
            resumed.observe(request.trial_id, sample(request))
    assert resumed.verdict() == whole
    assert fresh == set(asked) - set(recorded)


def test_replicates_and_places_of_a_trial() -> None:
    """A treatment keeps what came before its step, a control keeps the step too, and ids name arm and
    replicate.
    """
    search = Search(passing(6))
    seen: dict[str, TrialRequest] = {}
    sample = fixed_sampler(world(6, cause=2))
    while not search.done:
        for request in search.next_batch(10):
            seen[request.trial_id] = request
            search.observe(request.trial_id, sample(request))
    for request in seen.values():
        assert request.trial_id == f"{request.arm_id}#{request.replicate}"
        if request.role == "treatment":
            assert request.altered == request.steps
            assert request.kept == request.steps[0]
        if request.role == "control":
            assert request.altered == ()
            assert request.kept == request.steps[0] + 1
    assert {"control", "treatment"} <= {request.role for request in seen.values()}


def test_every_number_comes_from_the_trials() -> None:
    """Counts, rates and the e-value of a certified step are those of its recorded outcomes, by blocks."""
    plan, sample = passing(8), fixed_sampler(world(noise=0.15))
    outcomes: dict[str, bool | None] = {}

    def noted(request: TrialRequest) -> bool | None:
        outcomes[request.trial_id] = sample(request)
        return outcomes[request.trial_id]

    found = run(Search(plan), noted).findings
    effect = found.effects[3]
    assert effect.verdict == "certified"
    assert effect.is_root
    treated = [outcomes[f"alter:3#{index}"] for index in range(effect.n_treatment)]
    control = [outcomes[f"keep:3#{index}"] for index in range(effect.n_control)]
    test = TwoByTwo()
    for x, y in zip(treated, control, strict=False):
        test.update(bool(x), bool(y))
    pairs = PairedDifferences()
    for x, y in zip(treated, control, strict=False):
        pairs.update(bool(x), bool(y))
    mean = (1 - PAIRED_SHARE) * math.exp(test.log_e) + PAIRED_SHARE * math.exp(pairs.log_e(0.0))
    assert effect.log_e == pytest.approx(math.log(mean))
    assert effect.flips_treatment == sum(map(bool, treated))
    assert effect.flip_rate == sum(map(bool, treated)) / len(treated)
    assert effect.effect == effect.flip_rate - (effect.control_rate or 0.0)
    assert effect.q_value is not None
    assert effect.q_value <= plan.alpha
    assert effect.ci_low is not None
    assert effect.ci_low > 0
    assert found.trials == len(outcomes)
    assert found.top == 3
    assert "step 3" in found.message


def test_the_output_is_not_a_cause() -> None:
    """The graded step and blocked steps are never altered, and say so."""
    found = run(Search(passing(5, blocked=frozenset({1}))), fixed_sampler(world(5))).findings
    assert found.effects[4].verdict == "output"
    assert found.effects[1].verdict == "not_intervenable"
    assert found.effects[3].verdict == "certified"


@pytest.mark.parametrize("budget", [0, 1, 7, 30, 90])
def test_the_number_of_forks_ends_with_an_answer(budget: int) -> None:
    """At any number of forks the search stops there, with a verdict for every step and the reason."""
    plan = passing(20, max_trials=budget)
    spent = run(Search(plan), fixed_sampler(planted(random.Random(3), 20, causes=1, noise=0.1)))
    assert spent.trials == budget
    assert spent.findings.stop_reason == "max_trials"
    assert len(spent.findings.effects) == 20
    assert f"the number of forks ended the search: {budget} at most" in spent.findings.message
    for effect in spent.findings.effects:
        assert effect.verdict != "certified" or (effect.q_value or 1) <= 0.05


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("first", [7, 30, 90])
def test_a_search_that_ended_at_a_number_of_forks_goes_on_with_a_higher_one(first: int, jobs: int) -> None:
    """Whatever order its trials ended in, each counts, and none is asked for again."""
    sample = fixed_sampler(planted(random.Random(3), 20, causes=1, noise=0.1))
    whole, asked = run_scrambled(passing(20), sample, 1, 4)
    found, begun = run_scrambled(passing(20, max_trials=first), sample, 2, jobs)
    assert found.trials == len(begun) == first
    recorded = {trial_id: (sample(one), "", False) for trial_id, one in begun.items()}
    again = Search(passing(20, max_trials=first))
    assert again.replay(recorded) == first
    assert again.verdict() == found
    later, fresh = Search(passing(20)), set[str]()
    later.replay(recorded)
    while not later.done:
        for request in later.next_batch():
            fresh.add(request.trial_id)
            later.observe(request.trial_id, sample(request))
    assert later.verdict() == whole
    assert fresh == set(asked) - set(begun)


def test_money_stops_before_it_is_overspent() -> None:
    """A budget in money is never passed, and a fork costs what is left to run after what it keeps."""
    plan = passing(10, costs=tuple(float(10 - kept) for kept in range(11)))
    spent = run(Search(plan), fixed_sampler(world(10)), budget=200.0)
    assert 190 <= spent.cost <= 200
    assert spent.findings.stop_reason == "budget"


def test_late_outcomes_of_a_stopped_search_are_counted_only() -> None:
    """After the stop outstanding trials may still report; an unknown trial is refused while the search
    runs.
    """
    search = Search(passing(6))
    requests = search.next_batch(3)
    with pytest.raises(UsageError, match="not asked for"):
        search.observe("alter:0#99", True)
    search.stop()
    for request in requests:
        search.observe(request.trial_id, False)
    assert search.verdict().trials == 3
    assert search.done
    assert not search.next_batch(10)


def test_ungradable_forks_are_no_evidence_of_no_flip() -> None:
    """A step none of whose forks can be graded is not intervenable, and not screened out."""
    sample = fixed_sampler(world(6, cause=4))
    found = run(
        Search(passing(6)), lambda r: None if 1 in r.altered and len(r.altered) == 1 else sample(r)
    ).findings
    assert found.effects[1].verdict == "not_intervenable"
    assert found.effects[1].flip_rate is None
    assert found.effects[4].verdict == "certified"


def test_a_claim_must_survive_the_worst_of_undefined_forks() -> None:
    """Where nearly all non-flips of an innocent step vanish, it looks guilty, and nobody is fooled: the
    bounds show what is open.
    """
    for seed in range(5):
        rng = random.Random(seed)

        def sample(request: TrialRequest, rng: random.Random = rng) -> bool | None:
            if rng.random() < 0.4:
                return True
            return None if 2 in request.altered and rng.random() < 0.98 else False

        effect = run(Search(passing(4)), sample).findings.effects[2]
        assert effect.verdict != "certified"
        assert effect.undefined_treatment > 10
        assert effect.bound_low is not None
        assert effect.bound_high is not None
        assert effect.bound_high - effect.bound_low > 0.3


@pytest.mark.parametrize(("limit", "trials"), [({}, 14), ({"max_trials": 8}, 8), ({"budget": 40.0}, 5)])
def test_nothing_gradable_is_no_verdict(limit: dict[str, float], trials: int) -> None:
    """An oracle that never decides aborts the experiment in its controls, and before a limit that ends it."""
    plan = passing(9, max_trials=limit.get("max_trials"))
    spent = run(Search(plan), lambda request: None, budget=limit.get("budget"))
    assert spent.findings.stop_reason == "aborted"
    assert spent.findings.certified == ()
    assert spent.trials == trials
    assert "oracle" in spent.findings.message


def test_the_flag_knows_every_mode() -> None:
    """Their names are written down without them, so that help is quick; none is missing."""
    assert get_args(ModeName) == tuple(mode.name for mode in MODES)


@pytest.mark.parametrize("mode", get_args(ModeName))
def test_nothing_gradable_is_no_verdict_in_any_mode(mode: ModeName) -> None:
    """However the steps are compared."""
    for natural in (False, True):
        plan = Plan(steps=3, mode=mode, natural=natural, k=2)
        assert run(Search(plan), lambda request: None).findings.stop_reason == "aborted"


def test_a_refused_attempt_is_one_step_with_its_answer() -> None:
    """It is tried in no mode and certified by none: what it stands for is the answer's, wherever that is."""
    attempts = ((2, 4), (3, 4), (5, 6))
    asked: set[int] = set()

    def changed(request: TrialRequest) -> bool:
        asked.update(request.altered)
        return 4 in request.altered or 2 in request.altered

    found = run(Search(passing(8, attempts=attempts)), changed, tail="same").findings
    assert (found.certified, asked & {2, 3, 5}) == ((4,), set())
    assert (found.effects[3].verdict, found.effects[3].reason) == (
        "not_intervenable",
        "a refused attempt at what step 4 is the answer to: one step with it",
    )
    rng = random.Random(5)
    plan = Plan(steps=8, mode="value", attempts=attempts)
    found = run(Search(plan), lambda request: request.kept <= 4 and rng.random() < 0.8).findings
    assert found.certified == (4,)
    assert {found.effects[step].verdict for step in (2, 3, 5)} == {"not_intervenable"}
    plan = Plan(steps=8, mode="fixed", natural=True, k=3, attempts=attempts)
    found = run(Search(plan), lambda request: True).findings
    assert [one.n_treatment for one in found.effects] == [3, 3, 0, 0, 3, 0, 3, 3]
    assert [plan.place(step, after=1) for step in (4, 6, 7)] == [2, 3, 4]
    everywhere = Plan(steps=3, mode="value", attempts=((0, 2), (1, 2)))
    rng = random.Random(1)
    assert run(Search(everywhere), lambda request: rng.random() < 0.5).findings.certified == ()


def test_a_constant_oracle_blames_nobody() -> None:
    """If every fork flips, so do the controls: the recorded outcome is the odd one, and no step is blamed."""
    found = run(Search(passing(9)), lambda request: True).findings
    assert found.stop_reason == "unstable"
    assert found.certified == ()
    found = run(Search(passing(9)), lambda request: False).findings
    assert found.stop_reason == "none_found"
    assert found.top is None


def test_a_deterministic_agent_costs_one_fork_a_step() -> None:
    """Identical unchanged re-runs are noticed: one fork each, four pairs where it flips."""
    spent = run(Search(passing(9)), lambda request: 4 in request.altered, tail="same")
    found = spent.findings
    assert found.deterministic
    assert spent.trials == 6 + 8 + 3 + 4
    assert found.certified == (4,)
    effect = found.effects[4]
    assert (effect.effect, effect.ci_kind, effect.e_value) == (1.0, "deterministic", None)
    assert "deterministic" in found.message


def test_noise_that_looks_deterministic_blames_nobody() -> None:
    """An agent that answers with one word is often alike by chance, which two equal forks do not rule out."""
    rng = random.Random(2)
    blamed = 0
    for _ in range(1000):
        search = Search(passing(5, max_trials=40))
        while not search.done:
            for request in search.next_batch(100):
                flipped = rng.random() < 0.2
                search.observe(request.trial_id, flipped, tail=str(flipped))
        blamed += bool(search.verdict().certified)
    assert blamed <= 5


def test_determinism_that_does_not_hold_is_given_up() -> None:
    """If a second fork of a step differs from the first, the search goes on as for any agent."""
    rng = random.Random(1)
    search = Search(passing(6))
    while not search.done:
        for request in search.next_batch(100):
            flipped = 2 in request.altered and rng.random() < 0.9
            search.observe(request.trial_id, flipped, tail=str(rng.random()) if request.altered else "same")
    found = search.verdict()
    assert not found.deterministic
    assert found.effects[2].verdict == "certified"
    assert found.effects[2].n_treatment > 5


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("tail", ["", "same"])
def test_steps_that_count_only_together_are_named(repair: bool, tail: str) -> None:
    """Neither alone flips, both do: the set is certified, its kind says how, and no step is blamed alone."""
    spent = run(Search(passing(10, repair=repair)), lambda r: {2, 7} <= set(r.altered), tail=tail)
    found = spent.findings
    assert [(each.steps, each.verdict) for each in found.sets] == [((2, 7), "certified")]
    assert found.sets[0].kind == ("or" if repair else "and")
    assert found.certified == (2, 7)
    assert all(effect.verdict != "certified" for effect in found.effects)
    assert "together" in found.message


def test_an_echo_is_not_a_root() -> None:
    """A later step whose effect vanishes once the root is altered is its echo; one that adds is not."""
    rng = random.Random(4)

    def echoing(request: TrialRequest) -> bool:
        chance = 0.75 if 1 in request.altered else 0.6 if 4 in request.altered else 0.0
        return rng.random() < chance

    echoes: list[int | None] = []
    for _ in range(10):
        found = run(Search(passing(7)), echoing).findings
        if found.certified == (1, 4):
            assert found.effects[1].is_root
            echoes.append(found.effects[4].echo_of)
            # Whether it adds may stay open; then it is neither an echo nor, but for a mistake, a root.
    assert len(echoes) >= 7
    assert set(echoes) <= {1, None}
    assert echoes.count(1) >= len(echoes) // 2

    def adding(request: TrialRequest) -> bool:
        return any(step in request.altered and rng.random() < 0.7 for step in (1, 4))

    for _ in range(5):
        found = run(Search(passing(7)), adding).findings
        assert found.effects[1].is_root
        assert found.effects[4].echo_of is None


def test_fixed_mode_gives_rates_and_no_verdicts() -> None:
    """Every step gets k forks and Wilson's interval of its flip rate; nothing is certified without a
    control.
    """
    spent = run(Search(Plan(steps=6, mode="fixed", k=9)), fixed_sampler(world(6)))
    assert spent.trials == 5 * 9
    assert spent.findings.certified == ()
    effect = spent.findings.effects[3]
    assert (effect.n_treatment, effect.control_rate, effect.effect, effect.ci_kind) == (
        9,
        None,
        None,
        "wilson",
    )
    assert spent.findings.top == 3
    assert len(Search(Plan(steps=6, mode="fixed", k=9)).next_batch(1000)) == 45


@pytest.mark.parametrize(
    ("plan", "noise", "mode"),
    [
        (Plan(steps=8, parent_failed=True), 0.5, "value"),
        (Plan(steps=8, parent_failed=True), 0.02, "intervene"),
        (Plan(steps=8, parent_failed=False), 0.3, "intervene"),
        (Plan(steps=8, natural=True), 0.02, "value"),
    ],
    ids=["failed by chance", "failed surely", "succeeded", "nothing to try but a redraw"],
)
def test_auto_picks_the_question_that_fits(plan: Plan, noise: float, mode: str) -> None:
    """A failure that unchanged re-runs often escape is asked where it was lost, any other what caused it."""
    found = run(Search(plan), fixed_sampler(world(8, noise=noise))).findings
    assert found.mode == mode


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "nothing to blame"),
        ({"steps": 3, "alpha": 1.5}, "alpha"),
        ({"steps": 3, "k": 0}, "at least one fork"),
        ({"steps": 3, "costs": (1.0,)}, "costs"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings: dict[str, object], words: str) -> None:
    """Bad settings are an error that names the setting."""
    with pytest.raises(UsageError, match=words):
        Plan(**settings)  # type: ignore[arg-type]


def test_a_run_of_one_step_has_an_answer() -> None:
    """The only step is the output: nothing to try, said so, and nothing spent."""
    spent = run(Search(passing(1)), lambda request: True)
    assert spent.trials == 0
    assert spent.findings.effects[0].verdict == "output"
    assert "no step can be tried" in spent.findings.message
