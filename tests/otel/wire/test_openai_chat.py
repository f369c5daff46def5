"""What only Chat Completions sends: we read it as OpenAI's SDK does, and an edit leaves it as it was."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from answering import events, whole
from conversations import request_messages
from openai.types.chat import ChatCompletion

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.replies import encode_reply, system_edit
from tracefork_otel.wire.sse import sse_events

URL = "https://api.openai.com/v1/chat/completions"
REQUEST = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"model":"nested"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "call_gone", "content": [{"type": "text", "text": "lost"}]},
    ],
    "model": "gpt-4o",
    "stream": True,
}


def chunk(choices: list[dict[str, object]], **more: object) -> dict[str, object]:
    """One chunk of a streamed completion."""
    return {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "choices": choices,
        "usage": None,
        **more,
    }


def step(finish_reason: str | None = None, index: int = 0, **delta: object) -> dict[str, object]:
    """One chunk that adds to one choice."""
    return chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def call(index: int, arguments: str, **more: object) -> dict[str, object]:
    """One chunk that adds to a tool call."""
    name = more.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return step(tool_calls=[{"index": index, "function": function, **more}])


USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
CHUNKS = [
    step(role="assistant", content="", refusal=None),
    step(content="Höhe: "),
    step(content="4808 m 🏔."),
    call(0, "", id="call_a", name="climb", type="function"),
    call(0, '{"peak": "Mont'),
    call(0, ' Blanc"}'),
    call(1, "", id="call_b", name="now", type="function"),
    call(1, "{}"),
    step("tool_calls"),
    chunk([], usage=USAGE),
]
AZURE_FIRST = chunk([], prompt_filter_results=[], model="", id="")
STREAM = b"".join(f"data: {json.dumps(c)}\n\n".encode() for c in CHUNKS) + b"data: [DONE]\n\n"


def client(body: bytes, content_type: str) -> openai.OpenAI:
    """An SDK client whose every answer is this body."""
    answer = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": content_type}, content=body)
    )
    return openai.OpenAI(api_key="none", http_client=openai.DefaultHttpxClient(transport=answer))


def read(body: bytes, content_type: str = "text/event-stream") -> Facts:
    """Our facts about this answer."""
    found = facts("POST", URL, request=json.dumps(REQUEST).encode(), response=body, content_type=content_type)
    assert found is not None
    return found


def told(found: Facts) -> list[tuple[str, str | None, str]]:
    """The reply's messages as (kind, name, content)."""
    return [(m.kind, m.name, m.content) for m in found.reply]


def same_as_completion(found: Facts, sdk: ChatCompletion) -> None:
    """Hold our reading of an answer against the SDK's completion."""
    assert (found.response_id, found.response_model) == (sdk.id, sdk.model)
    choice = sdk.choices[0]
    assert found.finish_reason == choice.finish_reason
    assert found.text == choice.message.content
    calls = [
        ("tool_use", c.function.name, c.function.arguments)
        if c.type == "function"
        else ("tool_use", c.custom.name, c.custom.input)
        for c in choice.message.tool_calls or []
    ]
    assert told(found) == [("text", None, choice.message.content), *calls]
    assert sdk.usage is not None
    assert sdk.usage.prompt_tokens_details is not None
    assert (found.input_tokens, found.output_tokens) == (sdk.usage.prompt_tokens, sdk.usage.completion_tokens)
    assert found.cached_tokens == sdk.usage.prompt_tokens_details.cached_tokens


def test_a_chat_stream_reads_as_the_sdk_accumulates_it() -> None:
    """Text, tool calls, ids and usage of streamed chunks equal the SDK's final completion."""
    with client(STREAM, "text/event-stream").chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "x"}]
    ) as stream:
        final = stream.get_final_completion()
    found = read(STREAM)
    same_as_completion(found, final)
    assert found.streamed
    assert found.model == "gpt-4o"


def test_a_chat_request_reads_as_messages() -> None:
    """Each turn and part of a Chat Completions request is a message, in order."""
    found = request_messages("openai_chat", json.dumps(REQUEST).encode())
    assert [(m.role, m.kind, m.name, m.content) for m in found] == [
        ("developer", "text", None, "Be brief."),
        ("user", "text", None, "What is this?"),
        ("user", "image", None, "[image/png, 12 base64 characters]"),
        ("assistant", "tool_use", "look", '{"model":"nested"}'),
        ("tool", "tool_result", "look", "a cat"),
        ("tool", "tool_result", "call_gone", "lost"),
    ]


def test_a_refusal_and_a_thought_are_not_text() -> None:
    """A refusal and a server's reasoning are messages of their own kinds and no part of the text."""
    steps = [
        step(role="assistant", reasoning_content="Hm, "),
        step(reasoning_content="no."),
        step(refusal="No."),
    ]
    found = read(b"".join(f"data: {json.dumps(s)}\n\n".encode() for s in steps))
    assert told(found) == [("thinking", None, "Hm, no."), ("refusal", None, "No.")]
    assert found.text == ""


def test_several_choices_are_all_kept_and_the_first_is_the_text() -> None:
    """With n > 1 the reply holds every choice, and the text is the first one's, however the chunks mix."""
    steps = [
        step(index=1, content="B"),
        step(index=0, content="A"),
        step(index=1, content="b"),
        step("stop", content="a"),
    ]
    found = read(b"".join(f"data: {json.dumps(s)}\n\n".encode() for s in steps))
    assert told(found) == [("text", None, "Aa"), ("text", None, "Bb")]
    assert (found.text, found.finish_reason) == ("Aa", "stop")


def test_azure_names_the_deployment_and_the_model_behind_it() -> None:
    """On Azure the deployment in the path is what was asked for, and the answer names the model."""
    url = "https://mine.openai.azure.com/openai/deployments/prod/chat/completions?api-version=2024-10-21"
    body = f"data: {json.dumps(AZURE_FIRST)}\n\n".encode() + STREAM
    found = facts("POST", url, request=b"{}", response=body, content_type="text/event-stream")
    assert found is not None
    assert found.provider == "azure.ai.openai"
    assert (found.model, found.response_model) == ("prod", "gpt-4o-2024-08-06")
    assert found.reply == read(STREAM).reply


def request(**members: object) -> Request:
    """A request of a streaming agent."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "go"}], **members}
    return Request(method="POST", url=URL, body=json.dumps(body).encode())


def data(response: Response) -> list[Any]:
    """The chunks of a stream, without the mark that ends it."""
    *chunks, (_, end) = sse_events(response.body)
    assert end == b"[DONE]"
    return [json.loads(raw) for _, raw in chunks]


def calls(response: Response) -> list[tuple[str | None, str]]:
    """The tool calls that our reader finds."""
    found = read(response.body, response.header("content-type") or "")
    return [(name, content) for kind, name, content in told(found) if kind == "tool_use"]


def adding(delta: dict[str, Any], finish: str | None = None, **more: object) -> dict[str, Any]:
    """One chunk that adds this delta."""
    return chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **more)


def tool(index: int | None, arguments: str, **more: object) -> dict[str, Any]:
    """A delta of one tool call."""
    place = {} if index is None else {"index": index}
    name = more.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"tool_calls": [{**place, **more, "function": function}]}


def test_whole_calls_without_an_index_stay_whole() -> None:
    """Where a server sent each call in one delta, the new input is in it, and the other call as it was."""
    recorded = events(
        adding({"role": "assistant", "content": "", **tool(None, '{"a":1}', id="c1", name="one")}),
        adding(tool(None, '{"b":1}', id="c2", name="two"), "tool_calls"),
    )
    asked = request()
    for name, expected in (("one", ['{"z":0}', '{"b":1}']), ("two", ['{"a":1}', '{"z":0}'])):
        response = encode_reply(asked, recorded, tool_input={"z": 0}, tool=name)
        assert [content for _, content in calls(response)] == expected
        assert len(response.chunk_sizes) == 3
        assert data(response)[1]["choices"][0]["finish_reason"] == "tool_calls"


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Another id with a name begins another call; what comes without either goes on with it."""
    recorded = events(
        adding({"role": "assistant", **tool(0, '{"a":', id="c1", name="one")}),
        adding(tool(0, "1}")),
        adding(tool(0, "", id="c1", name="one")),
        adding(tool(0, "", id="c2", name="two")),
        adding(tool(0, '{"b":1}', id="c2")),
        adding(tool(0, '{"c":1}', id="c3", name="one"), "tool_calls"),
    )
    assert calls(recorded) == [("one", '{"a":1}'), ("two", '{"b":1}'), ("one", '{"c":1}')]
    response = encode_reply(request(), recorded, tool_input={"z": 0}, tool="two")
    assert calls(response) == [("one", '{"a":1}'), ("two", '{"z":0}'), ("one", '{"c":1}')]


def test_deltas_of_two_calls_in_one_chunk_are_told_apart() -> None:
    """The edited call's deltas go, the other's in the same chunk stay, and usage moves by the difference."""
    both = {"tool_calls": tool(0, '{"a":1}')["tool_calls"] + tool(1, '{"b":1}')["tool_calls"]}
    recorded = events(
        adding({"role": "assistant", "content": None}, usage=None, obfuscation="xx"),
        adding(tool(0, "", id="c1", name="one", type="function")),
        adding(tool(1, "", id="c2", name="two", type="function")),
        adding(both),
        adding(tool(0, "  ")),
        adding({}, "tool_calls"),
        {
            **adding({}),
            "choices": [],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
        },
    )
    asked = request(stream_options={"include_usage": True})
    response = encode_reply(asked, recorded, tool_input={"a": "é" * 50})
    assert calls(response) == [("one", '{"a":"' + "é" * 50 + '"}'), ("two", '{"b":1}')]
    *chunks, last = data(response)
    assert {c["id"] for c in chunks} == {last["id"]} != {CHUNKS[0]["id"]}
    assert last["usage"] == {"prompt_tokens": 10, "completion_tokens": 44, "total_tokens": 54}
    indexes = [c["index"] for one in chunks for c in one["choices"][0]["delta"].get("tool_calls", [])]
    assert indexes == [0, 0, 0, 0, 1, 1]


def test_legacy_function_calls_are_calls_too() -> None:
    """A `function_call`, whole or streamed, takes another input."""
    asked = request(stream=False)
    said = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    recorded = whole({"id": "chatcmpl-1", "choices": [{"index": 0, "message": said}]})
    found = json.loads(encode_reply(asked, recorded, tool_input={"a": 2}).body)
    assert found["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": '{"a": 2}'}
    assert "usage" not in found
    streamed = events(
        adding({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
        adding({"function_call": {"arguments": '{"a": 1}'}}),
        adding({}, "function_call"),
    )
    asked = request()
    assert calls(encode_reply(asked, streamed, tool_input={"a": 2})) == [("f", '{"a": 2}')]


def test_free_tools_take_text_and_others_objects() -> None:
    """A custom tool's input is a string, a function's an object; the other kind is refused."""
    asked = request(stream=False)
    custom = {"id": "c", "type": "custom", "custom": {"name": "note", "input": "old"}}
    function = {"id": "d", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [custom, function]}
    recorded = whole({"id": "chatcmpl-1", "choices": [{"index": 0, "message": said}]})
    assert calls(encode_reply(asked, recorded, tool_input="new")) == [
        ("note", "new"),
        ("f", "{}"),
    ]
    with pytest.raises(UsageError, match="takes plain text"):
        encode_reply(asked, recorded, tool_input={"a": 1})
    with pytest.raises(UsageError, match="takes a JSON object"):
        encode_reply(asked, recorded, tool_input="x", tool="f")
    with pytest.raises(UsageError, match="no JSON value"):
        encode_reply(asked, recorded, tool_input={"a": {1, 2}}, tool="f")


def test_every_choice_says_the_text() -> None:
    """A request for several choices gets as many, whole and streamed."""
    for streamed in (False, True):
        asked = request(n=3, stream=streamed)
        response = encode_reply(asked, None, text="Ja.")
        said = data(response) if streamed else [json.loads(response.body)]
        indexes = {choice["index"] for one in said for choice in one["choices"]}
        assert indexes == {0, 1, 2}


def test_usage_comes_in_a_chat_stream_only_where_asked() -> None:
    """Without include_usage no chunk speaks of usage; with it all are null but the last, without choices."""
    plain = data(encode_reply(request(), None, text="Ja."))
    assert all("usage" not in one for one in plain)
    asked = request(stream_options={"include_usage": True})
    *chunks, last = data(encode_reply(asked, None, text="Ja."))
    assert [one["usage"] for one in chunks] == [None] * len(chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    ("messages", "edit"),
    [
        ([{"role": "user"}, {"role": "developer"}], ("messages[1].content", "New.")),
        ([{"role": "user"}], ("messages", [{"role": "system", "content": "New."}, {"role": "user"}])),
    ],
)
def test_a_system_prompt_is_found_or_added(messages: list[Any], edit: tuple[str, Any]) -> None:
    """The edit goes where a developer speaks, or before all messages."""
    assert system_edit(request(messages=messages), "New.") == edit
