"""Estimates from a tape, and a limit that holds while many trials run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from stored import Recorder, answered, asked, trace
from tracefork_backend.rerun import edits
from tracefork_backend.rerun.budget import WORST, Budget, Estimate, cost_of, estimate, total
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store

from tracefork_otel import Tape, UsageError

MILLION = 1_000_000


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    """Four model calls of a million tokens in and none out, and between them one call of a tool."""
    run_id = trace()
    recorder = Recorder(tmp_path)
    recorder.root(run_id)
    for n in range(4):
        recorder.exchange(run_id, asked(f"turn {n}"), answered("ok", input_tokens=MILLION, output_tokens=0))
        if n == 1:
            recorder.exchange(run_id, b"{}", b"{}", url="https://tools.example/x")
    recorder.close()
    store = open_store(tmp_path)
    return reconstruct(store, store.run(run_id))


def test_a_live_tail_costs_what_the_parents_did(tape: Tape) -> None:
    """Every exchange after the step goes live again; only model calls have a price."""
    price = cost_of(tape.exchanges[0])
    assert price is not None
    assert price > 0
    after_first = estimate(tape, edits.text("x").bind(tape, 0))
    assert (after_first.calls, after_first.unknown) == (4, ())
    assert after_first.cost_usd == pytest.approx(3 * price)
    assert after_first.worst_usd == pytest.approx(WORST * 3 * price)
    assert estimate(tape, edits.text("x").bind(tape, 4)) == Estimate(calls=0, cost_usd=0.0)


@pytest.mark.parametrize(
    ("tail", "edit", "calls"),
    [
        ("offline", edits.text("x"), 0),
        ("offline", edits.resample(), 1),
        ("recorded", edits.text("x"), 4),
        ("recorded", edits.noop(), 0),
        ("live", edits.noop(), 4),
        ("live", edits.resample(), 5),
        ("live", edits.fault(529), 4),
    ],
)
def test_calls_go_live_as_the_tail_lets_them(tape: Tape, tail: str, edit: edits.Edit, calls: int) -> None:
    """What is sent for real is counted by kind of change and tail."""
    assert estimate(tape, edit.bind(tape, 0, tail=tail)).calls == calls  # type: ignore[arg-type]


def test_another_model_is_priced_by_its_own_list(tape: Tape) -> None:
    """The edited request costs what the variant's model does, the tail what the agent's does."""
    own = estimate(tape, edits.resample().bind(tape, 4)).cost_usd
    dear = estimate(tape, edits.request(model="claude-opus-4-1").bind(tape, 4)).cost_usd
    same = estimate(tape, edits.request(set={"model": "claude-opus-4-1"}).bind(tape, 4)).cost_usd
    assert dear > own
    assert dear == same


def test_a_model_without_a_price_is_named(tape: Tape) -> None:
    """Its calls are counted, and what they cost is said to be unknown, not nothing."""
    found = estimate(tape, edits.request(model="no-such-model").bind(tape, 0))
    assert found.unknown == ("no-such-model",)
    assert found.calls == 5
    assert "no-such-model" in str(found)
    both = total([(found, 3), (estimate(tape, edits.resample().bind(tape, 4)), 2)])
    assert (both.calls, both.unknown) == (17, ("no-such-model",))


def test_concurrent_siblings_are_no_tail(tape: Tape) -> None:
    """An exchange that began before the step's answer came cannot depend on it."""
    first, second, *rest = tape.exchanges
    overlapping = replace(second, started_ns=first.started_ns + 1)
    other = replace(tape, exchanges=(first, overlapping, *rest))
    assert estimate(other, edits.text("x").bind(other, 0)).calls == 3


def test_a_replayed_exchange_cost_nothing(tape: Tape) -> None:
    """What a tape answered was not paid for."""
    assert cost_of(replace(tape.exchanges[0], replayed=True)) == 0.0


def test_nothing_starts_that_could_pass_the_limit() -> None:
    """What is spent and set aside counts; what is settled for less makes room again."""
    budget = Budget(1.0)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.6)
    assert budget.exhausted
    budget.settle(0.6, 0.1)
    assert budget.reserve(0.6)
    budget.settle(0.6, None)
    assert (budget.spent_usd, budget.reserved_usd) == (0.1, 0.0)


def test_what_is_free_always_starts() -> None:
    """A trial without live calls needs no budget."""
    budget = Budget(0)
    assert budget.reserve(0.0)
    assert not budget.reserve(0.001)
    assert Budget(None).reserve(1e9)


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_of_dollars(limit: float) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="budget"):
        Budget(limit)


def test_many_threads_share_one_limit() -> None:
    """However trials interleave, what is spent stays within the limit where none costs more than reserved."""
    budget = Budget(10.0)
    started = threading.Semaphore(0)

    def trial(_: int) -> bool:
        if not budget.reserve(0.1):
            return False
        started.release()
        budget.settle(0.1, 0.1)
        return True

    with ThreadPoolExecutor(16) as pool:
        ran = sum(pool.map(trial, range(400)))
    assert ran in (99, 100)  # a hundred tenths are a little more than ten
    assert budget.spent_usd <= 10.0 + 1e-9
    assert budget.reserved_usd < 1e-9
