"""Trials of one replicate share what models answered: fewer live calls, no more innocents certified."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import changes, journal
from tracefork_backend.blaming.contrast import Contrast
from tracefork_backend.blaming.experiment import Progress
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import Arm, Ledger, TrialRequest
from tracefork_backend.blaming.verifying import verify
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, Usage
from tracefork_backend.store import Run, open_store
from tracefork_backend.validate.agents import ask

import tracefork_otel
from tracefork_otel import UsageError

GRADED = tf.regex(success="WON", failure="LOST")
BAD = changes.ablate("bad")


class Sums:
    """A model that answers a question with a random number, and tells a sum of words by what is in them."""

    def __init__(self) -> None:
        self.rng = random.Random(5)
        self.lost = 0.0

    def __call__(self, call: Call) -> Reply:
        """Never twice the same, so that only memory can repeat an answer."""
        used = Usage(input_tokens=1000, output_tokens=0)
        if not call.last.startswith("sum "):
            return Reply(text=f"good-{self.rng.randrange(10**9)}", usage=used)
        lost = "bad" in call.last.split()[2] or self.rng.random() < self.lost
        return Reply(text="LOST" if lost else "WON", usage=used)


MODEL = Sums()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(MODEL) as running:
        yield running


@pytest.fixture
def run(capture: Capture, server: ModelServer) -> Run:
    """A recorded run of five steps that won."""
    MODEL.lost = 0.0
    capture.on()
    tracefork_otel.agent(ask)(server.url, 5)
    capture.off()
    server.requests.clear()
    return open_store(capture.store).run("last")


def said(run: Run, run_id: str) -> dict[str, str]:
    """What each question of a trial was answered."""
    exchanges = open_store(run.store.path).exchanges(run_id)
    asked = [one.request.body.decode().partition('"content":"')[2].partition('"')[0] for one in exchanges]
    return {
        question: one.response.body.decode().partition('"text":"')[2].partition('"')[0]
        for question, one in zip(asked, exchanges, strict=True)
        if one.response is not None and question.startswith("question")
    }


@pytest.mark.slow
def test_trials_of_a_replicate_share_answers_and_no_others_do(run: Run, server: ModelServer) -> None:
    """Equal requests are asked once in a replicate, free the second time, and anew in each other one."""
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="fixed", k=2, agent=ask)
    live = sum(one.calls_live for one in result.trials)
    shared = sum(one.calls_memo for one in result.trials)
    assert len(server.requests) == live
    # Of four arms that each re-run all that follows, the first asks; only the sums are all different.
    assert [one.calls_memo for one in result.trials if one.replicate == 0] == [0, 2, 1, 0]
    assert shared == 2 * 3
    first = {one.steps[0]: said(run, one.run_id) for one in result.trials if one.replicate == 0}
    other = {one.steps[0]: said(run, one.run_id) for one in result.trials if one.replicate == 1}
    assert first[0]["question 3"] == first[1]["question 3"] == first[2]["question 3"]
    assert first[0]["question 3"] != other[0]["question 3"]
    price = {one.calls_live: one.cost_usd for one in result.trials}
    assert price[4] == pytest.approx(4 * (price[1] or 0.0))
    (row,) = open_store(run.store.path).rows("select sum(calls_memo) as shared from blame_trials")
    assert row["shared"] == shared
    assert verify(open_store(run.store.path), "last")[1] == []


def test_side_by_side_a_trial_sees_those_that_were_begun_before_it_could_be(
    run: Run, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shared hangs on the order of trials and on how many run at once, never on which ends first."""
    from tracefork_backend.rerun.memory import Memories

    memories = Memories(tmp_path, lag=2, match="exact", ignore=())
    exchanges = open_store(run.store.path).exchanges(run.run_id)
    tails = [_tail(one) for one in exchanges[:2]]
    seen: list[int] = []
    for number in range(4):
        intervention = tmp_path / f"{number}.json"
        memories.begin("#0", number, intervention)
        memories.add("#0", number, tails)
        memories.ended("#0", number)
        found = intervention.with_name(f"{number}.json.memory")
        seen.append(len(found.read_text().splitlines()) if found.exists() else 0)
    assert seen == [0, 0, 2, 2]


def _tail(exchange: tracefork_otel.exchange.Exchange) -> tracefork_otel.exchange.Exchange:
    import dataclasses

    return dataclasses.replace(exchange, attributes={**exchange.attributes, "tracefork.phase": "tail"})


@pytest.mark.slow
def test_an_interrupted_experiment_remembers_what_it_was_answered(run: Run, server: ModelServer) -> None:
    """Trials after an interrupt share answers with those of before, and the experiment recomputes exactly."""

    def interrupt(progress: Progress) -> None:
        if progress.forks == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tf.blame(run, oracle=GRADED, change=BAD, mode="fixed", k=1, agent=ask, on_progress=interrupt)
    experiment = journal.find(run.store.path, "last")
    again = open_store(run.store.path).run(run.run_id)
    asked = len(server.requests)
    result = tf.blame(again, oracle=GRADED, change=BAD, mode="fixed", k=1, agent=ask, resume=experiment)
    assert [one.calls_memo for one in result.trials] == [0, 2, 1, 0]
    assert len(server.requests) - asked == sum(one.calls_live for one in result.trials[3:])
    assert verify(open_store(run.store.path), "last")[1] == []


@pytest.mark.slow
def test_recorded_coupling_holds_what_the_run_was_answered(run: Run, server: ModelServer) -> None:
    """Where every request but the last repeats the run's, only that is asked, and the experiment says so."""
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="fixed", k=1, agent=ask, coupling="recorded")
    assert [one.calls_live for one in result.trials] == [1, 1, 1, 1]
    assert [one.calls_memo for one in result.trials] == [3, 2, 1, 0]
    (row,) = open_store(run.store.path).rows("select coupling from blame_experiments")
    assert row["coupling"] == "recorded"
    with pytest.raises(UsageError, match="no coupling `recorded`"):
        tf.blame(run, oracle=GRADED, mode="value", agent=ask, coupling="recorded")


def _arms() -> tuple[Arm, Arm]:
    ledger = Ledger()
    return ledger.alter((0,)), ledger.keep(0)


def mean_e(blocks: int, rate: float, shares: float, answer: Callable[[bool], bool], *, honest: bool) -> float:
    """The exact mean e-value where a control that shares ends as `answer` makes of its treatment's end."""
    total = 0.0
    kinds = list(itertools.product((True, False), (True, False), (True, False)))
    for drawn in itertools.product(kinds, repeat=blocks):
        treatment, control = _arms()
        chance = 1.0
        for at, (x, y, shared) in enumerate(drawn):
            chance *= (
                (rate if x else 1 - rate) * (rate if y else 1 - rate) * (shares if shared else 1 - shares)
            )
            treatment.record(at, x, "")
            control.record(at, answer(x) if shared else y, "", shared=shared and honest)
        if chance:
            contrast = Contrast(treatment, control)
            contrast.fold()
            total += chance * math.exp(contrast.log_e)
    return total


@pytest.mark.parametrize("shares", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("answer", [lambda x: x, lambda x: not x], ids=["alike", "opposite"])
def test_e_value_has_mean_at_most_one_whatever_is_shared(
    shares: float, answer: Callable[[bool], bool]
) -> None:
    """An innocent step wins nothing, whether its control ends as its treatment did or the other way round."""
    assert mean_e(4, 0.5, shares, answer, honest=True) <= 1 + 1e-9


def test_the_two_by_two_test_alone_would_not_hold_under_sharing() -> None:
    """Where sharing went unnoticed, trials that end opposite ways would look like evidence."""
    assert mean_e(4, 0.5, 1.0, lambda x: not x, honest=False) > 1.2


class Coupled:
    """An agent without a cause whose arms, of one scope and replicate, end by one coin, some inverted."""

    def __init__(self, seed: int, rate: float, *, shares: float) -> None:
        self.seed, self.rate, self.shares = seed, rate, shares

    def __call__(self, request: TrialRequest) -> tuple[bool, bool]:
        """Whether it flips, and whether it shared."""
        own = random.Random(f"{self.seed} {request.trial_id}")
        common = random.Random(f"{self.seed} {request.shares}").random()
        shared = own.random() < self.shares
        if not shared:
            return own.random() < self.rate, False
        # A control inverts the coin that treatments end by.
        return (common > 1 - self.rate if request.role == "control" else common < self.rate), True


def test_coupled_agents_without_a_cause_are_seldom_blamed() -> None:
    """Over 200 experiments whose arms share a coin, most of all against each other, hardly any blames."""
    wrong = 0
    for seed in range(200):
        world = Coupled(seed, (0.1, 0.3, 0.5)[seed % 3], shares=(0.3, 1.0)[seed % 2])
        search = Search(Plan(steps=6, mode="intervene", parent_failed=False))
        while not search.done:
            for request in search.next_batch(1 << 30):
                flips, shared = world(request)
                search.observe(request.trial_id, flips, shared=shared)
        wrong += bool(search.verdict().certified)
    assert wrong <= 4
