"""Tools that run again in a replay are named in its receipt."""

from __future__ import annotations

import httpx2
from conftest import Capture
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.replay import replay
from tracefork_backend.store import open_store

from tracefork_otel import tool

RAN: list[str] = []


@tool
def lookup(city: str) -> str:
    """What the tool answers, which is the same each time."""
    RAN.append(city)
    return city.upper()


def test_tools_that_ran_for_real_are_named(capture: Capture, provider: TracerProvider, raw: str) -> None:
    """The receipt says which tool ran and how often, and the replay passes all the same."""

    def agent() -> None:
        for city in ("Lima", "Oslo"):
            httpx2.post(f"{raw}/echo", content=lookup(city))

    capture.on(tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("mine"):
        agent()
    capture.off()
    RAN.clear()
    again = replay(open_store(capture.store).run("last"), agent=agent)
    assert again.passed, again.receipt
    assert RAN == ["Lima", "Oslo"]
    assert "note    tools ran for real: lookup (2 times)" in again.receipt
