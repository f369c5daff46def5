"""The cohere SDK, unmodified: it reads what is written, and its agents are recorded, replayed and forked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering import Response, answering, events, whole
from frameworks.bench import ASKED, PEOPLE
from frameworks.script import Script

from tracefork_otel.wire.replies import encode_error, encode_reply

cohere = pytest.importorskip("cohere", reason="cohere is not installed")

MODEL = "command-a-03-2025"
SAID = "Grüße ✈ aus Zürich, und noch ein paar Wörter mehr."
AGENT = """
import os

import cohere

PEOPLE = {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}
TOOL = {"type": "function", "function": {"name": "population", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
client = cohere.ClientV2(api_key="the-secret-key", base_url=os.environ["FAKE"])


def ask(turns):
    if not STREAMED:
        message = client.chat(model="command-a-03-2025", messages=turns, tools=[TOOL]).message
        text = "".join(part.text for part in message.content or ())
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        return message.tool_plan, text, calls
    plan, text, calls = "", "", []
    for event in client.chat_stream(model="command-a-03-2025", messages=turns, tools=[TOOL]):
        if event.type == "tool-plan-delta":
            plan += event.delta.message.tool_plan
        elif event.type == "content-delta":
            text += event.delta.message.content.text
        elif event.type == "tool-call-start":
            call = event.delta.message.tool_calls
            calls.append([call.id, call.function.name, ""])
        elif event.type == "tool-call-delta":
            calls[-1][2] += event.delta.message.tool_calls.function.arguments
    return plan, text, calls


import json

turns = [{"role": "system", "content": "Count."}, {"role": "user", "content": "In Lima and in Quito?"}]
while True:
    plan, text, calls = ask(turns)
    if not calls:
        break
    turns.append({"role": "assistant", "tool_plan": plan, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": name, "arguments": given}}
        for id, name, given in calls
    ]})
    for id, name, given in calls:
        data = {"people": PEOPLE[json.loads(given)["city"]]}
        turns.append({"role": "tool", "tool_call_id": id, "content": [
            {"type": "document", "document": {"data": data}}]})
print(text)
"""


def model(path: str, asked: dict[str, Any]) -> Response:
    """Asks the tool for each city in turn, then answers with what it was told."""
    told: list[str] = []
    for turn in asked["messages"]:
        if turn["role"] == "tool":
            content = turn["content"]
            told.append(content if isinstance(content, str) else content[0]["document"]["data"]["people"])
    usage = {
        "billed_units": {"input_tokens": 20.0, "output_tokens": 8.0},
        "tokens": {"input_tokens": 900.0, "output_tokens": 10.0},
    }
    text, calls = " and ".join(told), []
    if len(told) < len(ASKED):
        given = json.dumps({"city": ASKED[len(told)]})
        calls = [
            {
                "id": f"population_{len(told)}",
                "type": "function",
                "function": {"name": "population", "arguments": given},
            }
        ]
    end = {"finish_reason": "TOOL_CALL" if calls else "COMPLETE", "usage": usage}
    if not asked["stream"]:
        said = (
            {"tool_plan": "I look.", "tool_calls": calls}
            if calls
            else {"content": [{"type": "text", "text": text}]}
        )
        return whole({"id": "one", "message": {"role": "assistant", **said}, **end})

    def part(kind: str, said: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        return {"type": kind, **members, **({"delta": {"message": said}} if said else {})}

    found = [part("message-start", {"role": "assistant", "content": []}, id="one")]
    if not calls:
        found.append(part("content-start", {"content": {"type": "text", "text": ""}}, index=0))
        found += [
            part("content-delta", {"content": {"text": piece}}, index=0) for piece in text.partition(" and ")
        ]
        found.append(part("content-end", index=0))
    for call in calls:
        found.append(part("tool-plan-delta", {"tool_plan": "I look."}))
        given = call["function"]["arguments"]
        begun = {**call, "function": {"name": "population", "arguments": ""}}
        found.append(part("tool-call-start", {"tool_calls": begun}, index=0))
        for piece in (given[:3], given[3:]):
            found.append(part("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=0))
        found.append(part("tool-call-end", index=0))
    return events(*found, {"type": "message-end", "delta": end}, named=True)


ASKS: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def client(url: str, kind: str = "ClientV2") -> Any:
    """A client of the SDK that does not try again."""
    return getattr(cohere, kind)(api_key="x", base_url=url)


async def stream_async(url: str) -> list[Any]:
    """What the async client streams."""
    return [event async for event in client(url, "AsyncClientV2").chat_stream(**ASKS, request_options=ONCE)]


ONCE: Any = {"max_retries": 0}
WAYS: dict[str, Callable[[str], Any]] = {
    "chat": lambda url: client(url).chat(**ASKS, request_options=ONCE),
    "stream": lambda url: [*client(url).chat_stream(**ASKS, request_options=ONCE)],
    "async stream": lambda url: asyncio.run(stream_async(url)),
}


def told(answer: Any) -> tuple[str, list[str], str, float]:
    """The text, the inputs of calls, the end, and the billed output that the SDK gives."""
    if not isinstance(answer, list):
        text = "".join(part.text for part in answer.message.content or ())
        calls = [call.function.arguments for call in answer.message.tool_calls or ()]
        return text, calls, answer.finish_reason, answer.usage.billed_units.output_tokens
    text, calls = "", []
    for event in answer:
        if event.type == "content-delta":
            text += event.delta.message.content.text
        elif event.type == "tool-call-start":
            calls.append("")
        elif event.type == "tool-call-delta":
            calls[-1] += event.delta.message.tool_calls.function.arguments
    assert [answer[0].type, answer[-1].type] == ["message-start", "message-end"]
    end = answer[-1].delta
    return text, calls, end.finish_reason, end.usage.billed_units.output_tokens


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_sdk_reads_what_is_written(way: str) -> None:
    """Its clients get the text, the calls, the end and the counts, and raise their own errors."""
    served: list[Response] = []
    with answering(lambda path, asked: served[-1] if served else model(path, asked)) as server:
        WAYS[way](server.url)
        (request,) = server.requests
        recorded = model("", json.loads(request.body))
        served.append(encode_reply(request, recorded, text=SAID))
        text, calls, end, counted = told(WAYS[way](server.url))
        assert (text, calls, end) == (SAID, [], "COMPLETE")
        assert counted > 0
        served.append(encode_reply(request, recorded, tool_input={"city": "Oslo"}))
        _, calls, end, _ = told(WAYS[way](server.url))
        assert (calls, end) == (['{"city": "Oslo"}'], "TOOL_CALL")
        for status, error in (
            (429, cohere.TooManyRequestsError),
            (500, cohere.InternalServerError),
            (529, cohere.ServiceUnavailableError),
        ):
            served.append(encode_error(request, status))
            with pytest.raises(error) as caught:
                WAYS[way](server.url)
            assert caught.value.body == json.loads(served[-1].body)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_agent(tmp_path: Path, streamed: bool) -> None:
    """Its loop is read in SQL, with its price, replays exactly, and forks by text, input and result."""
    with answering(model) as server:
        script = Script(tmp_path, server, AGENT.replace("STREAMED", str(streamed)))
        script.record(says="10092000 and 1763000", steps=3)
        assert (
            script.rows(
                "select provider, operation, model, streamed, input_tokens, output_tokens, cost_usd > 0 "
                "from exchanges"
            )
            == [("cohere", "chat", MODEL, streamed, 20, 8, True)] * 3
        )
        assert script.rows("select kind, name, content from messages where step = 1 order by position") == [
            ("text", None, "Count."),
            ("text", None, "In Lima and in Quito?"),
            *[("thinking", None, "I look."), ("tool_use", "population", '{"city": "Lima"}')],
            ("tool_result", "population", json.dumps({"people": PEOPLE["Lima"]}, separators=(",", ":"))),
            *[("thinking", None, "I look."), ("tool_use", "population", '{"city": "Quito"}')],
        ]
        script.replay()
        assert script.fork(1, "--text", "No.", says="No.")["calls_live"] == 0
        assert (
            script.fork(1, "--tool-input", '{"city": "Oslo"}', says="10092000 and 717710")["calls_live"] == 1
        )
        assert script.fork(1, "--tool-result", "population=7", says="10092000 and 7")["calls_live"] == 1
        script.fork(1, "--system", "Guess.", says="10092000 and 1763000")
