"""A budget holds: whatever trials cost, however many run, and wherever a director is killed and goes on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.rerun.budget import Budget, Grading, Purse
from tracefork_backend.rerun.edits import noop
from tracefork_backend.rerun.estimate import WORST
from tracefork_backend.rerun.forking import Fork, Forker, Planned
from tracefork_backend.rerun.records import Records
from tracefork_backend.rerun.spending import MoneyWatch, Spending, Tally
from tracefork_backend.rerun.stage import Stage
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import NONE_GIVEN, Rates, bill

from tracefork_otel import StoreError
from tracefork_otel.store import codec
from tracefork_otel.wire.messages import Usage


@dataclass
class World:
    """Trials as they are planned, what their calls cost in truth, and what was paid."""

    budget_usd: float
    estimate: float
    call: float
    trials: list[list[float]]
    crash_at: int
    width: int = 1
    """How many calls of a trial run at a time."""
    paid: float = 0.0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Judge:
    """An oracle that is paid for."""

    worst_usd: float
    cost_usd: float = 0.0


def one_trial(world: World, purse: Purse, trial: list[float]) -> float:
    """The trial runs, so many calls at a time; when somebody looks, its next ones have begun already."""
    waves = [trial[at : at + world.width] for at in range(0, len(trial), world.width)]
    spent, dearest, goes_on = 0.0, 0.0, True
    for at, wave in enumerate(waves):
        spent, dearest = spent + sum(wave), max(dearest, *wave)
        with world.lock:
            world.paid += sum(wave)
            world.calls += len(wave)
        if not goes_on:
            break
        running = len(waves[at + 1]) if at + 1 < len(waves) else 0
        goes_on = purse.has_room(Spending(usd=spent, running=running, dearest_usd=dearest))
    return spent


def run(world: World, jobs: int) -> None:
    """Every trial that is admitted is run; the director is killed once, and another goes on."""
    left, killed = list(world.trials), False
    while True:
        budget = Budget(world.budget_usd)
        budget.reserve(0.0)
        budget.settle(0.0, world.paid)

        def play(trial: list[float], purse: Purse) -> None:
            purse.settle(one_trial(world, purse, trial))

        with ThreadPoolExecutor(jobs) as executor:
            for number, trial in enumerate(left):
                if not killed and number == world.crash_at:
                    break
                worst = max(world.estimate * WORST, world.call)
                if not budget.reserve(worst, wait=True):
                    return
                executor.submit(play, trial, Purse(budget, worst, world.call))
            else:
                return
        killed, left = True, left[world.crash_at :]


RATES = st.builds(Rates, st.floats(0, 50), st.floats(0, 200))
USAGE = st.builds(
    lambda asked, said: Usage(input_tokens=asked, output_tokens=said),
    st.integers(0, 200_000),
    st.integers(0, 30_000),
)


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(RATES, min_size=1, max_size=3),
    trials=st.lists(st.lists(st.tuples(USAGE, st.integers(0, 2)), min_size=1, max_size=6), max_size=24),
    share=st.floats(0, 1.2),
    guess=st.floats(0.01, 2),  # what is thought to be free always starts
    bounded=st.booleans(),
    jobs=st.integers(1, 16),
    crash_at=st.integers(0, 30),
    width=st.integers(1, 6),
)
def test_what_is_spent_passes_the_budget_by_running_calls_alone(
    rates: list[Rates],
    trials: list[list[tuple[Usage, int]]],
    share: float,
    guess: float,
    bounded: bool,
    jobs: int,
    crash_at: int,
    width: int,
) -> None:
    """By no more than the calls that each agent had begun when there was no room for them."""
    costs = [[rates[at % len(rates)].of(used).usd or 0.0 for used, at in trial] for trial in trials]
    every = [cost for trial in costs for cost in trial]
    dearest, whole = max(every, default=0.0), sum(every)
    world = World(
        budget_usd=share * whole,
        estimate=guess * whole / max(1, len(costs)),
        call=dearest if bounded else dearest * guess / 4,
        trials=costs,
        crash_at=crash_at,
        width=width,
    )
    run(world, jobs)
    over = world.paid - world.budget_usd
    # A call that takes more than was thought may have passed what was kept for it, too.
    running = 1 if bounded else 2
    assert over <= running * width * min(jobs, len(costs)) * dearest + 1e-6


def test_a_judge_that_costs_more_than_the_trials_is_held_too() -> None:
    """What it may take is set aside with each trial, and put right when it has graded."""
    budget, judge = Budget(1.0), Judge(worst_usd=0.3)
    grading = Grading(budget, judge)  # type: ignore[arg-type]
    judge.cost_usd = 0.1
    grading.begin()
    budget.spend(0.3)
    made = 0
    while budget.reserve(0.01 + grading.worst_usd):
        Purse(budget, 0.01, 0.01, grading_usd=grading.worst_usd).settle(0.01)
        judge.cost_usd += 0.2
        grading.graded()
        made += 1
        assert budget.spent_usd <= 1.0
    assert made == 2
    assert budget.exhausted


def test_a_budget_of_nothing_pays_for_nothing() -> None:
    """What costs nothing runs, a trial that may cost does not, and one that runs may not go on."""
    budget = Budget(0.0)
    assert budget.reserve(0.0)
    purse = Purse(budget, 0.0, 0.0)
    assert purse.has_room(Spending(usd=0.0, running=1))
    assert purse.has_room(Spending(usd=0.01))
    assert not budget.exhausted, "it was let go on"
    assert not purse.has_room(Spending(usd=0.01, running=1, dearest_usd=0.01))
    assert budget.exhausted
    purse.settle(0.01)
    assert not budget.reserve(0.001)
    assert budget.spent_usd == 0.01


def test_calls_without_a_price_take_what_was_set_aside() -> None:
    """So a model that counts nothing does not run for ever, nor does a trial of many such calls."""
    budget, made = Budget(1.0), 0
    while budget.reserve(0.2):
        Purse(budget, 0.2, 0.1).settle(None, 1)
        made += 1
    assert (made, budget.spent_usd) == (5, pytest.approx(1.0))
    many = Budget(1.0)
    assert many.reserve(0.2)
    purse = Purse(many, 0.2, 0.1)
    assert purse.has_room(Spending(usd=0.0, running=1, unpriced=1))
    assert not purse.has_room(Spending(usd=0.05, running=1, unpriced=9))
    purse.settle(0.05, 10)
    assert many.spent_usd == pytest.approx(1.05)


class Gate:
    """A gate that has room for one fork at a time."""

    def __init__(self) -> None:
        self.budget = Budget(1.0)
        self.purses: dict[int, Purse] = {}

    def admit(self, at: int) -> bool:
        """Wait until another fork has ended."""
        if not self.budget.reserve(0.4, wait=True):
            return False
        self.purses[at] = Purse(self.budget, 0.4, 0.1, grading_usd=0.0)
        return True

    def watching(self, at: int) -> None:
        """Let it go on."""

    def ended(self, at: int, fork: Fork) -> None:
        """Book what it cost."""
        self.purses.pop(at).settle(fork.cost_usd)

    def failed(self, at: int) -> None:
        """Book what was set aside."""
        self.purses.pop(at).failed()


@pytest.mark.parametrize("broken", ["run", "open_fork"])
def test_a_fork_that_raises_frees_what_was_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Nobody waits for it for ever, wherever it is that the disk is full."""
    store = open_store(tmp_path)
    run_id = record(tmp_path)
    gate = Gate()
    with Forker(store.run(run_id), agent=lambda: None) as forker:

        def full(*args: Any, **how: Any) -> None:
            raise StoreError("no space left")

        monkeypatch.setattr(Stage if broken == "run" else type(forker._stage.spans), broken, full)
        planned = Planned(change=noop().bind(forker.tape, 0))
        with pytest.raises(StoreError, match="no space left"):
            forker.forks([planned] * 3, gate=gate)
    assert not gate.purses
    assert gate.budget.reserve(0.6, wait=True)
    assert not gate.budget.reserve(0.1)


def test_each_call_that_runs_has_its_own_room() -> None:
    """An agent that makes eight calls at once may not make them where there is room for one."""
    budget = Budget(1.0)
    assert budget.reserve(0.2)
    purse = Purse(budget, 0.2, 0.1)
    assert purse.has_room(Spending(usd=0.1, running=8))
    assert budget.reserved_usd == pytest.approx(0.9)
    assert not purse.has_room(Spending(usd=0.1, running=8, dearest_usd=0.2))


def test_a_call_that_was_cut_short_is_booked_as_dear_as_the_dearest() -> None:
    """It is paid for all the same, and nobody was told what it took."""
    budget = Budget(1.0)
    assert budget.reserve(0.2)
    purse = Purse(budget, 0.2, 0.01)
    assert not purse.has_room(Spending(usd=0.8, running=1, dearest_usd=0.4))
    purse.settle(0.8, 1)
    assert budget.spent_usd == pytest.approx(1.2)


def test_a_watch_tells_calls_that_ended_without_a_count_from_the_one_that_runs(tmp_path: Path) -> None:
    """It ends the agent where the budget has no room for them."""
    run_id = trace()
    recorder = Recorder(tmp_path)
    recorder.exchange(run_id, asked("a"), b'{"type": "message", "role": "assistant", "content": []}')
    recorder.exchange(run_id, asked("b"), answered("ok", input_tokens=1000, output_tokens=0))
    recorder.ask(run_id, asked("c"))
    told: list[Spending] = []
    ended = threading.Event()

    def has_room(spent: Spending) -> bool:
        told.append(spent)
        return False

    with MoneyWatch(tmp_path, has_room, NONE_GIVEN, ended.set) as watch:
        assert ended.wait(60)
    recorder.close()
    (spent,) = told
    assert (spent.usd, spent.dearest_usd) == (pytest.approx(0.003), spent.usd)
    assert (spent.running, spent.unpriced) == (1, 1)
    assert watch.ended


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a run of many calls takes what came since the last one, also across a WAL's rotation."""
    run_id = trace()
    recorder = Recorder(tmp_path, rotate_bytes=4000)
    tally, decoded = Tally(tmp_path, NONE_GIVEN), 0
    decode = codec.decode

    def counting(*told: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*told)

    monkeypatch.setattr(codec, "decode", counting)
    calls = 40
    for n in range(calls):
        recorder.exchange(run_id, asked(f"turn {n}"), answered("ok", input_tokens=1000, output_tokens=0))
        if n % 4 == 0:
            recorder.ask(run_id, asked(f"never answered {n}"))
        spent = tally.now()
        assert (spent.usd, spent.running) == (pytest.approx(0.003 * (n + 1)), n // 4 + 1)
    assert decoded < 6 * calls
    recorder.close()
    live = Records.read(tmp_path).exchanges
    assert tally.now().usd == pytest.approx(bill(live).usd)
