"""The simulated OpenAI APIs are read by the unmodified OpenAI SDK like the real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from tracefork_backend.simulate import Call, ModelServer, Reply, ToolUse, Usage

INPUT = {"city": "Zürich", "days": [1, 2]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Wetter? 🌦"}]},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
}
RESPONSES: dict[str, Any] = {
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "input": "Wetter? 🌦",
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


def weather(call: Call) -> Reply:
    """Speaks and calls two tools at once, then answers with what they returned."""
    assert (call.provider, call.system, call.prompt, call.tools) == (
        "openai",
        "Be brief.",
        "Wetter? 🌦",
        ("weather",),
    )
    if not call.tool_results:
        tools = (ToolUse("weather", INPUT), ToolUse("weather", {}, "call_fixed"))
        return Reply(text="Moment … 🌦", tools=tools, thinking="Two calls, I think.")
    return Reply(text=" / ".join(f"{name}: {text}" for name, text in call.tool_results))


def joined(chunks: list[Any]) -> tuple[str, list[tuple[str, str, str]]]:
    """The text and the (id, name, arguments) of each tool call that the chunks add up to."""
    text = ""
    calls: dict[int, list[str]] = {}
    for delta in (choice.delta for chunk in chunks for choice in chunk.choices):
        text += delta.content or ""
        for call in delta.tool_calls or ():
            known = calls.setdefault(call.index, ["", "", ""])
            known[0] += call.id or ""
            known[1] += call.function.name or ""
            known[2] += call.function.arguments or ""
    return text, [(call[0], call[1], call[2]) for call in calls.values()]


def test_chat_tool_loop() -> None:
    """A whole tool loop by Chat Completions works without a stream."""
    with ModelServer(weather) as server, OpenAI(base_url=server.openai_url, api_key="none") as client:
        first = client.chat.completions.create(**CHAT)
        message = first.choices[0].message
        messages = [*CHAT["messages"], message.model_dump(exclude_none=True)]
        for call, text in zip(message.tool_calls or (), ("Regen", "7°"), strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
        last = client.chat.completions.create(**{**CHAT, "messages": messages})
    assert (message.content, first.choices[0].finish_reason) == ("Moment … 🌦", "tool_calls")
    assert first.id.startswith("chatcmpl-")
    assert [call.function.name for call in message.tool_calls or ()] == ["weather", "weather"]
    assert (message.tool_calls or [])[0].function.arguments == '{"city": "Zürich", "days": [1, 2]}'
    assert last.choices[0].message.content == "weather: Regen / weather: 7°"
    assert last.choices[0].finish_reason == "stop"
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].header("authorization") == "Bearer none"


def test_chat_stream_with_usage() -> None:
    """A chat stream adds up to the scripted calls, and only its last chunk bears usage."""
    with ModelServer(weather) as server, OpenAI(base_url=server.openai_url, api_key="none") as client:
        chunks = list(client.chat.completions.create(**CHAT, **COUNTED))
        plain = list(client.chat.completions.create(**CHAT, stream=True))
    text, calls = joined(chunks)
    assert text == "Moment … 🌦"
    assert calls[0][1:] == ("weather", '{"city": "Zürich", "days": [1, 2]}')
    assert calls[1] == ("call_fixed", "weather", "{}")
    assert len({chunk.id for chunk in chunks}) == 1
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0
    assert joined(plain)[0] == text
    assert all(chunk.usage is None for chunk in plain)


def test_chat_stream_helper() -> None:
    """The SDK's own accumulator ends with the whole completion."""
    with (
        ModelServer(lambda _: Reply(text="Hello there, world")) as server,
        OpenAI(base_url=server.openai_url, api_key="none") as client,
        client.chat.completions.stream(
            model="gpt-5-mini", messages=[{"role": "user", "content": "x"}]
        ) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Hello there, world"
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("streamed", [False, True])
def test_responses_tool_loop(streamed: bool) -> None:
    """A whole tool loop by the Responses API works, with and without a stream."""
    with ModelServer(weather) as server, OpenAI(base_url=server.openai_url, api_key="none") as client:

        def ask(**request: Any) -> Any:
            if not streamed:
                return client.responses.create(**request)
            with client.responses.stream(**request) as stream:
                return stream.get_final_response()

        first = ask(**RESPONSES)
        items = [{"role": "user", "content": RESPONSES["input"]}]
        items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
        calls = [item for item in first.output if item.type == "function_call"]
        for call, text in zip(calls, ("Regen", "7°"), strict=True):
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": text})
        last = ask(**{**RESPONSES, "input": items})
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (first.output_text, first.status) == ("Moment … 🌦", "completed")
    assert first.output[0].summary[0].text == "Two calls, I think."
    assert calls[0].arguments == '{"city": "Zürich", "days": [1, 2]}'
    assert calls[1].call_id == "call_fixed"
    assert last.output_text == "weather: Regen / weather: 7°"
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens


def test_responses_events_are_numbered_and_in_order() -> None:
    """The Responses stream numbers its events and opens and closes each item around its deltas."""
    reply = Reply(pieces=("Hel", "lo"), tools=(ToolUse("weather", {"a": 1}),), chunk_chars=5)
    with (
        ModelServer(lambda _: reply) as server,
        OpenAI(base_url=server.openai_url, api_key="none") as client,
    ):
        events = list(client.responses.create(**RESPONSES, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]


def test_async_client_reads_all_apis() -> None:
    """The async client gets the same answers from both APIs, streamed and not."""
    usage = Usage(input_tokens=1000, output_tokens=70, cached_tokens=900)

    async def ask(url: str) -> list[tuple[str, int]]:
        chat = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "x"}]}
        async with AsyncOpenAI(base_url=url, api_key="none") as client:
            plain = await client.chat.completions.create(**chat)
            chunks = [chunk async for chunk in await client.chat.completions.create(**chat, **COUNTED)]
            whole = await client.responses.create(model="gpt-5-mini", input="x")
            async with client.responses.stream(model="gpt-5-mini", input="x") as stream:
                streamed = await stream.get_final_response()
        return [
            (plain.choices[0].message.content, plain.usage.prompt_tokens_details.cached_tokens),
            (joined(chunks)[0], chunks[-1].usage.prompt_tokens_details.cached_tokens),
            (whole.output_text, whole.usage.input_tokens_details.cached_tokens),
            (streamed.output_text, streamed.usage.input_tokens_details.cached_tokens),
        ]

    with ModelServer(lambda _: Reply(text="all of it, in pieces", usage=usage)) as server:
        assert asyncio.run(ask(server.openai_url)) == [("all of it, in pieces", 900)] * 4


def test_invalid_requests_are_refused_as_the_provider_does() -> None:
    """A tool result without its call is a 400 in the provider's format, in both APIs."""
    with ModelServer(weather) as server, OpenAI(base_url=server.openai_url, api_key="none") as client:
        stray = {"role": "tool", "tool_call_id": "call_x", "content": "?"}
        with pytest.raises(BadRequestError, match="must be a response to") as caught:
            client.chat.completions.create(**{**CHAT, "messages": [*CHAT["messages"], stray]})
        assert caught.value.body["type"] == "invalid_request_error"
        output = {"type": "function_call_output", "call_id": "call_x", "output": "?"}
        with pytest.raises(BadRequestError, match="No tool call found"):
            client.responses.create(**{**RESPONSES, "input": [output]})
    assert server.errors == []
