"""`@agent` says how the agent's function was called and what it returned, and is the parent of its calls."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.trace import TracerProvider
from recorded import fetch

from tracefork_otel import agent
from tracefork_otel.decorators.agent import RESULT_LIMIT


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
