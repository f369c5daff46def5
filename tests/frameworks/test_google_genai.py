"""google-genai, unmodified: sync and async, whole and streamed, with its own loop of function calls."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from frameworks.bench import QUESTION, Bench, population
from tracefork_backend.diff import diff
from tracefork_backend.edits import text, tool_input
from tracefork_backend.fork import Fork, fork
from tracefork_backend.store import open_store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def genai() -> Any:
    """The SDK, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("google.genai", reason="google-genai is not installed")


def agents(genai: Any, url: str) -> dict[str, Callable[[], str]]:
    """The same agent by each of the SDK's ways to ask."""
    asked = {"model": "gemini-3-flash", "config": {"tools": [population]}}

    def client(**options: Any) -> Any:
        return genai.Client(api_key="the-secret-key", http_options={"base_url": url, **options})

    def httpx_client() -> Any:
        # Where aiohttp is installed the SDK's async client prefers it, and it is not captured.
        return client(async_client_args={"transport": httpx2.AsyncHTTPTransport()})

    def whole() -> str:
        with client() as made:
            return made.chats.create(**asked).send_message(QUESTION).text

    def streamed() -> str:
        with client() as made:
            return last_turn([*made.chats.create(**asked).send_message_stream(QUESTION)])

    async def asynchronously() -> str:
        async with httpx_client().aio as made:
            return (await made.chats.create(**asked).send_message(QUESTION)).text

    async def streamed_asynchronously() -> str:
        async with httpx_client().aio as made:
            stream = await made.chats.create(**asked).send_message_stream(QUESTION)
            return last_turn([chunk async for chunk in stream])

    return {
        "whole": whole,
        "streamed": streamed,
        "async": lambda: asyncio.run(asynchronously()),
        "async streamed": lambda: asyncio.run(streamed_asynchronously()),
    }


def last_turn(chunks: list[Any]) -> str:
    """The text of the last response, whose chunks share an id."""
    last = chunks[-1].response_id
    return "".join(chunk.text or "" for chunk in chunks if chunk.response_id == last)


@pytest.mark.parametrize("way", ["whole", "streamed", "async", "async streamed"])
def test_an_agent_with_a_function(bench: Bench, genai: Any, way: str) -> None:
    """Its loop of function calls is recorded whole, without its key; the run replays exactly and forks."""
    agent = agents(genai, bench.server.url)[way]
    run = bench.record(agent)
    assert all("the-secret-key" not in repr(exchange) for exchange in run.exchanges)
    bench.holds(run, agent)
