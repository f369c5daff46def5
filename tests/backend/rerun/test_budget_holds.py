"""A budget holds: whatever trials cost, however many run, and wherever a director is killed and goes on."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.blaming.beforehand import unchanged
from tracefork_backend.blaming.running import Running
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.repairing.search import RepairPlan, RepairSearch, Try
from tracefork_backend.rerun.budget import Budget, Grading, Purse
from tracefork_backend.rerun.edits import noop, text
from tracefork_backend.rerun.estimate import WORST, estimate
from tracefork_backend.rerun.forker import Fork, Forker, Planned
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.records import Records
from tracefork_backend.rerun.spending import MoneyWatch, Room, Spending, Tally
from tracefork_backend.rerun.stage import Stage
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import NONE_GIVEN, Rates, bill

from tracefork_otel import StoreError, Tape
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
    slack: float = 1.0
    """How many times as much as it takes a call could take by its request."""
    told: float | None = None
    """What was said beforehand that a call can take at most."""
    at_once: int = 1
    """Of how many calls of a trial that was said."""
    paid: float = 0.0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Judge:
    """An oracle that is paid for."""

    worst_usd: float
    cost_usd: float = 0.0


def one_trial(world: World, room: Room, trial: list[float]) -> float:
    """The trial runs, so many calls at a time, each of which asks before it begins."""
    waves = [trial[at : at + world.width] for at in range(0, len(trial), world.width)]
    spent, dearest = 0.0, 0.0
    for wave in waves:
        running: list[float] = []
        for cost in wave:
            most = (*(world.slack * one for one in running), world.slack * cost)
            goes_on = room.has_room(
                Spending(usd=spent, running=len(most), dearest_usd=dearest, most_usd=most)
            )
            if goes_on:
                running.append(cost)
                with world.lock:
                    world.paid += cost
                    world.calls += 1
                continue
            # Its process is ended, and with it what runs: that is paid for.
            return spent + sum(running)
        spent, dearest = spent + sum(wave), max(dearest, *wave)
    return spent


def run(world: World, jobs: int) -> None:
    """Every trial that is admitted is run; the director is killed once, and another goes on."""
    left, killed = list(world.trials), False
    # Nothing is set aside for a trial that waits: it is, when it can start.
    free = threading.Semaphore(jobs)
    while True:
        budget = Budget(world.budget_usd)
        budget.reserve(0.0)
        budget.settle(0.0, world.paid)

        def play(trial: list[float], purse: Purse) -> None:
            try:
                purse.settle(one_trial(world, purse, trial))
            finally:
                free.release()

        with ThreadPoolExecutor(jobs) as executor:
            for number, trial in enumerate(left):
                if not killed and number == world.crash_at:
                    break
                worst = max(world.estimate * WORST, world.call)
                free.acquire()
                if not budget.reserve(worst, wait=True):
                    return
                purse = Purse(budget, worst, world.call, most_usd=world.told, at_once=world.at_once)
                executor.submit(play, trial, purse)
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
    told=st.floats(0, 2),
    slack=st.floats(1, 8),
    jobs=st.integers(1, 16),
    crash_at=st.integers(0, 30),
    width=st.integers(1, 6),
    at_once=st.integers(1, 6),
)
def test_what_is_spent_passes_the_budget_by_no_more_than_was_said(
    rates: list[Rates],
    trials: list[list[tuple[Usage, int]]],
    share: float,
    guess: float,
    told: float,
    slack: float,
    jobs: int,
    crash_at: int,
    width: int,
    at_once: int,
) -> None:
    """However wrong the guess, dear the calls, and many of them at once; what was said may be too little."""
    costs = [[rates[at % len(rates)].of(used).usd or 0.0 for used, at in trial] for trial in trials]
    every = [cost for trial in costs for cost in trial]
    dearest, whole = max(every, default=0.0), sum(every)
    world = World(
        budget_usd=share * whole,
        estimate=guess * whole / max(1, len(costs)),
        call=dearest * guess / 4,
        trials=costs,
        crash_at=crash_at,
        width=width,
        slack=slack,
        told=told * dearest,
        at_once=at_once,
    )
    run(world, jobs)
    over = world.paid - world.budget_usd
    assert over <= min(jobs, len(costs)) * min(width, at_once) * told * dearest + 1e-6


TRIAL = st.lists(USAGE, min_size=1, max_size=6) | st.builds(
    lambda used, calls: [used] * calls, USAGE, st.integers(4, 16)
)
"""Calls of any price, or, as agents make them that go on and on, many of one."""


class Repairing(Forker):
    """Forks of a repair that run no agent: each takes what its trial of the world does."""

    def __init__(self, tape: Tape, world: World, jobs: int, *, judge: Judge, helps: float, seed: int) -> None:
        self.tape, self.jobs, self.world, self._judge = tape, jobs, world, judge
        self._helps, self._rng, self._made = helps, random.Random(seed), 0
        self._memories: Any = SimpleNamespace(settled=lambda made: None)

    def _opened(self, at: int, planned: Planned) -> Any:
        self._made += 1
        return SimpleNamespace(at=at, number=self._made, change=planned.change)

    def _ran(self, attempt: Any, gate: Any) -> tuple[Any, Any]:
        room = gate.watching(attempt.at)
        trials = self.world.trials
        spent = one_trial(self.world, room, trials[attempt.number % len(trials)])
        fork = SimpleNamespace(
            run_id=f"{attempt.number:032x}",
            outcome=attempt.change.kind != "noop" and self._rng.random() < self._helps,
            problem=None,
            cost_usd=spent,
            unpriced=0,
            answers_sha256=f"{attempt.number}",
            calls_live=1,
            calls_memo=0,
            seconds=0.0,
        )
        gate.ended(attempt.at, fork)
        return fork, None

    def _graded(self, attempt: Any, fork: Any, said: Any, oracle: Any) -> Any:
        paid = self._judge.worst_usd * self._rng.random()
        with self.world.lock:
            self.world.paid += paid
        self._judge.cost_usd += paid
        return fork


def taped(path: Path, calls: list[Usage]) -> Tape:
    """The tape of a run that made such calls."""
    run_id, recorder = trace(), Recorder(path)
    recorder.root(run_id)
    for n, used in enumerate(calls):
        counts = {"input_tokens": used.input_tokens or 0, "output_tokens": used.output_tokens or 0}
        recorder.exchange(run_id, asked(f"turn {n}"), answered("ok", **counts))
    recorder.close()
    with open_store(path) as store:
        return reconstruct(store, store.run(run_id))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@example(
    rates=Rates(10, 10),
    recorded=[Usage(input_tokens=10, output_tokens=0)] * 2,
    trials=[[Usage(input_tokens=100_000, output_tokens=0)] * 16],
    share=0.3,
    parts=[3],
    judging=0.5,
    helps=0.5,
    jobs=1,
    width=1,
    every=False,
    seed=1,
)
@given(
    rates=RATES,
    recorded=st.lists(USAGE, min_size=2, max_size=4),
    trials=st.lists(TRIAL, min_size=1, max_size=6),
    share=st.floats(0, 1) | st.floats(0, 40),
    parts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    judging=st.floats(0, 2),
    helps=st.floats(0, 1),
    jobs=st.integers(1, 8),
    width=st.integers(1, 3),
    every=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_repair_passes_its_budget_by_running_calls_alone(
    rates: Rates,
    recorded: list[Usage],
    trials: list[list[Usage]],
    share: float,
    parts: list[int],
    judging: float,
    helps: float,
    jobs: int,
    width: int,
    every: bool,
    seed: int,
) -> None:
    """Whatever its forks take, how many it asks for, and how many run: as forks and trials do."""
    costs = [[rates.of(used).usd or 0.0 for used in trial] for trial in trials]
    dearest = max(max(trial) for trial in costs)
    world = World(share * max(map(sum, costs)), 0.0, 0.0, costs, crash_at=0, width=width)
    given = {"claude-sonnet-4-5": rates}
    with TemporaryDirectory() as folder:
        tape = taped(Path(folder), recorded)
    last = tape.steps - 2
    bound = text("ok").bind(tape, last)
    expected = estimate(tape, bound, given)
    tries = [Try(parts=n, step=last, kept=last, control=last + 1, cost_usd=expected.cost_usd) for n in parts]
    plan = RepairPlan(tries=tuple(tries), every=every, max_trials=120)
    budget, search = Budget(world.budget_usd), RepairSearch(plan)

    def planned(request: TrialRequest) -> Planned:
        return Planned(change=bound if request.altered else unchanged(tape, request.kept))

    journal: Any = SimpleNamespace(trials=[], header={})
    journal.append = journal.trials.append
    judge = Judge(worst_usd=judging * dearest)
    forker = Repairing(tape, world, jobs, judge=judge, helps=helps, seed=seed)
    running = Running(
        forker=forker,
        journal=journal,
        search=search,
        planned=planned,
        oracle=judge,  # type: ignore[arg-type]
        parent=False,
        budget=budget,
        prices=given,
        call_usd=expected.call_usd,
        grading=Grading(budget, judge),  # type: ignore[arg-type]
    )
    running.run()
    assert search.done
    assert budget.spent_usd == pytest.approx(world.paid)
    assert budget.reserved_usd == pytest.approx(0.0)
    said = width * jobs * dearest if expected.most_usd is None else jobs * expected.most_usd
    assert world.paid - world.budget_usd <= said + 1e-6
    if search.stop_reason != "budget":
        assert not any(one.undefined_reason == "budget" for one in journal.trials)


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

    room: Any = SimpleNamespace(has_room=has_room)
    with MoneyWatch(tmp_path, tmp_path, room, NONE_GIVEN, ended.set) as watch:
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
