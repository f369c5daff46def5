"""What only the Responses API sends: we read it as OpenAI's SDK does, and an edit leaves it as it was."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from answering import events
from conversations import request_messages
from openai.types.responses import Response as SdkResponse

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.replies import encode_reply, system_edit
from tracefork_otel.wire.sse import sse_events

URL = "https://api.openai.com/v1/responses"
REQUEST = {
    "model": "gpt-5",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "How high is it?"},
        {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": "Look it up."}]},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"q":"model"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "4808"},
        {
            "type": "function_call_output",
            "call_id": "gone",
            "output": [{"type": "input_text", "text": "lost"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_0",
            "status": "completed",
            "content": [{"type": "output_text", "text": "4808 m", "annotations": []}],
        },
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/peak.png"}]},
        {"type": "item_reference", "id": "msg_9"},
    ],
}
OUTPUT = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "**Height** asked."}],
        "encrypted_content": None,
    },
    {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "Mont Blanc height"},
    },
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "Höhe: 4808 m.", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "I won't climb it."},
        ],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_2",
        "name": "book",
        "arguments": '{"hut": "Goûter"}',
        "status": "completed",
    },
    {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_3", "name": "note", "input": "bring rope"},
]


def response(status: str, output: list[dict[str, object]], **more: object) -> dict[str, object]:
    """A response object."""
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc054267",
        "object": "response",
        "created_at": 1741476542,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "gpt-5-2025-08-07",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "usage": None,
        **more,
    }


DONE = response(
    "completed",
    OUTPUT,
    usage={
        "input_tokens": 328,
        "input_tokens_details": {"cached_tokens": 128, "cache_write_tokens": 64},
        "output_tokens": 52,
        "output_tokens_details": {"reasoning_tokens": 32},
        "total_tokens": 380,
    },
)


def stream_of(done: dict[str, object]) -> bytes:
    """The events by which the API streams a response: items begun, their text in deltas, items done."""
    events: list[dict[str, object]] = [{"type": "response.created", "response": response("in_progress", [])}]

    def halves(kind: str, text: str, **where: object) -> None:
        """Send a text in two deltas."""
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            events.append({"type": kind, "delta": part, **where})

    for index, item in enumerate(OUTPUT):
        where = {"output_index": index, "item_id": item["id"]}
        empty = {**item, **{key: [] for key in ("summary", "content") if key in item}}
        empty |= {key: "" for key in ("arguments", "input") if key in item}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        for position, part in enumerate(item.get("summary", [])):
            place = {**where, "summary_index": position}
            bare = {"type": "summary_text", "text": ""}
            events.append({"type": "response.reasoning_summary_part.added", **place, "part": bare})
            halves("response.reasoning_summary_text.delta", part["text"], **place)
        for position, part in enumerate(item.get("content", [])):
            place = {**where, "content_index": position}
            bare = {**part, "text": ""} if "text" in part else {**part, "refusal": ""}
            events.append({"type": "response.content_part.added", **place, "part": bare})
            if "text" in part:
                halves("response.output_text.delta", part["text"], **place, logprobs=[])
            else:
                halves("response.refusal.delta", part["refusal"], **place)
        if "arguments" in item:
            halves("response.function_call_arguments.delta", item["arguments"], **where)
        if "input" in item:
            halves("response.custom_tool_call_input.delta", item["input"], **where)
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{done['status']}", "response": done})
    numbered = [{**event, "sequence_number": n} for n, event in enumerate(events)]
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in numbered)


STREAM = stream_of(DONE)


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


def same_as_response(found: Facts, sdk: SdkResponse) -> None:
    """Hold our reading of an answer against the SDK's response."""
    assert (found.response_id, found.response_model) == (sdk.id, sdk.model)
    assert found.text == sdk.output_text
    assert found.finish_reason == sdk.status
    assert sdk.usage is not None
    assert (found.input_tokens, found.output_tokens) == (sdk.usage.input_tokens, sdk.usage.output_tokens)
    assert found.cached_tokens == sdk.usage.input_tokens_details.cached_tokens
    assert found.cache_write_tokens == sdk.usage.input_tokens_details.cache_write_tokens


def test_a_responses_stream_reads_as_the_sdk_accumulates_it() -> None:
    """Text, status, ids and usage of a streamed response equal the SDK's final response."""
    with client(STREAM, "text/event-stream").responses.stream(model="m", input="x") as stream:
        final = stream.get_final_response()
    found = read(STREAM)
    same_as_response(found, final)
    assert told(found) == [
        ("thinking", None, "**Height** asked."),
        ("tool_use", "web_search", '{"type":"search","query":"Mont Blanc height"}'),
        ("text", None, "Höhe: 4808 m."),
        ("refusal", None, "I won't climb it."),
        ("tool_use", "book", '{"hut": "Goûter"}'),
        ("tool_use", "note", "bring rope"),
    ]


def test_deltas_alone_add_up_to_the_finished_response() -> None:
    """A stream without its last event, and one in which no item was finished, still give the whole reply."""
    whole = read(STREAM)
    cut = STREAM[: STREAM.rindex(b"event: response.completed")]
    assert told(read(cut)) == told(whole)
    blocks = [b + b"\n\n" for b in cut.split(b"\n\n") if b and b"output_item.done" not in b]
    assert told(read(b"".join(blocks))) == told(whole)
    # A lost delta does not matter once the finished item came.
    lost = [b for b in cut.split(b"\n\n") if b and (b"4808 m" not in b or b"output_item.done" in b)]
    shortened = [b + b"\n\n" for b in lost]
    assert len(shortened) == len([b for b in cut.split(b"\n\n") if b]) - 1
    assert told(read(b"".join(shortened))) == told(whole)
    unannounced = [b for b in blocks if b"output_item.added" not in b and b"web_search" not in b]
    kinds = [m.kind for m in read(b"".join(unannounced)).reply]
    assert kinds == ["thinking", "text", "refusal", "tool_use", "tool_use"]


@pytest.mark.parametrize(
    ("more", "finish_reason", "error_type"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
            None,
        ),
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}}, "failed", "server_error"),
    ],
)
def test_a_response_that_did_not_complete_says_why(
    more: dict[str, object], finish_reason: str, error_type: str | None
) -> None:
    """An incomplete response ends with its reason, a failed one with its error; both keep their text."""
    body = stream_of({**DONE, **more})
    with client(body, "text/event-stream").responses.stream(model="m", input="x") as stream:
        last = list(stream)[-1]
    assert last.type == f"response.{more['status']}"
    found = read(body)
    assert (found.finish_reason, found.error_type, found.text) == (finish_reason, error_type, "Höhe: 4808 m.")


def test_a_responses_request_reads_as_messages() -> None:
    """The instructions and each input item of a Responses request are messages, in order."""
    found = request_messages("openai_responses", json.dumps(REQUEST).encode())
    assert [(m.role, m.kind, m.name, m.content) for m in found] == [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "How high is it?"),
        ("assistant", "thinking", None, "Look it up."),
        ("assistant", "tool_use", "look", '{"q":"model"}'),
        ("tool", "tool_result", "look", "4808"),
        ("tool", "tool_result", "gone", "lost"),
        ("assistant", "text", None, "4808 m"),
        ("user", "image", None, "https://example.org/peak.png"),
        ("user", "other", None, '{"type":"item_reference","id":"msg_9"}'),
    ]
    bare = request_messages("openai_responses", b'{"model": "m", "input": "hi"}')
    assert [(m.role, m.content) for m in bare] == [("user", "hi")]


def request(**members: object) -> Request:
    """A request of a streaming agent."""
    body = {"model": "m", "stream": True, "input": "go", **members}
    return Request(method="POST", url=URL, body=json.dumps(body).encode())


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


EVENTS: list[dict[str, Any]] = [
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


def numbered(said: list[dict[str, Any]]) -> Response:
    """A recorded stream with sequence numbers."""
    return events(*({**one, "sequence_number": n} for n, one in enumerate(said)), named=True, done=False)


@pytest.mark.parametrize(
    ("tool", "value", "index"),
    [
        (None, {"city": "Reykjavík " * 5}, 1),
        ("note", "a new note, rather longer than a delta", 2),
    ],
)
def test_responses_tell_the_new_input_everywhere(tool: str | None, value: Any, index: int) -> None:
    """Deltas, done, the finished item and the completed response agree; the numbers have no gap."""
    asked = request()
    response = encode_reply(asked, numbered(EVENTS), tool_input=value, tool=tool)
    made = [json.loads(raw) for _, raw in sse_events(response.body)]
    spelled = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    )
    key = "input" if index == 2 else "arguments"
    mine = [one for one in made if one.get("output_index") == index]
    assert "".join(one.get("delta", "") for one in mine) == spelled
    assert [one[key] for one in mine if key in one] == [spelled]
    assert [one["item"][key] for one in mine if "item" in one] == ["", spelled]
    assert made[-1]["response"]["output"][index][key] == spelled
    other = 3 - index
    kept = [one for one in EVENTS if one.get("output_index") == other]
    seen = [one for one in made if one.get("output_index") == other]
    assert [{k: v for k, v in one.items() if k != "sequence_number"} for one in seen] == kept
    assert [one["sequence_number"] for one in made] == list(range(len(made)))
    ids = {one["response"]["id"] for one in made if "response" in one}
    assert len(ids) == 1
    assert ids != {"resp_1"}
    usage = made[-1]["response"]["usage"]
    assert usage["total_tokens"] == 5 + usage["output_tokens"] > 14


def test_a_responses_stream_without_its_end_is_refused() -> None:
    """Without the terminal event nobody knows whether the call is whole."""
    with pytest.raises(UsageError, match="no end"):
        encode_reply(request(), numbered(EVENTS[:-1]), tool_input={})


@pytest.mark.parametrize(
    ("members", "edit"),
    [
        ({"input": "hi"}, ("instructions", "New.")),
        ({"input": [{"role": "system"}]}, ("input[0].content", "New.")),
        ({"input": [{"role": "system"}], "instructions": "Old."}, ("instructions", "New.")),
    ],
)
def test_a_system_prompt_is_found_or_added(members: dict[str, Any], edit: tuple[str, Any]) -> None:
    """The edit goes to the instructions, or where the input says them instead."""
    assert system_edit(request(**members), "New.") == edit
