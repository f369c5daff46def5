"""What only Anthropic sends: we read it as its SDK does, and an edit leaves it as it was."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message as SdkMessage
from conversations import request_messages

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.replies import encode_reply, system_edit
from tracefork_otel.wire.sse import sse_events

URL = "https://api.anthropic.com/v1/messages"
EVENT_STREAM = "text/event-stream; charset=utf-8"
REQUEST = {
    "max_tokens": 1024,
    "messages": [
        {"role": "user", "content": "Weather in Paris?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A tool knows.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
                {"type": "text", "text": "Let me look."},
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "weather",
                    "input": {"city": "Paris", "model": "nested"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        {"type": "text", "text": "18 °C"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                        },
                    ],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_gone",
                    "content": "lost call",
                    "is_error": True,
                },
                {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}},
                {
                    "type": "document",
                    "title": "Notes",
                    "source": {"type": "text", "media_type": "text/plain", "data": "pack a coat"},
                },
            ],
        },
    ],
    "model": "claude-sonnet-4-5",
    "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be right."}],
    "tools": [
        {"name": "weather", "input_schema": {"type": "object", "properties": {"model": {"type": "string"}}}}
    ],
    "stream": True,
}


def sse(*events: dict[str, object]) -> bytes:
    """The events as the API sends them: the name on a line of its own, then the data."""
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def delta(index: int, **fields: str) -> dict[str, object]:
    """One content_block_delta event."""
    return {"type": "content_block_delta", "index": index, "delta": fields}


def block(index: int, **fields: object) -> dict[str, object]:
    """One content_block_start event."""
    return {"type": "content_block_start", "index": index, "content_block": fields}


def stop(index: int) -> dict[str, object]:
    """One content_block_stop event."""
    return {"type": "content_block_stop", "index": index}


START = {
    "type": "message_start",
    "message": {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 120,
            "cache_read_input_tokens": 4000,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 1,
            "service_tier": "standard",
            "server_tool_use": {"web_search_requests": 1},
        },
    },
}
EVENTS: list[dict[str, Any]] = [
    START,
    block(0, type="thinking", thinking="", signature=""),
    {"type": "ping"},
    delta(0, type="thinking_delta", thinking="First the search, "),
    delta(0, type="thinking_delta", thinking="then the booking."),
    delta(0, type="signature_delta", signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3h"),
    stop(0),
    block(1, type="redacted_thinking", data="EmwKAhgBEgy3va3pzix"),
    stop(1),
    block(2, type="text", text=""),
    delta(2, type="text_delta", text="Okay, "),
    delta(2, type="text_delta", text="let's check the weather for München 🌦."),
    stop(2),
    block(3, type="server_tool_use", id="srvtoolu_01", name="web_search", input={}),
    delta(3, type="input_json_delta", partial_json='{"query":'),
    delta(3, type="input_json_delta", partial_json=' "weather München"}'),
    stop(3),
    block(
        4,
        type="web_search_tool_result",
        tool_use_id="srvtoolu_01",
        content=[
            {
                "type": "web_search_result",
                "title": "Weather",
                "url": "https://example.org/w",
                "encrypted_content": "Eo4C",
                "page_age": None,
            }
        ],
    ),
    stop(4),
    block(5, type="text", text=""),
    delta(5, type="text_delta", text=" Booking now."),
    stop(5),
    block(6, type="tool_use", id="toolu_01T1x1fJ34qAmk2tNTrN7Up6", name="book", input={}),
    delta(6, type="input_json_delta", partial_json=""),
    delta(6, type="input_json_delta", partial_json='{"city": "Mün'),
    delta(6, type="input_json_delta", partial_json='chen", "nights": 2, "rate": 1.50}'),
    stop(6),
    block(7, type="tool_use", id="toolu_02", name="now", input={}),
    stop(7),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 89, "input_tokens": 30, "cache_read_input_tokens": None},
    },
    {"type": "message_stop"},
]
STREAM = sse(*EVENTS)


def client(body: bytes, content_type: str) -> anthropic.Anthropic:
    """An SDK client whose every answer is this body."""
    answer = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": content_type}, content=body)
    )
    return anthropic.Anthropic(api_key="none", http_client=anthropic.DefaultHttpxClient(transport=answer))


def read(body: bytes, content_type: str = EVENT_STREAM) -> Facts:
    """Our facts about REQUEST and this answer."""
    found = facts("POST", URL, request=json.dumps(REQUEST).encode(), response=body, content_type=content_type)
    assert found is not None
    return found


def same_as_sdk(found: Facts, sdk: SdkMessage) -> None:
    """Hold our reading of an answer against the SDK's."""
    assert found.response_id == sdk.id
    assert found.response_model == sdk.model
    assert found.finish_reason == sdk.stop_reason
    usage = sdk.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert found.input_tokens == usage.input_tokens + cached + written
    assert found.output_tokens == usage.output_tokens
    assert found.cached_tokens == usage.cache_read_input_tokens
    assert found.cache_write_tokens == usage.cache_creation_input_tokens
    assert found.text == "".join(b.text for b in sdk.content if b.type == "text")
    assert len(found.reply) == len(sdk.content)
    for message, part in zip(found.reply, sdk.content, strict=True):
        assert message.role == "assistant"
        if part.type == "text":
            assert (message.kind, message.content) == ("text", part.text)
        elif part.type == "thinking":
            assert (message.kind, message.content) == ("thinking", part.thinking)
        elif part.type in ("tool_use", "server_tool_use"):
            assert (message.kind, message.name, json.loads(message.content)) == (
                "tool_use",
                part.name,
                part.input,
            )
        elif part.type == "web_search_tool_result":
            assert (message.kind, message.name) == ("tool_result", "web_search")
        else:
            assert message.kind == part.type


def test_a_stream_reads_as_the_sdk_accumulates_it() -> None:
    """Text, thoughts, tool inputs, ids and usage of a stream equal the SDK's final message."""
    sdk = client(STREAM, EVENT_STREAM)
    with sdk.messages.stream(max_tokens=1, model="m", messages=[{"role": "user", "content": "x"}]) as stream:
        final = stream.get_final_message()
    found = read(STREAM)
    same_as_sdk(found, final)
    assert found.streamed
    assert found.model == "claude-sonnet-4-5"
    assert found.input_tokens == 30 + 120 + 4000
    assert found.cache_write_1h_tokens == 100
    assert found.error_type is None


def test_the_request_reads_as_messages_system_first() -> None:
    """Each block of the request is a message, a tool's result under the name of the call it answers."""
    found = request_messages("anthropic", json.dumps(REQUEST).encode())
    assert [(m.role, m.kind, m.name, m.content) for m in found] == [
        ("system", "text", None, "Be brief."),
        ("system", "text", None, "Be right."),
        ("user", "text", None, "Weather in Paris?"),
        ("assistant", "thinking", None, "A tool knows."),
        ("assistant", "redacted_thinking", None, ""),
        ("assistant", "text", None, "Let me look."),
        ("assistant", "tool_use", "weather", '{"city":"Paris","model":"nested"}'),
        ("user", "tool_result", "weather", "18 °C\n[image/png, 12 base64 characters]"),
        ("user", "tool_result", "toolu_gone", "lost call"),
        ("user", "image", None, "https://example.org/cat.png"),
        ("user", "document", "Notes", "pack a coat"),
    ]


def test_a_streamed_call_reads_as_the_same_call_in_the_next_request() -> None:
    """The input of a tool call has one spelling, whether it came in deltas or stands in a request."""
    call = {
        "type": "tool_use",
        "id": "t",
        "name": "book",
        "input": {"city": "München", "nights": 2, "rate": 1.5},
    }
    request = json.dumps({"model": "m", "messages": [{"role": "assistant", "content": [call]}]}).encode()
    assert request_messages("anthropic", request)[0] == read(STREAM).reply[6]


def test_a_cut_tool_input_is_kept_as_far_as_it_came() -> None:
    """A tool's input that never became JSON is given as the text that arrived."""
    end = STREAM.index(b"event: content_block_delta", STREAM.index(b'{\\"city\\": '))
    assert read(STREAM[:end]).reply[6].content == '{"city": "Mün'


def test_half_characters_never_reach_the_store() -> None:
    """A surrogate pair split over two deltas is joined, and one cut in half is left out, so text is UTF-8."""
    stream = sse(START, block(0, type="text", text=""), delta(0, type="text_delta", text="a\ud83c"))
    assert read(stream).text == "a"
    assert read(stream + sse(delta(0, type="text_delta", text="\udf26b"))).text == "a🌦b"


VERTEX = (
    "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/"
    "claude-sonnet-4-5@20250929:streamRawPredict"
)


def test_vertex_names_the_model_in_the_path() -> None:
    """Where the body names no model, it is the path's, read and written."""
    request = b'{"anthropic_version": "vertex-2023-10-16", "stream": true, "messages": []}'
    found = facts("POST", VERTEX, request=request, response=STREAM, content_type=EVENT_STREAM)
    assert found is not None
    assert (found.provider, found.model) == ("gcp.vertex_ai", "claude-sonnet-4-5@20250929")
    assert found.text == read(STREAM).text
    made = encode_reply(Request(method="POST", url=VERTEX, body=request), None, text="Hi")
    assert said(made)[0]["message"]["model"] == "claude-sonnet-4-5@20250929"


def asked(**members: object) -> Request:
    """REQUEST with other members."""
    return Request(method="POST", url=URL, body=json.dumps({**REQUEST, **members}).encode())


def recorded(body: bytes) -> Response:
    """A recorded stream."""
    return Response(status=200, headers=(("content-type", EVENT_STREAM),), body=body)


def said(response: Response) -> list[Any]:
    """The data of a stream's events."""
    return [json.loads(data) for _, data in sse_events(response.body)]


def test_an_edit_keeps_every_other_event() -> None:
    """Thoughts, signatures, the provider's own tool and pings stay as they were; a comment is no event."""
    body = STREAM.replace(b"event: ping", b": keep-alive\n\nevent: ping")
    made = said(encode_reply(asked(), recorded(body), tool_input={"city": "Oslo"}))
    inputs = [one["delta"]["partial_json"] for one in made if one.get("index") == 6 and "delta" in one]
    assert json.loads("".join(inputs)) == {"city": "Oslo"}
    after, before = (
        [one for one in some if "delta" not in one or one.get("index") != 6] for some in (made, EVENTS)
    )
    assert after[1:-2] == before[1:-2]
    message = after[0]["message"]
    assert message == {**before[0]["message"], "id": message["id"]}
    usage = after[-2]["usage"]
    assert usage == {**before[-2]["usage"], "output_tokens": usage["output_tokens"]}


def test_a_providers_own_tool_is_no_call_of_the_agent() -> None:
    """What the provider ran itself cannot be given another input: its result is in the same reply."""
    end = EVENTS.index(block(5, type="text", text=""))
    with pytest.raises(UsageError, match="calls no tool"):
        encode_reply(asked(), recorded(sse(*EVENTS[:end], *EVENTS[-2:])), tool_input={})


def test_a_text_forgets_what_the_recorded_reply_did() -> None:
    """Cached input stays counted; the search that the recorded reply paid for does not."""
    begun, *_, ended, _ = said(encode_reply(asked(), recorded(STREAM), text="No."))
    usage = begun["message"]["usage"]
    assert usage["cache_read_input_tokens"] == 4000
    assert "server_tool_use" not in usage
    assert ended["usage"]["output_tokens"] == 1


def test_no_text_is_no_block() -> None:
    """A turn without text ends by no block at all: an empty one could not be sent back."""
    assert json.loads(encode_reply(asked(stream=False), None, text="").body)["content"] == []


def test_a_system_prompt_is_added() -> None:
    """Where a request has no system prompt, the edit adds the member."""
    body = {key: value for key, value in REQUEST.items() if key != "system"}
    request = Request(method="POST", url=URL, body=json.dumps(body).encode())
    assert system_edit(request, "New.") == ("system", "New.")
