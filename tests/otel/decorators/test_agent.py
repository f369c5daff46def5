"""`@agent` says how the agent's function was called and what it returned, and is the parent of its calls."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar

import httpx2
import pytest
from conftest import Capture
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from recorded import fetch

from tracefork_otel import agent
from tracefork_otel.session.result import RESULT_LIMIT


@agent
def book(city: str, *, seats: int = 1) -> dict[str, object]:
    """A result that is JSON."""
    fetch(httpx2, "sync", "GET", city)
    return {"booked": True, "seats": seats}


@agent(name="search")
async def look(url: str, extra: object = None) -> str:
    """A result that is text."""
    async with httpx2.AsyncClient() as client:
        await asyncio.gather(*(client.get(url) for _ in range(3)))
    return "found" * 20_000


@agent
def fail() -> None:
    """An agent that raises."""
    raise ValueError("no seats")


@pytest.mark.parametrize("with_provider", [True, False])
def test_call_and_result_are_recorded(
    with_provider: bool, capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """The span has entry point, arguments and result, and the calls below it, with a provider or without."""
    capture.on(tracer_provider=provider if with_provider else None)
    assert book(f"{raw}/empty", seats=2) == {"booked": True, "seats": 2}
    recorded = capture.read()
    span = recorded.span("invoke_agent book")
    assert span.parent_span_id is None
    assert span.ended_ns is not None
    assert str(span.attributes["tracefork.entrypoint"]).endswith("test_agent:book")
    assert json.loads(str(span.attributes["tracefork.arguments"])) == {
        "args": [f"{raw}/empty"],
        "kwargs": {"seats": 2},
    }
    assert json.loads(str(span.attributes["tracefork.result"])) == {"booked": True, "seats": 2}
    assert span.attributes["tracefork.command"]
    assert recorded.only().parent_span_id == span.span_id
    assert recorded.only().trace_id == span.trace_id


@pytest.mark.parametrize("with_provider", [True, False])
def test_async_agents_and_long_results(
    with_provider: bool, capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """An async agent's tasks are its children; arguments that are no JSON are said to be; results are cut."""
    capture.on(tracer_provider=provider if with_provider else None)
    asyncio.run(look(f"{raw}/empty", extra=object()))
    recorded = capture.read()
    span = recorded.span("invoke_agent search")
    assert {exchange.parent_span_id for exchange in recorded.exchanges} == {span.span_id}
    assert len(recorded.exchanges) == 3
    assert "tracefork.arguments" not in span.attributes
    assert "not JSON" in str(span.attributes["tracefork.arguments.missing"])
    assert len(str(span.attributes["tracefork.result"])) == RESULT_LIMIT


@pytest.mark.parametrize("with_provider", [True, False])
def test_an_agent_that_raises(with_provider: bool, capture: Capture, provider: TracerProvider) -> None:
    """The error goes through, and the span is an error that names it."""
    capture.on(tracer_provider=provider if with_provider else None)
    with pytest.raises(ValueError, match="no seats"):
        fail()
    span = capture.read().span("invoke_agent fail")
    assert (span.status, span.status_message) == ("ERROR", "ValueError: no seats")


def test_nested_agents(capture: Capture, raw: str) -> None:
    """An agent that calls another is its parent, and the trace is one."""

    @agent
    def outer() -> None:
        book(f"{raw}/empty")

    capture.on()
    outer()
    recorded = capture.read()
    inner = recorded.span("invoke_agent book")
    assert inner.parent_span_id == recorded.span("invoke_agent outer").span_id
    assert recorded.only().parent_span_id == inner.span_id


def test_without_recording_it_is_the_function(raw: str) -> None:
    """Where nothing is recorded, the decorated function does what it does."""
    assert book(f"{raw}/empty") == {"booked": True, "seats": 1}
    assert book.__name__ == "book"


def test_a_generator_is_one_call_while_it_is_consumed(capture: Capture, raw: str) -> None:
    """Its calls are below its span, and its result is what it yielded, as far as it was asked."""

    @agent
    def pieces(count: int) -> Generator[str, str, str]:
        got = ""
        for number in range(count):
            got += str((yield fetch(httpx2, "sync", "GET", f"{raw}/status/20{number}").reason_phrase))
        return got

    @agent
    async def stream(count: int) -> AsyncGenerator[str]:
        for number in range(count):
            await asyncio.sleep(0)
            yield fetch(httpx2, "sync", "GET", f"{raw}/status/20{number}").reason_phrase

    async def consume() -> list[str]:
        found = []
        async with aclosing(stream(3)) as steps:
            async for piece in steps:
                fetch(httpx2, "sync", "GET", f"{raw}/empty")
                found.append(piece)
                if len(found) == 2:
                    break
        return found

    capture.on()
    steps = pieces(2)
    assert next(steps) == "OK"
    assert steps.send("a") == "Created"
    with pytest.raises(StopIteration) as stopped:
        steps.send("b")
    assert stopped.value.value == "ab"
    assert asyncio.run(consume()) == ["OK", "Created"]
    with pytest.raises(ZeroDivisionError):
        pieces(1).throw(ZeroDivisionError)
    records = capture.read()
    told = {span.name: span for span in records.spans if span.name.startswith("invoke_agent")}
    assert told["invoke_agent stream"].attributes["tracefork.result"] == '["OK", "Created"]'
    first, second = told["invoke_agent pieces"].trace_id, told["invoke_agent stream"].trace_id
    runs = [exchange.trace_id for exchange in records.in_order()]
    # The consumer's own calls, third and fifth, belong to what is open: they are made while it is consumed.
    assert runs == [first, first, second, second, second, second]
    below = [exchange.parent_span_id for exchange in records.in_order()]
    assert below[2:] == [told["invoke_agent stream"].span_id] * 4


def test_work_without_a_current_span_belongs_to_what_is_open(capture: Capture, raw: str) -> None:
    """Threads under one call of an agent are in its run; between two that are open none is chosen."""

    def ask() -> None:
        fetch(httpx2, "sync", "GET", f"{raw}/empty")

    def threaded() -> None:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    @agent
    def outer() -> None:
        threaded()

    @agent
    def pair() -> Generator[None]:
        yield
        threaded()

    capture.on()
    outer()
    one, other = pair(), pair()
    assert next(one) is next(other) is None
    assert list(one) == list(other) == []
    records = capture.read()
    runs = {span.trace_id for span in records.spans if span.name == "invoke_agent outer"}
    first, second, third = (exchange.trace_id for exchange in records.in_order())
    assert {first} == runs
    roots = {span.trace_id for span in records.spans if span.attributes.get("tracefork.root")}
    assert second in roots
    assert third not in runs


def test_a_generator_is_what_it_was_to_its_consumer(capture: Capture, raw: str) -> None:
    """Its context is its consumer's, spans that it opens are its own, and it is kept as it goes."""
    held: ContextVar[int] = ContextVar("held", default=0)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("user")

    @contextmanager
    @agent
    def setting() -> Generator[None]:
        held.set(1)
        yield

    @agent
    def changing() -> Generator[dict[str, int]]:
        found: dict[str, int] = {}
        with tracer.start_as_current_span("inside") as span:
            for number in range(2):
                found["n"] = held.get() + number
                assert trace.get_current_span() is span
                yield found

    @agent
    def endless() -> Generator[str]:
        while True:
            yield "x" * 1000

    capture.on()
    with setting():
        assert held.get() == 1
    steps = changing()
    assert next(steps) == {"n": 1}
    assert not trace.get_current_span().get_span_context().is_valid
    held.set(7)
    assert next(steps) == {"n": 8}
    assert list(steps) == []
    for number, _ in enumerate(endless()):
        if number == 1000:
            break
    gc.collect()
    told = {span.name: span.attributes.get("tracefork.result") for span in capture.read().spans}
    assert told["invoke_agent changing"] == '[{"n": 1}, {"n": 8}]'
    assert RESULT_LIMIT - 1100 < len(str(told["invoke_agent endless"])) <= RESULT_LIMIT


def test_an_async_generator_left_open_ends_with_its_loop(capture: Capture) -> None:
    """The loop closes what nobody read to its end: once, without a word."""
    said: list[object] = []

    @agent
    async def stream() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            said.append("closed")

    async def consume() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        steps = stream()
        assert await anext(steps) == 1
        kept.append(steps)

    kept: list[object] = []
    capture.on()
    asyncio.run(consume())
    assert said == ["closed"]
    (span,) = (span for span in capture.read().spans if span.ended_ns is not None)
    assert (span.status, span.attributes["tracefork.result"]) == ("UNSET", "[1]")
