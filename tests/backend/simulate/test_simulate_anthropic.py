"""The simulated Messages API is read by the unmodified Anthropic SDK like the real one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic, BadRequestError, NotFoundError
from tracefork_backend.simulate import Call, ModelServer, Reply, ToolUse, Usage

TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}
ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 200,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Wie ist das Wetter in Zürich? 🌦"}],
    "tools": [TOOL],
}
INPUT = {"city": "Zürich", "days": [1, 2], "deep": {"unit": "°C", "none": None}}


def weather(call: Call) -> Reply:
    """Thinks, speaks and calls two tools at once, then answers with what they returned."""
    if not call.tool_results:
        tools = (ToolUse("weather", INPUT), ToolUse("weather", {}, "toolu_fixed"))
        return Reply(thinking="Two calls, I think.", text="Ich schaue nach … 🌦", tools=tools)
    return Reply(text=" / ".join(f"{name}: {text}" for name, text in call.tool_results))


def kinds(message: Any) -> list[str]:
    """The types of the message's blocks."""
    return [block.type for block in message.content]


def check_tool_message(message: Any) -> None:
    """The message is the one that `weather` scripted."""
    assert kinds(message) == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, first, second = message.content
    assert (thinking.thinking, text.text) == ("Two calls, I think.", "Ich schaue nach … 🌦")
    assert len(thinking.signature) > 100
    assert (first.name, first.input, first.id[:8]) == ("weather", INPUT, "toolu_01")
    assert (second.input, second.id) == ({}, "toolu_fixed")
    assert (message.stop_reason, message.role, message.model) == ("tool_use", "assistant", "claude-sonnet-5")
    assert message.id.startswith("msg_01")
    assert message.usage.output_tokens > 10


def results(message: Any) -> list[dict[str, Any]]:
    """The conversation after both tools of the message have answered."""
    calls = [block for block in message.content if block.type == "tool_use"]
    content = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "Regen"},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": [{"type": "text", "text": "7°"}]},
    ]
    return [*ASK["messages"], message.to_param(), {"role": "user", "content": content}]


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_loop(streamed: bool) -> None:
    """A whole tool loop works, its blocks arrive equal to the scripted ones, with and without a stream."""
    with ModelServer(weather) as server, Anthropic(base_url=server.url, api_key="none") as client:

        def ask(**request: Any) -> Any:
            if not streamed:
                return client.messages.create(**request)
            with client.messages.stream(**request) as stream:
                return stream.get_final_message()

        first = ask(**ASK)
        check_tool_message(first)
        last = ask(**{**ASK, "messages": results(first)})
    assert kinds(last) == ["text"]
    assert last.content[0].text == "weather: Regen / weather: 7°"
    assert last.stop_reason == "end_turn"
    assert last.usage.input_tokens > first.usage.input_tokens
    assert [request.path for request in server.requests] == ["/v1/messages"] * 2
    assert server.requests[0].header("Authorization") == "Bearer none"
    assert server.requests[1].json()["messages"][0] == ASK["messages"][0]


def test_async_client_streams_and_does_not() -> None:
    """The async client reads the same blocks, streamed and not."""

    async def both(url: str) -> tuple[Any, Any]:
        async with AsyncAnthropic(base_url=url, api_key="none") as client:
            async with client.messages.stream(**ASK) as stream:
                streamed = await stream.get_final_message()
            return streamed, await client.messages.create(**ASK)

    with ModelServer(weather) as server:
        for message in asyncio.run(both(server.url)):
            check_tool_message(message)


def test_events_come_in_the_providers_order() -> None:
    """A raw stream has the provider's events, deltas cut as the reply says."""
    reply = Reply(pieces=("Hel", "lo"), tools=(ToolUse("weather", {"a": 1}),), thinking="hm", chunk_chars=5)
    with ModelServer(lambda _: reply) as server, Anthropic(base_url=server.url, api_key="none") as client:
        events = list(client.messages.create(**ASK, stream=True))
    assert [event.type for event in events] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", *["content_block_delta"] * 3, "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert [delta.type for delta in deltas][1] == "signature_delta"
    assert [delta.text for delta in deltas if delta.type == "text_delta"] == ["Hel", "lo"]
    assert [delta.partial_json for delta in deltas if delta.type == "input_json_delta"] == [
        "",
        '{"a":',
        " 1}",
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_usage_is_what_the_reply_says(streamed: bool) -> None:
    """Token counts of the reply replace the estimate, and cached tokens are counted apart."""
    usage = Usage(input_tokens=1000, output_tokens=70, cached_tokens=900)
    with (
        ModelServer(lambda _: Reply(text="ok", usage=usage)) as server,
        Anthropic(base_url=server.url, api_key="none") as client,
    ):
        if streamed:
            with client.messages.stream(**ASK) as stream:
                said = stream.get_final_message().usage
        else:
            said = client.messages.create(**ASK).usage
    assert (said.input_tokens, said.cache_read_input_tokens, said.output_tokens) == (100, 900, 70)


def test_headers_and_token_count() -> None:
    """Answers bear a request id and rate limits, and the token count is the usage estimate."""
    with ModelServer(weather) as server, Anthropic(base_url=server.url, api_key="none") as client:
        answer = client.messages.with_raw_response.create(**ASK)
        counted = client.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])
    assert answer.parse()._request_id == answer.headers["request-id"]
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "50"
    assert counted.input_tokens == -(-len(server.requests[1].body) // 4)


def test_what_a_behaviour_sees() -> None:
    """A call shows system text, messages, tools, past tool calls and their results by name."""
    calls: list[Call] = []

    def watching(call: Call) -> Reply:
        calls.append(call)
        return weather(call)

    with ModelServer(watching) as server, Anthropic(base_url=server.url, api_key="none") as client:
        first = client.messages.create(**ASK)
        blocks = [{"type": "text", "text": "Be brief."}]
        client.messages.create(**{**ASK, "messages": results(first), "system": blocks})
    one, two = calls
    assert (one.provider, one.operation, one.index, two.index) == ("anthropic", "messages", 0, 1)
    assert (one.system, two.system, one.tools) == ("Be brief.", "Be brief.", ("weather",))
    assert one.messages == (("user", "Wie ist das Wetter in Zürich? 🌦"),)
    assert one.prompt == two.prompt == one.last
    assert two.tool_results == (("weather", "Regen"), ("weather", "7°"))
    assert [use.input for use in two.tool_uses] == [INPUT, {}]
    assert two.last == "Regen\n7°"
    assert one.headers["authorization"] == "Bearer none"
    assert not one.stream


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_x"}]}]},
            "unexpected `tool_use_id`",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}],
                    },
                    {"role": "user", "content": "y"},
                ]
            },
            "without `tool_result` blocks",
        ),
    ],
)
def test_invalid_requests_are_refused_as_the_provider_does(change: dict[str, Any], message: str) -> None:
    """A broken conversation is a 400 in the provider's format, and no behaviour sees it."""
    with ModelServer(weather) as server, Anthropic(base_url=server.url, api_key="none") as client:
        with pytest.raises(BadRequestError, match=message) as caught:
            client.messages.create(**{**ASK, **change})
        assert caught.value.body["error"]["type"] == "invalid_request_error"
        with pytest.raises(NotFoundError):
            client.post("/v1/messages/nowhere", cast_to=object)


def test_seed_makes_answers_equal_in_any_order() -> None:
    """Equal seeds give equal bytes whatever the order of requests, other seeds and no seed do not."""

    def bodies(seed: int | None, order: list[int]) -> dict[int, str]:
        with (
            ModelServer(lambda call: Reply(text=str(call.rng.random())), seed=seed) as server,
            Anthropic(base_url=server.url, api_key="none") as client,
        ):
            found = {}
            for number in order:
                messages = [{"role": "user", "content": str(number)}]
                raw = client.messages.with_raw_response.create(**{**ASK, "messages": messages})
                found[number] = raw.text()
            return found

    first = bodies(7, [0, 1, 2])
    assert first == bodies(7, [2, 0, 1])
    assert len(set(first.values())) == 3
    assert first != bodies(8, [0, 1, 2])
    assert bodies(None, [0]) != bodies(None, [0])
