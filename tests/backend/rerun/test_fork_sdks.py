"""Forks of the examples in place: real SDKs read every intervention, streamed, whole, and in a fan-out."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import openai
import pytest
from conftest import Capture
from recorded import run_python
from tracefork_backend.rerun.edits import Edit, fault, noop, request, resample, response, text, tool_input
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.rerun.forking import fork
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.behaviours import booking, chat_tools, research
from tracefork_backend.store import Run, open_store

from tracefork_otel import AgentFailed

# Each test starts real SDKs in processes of their own: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"
MENDED = {"flight": "NH176", "date": "2026-11-03"}
BOOKED = "BOOKED flight NH176 to Osaka on 2026-11-03, reference TF-NH176-03. Have a good trip!"
LOST = "ERROR: the booking failed (sold out). I am sorry, nothing was booked."


def example(name: str) -> ModuleType:
    """A module of the examples."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded(capture: Capture, agent: Callable[[], object]) -> tuple[Run, object]:
    """The run of one call of the agent, and what it returned."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False)
    capture.on(tracer_provider=tracer)
    with tracer.get_tracer("test").start_as_current_span("agent"):
        result = agent()
    capture.off()
    assert trace.get_current_span().get_span_context().trace_id == 0
    return open_store(capture.store).run("last"), result


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keys that the SDKs insist on, and no wait before they try again."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for client in (anthropic.Anthropic, openai.OpenAI):
        monkeypatch.setattr(client, "_calculate_retry_timeout", lambda *args, **kwargs: 0.0)
    return


@pytest.fixture
def trip(
    keys: None, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, Any, ModelServer]]:
    """The Osaka trip that was lost, its agent, and the server that its tail talks to."""
    with ModelServer(booking, seed=3) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        agent = example("booking_agent")
        run, said = recorded(capture, lambda: agent.book("Osaka"))
        assert (run.steps, said) == (5, LOST)
        server.requests.clear()
        yield run, lambda: agent.book("Osaka"), server


# What each intervention makes of the streaming agent: its answer, and (replayed, live) calls.
BOOKINGS: dict[str, tuple[Edit, str, tuple[int, int]]] = {
    "tool_input": (tool_input(MENDED), BOOKED, (2, 2)),
    "tool_input by name": (tool_input(MENDED, tool="check_seats"), BOOKED, (2, 2)),
    "text": (text("I give up."), "I give up.", (2, 0)),
    "careful": (request(system="Always double-check the date."), BOOKED, (2, 4)),
    "model": (request(model="claude-opus-4-5"), BOOKED, (2, 4)),
    "set": (request(set={"max_tokens": 99}), LOST, (2, 3)),
    "resample": (resample(), LOST, (2, 3)),
    "noop": (noop(), LOST, (3, 2)),
    "429": (fault(429), LOST, (2, 3)),
    "500": (fault(500), LOST, (2, 3)),
    "529": (fault(529), LOST, (2, 3)),
    "timeout": (fault("timeout"), LOST, (2, 3)),
}


@pytest.mark.parametrize("name", BOOKINGS)
def test_a_streaming_agent_reads_each_intervention(name: str, trip: tuple[Run, Any, ModelServer]) -> None:
    """The Anthropic SDK parses what it is given like a live stream, and the agent acts on it."""
    run, agent, server = trip
    edit, said, (replayed, live) = BOOKINGS[name]
    made = fork(
        run, at=2, edit=edit, agent=agent, oracle=lambda graded: str(graded.output).startswith("BOOKED")
    )
    assert made.problem is None, made.problem
    assert made.result == said
    assert made.outcome == said.startswith("BOOKED")
    assert (made.calls_replayed, made.calls_live, len(server.requests)) == (replayed, live, live)
    assert made.run.exchanges[2].intervention == edit.label
    assert made.last_text == said


def test_a_stream_that_breaks(trip: tuple[Run, Any, ModelServer]) -> None:
    """A connection cut in mid-stream reaches the agent as its client's error, after the part that came."""
    run, agent, _ = trip
    made = fork(run, at=2, edit=fault("disconnect"), agent=agent)
    assert made.problem is not None
    assert (made.problem.kind, made.exit_status) == ("crash", 1)
    assert "RemoteProtocolError" in made.stderr
    forked = made.run.exchanges[2]
    assert forked.outcome == "cut"
    whole = run.exchanges[2].response
    assert forked.response is not None
    assert whole is not None
    assert 0 < len(forked.response.body) < len(whole.body)
    with pytest.raises(AgentFailed):
        made.raise_for_problem()


def test_a_whole_response(trip: tuple[Run, Any, ModelServer]) -> None:
    """A response that is given as one JSON message reaches a streaming agent as a stream."""
    run, agent, server = trip
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [{"type": "text", "text": "Given whole."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    made = fork(run, at=2, edit=response(json.dumps(message)), agent=agent)
    assert (made.problem, made.result, server.requests) == (None, "Given whole.", [])
    given = made.run.exchanges[2].response
    assert given is not None
    assert given.header("content-type") == "text/event-stream; charset=utf-8" or b"event:" in given.body


def test_what_a_fault_costs_offline(trip: tuple[Run, Any, ModelServer]) -> None:
    """An agent that survives an overloaded model by its SDK's retry is proven to, for no money."""
    run, agent, server = trip
    made = fork(run, at=2, edit=fault(529), agent=agent, tail="offline")
    assert (made.problem, made.result) == (None, LOST)
    assert (made.calls_live, made.calls_memo, made.cost_usd, made.reconverged_at) == (0, 3, 0, 4)
    assert server.requests == []


def test_the_tail_of_a_mended_trip(trip: tuple[Run, Any, ModelServer]) -> None:
    """A recorded tail goes live where the conversation is new; an offline one says what it would need."""
    run, agent, server = trip
    made = fork(run, at=2, edit=tool_input(MENDED), agent=agent, tail="recorded")
    assert (made.problem, made.result, made.calls_memo, made.calls_live) == (None, BOOKED, 0, 2)
    server.requests.clear()
    refused = fork(run, at=2, edit=tool_input(MENDED), agent=agent, tail="offline")
    assert refused.problem is not None
    assert refused.problem.kind == "offline"
    assert "messages[" in refused.problem.text
    assert server.requests == []


def test_in_place_forks_leave_the_process_as_it_was(trip: tuple[Run, Any, ModelServer]) -> None:
    """Afterwards the same function talks to the model itself, and nothing more is recorded."""
    run, agent, server = trip
    with Forker(run, agent=agent, jobs=4) as forker:
        made = forker.forks(
            [Planned(change=edit.bind(forker.tape, 2)) for edit in (tool_input(MENDED), noop(), text("x"))]
        )
    assert [one.result for one in made] == [BOOKED, LOST, "x"]
    server.requests.clear()
    runs = len(run.store.runs())
    assert agent() == LOST
    assert len(server.requests) == 5
    assert len(run.store.runs()) == runs


def test_an_agent_in_place_that_raises(trip: tuple[Run, Any, ModelServer]) -> None:
    """Its error is data, with its traceback; what it does before its step is a problem of the fork."""
    run, agent, _ = trip

    def raising() -> None:
        agent()
        raise RuntimeError("after all")

    made = fork(run, at=2, edit=noop(), agent=raising)
    assert made.problem is not None
    assert made.problem.kind == "crash"
    assert "RuntimeError: after all" in made.problem.text
    early = fork(run, at=2, edit=noop(), agent=lambda: "nothing")
    assert getattr(early.problem, "kind", None) == "not_reached"
    drifted = fork(run, at=2, edit=noop(), agent=lambda: example("booking_agent").book("Kyoto"))
    assert drifted.drift is not None
    assert "Kyoto" in str(drifted.drift.got)


SUPPORTS: dict[str, tuple[int, Edit, str]] = {
    "text of a chat": (2, text("All done."), "All done.\nSUMMARY"),
    "tool call": (1, tool_input({"order_id": "A-1042", "amount": 1}), "REFUNDED order A-1042: 89 EUR"),
    "tool call of the first": (0, tool_input({"order_id": "B-7"}), "ERROR: I could not find order A-1042."),
    "text of a response": (3, text("A note."), "\nA note."),
    "model": (0, request(model="gpt-5"), "REFUNDED order A-1042"),
    "system of a response": (3, request(system="Be brief."), "SUMMARY"),
    "429": (1, fault(429), "REFUNDED"),
    "timeout": (3, fault("timeout"), "SUMMARY"),
    "noop": (1, noop(), "REFUNDED"),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_an_openai_agent_reads_each_intervention(
    name: str, keys: None, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat Completions and Responses, as the OpenAI SDK asks for them."""
    at, edit, said = SUPPORTS[name]
    with ModelServer(chat_tools, seed=3) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        agent = example("openai_agent")
        run, _ = recorded(capture, lambda: agent.support("A-1042"))
        assert run.steps == 4
        made = fork(run, at=at, edit=edit, agent=lambda: agent.support("A-1042"))
    assert made.problem is None, made.problem
    assert said in str(made.result)
    assert made.forked_at == at
    assert made.cost_usd is not None


@pytest.fixture
def fan(
    keys: None, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, Any, ModelServer]]:
    """Six questions asked at once and their synthesis."""
    with ModelServer(research, seed=3) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        agent = example("research_fanout")
        run, said = recorded(capture, lambda: agent.research("tea"))
        assert run.steps == 7
        assert str(said).startswith("SYNTHESIS of 6")
        server.requests.clear()
        yield run, agent, server


@pytest.mark.parametrize("at", [0, 3, 5])
def test_one_of_a_fan_out_is_changed(fan: tuple[Run, Any, ModelServer], at: int) -> None:
    """The five others come from the tape, in whatever order they are asked; only the synthesis is live."""
    run, agent, server = fan
    made = fork(run, at=at, edit=text("Nothing is known"), agent=lambda: agent.research("tea"))
    assert made.problem is None, made.problem
    assert (made.calls_replayed, made.calls_live) == (5, 1)
    (asked,) = (one.json()["messages"][-1]["content"] for one in server.requests)
    assert asked.count("Nothing is known") == 1
    assert str(made.result).startswith("SYNTHESIS of 6")
    assert "nothing is known" in str(made.result)


def test_a_coroutine_function_in_a_running_loop(fan: tuple[Run, Any, ModelServer]) -> None:
    """An asynchronous agent is forked from a notebook's cell, where a loop already runs."""
    run, agent, _ = fan

    async def cell() -> Any:
        return fork(run, at=2, edit=noop(), agent=lambda: agent.gather("tea"), tail="offline")

    made = asyncio.run(cell())
    assert (made.problem, made.calls_replayed, made.calls_memo) == (None, 6, 1)


def test_forks_in_place_from_two_threads_take_turns(trip: tuple[Run, Any, ModelServer]) -> None:
    """They are not served each other's answers."""
    run, agent, _ = trip
    results: dict[str, object] = {}

    def work(word: str) -> None:
        results[word] = fork(run, at=2, edit=text(word), agent=agent).result

    threads = [threading.Thread(target=work, args=(word,)) for word in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"one": "one", "two": "two"}


def test_the_example_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The story of the README: the trip is lost, step 2's tool input is mended, and it is booked."""
    script = str(EXAMPLES / "booking_agent.py")
    cli = ["-m", "tracefork_backend.cli"]
    gone: dict[str, str | None] = {"ANTHROPIC_API_KEY": None, "ANTHROPIC_BASE_URL": None}
    store = tmp_path / "store"
    run_python([*cli, "run", "--", sys.executable, script, "--city", "Osaka"], store=store, **gone)
    for name in gone:
        monkeypatch.delenv(name, raising=False)
    made = fork(
        open_store(store).run("last"),
        at=2,
        edit=tool_input(MENDED),
        times=2,
        jobs=2,
        oracle=lambda graded: "BOOKED" in str(graded.output),
    )
    assert [one.problem for one in made] == [None, None]
    assert [one.stdout for one in made] == [f"{BOOKED}\n"] * 2
    assert [one.outcome for one in made] == [True, True]
    assert all(one.calls_live >= 2 for one in made)
