"""What a replay gives to calls of tools, and what its receipt says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from tracefork_backend.importing import import_tape
from tracefork_backend.reconstruct import reconstruct
from tracefork_backend.replay import ReplayResult, replay
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
