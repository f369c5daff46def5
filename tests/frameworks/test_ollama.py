"""The ollama SDK, unmodified: it reads what is written, and its agents are recorded, replayed and forked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering import Response, answering, lines, read, whole
from frameworks.bench import ASKED, PEOPLE
from frameworks.script import Script

from tracefork_otel.wire.replies import encode_error, encode_reply

ollama = pytest.importorskip("ollama", reason="ollama is not installed")

SAID = "Grüße ✈ aus Zürich, und noch ein paar Wörter mehr."
AGENT = """
import asyncio
import os
import sys

import ollama

PEOPLE = {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}


def population(city: str) -> str:
    '''How many people live in a city.

    Args:
      city: The city.
    '''
    return PEOPLE[city]


def results(turns, message):
    turns.append(message)
    for call in message.tool_calls or ():
        said = population(**call.function.arguments)
        turns.append({"role": "tool", "tool_name": call.function.name, "content": said})
    return bool(message.tool_calls)


def whole(turns):
    client = ollama.Client(host=os.environ["FAKE"])
    while True:
        message = client.chat(model="qwen3:8b", messages=turns, tools=[population]).message
        if not results(turns, message):
            return message.content


async def streamed(turns):
    client = ollama.AsyncClient(host=os.environ["FAKE"])
    while True:
        message = ollama.Message(role="assistant", content="", tool_calls=[])
        asked = client.chat(model="qwen3:8b", messages=turns, tools=[population], stream=True)
        async for part in await asked:
            message.content += part.message.content or ""
            message.tool_calls += part.message.tool_calls or []
        if not results(turns, message):
            return message.content


turns = [{"role": "system", "content": "Count."}, {"role": "user", "content": "In Lima and in Quito?"}]
print(asyncio.run(streamed(turns)) if STREAMED else whole(turns))
"""


def model(path: str, asked: dict[str, Any]) -> Response:
    """Asks the tool for each city in turn, then answers with what it was told; or says hello."""
    base = {"model": asked["model"], "created_at": "2026-01-01T00:00:00.5Z"}
    end = {**base, "done": True, "done_reason": "stop", "prompt_eval_count": 20, "eval_count": 8}
    if path == "/api/generate":
        if asked.get("stream"):
            return lines({**base, "response": "Hi", "done": False}, {**end, "response": "", "context": [1]})
        return whole({**end, "response": "Hi", "context": [1]})
    told = [one["content"] for one in asked["messages"] if one["role"] == "tool"]
    said: dict[str, Any] = {"role": "assistant", "content": " and ".join(told)}
    if len(told) < len(ASKED):
        call = {"function": {"name": "population", "arguments": {"city": ASKED[len(told)]}}}
        said |= {"content": "I look it up.", "tool_calls": [call]}
    if not asked["stream"]:
        return whole({**end, "message": said})
    words = said["content"].split(" ")
    parts = [word + " " * (at < len(words) - 1) for at, word in enumerate(words)]
    calls = [{**base, "message": {**said, "content": ""}, "done": False}] if "tool_calls" in said else []
    return lines(
        *({**base, "message": {"role": "assistant", "content": part}, "done": False} for part in parts),
        *calls,
        {**end, "message": {"role": "assistant", "content": ""}},
    )


TURNS = [{"role": "user", "content": "hi"}]


async def chat_async(url: str) -> list[Any]:
    """What the async client streams."""
    asked = ollama.AsyncClient(host=url).chat(model="qwen3:8b", messages=TURNS, stream=True)
    return [part async for part in await asked]


WAYS: dict[str, Callable[[str], list[Any]]] = {
    "chat": lambda url: [ollama.Client(host=url).chat(model="qwen3:8b", messages=TURNS)],
    "chat streamed": lambda url: [
        *ollama.Client(host=url).chat(model="qwen3:8b", messages=TURNS, stream=True)
    ],
    "chat async": lambda url: asyncio.run(chat_async(url)),
    "generate": lambda url: [ollama.Client(host=url).generate(model="qwen3:8b", prompt="hi")],
    "generate streamed": lambda url: [
        *ollama.Client(host=url).generate(model="qwen3:8b", prompt="hi", stream=True)
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_sdk_reads_what_is_written(way: str) -> None:
    """Its clients get the text, the end and the counts, in parts where they stream."""
    served: list[Response] = []
    with answering(lambda path, asked: served[-1] if served else model(path, asked)) as server:
        WAYS[way](server.url)
        (request,) = server.requests
        recorded = model("/" + request.url.split("/", 3)[3], json.loads(request.body))
        served.append(encode_reply(request, recorded, text=SAID))
        parts = WAYS[way](server.url)
        texts = [part.response if way.startswith("generate") else part.message.content for part in parts]
        assert "".join(texts) == SAID
        assert (parts[-1].done, parts[-1].done_reason, parts[-1].prompt_eval_count) == (True, "stop", 20)
        assert parts[-1].eval_count / parts[-1].eval_duration > 0
        assert (len(parts) > 2) == (way not in ("chat", "generate"))
        if way.startswith("chat"):
            served.append(encode_reply(request, recorded, tool_input={"city": "Oslo"}))
            calls = [call for part in WAYS[way](server.url) for call in part.message.tool_calls or ()]
            assert [call.function.arguments for call in calls] == [{"city": "Oslo"}]
        for status, sent in ((429, 429), (500, 500), (529, 503)):
            served.append(encode_error(request, status))
            with pytest.raises(ollama.ResponseError) as caught:
                WAYS[way](server.url)
            assert caught.value.status_code == sent
            assert caught.value.error == json.loads(served[-1].body)["error"]


def test_requests_of_the_sdk_that_are_no_words() -> None:
    """Embeddings are no generation; a model that is only loaded or unloaded says nothing."""
    with answering(
        lambda path, asked: whole({"embeddings": [[0.5]], "embedding": [0.5], "response": ""})
    ) as server:
        client = ollama.Client(host=server.url)
        client.embed(model="m", input="x")
        client.embeddings(model="m", prompt="x")
        client.generate(model="m", keep_alive=0)
        for request in server.requests[:2]:
            with pytest.raises(AssertionError):
                read(request, whole({}))
        assert read(server.requests[2], whole({"response": ""})).text == ""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_agent(tmp_path: Path, streamed: bool) -> None:
    """Its loop is read in SQL, without a price, replays exactly, and forks by text, input and result."""
    with answering(model) as server:
        script = Script(tmp_path, server, AGENT.replace("STREAMED", str(streamed)))
        script.record(says="10092000 and 1763000", steps=3)
        assert (
            script.rows(
                "select provider, operation, model, streamed, input_tokens, output_tokens, cost_usd "
                "from exchanges"
            )
            == [("ollama", "chat", "qwen3:8b", streamed, 20, 8, 0.0)] * 3
        )
        assert script.rows("select kind, name, content from messages where step = 1 order by position") == [
            ("text", None, "Count."),
            ("text", None, "In Lima and in Quito?"),
            *[("text", None, "I look it up."), ("tool_use", "population", '{"city":"Lima"}')],
            ("tool_result", "population", PEOPLE["Lima"]),
            *[("text", None, "I look it up."), ("tool_use", "population", '{"city":"Quito"}')],
        ]
        script.replay()
        assert script.fork(1, "--text", "No.", says="No.")["calls_live"] == 0
        assert (
            script.fork(1, "--tool-input", '{"city": "Oslo"}', says="10092000 and 717710")["calls_live"] == 1
        )
        assert script.fork(1, "--tool-result", "population=7", says="10092000 and 7")["calls_live"] == 1
        script.fork(1, "--system", "Guess.", says="10092000 and 1763000")
