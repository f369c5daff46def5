"""Conversations on spans, read from what the model server answers in the providers' formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tracefork_backend.simulate import Call, ModelServer, Reply, ToolUse, Usage

from tracefork_otel.exchange import Response
from tracefork_otel.seam import content
from tracefork_otel.settings import CONTENT_VARIABLE, content_wanted
from tracefork_otel.wire import genai
from tracefork_otel.wire.facts import facts

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
QUESTION = "Wetter in Zürich? 🌦"
INPUT = {"city": "Zürich", "days": [1, 2]}
LIMIT = 32 * 1024
CONTENT = (genai.INPUT, genai.OUTPUT, genai.SYSTEM)


def weather(call: Call) -> Reply:
    """Thinks, speaks and calls a tool; then says what the tool returned."""
    if not call.tool_results:
        usage = Usage(input_tokens=50, output_tokens=7, cached_tokens=20)
        return Reply(text="Moment … 🌦", thinking="One call.", tools=(ToolUse("weather", INPUT),), usage=usage)
    return Reply(text=f"It says: {call.tool_results[0][1]}")


ANTHROPIC: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [{"role": "user", "content": QUESTION}],
    "tools": [{"name": "weather", "input_schema": SCHEMA}],
}
CHAT: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
}
RESPONSES: dict[str, Any] = {
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "input": QUESTION,
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
}
GEMINI: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
    "tools": [{"functionDeclarations": [{"name": "weather", "parameters": SCHEMA}]}],
}
GENERATE = "/v1beta/models/gemini-3-flash:generateContent"
STREAM_GENERATE = "/v1beta/models/gemini-3-flash:streamGenerateContent"
STREAMED: dict[str, dict[str, Any]] = {
    "/v1/messages": {"stream": True},
    "/v1/chat/completions": {"stream": True, "stream_options": {"include_usage": True}},
    "/v1/responses": {"stream": True},
    GENERATE: {},
    STREAM_GENERATE: {},
}
BODIES = {
    "/v1/messages": ANTHROPIC,
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    GENERATE: GEMINI,
    STREAM_GENERATE: GEMINI,
}


def _anthropic_turns(answer: dict[str, Any]) -> list[dict[str, Any]]:
    call = next(block for block in answer["content"] if block["type"] == "tool_use")
    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{"type": "text", "text": "Regen"}],
    }
    return [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [result]}]


def _chat_turns(answer: dict[str, Any]) -> list[dict[str, Any]]:
    said = answer["choices"][0]["message"]
    return [said, {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "Regen"}]


def _response_items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    call = next(item for item in answer["output"] if item["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Regen"}
    return [{"role": "user", "content": QUESTION}, *answer["output"], result]


def _gemini_turns(answer: dict[str, Any]) -> list[dict[str, Any]]:
    said = answer["candidates"][0]["content"]
    call = next(part["functionCall"] for part in said["parts"] if "functionCall" in part)
    result = {"id": call["id"], "name": call["name"], "response": {"result": "Regen"}}
    return [*GEMINI["contents"], said, {"role": "user", "parts": [{"functionResponse": result}]}]


NEXT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "/v1/messages": lambda answer: {"messages": ANTHROPIC["messages"] + _anthropic_turns(answer)},
    "/v1/chat/completions": lambda answer: {"messages": CHAT["messages"] + _chat_turns(answer)},
    "/v1/responses": lambda answer: {"input": _response_items(answer)},
    GENERATE: lambda answer: {"contents": _gemini_turns(answer)},
}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """The base URL of a model that calls one tool."""
    with ModelServer(weather, seed=1) as server:
        yield server.url


def asked(model: str, path: str, body: dict[str, Any]) -> tuple[bytes, Response]:
    """The request and the response of one call, as they went over the wire."""
    with httpx2.Client() as client, client.stream("POST", f"{model}{path}", json=body) as response:
        raw = b"".join(response.iter_raw())
        assert response.status_code == 200, raw
        headers = tuple((name.decode(), value.decode()) for name, value in response.headers.raw)
        return response.request.content, Response(status=200, headers=headers, body=raw)


def read(path: str, request: bytes, response: Response | None, limit: int = LIMIT) -> dict[str, Any]:
    """The attributes, what is JSON text in them parsed."""
    found: dict[str, Any] = dict(
        content.content_attributes(f"http://127.0.0.1{path}", request, response, limit=limit)
    )
    return {name: json.loads(value) if name in CONTENT else value for name, value in found.items()}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", list(BODIES))
def test_a_conversation_is_told_by_the_convention(model: str, path: str, stream: bool) -> None:
    """System, question, thought, text, tool call and usage stand on the span, from JSON and from a stream."""
    request, response = asked(model, path, {**BODIES[path], **(STREAMED[path] if stream else {})})
    found = read(path, request, response)

    question = {"role": "user", "parts": [{"type": "text", "content": QUESTION}]}
    brief = [{"type": "text", "content": "Be brief."}]
    if path == "/v1/chat/completions":  # there the system prompt is part of the conversation
        assert found[content.INPUT] == [{"role": "system", "parts": brief}, question]
        assert content.SYSTEM not in found
    else:
        assert found[content.INPUT] == [question]
        assert found[content.SYSTEM] == brief

    (said,) = found[content.OUTPUT]
    assert (said["role"], said["finish_reason"]) == ("assistant", "tool_call")
    call = said["parts"].pop()
    assert call.pop("id")
    assert call == {"type": "tool_call", "name": "weather", "arguments": INPUT}
    if path != "/v1/chat/completions":  # which does not tell thoughts
        assert said["parts"].pop(0) == {"type": "reasoning", "content": "One call."}
    assert said["parts"] == [{"type": "text", "content": "Moment … 🌦"}]

    known = facts(
        "POST", f"{model}{path}", request=request, response=response.body, content_type=_type(response)
    )
    assert known is not None
    assert found["gen_ai.usage.input_tokens"] == known.input_tokens == 50
    assert found["gen_ai.usage.output_tokens"] == known.output_tokens == 7
    assert found["gen_ai.usage.cache_read.input_tokens"] == known.cached_tokens == 20
    assert found["gen_ai.response.model"] == known.response_model
    assert found["gen_ai.response.id"] == known.response_id
    assert "tracefork.content.truncated" not in found


@pytest.mark.parametrize("path", list(NEXT))
def test_tool_results_are_part_of_the_next_request(model: str, path: str) -> None:
    """The next call's input holds the assistant's tool call and the tool's answer, under one id."""
    _, first = asked(model, path, BODIES[path])
    request, response = asked(model, path, {**BODIES[path], **NEXT[path](json.loads(first.body))})
    found = read(path, request, response)
    parts = [part for turn in found[content.INPUT] for part in turn["parts"]]
    (call,) = (part for part in parts if part["type"] == "tool_call")
    (answer,) = (part for part in parts if part["type"] == "tool_call_response")
    assert answer.pop("name", "weather") == "weather"
    assert answer == {"type": "tool_call_response", "id": call["id"], "response": "Regen"}
    assert call["arguments"] == INPUT
    assert {turn["role"] for turn in found[content.INPUT]} <= {"system", "user", "assistant", "tool"}
    (said,) = found[content.OUTPUT]
    assert said == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "It says: Regen"}],
        "finish_reason": "stop",
    }


def _type(response: Response) -> str | None:
    return response.header("content-type")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_encoded_answers_are_read(encoding: Any) -> None:
    """An answer that came compressed is told like any other."""
    with ModelServer(lambda call: Reply(text="said", encoding=encoding)) as server:
        request, response = asked(server.url, "/v1/messages", ANTHROPIC)
    assert response.header("content-encoding") == encoding
    assert read("/v1/messages", request, response)[content.OUTPUT][0]["parts"] == [
        {"type": "text", "content": "said"}
    ]


@pytest.mark.parametrize("path", list(BODIES))
def test_a_stream_that_was_cut_tells_what_came(model: str, path: str) -> None:
    """Wherever a stream broke, the part that came is readable, and none of it raises."""
    request, response = asked(model, path, {**BODIES[path], **STREAMED[path]})
    for end in range(0, len(response.body), 97):
        cut = Response(status=200, headers=response.headers, body=response.body[:end])
        found = read(path, request, cut)
        assert content.INPUT in found
    assert read(path, request, None).keys() == {content.INPUT} | ({content.SYSTEM} & found.keys())


def test_long_conversations_keep_the_newest(model: str) -> None:
    """What goes on the span stays under the limit, is valid JSON, and says that something is missing."""
    turns = [{"role": "user", "content": f"{number} " + "ä" * 500} for number in range(100)]
    request, response = asked(model, "/v1/messages", {**ANTHROPIC, "messages": turns})
    for limit in (0, 1, 50, 500, 5_000, 50_000, 200_000):
        found = content.content_attributes("/v1/messages", request, response, limit=limit)
        sizes = [len(str(found.get(name, "")).encode()) for name in CONTENT]
        assert sum(sizes) <= max(limit, 6)  # `[]` thrice
        inputs = json.loads(str(found[content.INPUT]))
        assert found.get("tracefork.content.truncated", False) == (len(inputs) < 100 or limit < 100_000)
        if limit >= 5_000:
            assert inputs[-1]["parts"][0]["content"].startswith("99 ")


def test_one_long_message_is_cut_not_dropped(model: str) -> None:
    """A message that alone is over the limit is there with its beginning."""
    request, response = asked(
        model, "/v1/messages", {**ANTHROPIC, "messages": [{"role": "user", "content": "x" * 900_000}]}
    )
    found = read("/v1/messages", request, response, limit=8_000)
    (part,) = found[content.INPUT][0]["parts"]
    assert part["content"].startswith("xxx")
    assert part["content"].endswith("…")
    assert found["tracefork.content.truncated"] is True


def test_pictures_are_told_by_their_length() -> None:
    """Base64 data never goes on a span; links and kinds do."""
    data = "iVBOR" * 1000
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    link = {"type": "image", "source": {"type": "url", "url": "https://a.example/cat.png"}}
    body = json.dumps({**ANTHROPIC, "messages": [{"role": "user", "content": [image, link]}]}).encode()
    (turn,) = read("/v1/messages", body, None)[content.INPUT]
    image["source"]["data"] = "[5000 characters]"  # type: ignore[index]
    assert turn["parts"] == [image, link]


def test_what_a_body_claims_cannot_break_the_exporter() -> None:
    """Half surrogate pairs, huge numbers and wrong types become something that OTLP can carry, or nothing."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    answer = {
        "id": "\ud800",
        "model": {"not": "text"},
        "content": [{"type": "text", "text": "\udfff"}],
        "usage": {"input_tokens": 1 << 70, "output_tokens": "many", "cache_read_input_tokens": True},
    }
    response = Response(status=200, body=json.dumps(answer).encode())
    request = json.dumps({"messages": [{"role": "user", "content": "\udfff"}]}).encode()
    found = content.content_attributes("/v1/messages", request, response, limit=LIMIT)
    assert json.loads(str(found[content.INPUT])) == [
        {"role": "user", "parts": [{"type": "text", "content": "\ufffd"}]}
    ]
    assert found.keys() == {content.INPUT, content.OUTPUT, "gen_ai.response.id"}
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s")
    span.set_attributes(found)
    span.end()
    assert encode_spans([span]).SerializeToString()  # type: ignore[list-item]


KEYS = (
    "messages content role type text input output choices message delta tool_calls function arguments usage "
    "input_tokens prompt_tokens_details index id name source data item response summary system partial_json "
    "content_block finish_reason incomplete_details"
)
TYPES = (
    "text thinking tool_use tool_result image message_start content_block_start content_block_delta "
    "message_delta function_call function_call_output reasoning message response.output_item.done"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(TYPES.split()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=6)
    ),
    max_leaves=25,
)
BODY = st.dictionaries(st.sampled_from(KEYS.split()), JSON, max_size=8)


@given(st.sampled_from(list(BODIES)), BODY, st.lists(BODY, max_size=4), st.booleans(), st.integers(0, 3000))
def test_no_body_raises(path: str, request: Any, events: list[Any], stream: bool, limit: int) -> None:
    """Any JSON in place of a request, a response or an event gives attributes of the right types."""
    body = json.dumps(events[0] if events else {}).encode()
    if stream:
        body = b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events)
    # The public function would turn an exception into a warning and no attributes.
    found = content._attributes(path, json.dumps(request).encode(), Response(status=200, body=body), limit)
    for name, value in found.items():
        assert isinstance(value, str | int | list), name
        if name in CONTENT:
            json.loads(str(value))


def test_other_formats_give_nothing() -> None:
    """A path that is no known model API, or a body that is no JSON, adds no attribute."""
    body = json.dumps(ANTHROPIC).encode()
    assert content.content_attributes("http://h/v1/embeddings", body, None, limit=LIMIT) == {}
    assert content.content_attributes("http://h/v1/messages", b"\xff", None, limit=LIMIT) == {}
    assert content.content_attributes("http://h/v1/messages", b"", None, limit=LIMIT) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("true", True),
        ("EVENT_ONLY", False),
        ("NO_CONTENT", False),
        ("false", False),
        ("", False),
    ],
)
def test_the_environment_says_whether(value: str, expected: bool) -> None:
    """Content goes on spans for the values that mean spans, and not unless asked for."""
    assert content_wanted({CONTENT_VARIABLE: value}) is expected
    assert content_wanted({}) is False


def test_an_exchange_span_carries_its_conversation(
    model: str,
    capture: Any,
    provider: TracerProvider,
    exported: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's span has the messages if the environment asks; the store has them as bodies only."""
    capture.on(tracer_provider=provider)
    told: list[bool] = []
    for value in ("SPAN_ONLY", "EVENT_ONLY"):
        monkeypatch.setenv(CONTENT_VARIABLE, value)
        httpx2.post(f"{model}/v1/messages", json=ANTHROPIC)
        (span,) = (span for span in exported.get_finished_spans() if span.name.startswith("chat "))
        exported.clear()
        attributes = dict(span.attributes or {})
        told.append(content.INPUT in attributes)
        if told[-1]:
            assert json.loads(str(attributes[content.OUTPUT]))[0]["finish_reason"] == "tool_call"
            assert attributes["gen_ai.usage.input_tokens"] == 50
    assert told == [True, False]
    for exchange in capture.read().exchanges:
        assert not set(CONTENT) & exchange.attributes.keys()
