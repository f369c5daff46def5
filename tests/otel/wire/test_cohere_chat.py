"""Cohere's chat, version 2: whole and streamed, as its SDK sends and reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import Response, events, read, whole
from conversations import request_messages
from tracefork_backend.store.prices import price_of

from tracefork_otel.exchange import Request
from tracefork_otel.wire import cohere_chat
from tracefork_otel.wire.registry import recognise
from tracefork_otel.wire.replies import encode_body, encode_error, system_edit, tool_results

URL = "https://api.cohere.com/v2/chat"
SAID = "Grüße ✈ aus Zürich, und noch ein paar Wörter mehr."
LIMA = '{"city": "Lima"}'
CALL = {"id": "population_abc", "type": "function", "function": {"name": "population", "arguments": LIMA}}
# As cohere 7.3.1 sends them.
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "s"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "hi"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        ],
    },
    {"role": "assistant", "tool_plan": "look", "tool_calls": [CALL]},
    {
        "role": "tool",
        "tool_call_id": "population_abc",
        "content": [{"type": "document", "document": {"data": {"people": "3"}}}],
    },
]
DOCUMENTS = ["d", {"id": "1", "data": {"title": "T", "snippet": "x"}}]
USAGE = {
    "billed_units": {"input_tokens": 13.0, "output_tokens": 9.0},
    "tokens": {"input_tokens": 500.0, "output_tokens": 11.0},
    "cached_tokens": 4,
}
CITATION = {
    "start": 0,
    "end": 5,
    "text": "Hello",
    "type": "TEXT_CONTENT",
    "sources": [{"type": "tool", "id": "a:0"}],
}
WHOLE: dict[str, Any] = {
    "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4",
    "finish_reason": "TOOL_CALL",
    "message": {
        "role": "assistant",
        "tool_plan": "I look.",
        "tool_calls": [CALL],
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hello"}],
        "citations": [CITATION],
    },
    "usage": USAGE,
}


def said(kind: str, message: Any = None, **members: Any) -> dict[str, Any]:
    """An event of a stream."""
    return {"type": kind, **members, **({"delta": {"message": message}} if message else {})}


BEGUN = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
STREAM = events(
    said("message-start", BEGUN, id=WHOLE["id"]),
    said("tool-plan-delta", {"tool_plan": "I "}),
    said("tool-plan-delta", {"tool_plan": "look."}),
    said("content-start", {"content": {"type": "thinking", "thinking": ""}}, index=0),
    said("content-delta", {"content": {"thinking": "Hm."}}, index=0),
    said("content-end", index=0),
    said("content-start", {"content": {"type": "text", "text": ""}}, index=1),
    said("content-delta", {"content": {"text": "Hel"}}, index=1),
    said("content-delta", {"content": {"text": "lo"}}, index=1),
    said("content-end", index=1),
    said("citation-start", {"citations": CITATION}, index=0),
    said("citation-end", index=0),
    said(
        "tool-call-start",
        {"tool_calls": {**CALL, "function": {"name": "population", "arguments": ""}}},
        index=0,
    ),
    said("tool-call-delta", {"tool_calls": {"function": {"arguments": '{"city"'}}}, index=0),
    said("tool-call-delta", {"tool_calls": {"function": {"arguments": ': "Lima"}'}}}, index=0),
    said("tool-call-end", index=0),
    {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": USAGE}},
    named=True,
)


def asked(**members: Any) -> Request:
    """A request of the SDK."""
    body = {
        "model": "command-a-03-2025",
        "messages": TURNS,
        "documents": DOCUMENTS,
        "stream": False,
        **members,
    }
    return Request(method="POST", url=URL, body=json.dumps(body).encode())


@pytest.mark.parametrize("host", ["https://api.cohere.com", "https://api.cohere.ai", "http://127.0.0.1:9"])
def test_its_path(host: str) -> None:
    """Version 2 is known on any host; version 1 and other paths are not."""
    call = recognise("POST", f"{host}/v2/chat", asked().body)
    assert call is not None
    assert (call.form, call.provider, call.model) == ("cohere_chat", "cohere", "command-a-03-2025")
    for path in ("/v1/chat", "/v2/embed", "/v2/rerank"):
        assert recognise("POST", host + path, asked().body) is None


def test_a_request_is_read() -> None:
    """Documents first; a plan is a thought, a result goes by its call's name, its documents are its text."""
    found = request_messages("cohere_chat", asked().body)
    assert [(one.role, one.kind, one.name, one.content) for one in found] == [
        ("system", "document", None, "d"),
        ("system", "document", "T", '{"title":"T","snippet":"x"}'),
        ("system", "text", None, "s"),
        ("user", "text", None, "hi"),
        ("user", "image", None, "https://x/y.png"),
        ("assistant", "thinking", None, "look"),
        ("assistant", "tool_use", "population", LIMA),
        ("tool", "tool_result", "population", '{"people":"3"}'),
    ]
    request = json.loads(asked().body)
    again = cohere_chat.write_request(cohere_chat.read_request(request), request["model"])
    assert cohere_chat.read_request(again) == cohere_chat.read_request(request)
    assert again["documents"] == DOCUMENTS


@pytest.mark.parametrize("response", [STREAM, whole(WHOLE)], ids=["stream", "whole"])
def test_a_reply_is_read(response: Response) -> None:
    """What it plans, thinks, says and calls, and what is billed; its price is that of the model asked for."""
    found = read(asked(stream=response is STREAM), response)
    assert [(one.kind, one.content) for one in found.reply] == [
        ("thinking", "I look."), ("thinking", "Hm."), ("text", "Hello"), ("tool_use", LIMA)
    ]  # fmt: skip
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (13, 9, 4)
    assert (found.finish_reason, found.response_id) == ("TOOL_CALL", WHOLE["id"])
    assert (price_of(found, at=None).usd or 0) > 0
    assert cohere_chat.assemble(cohere_chat.SSE.read(STREAM.body)) == WHOLE


def test_errors_are_read() -> None:
    """Whole, at a stream's end, and as a stream's event without a type."""
    assert read(asked(), whole({"id": "1", "message": "invalid api token"}, 401)).error_type == "error"
    failed = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "internal"}}
    found = read(asked(stream=True), events(failed))
    assert (found.error_type, found.finish_reason) == ("error", "ERROR")
    assert read(asked(stream=True), events({"message": "internal"})).error_type == "error"


def test_a_given_reply_is_streamed_whole() -> None:
    """Plan, thoughts, text, citations, calls and counts come through."""
    response = encode_body(asked(stream=True), None, json.dumps(WHOLE).encode())
    assert cohere_chat.assemble(cohere_chat.SSE.read(response.body)) == WHOLE


@pytest.mark.parametrize(("status", "sent"), [(401, 401), (429, 429), (500, 500), (529, 503), (422, 422)])
def test_a_fault_is_cohere_s_own(status: int, sent: int) -> None:
    """An error is an id and a message; an overloaded API answers 503."""
    response = encode_error(asked(), status)
    assert response.status == sent
    assert set(json.loads(response.body)) == {"id", "message"}


def test_system_prompts_and_tools_results_have_their_places() -> None:
    """Both are among the turns."""
    assert system_edit(asked(), "Be brief.") == ("messages[0].content", "Be brief.")
    assert [(one.name, one.call_id, one.path) for one in tool_results(asked())] == [
        ("population", "population_abc", "messages[3].content")
    ]
