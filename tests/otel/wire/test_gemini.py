"""What only Gemini sends, and what blame and other instrumentations make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conversations import request_messages
from tracefork_backend.blaming import changes
from tracefork_backend.store.prices import usage_price

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.genai import conversation
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import Facts, Usage
from tracefork_otel.wire.replies import encode_error, encode_reply, system_edit, tool_results

BASE = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"
WHOLE, STREAM, ARRAY = (
    f"{BASE}:generateContent",
    f"{BASE}:streamGenerateContent?alt=sse",
    f"{BASE}:streamGenerateContent",
)
VERTEX = (
    "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1"
    "/publishers/google/models/gemini-2.5-flash:generateContent"
)
CALL = {"id": "c8d1", "name": "weather", "args": {"city": "Zürich", "days": [1, 2]}}
USAGE = {
    "promptTokenCount": 120,
    "candidatesTokenCount": 30,
    "totalTokenCount": 190,
    "cachedContentTokenCount": 64,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 120}],
    "thoughtsTokenCount": 40,
}
SAID: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "I need the weather.", "thought": True},
                    {"text": "Moment … 🌦"},
                    {"functionCall": CALL, "thoughtSignature": "c2lnbmF0dXJl"},
                    {"functionCall": {"name": "note", "args": {"x": 1}}},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": USAGE,
    "modelVersion": "gemini-2.5-flash-001",
    "responseId": "mQI6aZLzHs3pxs0P1a",
}
ASKED: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
    "contents": [
        {
            "role": "user",
            "parts": [{"text": "Wetter?"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
        },
        {"role": "model", "parts": [{"functionCall": CALL, "thoughtSignature": "c2ln"}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c8d1", "name": "weather", "response": {"result": "Regen"}}}
            ],
        },
    ],
    "generationConfig": {"temperature": 0},
}


def chunk(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream with these parts."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    return {
        "candidates": [{**candidate, **({"finishReason": finish} if finish else {})}],
        "usageMetadata": {"promptTokenCount": 120, "totalTokenCount": 120},
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "mQI6aZLzHs3pxs0P1a",
        **more,
    }


def sse(chunks: list[dict[str, Any]]) -> bytes:
    """The chunks as Google sends them."""
    return b"".join(f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n".encode() for one in chunks)


def array(chunks: list[dict[str, Any]]) -> bytes:
    """The chunks as Google sends them to who asks for no events."""
    return ("[" + ",\r\n".join(json.dumps(one, ensure_ascii=False) for one in chunks) + "]").encode()


def asked(url: str, body: dict[str, Any] = ASKED) -> Request:
    """The request."""
    return Request(method="POST", url=url, body=json.dumps(body).encode())


def answered(url: str, body: bytes | None = None) -> Response:
    """The recorded response."""
    kind = "text/event-stream" if url == STREAM else "application/json; charset=UTF-8"
    body = json.dumps(SAID).encode() if body is None else body
    return Response(status=200, headers=(("content-type", kind), ("x-xss-protection", "0")), body=body)


def facts_in(url: str, response: Response) -> Facts:
    """What is read from it."""
    found = facts(
        "POST",
        url,
        request=json.dumps(ASKED).encode(),
        response=response.body,
        content_type=response.header("content-type"),
    )
    assert found is not None
    return found


def told(messages: Any) -> list[tuple[str, str, str | None, str]]:
    """Messages as tuples."""
    return [(one.role, one.kind, one.name, one.content) for one in messages]


def test_a_request_reads_as_messages_in_both_spellings() -> None:
    """System first; a function's result has the role `tool`, its name, and no wrapping."""
    wanted = [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "Wetter?"),
        ("user", "image", None, "[image/png, 4 base64 characters]"),
        ("model", "tool_use", "weather", '{"city":"Zürich","days":[1,2]}'),
        ("tool", "tool_result", "weather", "Regen"),
    ]
    assert told(request_messages("gemini", json.dumps(ASKED).encode())) == wanted
    snake = json.dumps(ASKED)
    for camel, under in [
        ("systemInstruction", "system_instruction"),
        ("functionCall", "function_call"),
        ("functionResponse", "function_response"),
        ("inlineData", "inline_data"),
        ("mimeType", "mime_type"),
    ]:
        snake = snake.replace(f'"{camel}"', f'"{under}"')
    assert told(request_messages("gemini", snake.encode())) == wanted


@pytest.mark.parametrize(
    ("url", "provider", "model"),
    [
        (VERTEX, "gcp.vertex_ai", "gemini-2.5-flash"),
        (
            "https://aiplatform.googleapis.com/v1/publishers/google/models/g:generateContent",
            "gcp.vertex_ai",
            "g",
        ),
        (
            "http://127.0.0.1:9/v1/projects/p/locations/l/endpoints/7:streamGenerateContent",
            "gcp.vertex_ai",
            "7",
        ),
        ("http://127.0.0.1:9/v1beta/tunedModels/mine%3AgenerateContent", "gcp.gemini", "mine"),
        ("https://gateway.example/google/v1beta/models/g:generateContent/", "gcp.gemini", "g"),
    ],
)
def test_every_address_of_the_format_is_known(url: str, provider: str, model: str) -> None:
    """The Gemini API, Vertex AI with and without a project, endpoints, tuned models and gateways are read."""
    found = facts_in(url, answered(WHOLE))
    assert (found.provider, found.model) == (provider, model)
    assert usage_price("gcp.vertex_ai", ["gemini-2.5-flash"], Usage(input_tokens=1), at=None).usd


@pytest.mark.parametrize("method", ["countTokens", "embedContent", "batchGenerateContent", "predict"])
def test_what_generates_nothing_is_no_model_call(method: str) -> None:
    """Counts, embeddings and batches have no facts and get no text."""
    url = f"{BASE}:{method}"
    assert facts("POST", url, request=b"{}", response=b"{}", content_type=None) is None
    with pytest.raises(UsageError, match=r"is no (model call|conversation)"):
        encode_reply(asked(url), None, text="x")


def test_a_blocked_prompt_and_errors_say_why() -> None:
    """A prompt that was blocked ends for its reason; an error has its status, also in mid-stream."""
    blocked = facts_in(
        WHOLE,
        answered(
            WHOLE, b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":5}}'
        ),
    )
    assert (blocked.finish_reason, blocked.reply, blocked.output_tokens) == ("SAFETY", (), 0)
    broken = [{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]
    assert facts_in(ARRAY, answered(ARRAY, array(broken))).error_type == "UNAVAILABLE"


def test_arguments_that_arrive_in_pieces_are_put_together() -> None:
    """A call whose arguments Vertex AI streams reads whole, and is replaced whole."""
    pieces = [
        chunk({"functionCall": {"name": "weather", "willContinue": True}}),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.city", "stringValue": "Zü", "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [
                        {"jsonPath": "$.city", "stringValue": "rich"},
                        {"jsonPath": "$.days[1].n", "numberValue": 2},
                    ],
                    "willContinue": True,
                }
            }
        ),
        chunk({"functionCall": {}}, finish="STOP", usageMetadata=USAGE),
    ]
    (call,) = facts_in(STREAM, answered(STREAM, sse(pieces))).reply
    assert (call.name, json.loads(call.content)) == ("weather", {"city": "Zürich", "days": [None, {"n": 2}]})
    edited = encode_reply(asked(STREAM), answered(STREAM, sse(pieces)), tool_input={"city": "Oslo"})
    assert told(facts_in(STREAM, edited).reply) == [("model", "tool_use", "weather", '{"city":"Oslo"}')]


@pytest.mark.parametrize(
    ("status", "sent", "name"),
    [(429, 429, "RESOURCE_EXHAUSTED"), (500, 500, "INTERNAL"), (529, 503, "UNAVAILABLE")],
)
def test_errors_are_google_s(status: int, sent: int, name: str) -> None:
    """An error has Google's body and status: where others say 529 this API says 503."""
    response = encode_error(asked(STREAM), status)
    assert (response.status, facts_in(STREAM, response).error_type) == (sent, name)
    assert json.loads(response.body)["error"]["code"] == sent


@pytest.mark.parametrize("member", ["systemInstruction", "system_instruction", None])
def test_the_system_prompt_has_its_place(member: str | None) -> None:
    """A new system prompt replaces the parts of the old one in its spelling, or is added."""
    body = {key: value for key, value in ASKED.items() if key != "systemInstruction"}
    if member is not None:
        body[member] = ASKED["systemInstruction"]
    request = asked(WHOLE, body)
    edit = system_edit(request, "Rhyme.")
    edited = json.loads(apply_edits(request.body, [edit]))
    assert edited[member or "systemInstruction"]["parts"] == [{"text": "Rhyme."}]
    assert len(edited) == len(body) + (member is None)


def test_tool_results_are_found() -> None:
    """A function's response is known by its call's id, and in the last turn by its name."""
    (found,) = tool_results(asked(WHOLE))
    assert (found.name, found.call_id, found.saying({}, "{}")) == ("weather", "c8d1", "{}")
    edited = json.loads(apply_edits(asked(WHOLE).body, [(found.path, "Sonne")]))
    assert edited["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": "Sonne"}
    answers = [
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": one}}]}
        for one in ({"a": 1}, {"error": "no"})
    ]
    first, last = tool_results(asked(WHOLE, {"contents": answers}))
    assert (first.call_id, last.call_id) == (None, "f")
    assert [first.saying(value, "said") for value in ({"b": 2}, 3)] == [{"b": 2}, {"result": 3}]
    assert last.undone == (("contents[1].parts[0].functionResponse.response.error", None),)


def tape() -> Tape:
    """A run of one step."""
    exchange = Exchange(
        trace_id="a" * 32,
        span_id="b" * 16,
        parent_span_id=None,
        process_id="1-a",
        seq=0,
        started_ns=1,
        ended_ns=2,
        request=asked(WHOLE),
        response=answered(WHOLE),
        outcome="complete",
    )
    return Tape(run_id="a" * 32, exchanges=(exchange,), start=HowStarted(command=("python", "a.py")))


@pytest.mark.parametrize("name", changes.FAULT_CLASSES)
def test_every_fault_of_blame_fits_a_step(name: str) -> None:
    """Each fault class changes what it is named for in a Gemini step."""
    run = tape()
    fits, why = changes.bound(
        changes.fault(name),
        run,
    )
    assert list(fits) == [0], why
    made = fits[0]
    if name == "poisoned_argument":
        assert made.response is not None
        assert "POISONED-Zürich" in facts_in(WHOLE, made.response).reply[2].content
        return
    body = json.loads(apply_edits(run.exchanges[0].request.body, made.edits))
    messages = told(request_messages("gemini", json.dumps(body).encode()))
    if name == "wrong_system_prompt":
        assert messages[0][3].startswith("You are a poet")
    elif name == "dropped_message":
        assert [one[1] for one in messages] == ["text", "text", "image"]
    else:
        assert messages[-1][:3] == ("tool", "tool_result", "weather")
        assert "Regen" not in messages[-1][3]


def test_spans_of_others_read_as_gemini_s_calls() -> None:
    """A span of another instrumentation with Gemini's messages becomes a call in Gemini's format."""
    parts = [{"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Lima"}}]
    attributes = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
        "gen_ai.input.messages": json.dumps(
            [
                {"role": "user", "parts": [{"type": "text", "content": "Wetter?"}]},
                {"role": "assistant", "parts": parts},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "Regen"}]},
            ]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": "Regen."}], "finish_reason": "stop"}]
        ),
    }
    found = conversation(attributes, "b" * 16)
    assert found is not None
    read = facts("POST", found.url, request=found.request, response=found.response, content_type=None)
    assert read is not None
    assert (read.provider, read.model, read.text, read.input_tokens) == (
        "gcp.gemini",
        "gemini-2.5-flash",
        "Regen.",
        7,
    )
    assert told(request_messages(read.form, found.request)) == [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "Wetter?"),
        ("model", "tool_use", "weather", '{"city":"Lima"}'),
        ("tool", "tool_result", "weather", "Regen"),
    ]
