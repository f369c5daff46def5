"""`@tool` records what a tool was given and what it gave, and changes neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.trace import TracerProvider
from recorded import fetch
from tracefork_backend.store import open_store

from tracefork_otel import UsageError, tool


@tool
def seats(url: str, flight: object, *, rows: int = 1) -> dict[str, int]:
    """A result that is JSON, and a call of its own."""
    fetch(httpx2, "sync", "GET", url)
    return {"seats": rows * 6}


@tool(name="slow_search")
async def search(word: str) -> object:
    """A result that is not JSON."""
    await asyncio.sleep(0)
    return complex(1, len(word))


@tool
def fail(flight: str) -> None:
    """A tool that raises."""
    raise LookupError(f"no flight {flight}")


@pytest.mark.parametrize("with_provider", [True, False])
def test_calls_are_rows_of_the_tools_view(
    with_provider: bool, capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """Arguments and results by value where they are JSON, by text otherwise; errors are kept and raised."""
    fits = object()
    capture.on(tracer_provider=provider if with_provider else None)
    assert seats(f"{raw}/empty", fits, rows=2) == {"seats": 12}
    assert asyncio.run(search("ab")) == 1 + 2j
    with pytest.raises(LookupError, match="no flight NH1"):
        fail("NH1")
    recorded = capture.read()
    assert len({span.trace_id for span in recorded.spans if span.name.startswith("execute_tool")}) == 1
    assert recorded.only().parent_span_id == recorded.span("execute_tool seats").span_id
    rows = open_store(capture.store).rows("select name, arguments, result, error from tools order by name")
    by_name = {row.pop("name"): row for row in rows}
    assert by_name == {
        "fail": {"arguments": '{"flight": "NH1"}', "result": None, "error": "LookupError: no flight NH1"},
        "seats": {
            "arguments": f'{{"url": "{raw}/empty", "flight": "<object object>", "rows": 2}}',
            "result": '{"seats": 12}',
            "error": None,
        },
        "slow_search": {"arguments": '{"word": "ab"}', "result": "(1+2j)", "error": None},
    }


def test_a_tool_that_is_not_recorded_is_the_function() -> None:
    """Without a recorder the tool gives what the function gives."""
    assert asyncio.run(search("abc")) == 1 + 3j


def test_generators_are_refused() -> None:
    """A generator, sync or async, is refused where it is decorated, by name."""

    def some() -> Iterator[int]:
        yield 1

    async def others() -> AsyncIterator[int]:
        yield 1

    for function in (some, others):
        with pytest.raises(UsageError, match=f"the tool {function.__name__} is a generator"):
            tool(function)
