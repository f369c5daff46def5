"""OpenAI's two wire formats: we read what the SDK reads out of the same bytes, whole or cut anywhere."""

from __future__ import annotations

import json

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tracefork_otel.wire.facts import facts, request_messages
from tracefork_otel.wire.messages import Facts, Message
from tracefork_otel.wire.sse import sse_events

CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"
CHAT_REQUEST = {
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
CHAT_STREAM = b"".join(f"data: {json.dumps(c)}\n\n".encode() for c in CHUNKS) + b"data: [DONE]\n\n"
CHAT_WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1741570283,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "It is a cat.",
                "refusal": None,
                "annotations": [],
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "pet", "arguments": '{"times": 2}'}},
                    {"id": "d", "type": "custom", "custom": {"name": "note", "input": "soft"}},
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
}


RESPONSES_REQUEST = {
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


RESPONSES_STREAM = stream_of(DONE)


def client(body: bytes, content_type: str) -> openai.OpenAI:
    """An SDK client whose every answer is this body."""
    answer = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": content_type}, content=body)
    )
    return openai.OpenAI(api_key="none", http_client=openai.DefaultHttpxClient(transport=answer))


def read(url: str, body: bytes, content_type: str = "text/event-stream") -> Facts:
    """Our facts about this answer."""
    request = json.dumps(CHAT_REQUEST if url == CHAT else RESPONSES_REQUEST).encode()
    found = facts("POST", url, request=request, response=body, content_type=content_type)
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


def same_as_response(found: Facts, sdk: Response) -> None:
    """Hold our reading of an answer against the SDK's response."""
    assert (found.response_id, found.response_model) == (sdk.id, sdk.model)
    assert found.text == sdk.output_text
    assert found.finish_reason == sdk.status
    assert sdk.usage is not None
    assert (found.input_tokens, found.output_tokens) == (sdk.usage.input_tokens, sdk.usage.output_tokens)
    assert found.cached_tokens == sdk.usage.input_tokens_details.cached_tokens
    assert found.cache_write_tokens == sdk.usage.input_tokens_details.cache_write_tokens


def test_a_chat_stream_reads_as_the_sdk_accumulates_it() -> None:
    """Text, tool calls, ids and usage of streamed chunks equal the SDK's final completion."""
    with client(CHAT_STREAM, "text/event-stream").chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "x"}]
    ) as stream:
        final = stream.get_final_completion()
    found = read(CHAT, CHAT_STREAM)
    same_as_completion(found, final)
    assert found.streamed
    assert found.model == "gpt-4o"


def test_a_whole_completion_reads_as_the_sdk_parses_it() -> None:
    """Text, function and custom tool calls, ids and usage of a JSON answer equal the SDK's completion."""
    body = json.dumps(CHAT_WHOLE).encode()
    final = client(body, "application/json").chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    found = read(CHAT, body, "application/json")
    same_as_completion(found, final)
    assert not found.streamed


def test_a_chat_request_reads_as_messages() -> None:
    """Each turn and part of a Chat Completions request is a message, in order."""
    found = request_messages("openai_chat", json.dumps(CHAT_REQUEST).encode())
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
    found = read(CHAT, b"".join(f"data: {json.dumps(s)}\n\n".encode() for s in steps))
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
    found = read(CHAT, b"".join(f"data: {json.dumps(s)}\n\n".encode() for s in steps))
    assert told(found) == [("text", None, "Aa"), ("text", None, "Bb")]
    assert (found.text, found.finish_reason) == ("Aa", "stop")


def test_a_responses_stream_reads_as_the_sdk_accumulates_it() -> None:
    """Text, status, ids and usage of a streamed response equal the SDK's final response."""
    with client(RESPONSES_STREAM, "text/event-stream").responses.stream(model="m", input="x") as stream:
        final = stream.get_final_response()
    same_as_response(read(RESPONSES, RESPONSES_STREAM), final)


def test_a_whole_response_reads_as_the_sdk_parses_it() -> None:
    """Text, status, ids and usage of a JSON response equal the SDK's, and every item is a message."""
    body = json.dumps(DONE).encode()
    final = client(body, "application/json").responses.create(model="m", input="x")
    found = read(RESPONSES, body, "application/json")
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
    whole = read(RESPONSES, RESPONSES_STREAM)
    cut = RESPONSES_STREAM[: RESPONSES_STREAM.rindex(b"event: response.completed")]
    assert told(read(RESPONSES, cut)) == told(whole)
    blocks = [b + b"\n\n" for b in cut.split(b"\n\n") if b and b"output_item.done" not in b]
    assert told(read(RESPONSES, b"".join(blocks))) == told(whole)
    # A lost delta does not matter once the finished item came.
    lost = [b for b in cut.split(b"\n\n") if b and (b"4808 m" not in b or b"output_item.done" in b)]
    shortened = [b + b"\n\n" for b in lost]
    assert len(shortened) == len([b for b in cut.split(b"\n\n") if b]) - 1
    assert told(read(RESPONSES, b"".join(shortened))) == told(whole)
    unannounced = [b for b in blocks if b"output_item.added" not in b and b"web_search" not in b]
    kinds = [m.kind for m in read(RESPONSES, b"".join(unannounced)).reply]
    assert kinds == ["thinking", "text", "refusal", "tool_use", "tool_use"]


@pytest.mark.parametrize(("url", "body", "texts"), [(CHAT, CHAT_STREAM, 3), (RESPONSES, RESPONSES_STREAM, 3)])
def test_a_stream_cut_at_any_byte_reads_as_a_prefix(url: str, body: bytes, texts: int) -> None:
    """However much of a stream arrived, its text is a prefix of the whole text and nothing raises."""
    whole = read(url, body)
    seen = {read(url, body[:end]).text for end in range(len(body) + 1)}
    assert all(whole.text.startswith(text) for text in seen)
    assert len(seen) == texts


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
    found = read(RESPONSES, body)
    assert (found.finish_reason, found.error_type, found.text) == (finish_reason, error_type, "Höhe: 4808 m.")


@pytest.mark.parametrize("url", [CHAT, RESPONSES])
def test_an_error_names_its_type(url: str) -> None:
    """An error answer gives the error's type and no reply."""
    error = {
        "error": {"message": "m", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
    }
    found = read(url, json.dumps(error).encode(), "application/json")
    assert (found.error_type, found.reply, found.finish_reason) == ("insufficient_quota", (), None)
    told_late = read(url, (CHAT_STREAM if url == CHAT else RESPONSES_STREAM)[:2000])
    assert told_late.error_type is None


def test_a_responses_request_reads_as_messages() -> None:
    """The instructions and each input item of a Responses request are messages, in order."""
    found = request_messages("openai_responses", json.dumps(RESPONSES_REQUEST).encode())
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


def test_azure_names_the_deployment_and_the_model_behind_it() -> None:
    """On Azure the deployment in the path is what was asked for, and the answer names the model."""
    url = "https://mine.openai.azure.com/openai/deployments/prod/chat/completions?api-version=2024-10-21"
    body = f"data: {json.dumps(AZURE_FIRST)}\n\n".encode() + CHAT_STREAM
    found = facts("POST", url, request=b"{}", response=body, content_type="text/event-stream")
    assert found is not None
    assert found.provider == "azure.ai.openai"
    assert (found.model, found.response_model) == ("prod", "gpt-4o-2024-08-06")
    assert found.reply == read(CHAT, CHAT_STREAM).reply


EVENTS = [json.loads(data) for _, data in sse_events(RESPONSES_STREAM)]
ODD = st.sampled_from([None, True, -1, 2**70, 1.5, "", "text", "\ud83c", [], ["a"], {}, [{}], [[]]])


def places(value: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The path of every value inside a JSON value, its own first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in inside for place in places(inner, (*here, key)))]


def bent(value: object, data: st.DataObject) -> object:
    """A copy of a JSON value with one to three of its values replaced by odd ones."""
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(value)))
        value = replaced(value, place, data.draw(ODD))
    return value


def replaced(value: object, place: tuple[object, ...], new: object) -> object:
    """A copy of a JSON value with the value at a path replaced."""
    if not place:
        return new
    if isinstance(value, dict):
        return {k: replaced(v, place[1:], new) if k == place[0] else v for k, v in value.items()}
    assert isinstance(value, list)
    return [replaced(v, place[1:], new) if i == place[0] else v for i, v in enumerate(value)]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_json_of_any_shape_raises(data: st.DataObject) -> None:
    """Whatever stands where the format expects something else, facts and messages come back as UTF-8."""
    found: list[Message] = []
    for url, events, whole, request in (
        (CHAT, CHUNKS, CHAT_WHOLE, CHAT_REQUEST),
        (RESPONSES, EVENTS[:-1], DONE, RESPONSES_REQUEST),
    ):
        odd = bent(events, data)
        lines = [
            b"data: " + json.dumps(e).encode() + b"\n\n" for e in (odd if isinstance(odd, list) else [odd])
        ]
        found += read(url, b"".join(lines)).reply
        found += read(url, json.dumps(bent(whole, data)).encode(), "application/json").reply
        form = "openai_chat" if url == CHAT else "openai_responses"
        found += request_messages(form, json.dumps(bent(request, data)).encode())
    for m in found:
        f"{m.role}{m.name}{m.content}".encode()
