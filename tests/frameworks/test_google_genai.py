"""google-genai, unmodified: sync and async, whole and streamed, with its own loop of function calls."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from frameworks.bench import ASKED, PEOPLE, QUESTION, Bench, population
from tracefork_backend.diffs.diff import diff
from tracefork_backend.rerun.edits import request, tool_input
from tracefork_backend.rerun.forker import Fork
from tracefork_backend.rerun.forking import fork
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
        # Where aiohttp is installed the SDK's async client prefers it.
        return client(async_client_args={"transport": httpx2.AsyncHTTPTransport()})

    def whole() -> str:
        with client() as made:
            return made.chats.create(**asked).send_message(QUESTION).text

    def streamed() -> str:
        with client() as made:
            return last_turn([*made.chats.create(**asked).send_message_stream(QUESTION)])

    async def asynchronously(client: Callable[[], Any]) -> str:
        async with client().aio as made:
            return (await made.chats.create(**asked).send_message(QUESTION)).text

    async def streamed_asynchronously(client: Callable[[], Any]) -> str:
        async with client().aio as made:
            stream = await made.chats.create(**asked).send_message_stream(QUESTION)
            return last_turn([chunk async for chunk in stream])

    return {
        "whole": whole,
        "streamed": streamed,
        "async": lambda: asyncio.run(asynchronously(httpx_client)),
        "async streamed": lambda: asyncio.run(streamed_asynchronously(httpx_client)),
        "aiohttp": lambda: asyncio.run(asynchronously(client)),
        "aiohttp streamed": lambda: asyncio.run(streamed_asynchronously(client)),
    }


def last_turn(chunks: list[Any]) -> str:
    """The text of the last response, whose chunks share an id."""
    last = chunks[-1].response_id
    return "".join(chunk.text or "" for chunk in chunks if chunk.response_id == last)


@pytest.mark.parametrize(
    "way",
    [
        "whole",
        pytest.param("streamed", marks=pytest.mark.slow),
        pytest.param("async", marks=pytest.mark.slow),
        pytest.param("aiohttp", marks=pytest.mark.slow),
        "async streamed",
        "aiohttp streamed",
    ],
)
def test_an_agent_with_a_function(bench: Bench, genai: Any, way: str) -> None:
    """Its loop of function calls is recorded whole, without its key; the run replays exactly and forks."""
    agent = agents(genai, bench.server.url)[way]
    run = bench.record(agent)
    assert all("the-secret-key" not in repr(exchange) for exchange in run.exchanges)
    bench.holds(run, agent)
    with open_store(bench.capture.store) as store:
        asked = f"from exchanges where run_id = '{run.run_id}' order by step"
        rows = store.sql(f"select provider, operation, model, streamed, input_tokens > 0 {asked}").fetchall()
        told = store.sql(
            f"select role, kind, name, content from messages where run_id = '{run.run_id}' and step = 2"
            " order by position"
        ).fetchall()
    assert rows == [("gcp.gemini", "generate_content", "gemini-3-flash", "streamed" in way, True)] * 3
    assert told == [
        ("user", "text", None, QUESTION),
        *(
            row
            for city in ASKED
            for row in (
                *(("model", "text", None, piece) for piece in pieces(told, way)),
                ("model", "tool_use", "population", json.dumps({"city": city}, separators=(",", ":"))),
                ("tool", "tool_result", "population", PEOPLE[city]),
            )
        ),
        ("model", "text", None, " and ".join(PEOPLE[city] for city in ASKED)),
    ]


def pieces(told: list[Any], way: str) -> list[str]:
    """What the model said beside its call: the SDK's chats keep a stream's chunks as they came."""
    first = [content for _, kind, _, content in told[1:4] if kind == "text"]
    assert "".join(first) == "I look it up.", told
    assert (len(first) > 1) <= ("streamed" in way)
    return first


@pytest.mark.parametrize(
    "way", [pytest.param("whole", marks=pytest.mark.slow), "async streamed", "aiohttp streamed"]
)
def test_another_model_is_asked_by_another_url(bench: Bench, genai: Any, way: str) -> None:
    """A fork with another model sends its requests, with their key, to that model's path."""
    agent = agents(genai, bench.server.url)[way]
    run = bench.record(agent)
    other = fork(run, at=1, edit=request(model="gemini-3-pro"), agent=agent)
    assert isinstance(other, Fork)
    assert other.problem is None, other.problem
    assert (other.calls_replayed, other.calls_live) == (1, 2)
    sent = bench.server.requests
    assert ["gemini-3-pro" in one.path for one in sent] == [True, True]
    assert sent[0].body == run.exchanges[1].request.body
    assert all(one.path.endswith("alt=sse") == ("streamed" in way) for one in sent)
    assert {one.header("x-goog-api-key") for one in sent} == {"the-secret-key"}
    with open_store(bench.capture.store) as store:
        rows = store.sql(
            f"select model from exchanges where run_id = '{other.run_id}' and not replayed order by step"
        ).fetchall()
    assert rows == [("gemini-3-pro",), ("gemini-3-pro",)]


def test_a_change_is_told_by_diff(bench: Bench, genai: Any) -> None:
    """Between a run and its fork with other arguments, `diff` names the first step that differs and how."""
    agent = agents(genai, bench.server.url)["streamed"]
    run = bench.record(agent)
    other = fork(run, at=1, edit=tool_input({"city": "Oslo"}), agent=agent)
    assert isinstance(other, Fork)
    found = diff(run, open_store(bench.capture.store).run(other.run_id))
    assert found.first == 1
    assert "Oslo" in str(found)
