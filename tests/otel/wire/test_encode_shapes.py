"""Recorded replies in the shapes that servers really send keep all that stands beside an edit."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply, system_edit
from tracefork_otel.wire.sse import sse_events

ANTHROPIC = "https://api.anthropic.com/v1/messages"
VERTEX = (
    "https://eu-aiplatform.googleapis.com/v1/projects/p/locations/eu/publishers/anthropic/models/"
    "claude-sonnet-4-5:streamRawPredict"
)
CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"


def request(url: str, **members: object) -> Request:
    """A request of a streaming agent."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "go"}], **members}
    return Request(method="POST", url=url, body=json.dumps(body).encode())


def stream(*events: dict[str, Any] | str, named: bool = True) -> Response:
    """A recorded stream of these events."""
    parts: list[bytes] = []
    for one in events:
        head = f"event: {one['type']}\n".encode() if named and isinstance(one, dict) else b""
        body = one.encode() if isinstance(one, str) else b"data: " + json.dumps(one).encode() + b"\n\n"
        parts.append(head + body)
    headers = (("content-type", "text/event-stream"),)
    return Response(status=200, headers=headers, body=b"".join(parts), chunk_sizes=tuple(map(len, parts)))


def compact(value: object) -> str:
    """The value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def data(response: Response) -> list[Any]:
    """The events' data, parsed; the mark that ends a chat stream as text."""
    return ["[DONE]" if raw == b"[DONE]" else json.loads(raw) for _, raw in sse_events(response.body)]


def calls(asked: Request, response: Response) -> list[tuple[str | None, str]]:
    """The tool calls that our reader finds."""
    kind = response.header("content-type")
    found = facts(asked.method, asked.url, request=asked.body, response=response.body, content_type=kind)
    assert found is not None
    return [(m.name, m.content) for m in found.reply if m.kind == "tool_use"]


MESSAGE = {
    "id": "msg_01A", "type": "message", "role": "assistant", "model": "claude-x-1", "content": [],
    "stop_reason": None, "stop_sequence": None,
    "usage": {"input_tokens": 7, "cache_read_input_tokens": 90, "output_tokens": 3,
              "server_tool_use": {"web_search_requests": 1}},
}  # fmt: skip
THOUGHT = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0,
     "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}},
    {"type": "content_block_delta", "index": 1,
     "delta": {"type": "input_json_delta", "partial_json": '{"query": "x"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2,
     "content_block": {"type": "tool_use", "id": "toolu_1", "name": "book", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
]  # fmt: skip
REST = [
    {"type": "content_block_delta", "index": 2,
     "delta": {"type": "input_json_delta", "partial_json": '{"city": "Rom"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 50}},
    {"type": "message_stop"},
]  # fmt: skip


def test_anthropic_keeps_every_other_event() -> None:
    """Thoughts, signatures, the provider's own tool and pings stay byte for byte; a comment is no event."""
    recorded = stream(*THOUGHT, ": keep-alive\n\n", *REST)
    asked = request(ANTHROPIC)
    response = encode_reply(asked, recorded, tool_input={"city": "Oslo"})
    before, after = data(recorded), data(response)
    assert after[1:9] == before[1:9]
    assert after[9:12] == [
        before[9],
        before[10],
        {**before[11], "delta": {"type": "input_json_delta", "partial_json": '{"city": "Oslo"}'}},
    ]
    assert after[12] == before[12]
    assert after[0] == {**before[0], "message": {**MESSAGE, "id": after[0]["message"]["id"]}}
    assert after[13]["usage"] == {"output_tokens": 50}
    assert calls(asked, response) == [("web_search", '{"query":"x"}'), ("book", '{"city":"Oslo"}')]


def test_a_providers_own_tool_is_no_call_of_the_agent() -> None:
    """What the provider ran itself cannot be given another input: its result is in the same reply."""
    recorded = stream(*THOUGHT[:9], *REST[2:])
    with pytest.raises(UsageError, match="calls no tool"):
        encode_reply(request(ANTHROPIC), recorded, tool_input={})


def test_a_text_forgets_what_the_recorded_reply_did() -> None:
    """Cached input stays counted; the search that the recorded reply paid for does not."""
    asked = request(ANTHROPIC)
    begun, *_, ended, _ = data(encode_reply(asked, stream(*THOUGHT, *REST), text="No."))
    assert begun["message"]["usage"] == {
        "input_tokens": 7,
        "cache_read_input_tokens": 90,
        "output_tokens": 1,
    }
    assert begun["message"]["model"] == "claude-x-1"
    assert ended["usage"]["output_tokens"] == 1


def test_a_text_on_vertex_names_the_model_of_the_path() -> None:
    """Where the body names no model, the reply names the one of the path."""
    asked = Request(method="POST", url=VERTEX, body=b'{"stream": true, "messages": []}')
    begun = data(encode_reply(asked, None, text="Hi"))[0]
    assert begun["message"]["model"] == "claude-sonnet-4-5"


def test_no_text_is_no_block() -> None:
    """Anthropic ends a turn without text by no block at all: an empty one could not be sent back."""
    asked = request(ANTHROPIC, stream=False)
    assert json.loads(encode_reply(asked, None, text="").body)["content"] == []


def test_compressed_replies_are_read_and_served_plain() -> None:
    """A gzipped recorded reply is edited, and the result is laid out like it, without the encoding."""
    whole = {**MESSAGE, "content": [{"type": "tool_use", "id": "t", "name": "book", "input": {"a": 1}}]}
    packed = gzip.compress(json.dumps(whole, indent=2).encode())
    headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"), ("x-a", "b"))
    asked = request(ANTHROPIC, stream=False)
    recorded = Response(status=200, headers=headers, body=packed, chunk_sizes=(len(packed),))
    response = encode_reply(asked, recorded, tool_input={"a": 2})
    found = json.loads(response.body)
    assert found["content"] == [{**whole["content"][0], "input": {"a": 2}}]
    assert response.body == json.dumps(found, indent=2).encode()
    assert response.headers == (("content-type", "application/json"), ("x-a", "b"))
    broken = Response(status=200, headers=headers, body=b"junk " * 9, chunk_sizes=(45,))
    with pytest.raises(UsageError, match="no recorded reply that can be read"):
        encode_reply(asked, broken, tool_input={})


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: object) -> dict[str, Any]:
    """One chunk of a chat stream."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt-x",
            "system_fingerprint": "fp", "choices": [choice], **more}  # fmt: skip


def tool(index: int | None, arguments: str, **more: object) -> dict[str, Any]:
    """A delta of one tool call."""
    place = {} if index is None else {"index": index}
    name = more.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"tool_calls": [{**place, **more, "function": function}]}


def test_whole_calls_without_an_index_stay_whole() -> None:
    """Where a server sent each call in one delta, the new input is in it, and the other call as it was."""
    recorded = stream(
        chunk({"role": "assistant", "content": "", **tool(None, '{"a":1}', id="c1", name="one")}),
        chunk(tool(None, '{"b":1}', id="c2", name="two"), "tool_calls"),
        "data: [DONE]\n\n",
        named=False,
    )
    asked = request(CHAT)
    for name, expected in (("one", ['{"z":0}', '{"b":1}']), ("two", ['{"a":1}', '{"z":0}'])):
        response = encode_reply(asked, recorded, tool_input={"z": 0}, tool=name)
        assert [content for _, content in calls(asked, response)] == expected
        assert len(response.chunk_sizes) == 3
        assert data(response)[1]["choices"][0]["finish_reason"] == "tool_calls"


def test_deltas_of_two_calls_in_one_chunk_are_told_apart() -> None:
    """The edited call's deltas go, the other's in the same chunk stay, and usage moves by the difference."""
    both = {"tool_calls": tool(0, '{"a":1}')["tool_calls"] + tool(1, '{"b":1}')["tool_calls"]}
    recorded = stream(
        chunk({"role": "assistant", "content": None}, usage=None, obfuscation="xx"),
        chunk(tool(0, "", id="c1", name="one", type="function")),
        chunk(tool(1, "", id="c2", name="two", type="function")),
        chunk(both),
        chunk(tool(0, "  ")),
        chunk({}, "tool_calls"),
        {
            **chunk({}),
            "choices": [],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
        },
        "data: [DONE]\n\n",
        named=False,
    )
    asked = request(CHAT, stream_options={"include_usage": True})
    response = encode_reply(asked, recorded, tool_input={"a": "é" * 50})
    assert calls(asked, response) == [("one", compact({"a": "é" * 50})), ("two", '{"b":1}')]
    *chunks, last, done = data(response)
    assert {c["id"] for c in chunks} == {last["id"]} != {"chatcmpl-1"}
    assert last["usage"] == {"prompt_tokens": 10, "completion_tokens": 44, "total_tokens": 54}
    assert done == "[DONE]"
    indexes = [c["index"] for one in chunks for c in one["choices"][0]["delta"].get("tool_calls", [])]
    assert indexes == [0, 0, 0, 0, 1, 1]


def test_legacy_function_calls_are_calls_too() -> None:
    """A `function_call`, whole or streamed, takes another input."""
    asked = request(CHAT, stream=False)
    said = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    whole = {**chunk({}), "choices": [{"index": 0, "message": said, "finish_reason": "function_call"}]}
    headers = (("content-type", "application/json"),)
    recorded = Response(status=200, headers=headers, body=json.dumps(whole).encode())
    found = json.loads(encode_reply(asked, recorded, tool_input={"a": 2}).body)
    assert found["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": '{"a": 2}'}
    assert "usage" not in found
    streamed = stream(
        chunk({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"a": 1}'}}),
        chunk({}, "function_call"),
        "data: [DONE]\n\n",
        named=False,
    )
    asked = request(CHAT)
    assert calls(asked, encode_reply(asked, streamed, tool_input={"a": 2})) == [("f", '{"a": 2}')]


def test_free_tools_take_text_and_others_objects() -> None:
    """A custom tool's input is a string, a function's an object; the other kind is refused."""
    asked = request(CHAT, stream=False)
    custom = {"id": "c", "type": "custom", "custom": {"name": "note", "input": "old"}}
    function = {"id": "d", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [custom, function]}
    whole = {**chunk({}), "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}]}
    recorded = Response(
        status=200, headers=(("content-type", "application/json"),), body=json.dumps(whole).encode()
    )
    assert calls(asked, encode_reply(asked, recorded, tool_input="new")) == [
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
        asked = request(CHAT, n=3, stream=streamed)
        response = encode_reply(asked, None, text="Ja.")
        said = data(response)[:-1] if streamed else [json.loads(response.body)]
        indexes = {choice["index"] for one in said for choice in one["choices"]}
        assert indexes == {0, 1, 2}


def test_usage_comes_in_a_chat_stream_only_where_asked() -> None:
    """Without include_usage no chunk speaks of usage; with it all are null but the last, without choices."""
    plain = data(encode_reply(request(CHAT), None, text="Ja."))[:-1]
    assert all("usage" not in one for one in plain)
    asked = request(CHAT, stream_options={"include_usage": True})
    *chunks, last = data(encode_reply(asked, None, text="Ja."))[:-1]
    assert [one["usage"] for one in chunks] == [None] * len(chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 1


def item(status: str, arguments: str) -> dict[str, Any]:
    """A function call of the Responses format."""
    return {"id": "fc_1", "type": "function_call", "status": status, "arguments": arguments,
            "call_id": "call_1", "name": "book"}  # fmt: skip


NOTE = {
    "id": "ct_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_2",
    "name": "note",
    "input": "old",
}
FRAME = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-x", "status": "in_progress"}
FRAME |= {"output": [], "usage": None}
THINKING = {"id": "rs_1", "type": "reasoning", "summary": []}
ROME = '{"city":"Rom"}'


def said(kind: str, index: int, **members: object) -> dict[str, Any]:
    """An event of one output item."""
    return {"type": f"response.{kind}", "output_index": index, **members}


RESPONSE_EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": FRAME},
    said("output_item.added", 0, item=THINKING),
    said("output_item.done", 0, item=THINKING),
    said("output_item.added", 1, item=item("in_progress", "")),
    said("function_call_arguments.delta", 1, item_id="fc_1", delta='{"city":', obfuscation="x"),
    said("function_call_arguments.delta", 1, item_id="fc_1", delta='"Rom"}'),
    said("function_call_arguments.done", 1, item_id="fc_1", arguments=ROME),
    said("output_item.done", 1, item=item("completed", ROME)),
    said("output_item.added", 2, item={**NOTE, "input": "", "status": "in_progress"}),
    said("custom_tool_call_input.delta", 2, item_id="ct_1", delta="old"),
    said("custom_tool_call_input.done", 2, item_id="ct_1", input="old"),
    said("output_item.done", 2, item=NOTE),
    {
        "type": "response.completed",
        "response": {
            **FRAME,
            "status": "completed",
            "output": [THINKING, item("completed", ROME), NOTE],
            "usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14},
        },
    },
]


def numbered(events: list[dict[str, Any]]) -> Response:
    """A recorded stream with sequence numbers."""
    return stream(*({**one, "sequence_number": n} for n, one in enumerate(events)))


@pytest.mark.parametrize(
    ("tool", "value", "index"),
    [
        (None, {"city": "Reykjavík " * 5}, 1),
        ("note", "a new note, rather longer than a delta", 2),
    ],
)
def test_responses_tell_the_new_input_everywhere(tool: str | None, value: Any, index: int) -> None:
    """Deltas, done, the finished item and the completed response agree; the numbers have no gap."""
    asked = request(RESPONSES)
    response = encode_reply(asked, numbered(RESPONSE_EVENTS), tool_input=value, tool=tool)
    events = data(response)
    spelled = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    )
    key = "input" if index == 2 else "arguments"
    mine = [one for one in events if one.get("output_index") == index]
    assert "".join(one.get("delta", "") for one in mine) == spelled
    assert [one[key] for one in mine if key in one] == [spelled]
    assert [one["item"][key] for one in mine if "item" in one] == ["", spelled]
    assert events[-1]["response"]["output"][index][key] == spelled
    other = 3 - index
    kept = [one for one in RESPONSE_EVENTS if one.get("output_index") == other]
    seen = [one for one in events if one.get("output_index") == other]
    assert [{k: v for k, v in one.items() if k != "sequence_number"} for one in seen] == kept
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    ids = {one["response"]["id"] for one in events if "response" in one}
    assert len(ids) == 1
    assert ids != {"resp_1"}
    usage = events[-1]["response"]["usage"]
    assert usage["total_tokens"] == 5 + usage["output_tokens"] > 14


def test_a_responses_stream_without_its_end_is_refused() -> None:
    """Without the terminal event nobody knows whether the call is whole."""
    with pytest.raises(UsageError, match="no end"):
        encode_reply(request(RESPONSES), numbered(RESPONSE_EVENTS[:-1]), tool_input={})


@pytest.mark.parametrize(
    ("url", "members", "edit"),
    [
        (ANTHROPIC, {}, ("system", "New.")),
        (CHAT, {"messages": [{"role": "user"}, {"role": "developer"}]}, ("messages[1].content", "New.")),
        (CHAT, {}, ("messages", [{"role": "system", "content": "New."}, {"role": "user", "content": "go"}])),
        (RESPONSES, {"input": "hi"}, ("instructions", "New.")),
        (RESPONSES, {"input": [{"role": "system"}]}, ("input[0].content", "New.")),
        (RESPONSES, {"input": [{"role": "system"}], "instructions": "Old."}, ("instructions", "New.")),
    ],
)
def test_the_system_prompt_has_each_formats_place(url: str, members: Any, edit: tuple[str, Any]) -> None:
    """The edit goes where the request has its system prompt, or where the format puts a new one."""
    assert system_edit(request(url, **members), "New.") == edit


def test_other_services_get_plain_errors_and_any_body() -> None:
    """A step that is no model call can be answered by any bytes, and fails with a plain JSON error."""
    asked = Request(method="GET", url="https://search.example/q?x=1")
    error = encode_error(asked, 429)
    assert json.loads(error.body) == {"error": {"message": "Too Many Requests"}}
    assert (error.status, error.header("retry-after")) == (429, "1")
    assert json.loads(encode_error(asked, 529).body) == {"error": {"message": "Overloaded"}}
    recorded = Response(status=404, headers=(("content-type", "text/plain"), ("x-a", "b")))
    for before, body, kind in [
        (None, b'{"hits": 0}', "application/json"),
        (None, b"\xff\x00", "application/octet-stream"),
        (None, b"data: 1\n\n", "text/event-stream; charset=utf-8"),
        (recorded, b"anything", "text/plain"),
        (None, b"", "application/octet-stream"),
    ]:
        response = encode_body(asked, before, body)
        assert (response.status, response.body, response.header("content-type")) == (200, body, kind)
        assert sum(response.chunk_sizes) == len(body)
