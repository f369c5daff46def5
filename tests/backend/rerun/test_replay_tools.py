"""What a replay gives to calls of tools, and what its receipt says of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import ReplayResult, replay
from tracefork_backend.store import open_store

from tracefork_otel import Drift, Tape, UsageError, tool

RAN: list[object] = []


@tool
def lookup(city: str) -> object:
    """A tool whose result is JSON."""
    RAN.append(city)
    return {"city": city, "ran": len(RAN)}


@tool
async def wait_for(city: str) -> str:
    """An asynchronous tool."""
    await asyncio.sleep(0)
    RAN.append(city)
    return f"{city} {len(RAN)}"


@dataclass
class Seats:
    """A result that is no JSON."""

    left: int


@tool
def seats(flight: str) -> Seats:
    """A tool whose result is kept by text alone."""
    RAN.append(flight)
    return Seats(7)


class SoldOut(Exception):
    """An exception whose type takes something else than its arguments."""

    def __init__(self, flight: str) -> None:
        super().__init__(f"{flight} is sold out")
        self.flight = flight


@tool
def fail(flight: str) -> None:
    """A tool that raises."""
    RAN.append(flight)
    raise SoldOut(flight)


@pytest.fixture
def post(raw: str) -> Callable[[object], None]:
    """Sends a text somewhere, so that it is part of a request."""
    return lambda text: httpx2.post(f"{raw}/echo", content=str(text)).raise_for_status() and None


@pytest.fixture
def recorded(capture: Capture) -> Iterator[Callable[..., Any]]:
    """Records one call of an agent and gives what replays it, with `RAN` emptied in between."""

    def record(agent: Callable[[], Any], provider: TracerProvider | None = None) -> Callable[..., Any]:
        own = provider or TracerProvider(shutdown_on_exit=False)
        capture.on(tracer_provider=own)
        with own.get_tracer("test").start_as_current_span("mine"):
            agent()
        capture.off()

        def again(changed: Callable[[], Any] = agent, **options: Any) -> ReplayResult:
            RAN.clear()
            return replay(open_store(capture.store).run("last"), agent=changed, **options)

        return again

    yield record
    RAN.clear()


def lines(found: ReplayResult, word: str) -> list[str]:
    """The lines of the receipt that begin with a word, without it."""
    return [line.removeprefix(word).strip() for line in found.receipt if line.startswith(word)]


@pytest.mark.slow
def test_results_and_errors_are_served_and_no_tool_runs(
    recorded: Callable[..., Any], post: Callable[[object], None]
) -> None:
    """Values, sync and async, and an exception of the same type: as recorded, each once, in any order."""

    def agent(*cities: str) -> None:
        found = {city: lookup(city) for city in cities or ("Lima", "Oslo")}
        post([found["Lima"], found["Oslo"]])
        post(asyncio.run(wait_for("Bonn")))
        with pytest.raises(SoldOut) as caught:
            fail("NH1")
        post(f"{caught.value} {caught.value.flight} {caught.value.args}")

    again = recorded(agent)
    found = again()
    assert (found.passed, RAN) == (True, []), found.receipt
    assert lines(found, "tools ") == ["4 of 4 served from the tape"]
    assert again(lambda: agent("Oslo", "Lima")).passed
    assert RAN == []


@pytest.mark.slow
def test_a_result_that_is_no_json_runs_and_is_named(
    recorded: Callable[..., Any], post: Callable[[object], None]
) -> None:
    """A dataclass is not made of text again: its tool runs, which the receipt says; `refuse` refuses it."""

    def agent() -> None:
        found = lookup("Lima"), lookup("Lima")
        post(f"{found[0]['ran'] < found[1]['ran']} {seats('NH1').left}")  # type: ignore[index]

    again = recorded(agent)
    found = again()
    assert (found.passed, RAN) == (True, ["NH1"]), found.receipt
    assert lines(found, "tools ") == [
        "2 of 3 served from the tape; ran for real, as no JSON of its result is recorded: seats"
    ]
    live = again(tools="live")
    assert (live.passed, RAN) == (True, ["Lima", "Lima", "NH1"]), live.receipt
    assert lines(live, "tools ") == ["0 of 3 served from the tape; ran for real: lookup (2 times), seats"]
    refused = again(tools="refuse")
    assert (refused.passed, RAN) == (False, [])
    assert (refused.drifts[0].cause, refused.drifts[0].step) == ("tool_result", 0)
    assert "its recorded result is no JSON" in refused.drifts[0].text
    with pytest.raises(UsageError, match="tools='bogus': use recorded, live or refuse"):
        again(tools="bogus")


@pytest.mark.slow
def test_a_call_that_is_not_recorded_is_a_drift(
    recorded: Callable[..., Any], post: Callable[[object], None]
) -> None:
    """The agent gets a Drift, and whatever it makes of it, the receipt fails; as for a call left out."""

    def agent(city: str = "Lima") -> None:
        post("first")
        try:
            post(lookup(city))
        except Drift:
            post("whatever")

    again = recorded(agent)
    drifted = again(lambda: agent("Oslo"))
    assert (drifted.passed, RAN) == (False, [])
    first = drifted.drifts[0]
    assert (first.cause, first.step, first.path) == ("tool_result", 0, "city")
    assert (first.recorded, first.got) == ("Lima", "Oslo")
    assert lines(drifted, "tools ") == ["0 of 1 served from the tape; refused: lookup"]

    def without() -> None:
        post("first")
        post({"city": "Lima", "ran": 1})

    fewer = again(without)
    assert [(one.cause, one.step) for one in fewer.drifts] == [("missing", 0)], fewer.receipt
    assert 'tool lookup({"city": "Lima"}) was recorded, but never called' in fewer.receipt[-2]
    assert again(without, tools="live").passed


@pytest.mark.slow
def test_tools_that_make_requests_run_on_them(recorded: Callable[..., Any], raw: str) -> None:
    """A tool that calls a server runs, its request served; a served tool's inner calls are not missed."""

    @tool
    def fetched(word: str) -> str:
        RAN.append(word)
        return httpx2.post(f"{raw}/echo", content=word).text + str(lookup(word))

    @tool
    def outer(word: str) -> object:
        RAN.append(word)
        return [lookup(word), lookup(word)]

    def agent() -> None:
        httpx2.post(f"{raw}/echo", content=fetched("Lima") + str(outer("Oslo")))

    again = recorded(agent)
    found = again()
    assert (found.passed, RAN) == (True, ["Lima"]), found.receipt
    assert lines(found, "tools ") == [
        "2 of 3 served from the tape; ran, as its requests are on the tape: fetched"
    ]
    assert again(tools="refuse").passed


def test_a_tool_for_the_agents_memory_runs(
    recorded: Callable[..., Any], post: Callable[[object], None]
) -> None:
    """`live` tools run in a replay, which the receipt says; `timing` waits as long as a served one took."""
    notes: list[str] = []

    @tool(live=True)
    def remember(note: str) -> int:
        notes.append(note)
        return len(notes)

    @tool
    def slow() -> None:
        time.sleep(0.2)

    def agent() -> None:
        notes.clear()
        slow()
        remember("a")
        remember("a")
        post(notes)

    again = recorded(agent)
    started = time.monotonic()
    found = again(timing="recorded")
    assert found.passed, found.receipt
    assert time.monotonic() - started > 0.2
    assert lines(found, "tools ") == ["1 of 3 served from the tape; ran for real: remember (2 times)"]


@pytest.mark.slow
def test_a_cancelled_call_is_cancelled_again(
    recorded: Callable[..., Any], post: Callable[[object], None]
) -> None:
    """What a timeout ended in the recording is ended by it in the replay."""

    @tool
    async def slow() -> None:
        RAN.append("slow")
        await asyncio.sleep(60)

    async def limited() -> str:
        try:
            await asyncio.wait_for(slow(), 0.05)
        except TimeoutError:
            return "too slow"
        return "done"

    again = recorded(lambda: post(asyncio.run(limited())))
    found = again()
    assert (found.passed, RAN) == (True, []), found.receipt


@pytest.mark.slow
def test_the_store_and_tapes_have_results_whole(
    recorded: Callable[..., Any], post: Callable[[object], None], capture: Capture, tmp_path: Path
) -> None:
    """Whatever length the provider's attributes may have; a tape holds them too, and so does its import."""
    provider = TracerProvider(
        span_limits=SpanLimits(max_attribute_length=20, max_span_attributes=4), shutdown_on_exit=False
    )
    text = "ü" * 40_000

    @tool
    def long(given: str, ctx: object) -> dict[str, str]:
        RAN.append(given)
        return {"said": given}

    again = recorded(lambda: post(long(text, object())["said"]), provider)
    found = again()
    assert (found.passed, RAN) == (True, []), found.receipt
    store = open_store(capture.store)
    (row, replayed) = store.rows("select * from tools join runs using (run_id) order by kind")
    assert row["result"] == f'{{"said": "{text}"}}'
    assert row["arguments"] == f'{{"given": "{text}", "ctx": "<object object>"}}'
    assert (row["replayed"], replayed["replayed"], replayed["result"]) == (False, True, row["result"])
    run = store.run("last")
    path = tmp_path / "run.tape.jsonl"
    tape = reconstruct(store, run)
    tape.dump(path)
    assert Tape.load(path).tools == tape.tools
    import_tape(tmp_path / "other", path)
    other = open_store(tmp_path / "other")
    (again_there,) = reconstruct(other, other.run("last")).tools
    assert (again_there.arguments, again_there.result) == (tape.tools[0].arguments, tape.tools[0].result)
    assert (again_there.by_text, again_there.form) == (("ctx",), "value")
    RAN.clear()
    assert replay(Tape.load(path), agent=lambda: post(long(text, object())["said"])).passed
    assert RAN == []
