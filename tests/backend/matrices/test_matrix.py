"""Runs × variants × trials: estimated, held to a budget, graded; with real agents and a real model server."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.agents.recording import record
from tracefork_backend.grading.graded import Graded
from tracefork_backend.matrices.matrix import Matrix, plan
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, Usage
from tracefork_backend.spelling import money
from tracefork_backend.store import Run, Store, open_store, prices

import tracefork_otel
from tracefork_otel import UsageError

MODEL = "claude-sonnet-4-5"
PRICE = 0.003
"""What a call costs: a thousand tokens in at 3 dollars a million, none out."""


def answers(call: Call) -> Reply:
    """The cheap model gives up; any other says BOOKED once it has been asked twice."""
    used = Usage(input_tokens=1000, output_tokens=0)
    if "haiku" in call.model or "give up" in call.last:
        return Reply(text="ERROR: I give up", usage=used)
    return Reply(text="BOOKED" if len(call.messages) > 2 else "looking", usage=used)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(answers) as running:
        yield running


def talk(url: str, turns: int) -> str:
    """An agent: it asks so many times, repeats what it was told, and returns the last answer."""
    messages: list[dict[str, str]] = [{"role": "user", "content": "book"}]
    said = ""
    with httpx2.Client() as client:
        for _ in range(turns):
            body = {"model": MODEL, "max_tokens": 9, "messages": messages}
            response = client.post(f"{url}/v1/messages", json=body)
            said = response.json()["content"][0]["text"]
            messages = [
                *messages,
                {"role": "assistant", "content": said},
                {"role": "user", "content": f"so {said}"},
            ]
    return said


class Desk:
    """A store with recorded runs, and the agent to fork them with."""

    def __init__(self, capture: Capture, url: str) -> None:
        self._capture = capture
        self._url = url

    def record(self, *turns: int) -> list[Run]:
        """Runs of so many steps each, in that order."""
        for count in turns:
            self._capture.on()
            tracefork_otel.agent(talk)(self._url, count)
            self._capture.off()
        runs = {run.steps: run for run in self.store.runs("record")}
        return [runs[count] for count in turns]

    @property
    def store(self) -> Store:
        """The store, opened anew."""
        return open_store(self._capture.store)


@pytest.fixture
def desk(capture: Capture, server: ModelServer) -> Desk:
    """A desk whose agent talks to the server."""
    return Desk(capture, server.url)


BOOKED = tf.regex(success="BOOKED", failure="ERROR")


@pytest.mark.slow
def test_every_cell_has_its_trials_rate_and_cost(desk: Desk) -> None:
    """Two runs by two variants, twice each: outcomes, Wilson's interval and cost, and the same in SQL."""
    short, long = desk.record(2, 3)
    seen: list[int] = []
    made = tf.matrix(
        [(short, 0), (long, 1)],
        [tf.request(model="claude-haiku-4-5"), tf.text("fine")],
        times=2,
        agent=talk,
        oracle=BOOKED,
        on_change=lambda now: seen.append(len(now.forks)),
    )
    assert seen == list(range(1, 9))
    assert [(cell.run_id, cell.step, cell.variant) for cell in made.cells] == [
        (short.run_id, 0, "request model=claude-haiku-4-5"),
        (short.run_id, 0, "text fine"),
        (long.run_id, 1, "request model=claude-haiku-4-5"),
        (long.run_id, 1, "text fine"),
    ]
    assert [(cell.passed, cell.failed, cell.undefined) for cell in made.cells] == [
        (0, 2, 0),
        (2, 0, 0),
        (0, 2, 0),
        (2, 0, 0),
    ]
    assert made.cells[1].pass_rate == 1.0
    interval = made.cells[1].interval
    assert interval is not None
    assert interval[0] == pytest.approx(0.342, abs=1e-3)
    assert interval[1] == 1.0
    # The edited call itself and the one after it, for the other model; or only the latter, for its own.
    assert made.cells[0].cost_usd == pytest.approx(2 * (0.001 + 0.001))
    assert made.cells[1].cost_usd == pytest.approx(2 * PRICE)
    assert [cell.parent_outcome for cell in made.cells] == [True] * 4
    rows = desk.store.rows(
        "select f.parent_run_id, f.step, f.outcome, r.kind from forks f join runs r using (run_id)"
    )
    assert len(rows) == 8
    assert sum(row["outcome"] for row in rows) == 4


@pytest.mark.slow
def test_a_fork_is_compared_by_itself(desk: Desk) -> None:
    """`tf.diff` takes the fork as it was returned, beside its parent or beside another fork."""
    (run,) = desk.record(3)
    one, other = tf.fork(run, at=1, edit=tf.text("fine"), agent=talk, times=2)
    found = tf.diff(run, one)
    assert [step.kind for step in found.steps] == ["same", "changed", "changed"]
    assert (found.first, found.chain) == (1, (2,))
    assert found.steps[1].intervention == "text"
    assert not tf.diff(one, other).differs


@pytest.mark.slow
def test_a_run_without_the_step_is_a_cell_that_says_so(desk: Desk) -> None:
    """It has no trials and a reason; the other runs are forked all the same."""
    short, long = desk.record(1, 3)
    made = tf.matrix([(short, 2), (long, 2)], [tf.noop()], agent=talk, oracle=BOOKED)
    missing, there = made.cells
    assert (missing.possible, missing.forks) == (False, ())
    assert missing.why == f"run {short.run_id[:8]} has no step 2: its steps are 0..0"
    assert (there.passed, there.why) == (1, None)
    assert (made.wanted, len(made.forks)) == (1, 1)
    with pytest.raises(UsageError, match="has no step 2"):
        tf.matrix([(short, 2)], [tf.noop()], agent=talk)


@pytest.mark.slow
def test_the_estimate_is_what_it_then_costs(desk: Desk) -> None:
    """Before anything runs the plan says calls and dollars, and a run of the same length takes just that."""
    (run,) = desk.record(3)
    planned = plan([(run, 0)], [tf.resample()], times=3, oracle=BOOKED)
    assert (planned.wanted, planned.forks) == (3, ())
    assert (planned.estimate.calls, planned.estimate.cost_usd) == (9, pytest.approx(9 * PRICE))
    made = tf.matrix([(run, 0)], [tf.resample()], times=3, agent=talk, oracle=BOOKED)
    assert made.cost_usd == pytest.approx(planned.estimate.cost_usd)
    assert len(made.forks) == 3


@pytest.mark.slow
def test_an_oracle_that_does_not_end_is_given_up_on_the_recorded_run(desk: Desk) -> None:
    """It is asked of that first, and gets no more time for it than for a fork."""
    (run,) = desk.record(1)

    def endless(shown: Graded) -> bool:
        while True:
            pass

    for ask in (plan, partial(tf.matrix, agent=talk)):
        with pytest.raises(UsageError, match=rf"endless did not end within 0.2 s on run {run.run_id[:8]}"):
            ask([(run, 0)], [tf.noop()], oracle=endless, timeout=0.2)


@pytest.mark.slow
def test_the_budget_is_a_hard_stop_with_what_was_found(desk: Desk) -> None:
    """No trial starts that may not fit; those that were made stand, spread over the cells."""
    (run,) = desk.record(2)
    edits = [tf.resample(), tf.request(set={"max_tokens": 8})]
    # A trial takes two calls, and twice that is set aside for it.
    made = tf.matrix([(run, 0)], edits, times=10, agent=talk, oracle=BOOKED, budget_usd=10 * PRICE)
    assert made.exhausted
    assert made.cost_usd <= 10 * PRICE
    assert [len(cell.forks) for cell in made.cells] == [2, 2]
    assert all("the budget ended" in str(cell.why) for cell in made.cells)
    assert "stopped at the budget" in made.summary()
    assert made.cells[0].passed == 2


@pytest.mark.slow
def test_a_trial_that_is_dearer_than_thought_raises_what_is_set_aside(
    desk: Desk, server: ModelServer
) -> None:
    """A tail that goes on for longer than its parent's is reserved for by what it did cost."""
    (run,) = desk.record(1)

    def chatty() -> str:
        return talk(server.url, 8)

    # The plan says one call, so two are set aside; the agent makes eight.
    made = tf.matrix([(run, 0)], [tf.resample()], times=10, agent=chatty, budget_usd=20 * PRICE)
    assert len(made.forks) == 2
    assert made.cost_usd == pytest.approx(16 * PRICE)
    assert made.exhausted


@pytest.mark.slow
def test_a_budget_holds_where_no_call_is_counted(capture: Capture, server: ModelServer) -> None:
    """A stream that tells no tokens is estimated by its letters, and takes what was set aside for it."""

    def uncounted(url: str) -> str:
        body = {"model": "gpt-4", "stream": True, "messages": [{"role": "user", "content": "book " * 800}]}
        with httpx2.Client() as client:
            return client.post(f"{url}/v1/chat/completions", json=body).text

    capture.on()
    tracefork_otel.agent(uncounted)(server.url)
    capture.off()
    run = open_store(capture.store).run("last")
    one = plan([(run, 0)], [tf.resample()]).estimate
    assert one.cost_usd > 0.03
    # While it ran, as much again was set aside for a next call, which nobody knew that it would not make.
    made = tf.matrix([(run, 0)], [tf.resample()], times=9, agent=uncounted, budget_usd=4.5 * one.worst_usd)
    assert (len(made.forks), made.unpriced, made.exhausted) == (2, 2, True)
    assert made.booked_usd == pytest.approx(4 * one.worst_usd)
    assert f"2 calls without a price, with which {money(made.booked_usd)} counts as" in made.summary()


@pytest.mark.slow
def test_an_unknown_price_stops_a_budget_with_a_question(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a budget its calls are counted as unknown; with one it asks, and `prices` answers."""
    (run,) = desk.record(1)
    edits = [tf.request(model="my-own-model"), tf.resample()]
    local = tf.matrix([(run, 0)], edits, agent=talk, budget_usd=1.0)
    assert [cell.cost_usd for cell in local.cells] == [
        0.0,
        pytest.approx(PRICE),
    ]  # on this machine it is free
    monkeypatch.setattr(prices, "is_loopback", lambda name: False)
    with pytest.raises(UsageError, match=r"price of my-own-model is not known.*--price MODEL=IN/OUT"):
        tf.matrix([(run, 0)], edits, agent=talk, budget_usd=1.0)
    told = prices.rates_given(["my-own-model=1/2"])
    held = tf.matrix([(run, 0)], edits, agent=talk, budget_usd=1.0, prices=told)
    assert [cell.cost_usd for cell in held.cells] == [pytest.approx(0.001), pytest.approx(PRICE)]
    free = tf.matrix([(run, 0)], edits[:1], agent=talk)
    assert (len(free.forks), free.unpriced) == (1, 1)


@pytest.mark.parametrize("text", ["m", "m=", "m=1", "=1/2", "m=a/b", "m=-1/2", "m=1/inf", "m=nan/1"])
def test_a_price_that_is_none_is_refused(text: str) -> None:
    """It says what one looks like."""
    with pytest.raises(UsageError, match=r"no price: write MODEL=IN/OUT"):
        prices.rates_given([text])


def test_variants_of_one_kind_are_told_apart(desk: Desk) -> None:
    """Texts, tool inputs and system prompts are named by what they say, equal names by number."""
    (run,) = desk.record(1)
    same = "a very long answer that begins in the same way, "
    planned = plan([(run, 0)], [tf.text("yes"), tf.text(same + "a"), tf.text(same + "b"), tf.fault(529)])
    names = [cell.variant for cell in planned.cells]
    assert names[0] == "text yes"
    assert names[3] == "fault 529"
    assert names[1].endswith("#2")
    assert names[2].endswith("#3")


@pytest.mark.slow
def test_problems_are_counted_and_are_no_outcomes(desk: Desk) -> None:
    """An agent that left its tape has neither passed nor failed, and its cell says what happened."""
    (run,) = desk.record(2)

    def changed() -> str:
        return talk(run.exchanges[0].request.url.removesuffix("/v1/messages") + "/other", 2)

    made = tf.matrix([(run, 1)], [tf.text("x")], agent=changed, oracle=BOOKED)
    (cell,) = made.cells
    assert (cell.passed, cell.failed, cell.undefined, cell.pass_rate) == (0, 0, 1, None)
    assert cell.problems == {"drift": 1}


def test_a_broken_oracle_stops_before_anything_is_spent(desk: Desk, server: ModelServer) -> None:
    """The oracle is asked about the recorded run first."""
    (run,) = desk.record(1)
    before = len(server.requests)

    def broken(graded: tf.Graded) -> bool:
        raise ValueError("no such column")

    with pytest.raises(UsageError, match=r"broken failed on run .*no such column"):
        tf.matrix([(run, 0)], [tf.resample()], agent=talk, oracle=broken)
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"times": 0}, "times=0"), ({"jobs": 0}, "jobs=0"), ({"budget_usd": -1.0}, "budget")],
)
def test_bad_numbers(desk: Desk, fields: dict[str, float], why: str) -> None:
    """They are refused before anything runs."""
    (run,) = desk.record(1)
    with pytest.raises(UsageError, match=why):
        tf.matrix([(run, 0)], [tf.noop()], agent=talk, **fields)  # type: ignore[arg-type]


def test_an_empty_matrix(desk: Desk) -> None:
    """Neither runs nor changes may be missing."""
    (run,) = desk.record(1)
    for runs_at, edits in (([], [tf.noop()]), ([(run, 0)], [])):
        with pytest.raises(UsageError, match="at least one"):
            tf.matrix(runs_at, edits, agent=talk)  # type: ignore[arg-type]


def test_what_is_no_edit(desk: Desk) -> None:
    """A value where an edit belongs is named."""
    (run,) = desk.record(1)
    with pytest.raises(UsageError, match="'DONE' is no edit"):
        tf.matrix([(run, 0)], [tf.noop(), "DONE"], agent=talk)  # type: ignore[list-item]


@pytest.mark.slow
def test_tapes_can_be_forked_too(desk: Desk) -> None:
    """A tape stands for its run; its forks are kept in the store that is named."""
    (run,) = desk.record(2)
    tape = reconstruct(run.store, run)
    made = tf.matrix([(tape, 1)], [tf.text("BOOKED")], agent=talk, oracle=BOOKED, store=desk.store)
    assert (made.cells[0].passed, made.cells[0].parent_outcome) == (1, True)
    assert desk.store.run(made.forks[0].run_id).parent_run_id == run.run_id


COMMAND = """
    import os, sys
    sys.path.insert(0, os.environ["TALK_FOLDER"])
    from talking import talk
    print(talk(os.environ["TALK_URL"], int(sys.argv[1])))
"""


@pytest.mark.slow
def test_runs_are_forked_side_by_side_in_processes(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With jobs enough several runs of commands are forked at once, each fork beside its own run."""
    import inspect

    talking = "from __future__ import annotations\nimport httpx2\nMODEL = " + repr(MODEL) + "\n\n"
    (tmp_path / "talking.py").write_text(talking + inspect.getsource(talk))
    (tmp_path / "agent.py").write_text(textwrap.dedent(COMMAND))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALK_URL", server.url)
    monkeypatch.setenv("TALK_FOLDER", str(tmp_path))
    for turns in (1, 2, 3):
        assert record(tmp_path / "store", (sys.executable, "agent.py", str(turns))).exit_status == 0
    store = open_store(tmp_path / "store")
    runs = sorted(store.runs("record"), key=lambda run: run.steps)
    made = tf.matrix([(run, 0) for run in runs], [tf.text("x"), tf.noop()], jobs=4, oracle=BOOKED)
    assert [len(cell.forks) for cell in made.cells] == [1] * 6
    assert all(fork.problem is None for fork in made.forks)
    for cell in made.cells:
        assert [fork.parent_run_id for fork in cell.forks] == [cell.run_id]
        assert [fork.steps for fork in cell.forks] == [store.run(cell.run_id).steps]
    assert not [name for name in os.listdir(tmp_path / "store") if name.startswith(".fork-")]
    assert len(open_store(tmp_path / "store").runs("fork")) == 6


@pytest.mark.slow
def test_an_error_in_one_run_ends_the_others(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised while several runs are forked comes out, and no agent is left behind."""
    (tmp_path / "agent.py").write_text(
        "import os, sys, time, httpx2\n"
        "httpx2.post(os.environ['TALK_URL'] + '/raw/echo', json={'n': sys.argv[1]})\n"
        "if os.environ['TRACEFORK_MODE'] == 'fork' and sys.argv[1] == '2':\n    time.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALK_URL", server.url)
    for number in ("1", "2"):
        assert record(tmp_path / "store", (sys.executable, "agent.py", number)).exit_status == 0
    store = open_store(tmp_path / "store")
    runs = store.runs("record")

    def stops(now: Matrix) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tf.matrix([(run, 0) for run in runs], [tf.noop()], jobs=2, timeout=50, on_change=stops)
    left = [
        entry
        for entry in os.listdir("/proc")
        if entry.isdecimal() and str(tmp_path / "store").encode() in _environment(entry)
    ]
    assert left == []


def _environment(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
