"""Ollama's own form: both paths, whole and in lines, as its SDK sends and reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import Response, lines, read, whole
from conversations import request_messages

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request
from tracefork_otel.wire import ollama
from tracefork_otel.wire.framing import NDJSON
from tracefork_otel.wire.registry import recognise
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply, system_edit, tool_results

HOST = "http://127.0.0.1:11434"
AT = "2026-01-01T00:00:00Z"
SAID = "Grüße ✈ aus Zürich, und noch ein paar Wörter mehr."
CALL = {"id": "call_1", "function": {"index": 0, "name": "population", "arguments": {"city": "Lima"}}}
COUNTS = {"total_duration": 5, "load_duration": 1, "prompt_eval_count": 26, "prompt_eval_duration": 2}
COUNTS |= {"eval_count": 9, "eval_duration": 3}
# As ollama 0.6.3 sends them.
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "hi", "images": ["YWJj"]},
    {
        "role": "assistant",
        "content": "",
        "thinking": "Hm.",
        "tool_calls": [{"function": {"name": "population", "arguments": {"city": "Lima"}}}],
    },
    {"role": "tool", "content": "3", "tool_name": "population"},
]


def asked(path: str = "/api/chat", **members: Any) -> Request:
    """A request of the SDK."""
    said = {"messages": TURNS, "tools": []} if path == "/api/chat" else {"prompt": "Say hello"}
    body = {"model": "qwen3:8b", **said, **members}
    return Request(method="POST", url=HOST + path, body=json.dumps(body).encode())


def line(done: bool = False, **members: Any) -> dict[str, Any]:
    """A line of a chat's stream."""
    end = {"done_reason": "stop", **COUNTS} if done else {}
    said = {"role": "assistant", "content": "", **members}
    return {"model": "qwen3:8b", "created_at": AT, "message": said, "done": done, **end}


CHAT = lines(line(thinking="Let"), line(thinking=" me."), line(content="Hel"), line(content="lo"),
             line(tool_calls=[CALL]), line(done=True))  # fmt: skip
PLAIN = {**line(done=True, content="Hello", thinking="Let me.", tool_calls=[CALL])}
PROMPTED = lines(
    {"model": "qwen3:8b", "created_at": AT, "response": "Hel", "done": False},
    {"model": "qwen3:8b", "created_at": AT, "response": "lo", "done": False},
    {"model": "qwen3:8b", "created_at": AT, "response": "", "done": True, "context": [1, 2], **COUNTS},
)


@pytest.mark.parametrize(
    ("path", "operation"), [("/api/chat", "chat"), ("/api/generate", "text_completion"), ("/api/embed", None),
                            ("/api/embeddings", None), ("/api/pull", None)]
)  # fmt: skip
def test_its_paths(path: str, operation: str | None) -> None:
    """Both paths that generate are known on any host, and no other is."""
    call = recognise("POST", HOST + path, asked(path).body)
    assert (None if call is None else (call.provider, call.operation)) == (
        operation and ("ollama", operation)
    )


def test_a_chat_is_read() -> None:
    """Pictures, thoughts, calls with objects for inputs, and results by the tool's name."""
    found = request_messages("ollama", asked().body)
    assert [(one.role, one.kind, one.name, one.content) for one in found] == [
        ("user", "text", None, "hi"),
        ("user", "image", None, "[image, 4 base64 characters]"),
        ("assistant", "thinking", None, "Hm."),
        ("assistant", "tool_use", "population", '{"city":"Lima"}'),
        ("tool", "tool_result", "population", "3"),
    ]
    again = ollama.write_request(ollama.read_request({"messages": TURNS}), "m")
    assert ollama.read_request(again) == ollama.read_request({"messages": TURNS})


def test_a_prompt_is_read() -> None:
    """With its system prompt, its suffix, its pictures, and what was said before in tokens."""
    request = asked("/api/generate", system="Be brief.", suffix="x", images=["eA=="], context=[1, 2])
    assert [(one.role, one.kind, one.content) for one in request_messages("ollama", request.body)] == [
        ("system", "text", "Be brief."),
        ("user", "other", "[2 tokens]"),
        ("user", "text", "Say hello"),
        ("user", "image", "[image, 4 base64 characters]"),
        ("user", "other", "x"),
    ]


@pytest.mark.parametrize("response", [CHAT, whole(PLAIN)], ids=["lines", "whole"])
def test_a_reply_is_read(response: Response) -> None:
    """What it thinks, says and calls, why it ended and what it counts."""
    found = read(asked(stream=response is CHAT), response)
    assert [(one.kind, one.content) for one in found.reply] == [
        ("thinking", "Let me."), ("text", "Hello"), ("tool_use", '{"city":"Lima"}')
    ]  # fmt: skip
    assert (found.input_tokens, found.output_tokens, found.finish_reason) == (26, 9, "stop")
    assert (found.response_model, found.streamed) == ("qwen3:8b", response is CHAT)


def test_a_prompted_stream_cut_anywhere() -> None:
    """Texts grow with what has come; half a line is none."""
    length = 0
    for cut in range(len(PROMPTED.body) + 1):
        text = read(asked("/api/generate"), PROMPTED, PROMPTED.body[:cut]).text
        assert "Hello".startswith(text)
        assert len(text) >= length
        length = len(text)
    assert length == len("Hello")


def test_errors_are_read() -> None:
    """A text, or in a stream a line of its own after what had been said."""
    assert read(asked(), whole({"error": "model 'x' not found"}, 404)).error_type == "error"
    found = read(asked(), lines(line(content="He"), {"error": "an error was encountered"}))
    assert (found.text, found.error_type) == ("He", "error")


def test_a_model_that_is_only_loaded_says_nothing() -> None:
    """The SDK's `generate(model)` and `chat(model, keep_alive=0)` load and unload."""
    loaded = whole({"model": "q", "created_at": AT, "response": "", "done": True, "done_reason": "load"})
    assert read(asked("/api/generate", prompt=None), loaded).finish_reason == "load"
    unloaded = whole({**line(), "done": True, "done_reason": "unload"})
    assert read(asked(messages=[]), unloaded).finish_reason == "unload"


@pytest.mark.parametrize("streamed", [None, True, False])
def test_a_text_is_written_for_a_prompt(streamed: bool | None) -> None:
    """In lines unless told not to; recorded counts of the input stay."""
    path = "/api/generate"
    request = asked(path) if streamed is None else asked(path, stream=streamed)
    for before in (PROMPTED, None):
        response = encode_reply(request, before, text=SAID)
        assert NDJSON.holds(response.body, response.header("content-type")) == (streamed is not False)
        found = read(request, response)
        assert (found.text, found.finish_reason) == (SAID, "stop")
        assert found.output_tokens
        if before is not None:
            assert found.input_tokens == 26
        assert len(response.chunk_sizes) > 2 or streamed is False


@pytest.mark.parametrize("recorded", [CHAT, whole(PLAIN)], ids=["lines", "whole"])
def test_a_tool_s_input_is_replaced(recorded: Response) -> None:
    """All else is as it was; the recorded input gives the recorded lines."""
    request = asked(stream=recorded is CHAT)
    changed = read(request, encode_reply(request, recorded, tool_input={"city": "東京"}, tool="population"))
    assert [one.content for one in changed.reply] == ["Let me.", "Hello", '{"city":"東京"}']
    same = encode_reply(request, recorded, tool_input={"city": "Lima"})
    if recorded is CHAT:
        assert [json.loads(one) for one in same.body.splitlines()] == [
            json.loads(one) for one in recorded.body.splitlines()
        ]
    else:
        assert json.loads(same.body) == PLAIN
    with pytest.raises(UsageError, match="does not call a tool 'nope'"):
        encode_reply(request, recorded, tool_input={}, tool="nope")
    with pytest.raises(UsageError, match="takes a JSON object"):
        encode_reply(request, recorded, tool_input="x")


def test_a_given_body_is_streamed_where_no_stream_was_declined() -> None:
    """A whole reply becomes lines with its calls; lines are taken as they are, and not for a whole."""
    response = encode_body(asked(), None, json.dumps(PLAIN).encode())
    assert [one.kind for one in read(asked(), response).reply] == ["thinking", "text", "tool_use"]
    assert encode_body(asked(), None, CHAT.body).body == CHAT.body
    with pytest.raises(UsageError, match=r"holds lines of JSON, and the agent asked for JSON"):
        encode_body(asked(stream=False), None, CHAT.body)


@pytest.mark.parametrize(("status", "sent"), [(404, 404), (429, 429), (500, 500), (529, 503), (418, 418)])
def test_a_fault_is_ollama_s_own(status: int, sent: int) -> None:
    """An error is a text; an overloaded server answers 503."""
    response = encode_error(asked(), status)
    assert response.status == sent
    assert isinstance(json.loads(response.body)["error"], str)


def test_system_prompts_and_tools_results_have_their_places() -> None:
    """In a chat among the turns, beside a prompt in a member of its own."""
    assert system_edit(asked("/api/generate"), "Be brief.") == ("system", "Be brief.")
    assert system_edit(asked(), "Be brief.") == (
        "messages",
        [{"role": "system", "content": "Be brief."}, *TURNS],
    )
    assert [(one.name, one.call_id, one.path) for one in tool_results(asked())] == [
        ("population", "population", "messages[2].content")
    ]
    later = asked(messages=[*TURNS, {"role": "user", "content": "and?"}])
    assert [one.call_id for one in tool_results(later)] == [None]
