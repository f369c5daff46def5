"""Runs compared: alignment under insertions, changes by JSON path, and what a difference led to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tracefork_backend as tf
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st
from stored import ANTHROPIC, Recorder, trace
from tracefork_backend.diffs import align as aligning
from tracefork_backend.diffs.align import align
from tracefork_backend.diffs.diff import Diff, diff
from tracefork_backend.diffs.reading import Step, read
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import Run, open_store

from tracefork_otel import UsageError
from tracefork_otel.exchange import Exchange, Request, Response

SSE = (("content-type", "text/event-stream"),)


def body(value: object) -> bytes:
    """The value as the body of a message."""
    return json.dumps(value).encode()


def call(tool: str, **given: object) -> list[dict[str, Any]]:
    """A reply that calls a tool."""
    return [{"type": "tool_use", "id": f"toolu_{tool}", "name": tool, "input": given}]


def says(text: str) -> list[dict[str, Any]]:
    """A reply in words."""
    return [{"type": "text", "text": text}]


class Agent:
    """A recorded conversation: each turn asks with all that was said before, and gets a reply."""

    def __init__(self, store: Path, *, system: str = "Be brief.") -> None:
        self.run_id = trace()
        self._recorder = Recorder(store)
        self._recorder.root(self.run_id)
        self._system = system
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": "Book a flight."}]

    def turn(self, reply: Sequence[dict[str, Any]], result: str = "", **parameters: object) -> Agent:
        """The model was asked and answered so; its tool, if it called one, gave this result."""
        asked = {"model": "claude-sonnet-4-5", "system": self._system, "messages": self._messages}
        answer = {
            "id": f"msg_{self._recorder.seq}",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": list(reply),
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }
        self._recorder.exchange(self.run_id, body({**asked, **parameters}), body(answer))
        self._messages = [*self._messages, {"role": "assistant", "content": list(reply)}]
        if result:
            given = [{"type": "tool_result", "tool_use_id": reply[-1]["id"], "content": result}]
            self._messages.append({"role": "user", "content": given})
        return self

    def fetch(self, url: str, asked: object, answer: object) -> Agent:
        """A tool of the agent's sent a plain HTTP request."""
        self._recorder.exchange(self.run_id, body(asked), body(answer), url=url)
        return self

    def end(self) -> Agent:
        """The process is gone."""
        self._recorder.close()
        return self


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where runs are recorded."""
    return tmp_path / "store"


def compared(store: Path, a: Agent, b: Agent) -> Diff:
    """The two recorded runs, compared."""
    opened = open_store(store)
    return diff(opened.run(a.end().run_id), opened.run(b.end().run_id))


def booking(store: Path, flight: str = "JL60", *, seats: int = 9, end: str = "BOOKED") -> Agent:
    """Four steps: search, check, book, and the end."""
    return (
        Agent(store)
        .turn(call("search", city="Osaka"), "KE724, JL60, NH176")
        .turn(call("check", flight=flight, date="2026-11-03"), f"{seats} seats")
        .turn(call("book", flight=flight), "done")
        .turn(says(end))
    )


def kinds(found: Diff) -> str:
    """The kinds of the steps, one sign each."""
    return "".join(
        {"same": "=", "changed": "~", "added": "+", "gone": "-"}[step.kind] for step in found.steps
    )


@pytest.mark.slow
def test_equal_runs_are_the_same(store: Path) -> None:
    """Two recordings of the same conversation do not differ, though response ids and times do."""
    found = compared(store, booking(store), booking(store))
    assert (kinds(found), found.differs, found.first, found.chain) == ("====", False, None, ())
    assert "= 0 to 3  4 steps, the same" in found.lines()


@pytest.mark.slow
def test_a_changed_tool_input_names_its_path_and_both_values(store: Path) -> None:
    """The step at which the model called its tool otherwise is the first difference, to the JSON path."""
    found = compared(store, booking(store), booking(store, "NH176", seats=2))
    assert kinds(found) == "=~~~"
    first = found.steps[1]
    assert [(c.where, c.path, c.a, c.b) for c in first.changes] == [
        ("response", "reply[0].input.flight", "JL60", "NH176")
    ]
    assert (found.first, first.follows, first.differences) == (1, (), 1)


@pytest.mark.slow
def test_what_carries_a_difference_follows_from_it(store: Path) -> None:
    """Later steps say which earlier differences their requests carry, and only what is new besides."""
    found = compared(store, booking(store), booking(store, "NH176", seats=2))
    assert [step.follows for step in found.steps] == [(), (), (1,), (1, 2)]
    assert found.chain == (2, 3)
    assert [(c.path, c.a, c.b) for c in found.steps[2].news] == [("tool_result check", "9 seats", "2 seats")]
    assert found.steps[3].news == ()
    text = "\n".join(found.lines())
    assert "the first difference is step 1, and steps 2, 3 follow from it" in text
    assert "tool_result check: 9 seats → 2 seats" in text


@pytest.mark.slow
def test_a_difference_that_carries_nothing_stands_for_itself(store: Path) -> None:
    """A parameter that differs in a later step of otherwise equal requests is no consequence."""

    def run(flight: str, temperature: float) -> Agent:
        side = Agent(store)
        side.turn(call("search", city=flight), "nothing")
        side._messages = side._messages[:1]  # a fresh conversation
        return side.turn(says("bye"), temperature=temperature)

    found = compared(store, run("Osaka", 0.0), run("Tokyo", 1.0))
    assert (kinds(found), found.first, found.chain) == ("~~", 0, ())
    assert [(c.path, c.a, c.b) for c in found.steps[1].changes] == [("temperature", "0.0", "1.0")]
    assert "step 1 differs for another reason" in "\n".join(found.lines())
    held = (found.steps[0], replace(found.steps[1], intervention="request temperature=1.0"))
    assert "step 1 is changed by the fork too" in "\n".join(replace(found, steps=held).lines())


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_inserted_step_moves_none_of_the_others(store: Path, at: int) -> None:
    """A tool call more in a conversation is one step added; all others keep their counterparts."""

    def run(more: bool) -> Agent:
        side = Agent(store)
        turns = [
            (call("search", city="Osaka"), "KE724, JL60"),
            (call("check", flight="JL60"), "9 seats free"),
            (call("book", flight="JL60"), "confirmed, reference 77"),
            (says("BOOKED, have a good trip"), ""),
        ]
        if more:
            turns.insert(at, (call("weather", place="Kansai"), "sunny all day"))
        for reply, result in turns:
            side.turn(reply, result)
        return side

    found = compared(store, run(False), run(True))
    # The same request got another answer; what came of that is the step more.
    pairs = [(step.a, step.b) for step in found.steps]
    assert pairs == [
        *((n, n) for n in range(at + 1)),
        (None, at + 1),
        *((n, n + 1) for n in range(at + 1, 4)),
    ]
    assert kinds(found) == "=" * at + "~+" + "~" * (3 - at)
    assert found.first == at
    assert found.chain == tuple(range(at + 1, 5))
    back = diff(found_run(store, found.b.run_id), found_run(store, found.a.run_id))
    assert kinds(back).replace("-", "+") == kinds(found)


@pytest.mark.slow
def test_a_request_between_two_others_is_added_alone(store: Path) -> None:
    """A request more that no other one depends on is the only difference."""
    a, b = booking(store), Agent(store)
    b.turn(call("search", city="Osaka"), "KE724, JL60, NH176")
    b.fetch("https://tools.example/log", {"event": "searched"}, {})
    b.turn(call("check", flight="JL60", date="2026-11-03"), "9 seats")
    b.turn(call("book", flight="JL60"), "done").turn(says("BOOKED"))
    found = compared(store, a, b)
    assert kinds(found) == "=+==="
    assert "1 added; the first difference is step 1" in str(found)
    back = diff(found_run(store, b.run_id), found_run(store, a.run_id))
    assert kinds(back) == "=-==="


def found_run(store: Path, run_id: str) -> Run:
    """The run of that id."""
    return open_store(store).run(run_id)


@pytest.mark.slow
def test_concurrent_requests_in_another_order_are_the_same(store: Path) -> None:
    """Requests of a fan-out that came in another order are paired by content."""
    orders = ([0, 1, 2, 3], [0, 3, 2, 1])
    sides: list[Agent] = []
    for order in orders:
        side = Agent(store)
        for n in order:
            side.fetch("https://tools.example/search", {"q": f"topic {n} of the day"}, {"hits": [n]})
        sides.append(side)
    found = compared(store, *sides)
    assert kinds(found) == "===="
    assert sorted(step.a for step in found.steps if step.a is not None) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_plain_request_follows_from_the_answer_that_it_quotes(store: Path) -> None:
    """A tool's HTTP request that differs in a value of an earlier answer is a consequence of that answer."""

    def run(flight: str) -> Agent:
        side = Agent(store).turn(call("seats", flight=flight))
        return side.fetch("https://air.example/seats", {"flight": flight, "day": 3}, {"free": 2})

    found = compared(store, run("JL60"), run("NH176"))
    assert [step.follows for step in found.steps] == [(), (0,)]
    assert found.chain == (1,)


@pytest.mark.slow
def test_a_prompt_into_which_an_answer_is_written_follows_from_it(store: Path) -> None:
    """An agent that joins what it was answered into the text of its next call carries it all the same."""

    def run(plan: str) -> Agent:
        side = Agent(store).turn(says(plan))
        side._messages = [{"role": "user", "content": f"Do as was planned: {plan} Be quick."}]
        return side.turn(says("done"))

    found = compared(store, run("Fly on Monday."), run("Take the train."))
    assert (kinds(found), found.steps[1].follows, found.chain) == ("~~", (0,), (1,))
    assert "another reason" not in "\n".join(found.lines())


@pytest.mark.slow
def test_a_stream_and_a_whole_response_are_compared_by_what_they_say(store: Path) -> None:
    """The same answer as JSON and as server-sent events is the same answer."""
    events = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "model": "x", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": call("book")[0]},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": '{"flight" :"JL60"}'},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    stream = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    asked = body({"model": "x", "messages": [{"role": "user", "content": "hi"}]})
    whole = {
        "role": "assistant",
        "model": "x",
        "content": call("book", flight="JL60"),
        "stop_reason": "end_turn",
    }
    recorder = Recorder(store)
    a, b = trace(), trace()
    recorder.exchange(a, asked, body(whole))
    recorder.exchange(b, asked, stream, headers=SSE)
    recorder.close()
    assert kinds(diff(found_run(store, a), found_run(store, b))) == "="


@pytest.mark.slow
def test_bodies_that_are_no_json_differ_at_a_byte(store: Path) -> None:
    """Where a path cannot be named, the offset is."""
    recorder = Recorder(store)
    a, b = trace(), trace()
    for run_id, sent in ((a, b"\xff\x00 one"), (b, b"\xff\x00 two")):
        recorder.exchange(run_id, sent, b"ok", url="https://tools.example/upload")
    recorder.close()
    (step,) = diff(found_run(store, a), found_run(store, b)).steps
    assert [(c.where, c.path) for c in step.changes] == [("request", "byte 3")]


@pytest.mark.slow
def test_the_port_of_a_server_on_this_machine_is_no_difference(store: Path) -> None:
    """A scripted model on another port is the same model; another host is a difference."""
    recorder = Recorder(store)
    runs = [trace() for _ in range(3)]
    urls = ("http://127.0.0.1:4001/v1/messages", "http://localhost:5002/v1/messages", ANTHROPIC)
    for run_id, url in zip(runs, urls, strict=True):
        recorder.exchange(run_id, url=url)
    recorder.close()
    a, b, c = (found_run(store, run_id) for run_id in runs)
    assert kinds(diff(a, b)) == "="
    (step,) = diff(a, c).steps
    assert [change.path for change in step.changes] == ["url"]


@pytest.mark.slow
def test_an_error_in_place_of_an_answer_is_shown(store: Path) -> None:
    """A response that was cut differs in its outcome."""
    recorder = Recorder(store)
    a, b = trace(), trace()
    recorder.exchange(a)
    recorder.exchange(b, outcome="cut")
    recorder.close()
    (step,) = diff(found_run(store, a), found_run(store, b)).steps
    assert ("response", "outcome", "cut") in [(c.where, c.path, c.b) for c in step.changes]


@pytest.mark.slow
def test_tapes_and_runs_are_compared_alike(store: Path) -> None:
    """A tape stands for its run, cost and tokens included."""
    a, b = booking(store).end(), booking(store, "NH176").end()
    opened = open_store(store)
    runs = [opened.run(side.run_id) for side in (a, b)]
    by_run = diff(*runs)
    by_tape = diff(reconstruct(opened, runs[0]), runs[1])
    assert by_tape.steps == by_run.steps
    assert by_tape.a.cost_usd == pytest.approx(by_run.a.cost_usd)
    assert (by_tape.a.input_tokens, by_tape.a.last_text) == (40, "BOOKED")
    assert tf.diff(*runs).steps == by_run.steps


@pytest.mark.slow
def test_what_stands_for_a_run_needs_a_store(store: Path) -> None:
    """A fork is looked up in the other side's store, and one without any store is refused."""

    class Kept:
        run_id = booking(store).end().run_id

    run = found_run(store, Kept.run_id)
    assert not diff(run, Kept()).differs
    assert not diff(Kept(), Kept(), store=open_store(store)).differs
    with pytest.raises(UsageError, match="say which"):
        diff(Kept(), Kept())


def test_a_run_without_steps_compares(store: Path) -> None:
    """Nothing against something is all added."""
    run = found_run(store, booking(store).end().run_id)
    assert align((), read(run.exchanges)) == [(None, n) for n in range(4)]
    assert align(read(run.exchanges), ()) == [(n, None) for n in range(4)]
    assert align((), ()) == []


def exchange(number: int, word: str, *, url: str = "https://tools.example/a") -> Exchange:
    """A plain exchange that asks for a word."""
    return Exchange(
        trace_id="0" * 32,
        span_id=f"{number:016x}",
        parent_span_id=None,
        process_id="1-a",
        seq=number,
        started_ns=number,
        ended_ns=number + 1,
        request=Request(method="POST", url=url, body=body({"q": word})),
        response=Response(status=200, body=body({"hit": word})),
        outcome="complete",
    )


def run_of(words: str, start: int = 0) -> tuple[Step, ...]:
    """A run that asks for each of these letters, its spans numbered from `start`."""
    return read(exchange(start + n, f"{word} {word * 3}") for n, word in enumerate(words))


@given(st.text("abcd", max_size=9), st.text("abcd", max_size=9))
def test_an_alignment_holds_each_step_once(a: str, b: str) -> None:
    """Whatever two runs are, every step of both is in exactly one pair, and `b` stays in order."""
    pairs = align(run_of(a), run_of(b, 100))
    assert sorted(i for i, _ in pairs if i is not None) == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))


@given(st.text("abcdef", min_size=1, max_size=8), st.data())
def test_steps_taken_out_are_the_only_ones_gone(words: str, data: st.DataObject) -> None:
    """A run less some of its steps aligns so that exactly as many are gone and the rest are the same."""
    kept = [n for n in range(len(words)) if data.draw(st.booleans())]
    ours, theirs = run_of(words), run_of("".join(words[n] for n in kept), 100)
    pairs = align(ours, theirs)
    both = [(i, j) for i, j in pairs if i is not None and j is not None]
    assert all(ours[i].same_as(theirs[j]) for i, j in both)
    assert len(both) == len(kept)


def test_a_served_exchange_is_the_counterpart_of_what_served_it() -> None:
    """A replayed step is paired with its original, though another one looks just like it."""
    from dataclasses import replace

    ours = read([exchange(0, "same"), exchange(1, "same")])
    theirs = read([replace(exchange(7, "same"), served_span_id=ours[1].exchange.span_id)])
    longer = read([exchange(9, "other", url="https://tools.example/b"), theirs[0].exchange])
    assert (1, 1) in align(ours, longer)


@pytest.mark.slow
def test_long_runs_are_compared_near_their_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of 1500 steps take a bounded number of comparisons and keep their counterparts."""
    counted = 0
    true_score = aligning.score

    def score(a: Step, b: Step) -> float:
        nonlocal counted
        counted += 1
        return true_score(a, b)

    monkeypatch.setattr(aligning, "score", score)
    ours = read(exchange(n, f"word{n} x") for n in range(1500))
    theirs = read(exchange(9000 + n, f"word{n + 3} y") for n in range(1500))
    with soon(2):
        pairs = align(ours, theirs)
    assert counted <= 2 * aligning.CELLS
    assert sum(1 for i, j in pairs if i is not None and j is not None and i == j + 3) > 1400


@pytest.mark.slow
def test_lines_name_runs_outcomes_and_cost(store: Path) -> None:
    """The summary shows how both ended and what they cost."""
    text = str(compared(store, booking(store), booking(store, "NH176", end="ERROR: sold out")))
    assert 'a ends  "BOOKED"' in text
    assert 'b ends  "ERROR: sold out"' in text
    assert "cost    $" in text
    assert "4 steps" in text
