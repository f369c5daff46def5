"""What holds of every reply that is written, whatever its form."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply

ASKED = Request(method="POST", url="https://api.anthropic.com/v1/messages", body=b'{"model": "m"}')


def test_compressed_replies_are_read_and_served_plain() -> None:
    """A gzipped recorded reply is edited, and the result is laid out like it, without the encoding."""
    call = {"type": "tool_use", "id": "t", "name": "book", "input": {"a": 1}}
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [call]}
    packed = gzip.compress(json.dumps(whole, indent=2).encode())
    headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"), ("x-a", "b"))
    recorded = Response(status=200, headers=headers, body=packed, chunk_sizes=(len(packed),))
    response = encode_reply(ASKED, recorded, tool_input={"a": 2})
    found = json.loads(response.body)
    assert found["content"] == [{**call, "input": {"a": 2}}]
    assert response.body == json.dumps(found, indent=2).encode()
    assert response.headers == (("content-type", "application/json"), ("x-a", "b"))
    broken = Response(status=200, headers=headers, body=b"junk " * 9, chunk_sizes=(45,))
    with pytest.raises(UsageError, match="no recorded reply that can be read"):
        encode_reply(ASKED, broken, tool_input={})


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


def test_a_call_that_names_no_model_is_answered_where_its_facts_are_read() -> None:
    """A prompt that is kept at OpenAI names the model there: its step reads as a call, and takes a text."""
    body = b'{"prompt": {"id": "pmpt_1"}, "input": "Hi"}'
    asked = Request(method="POST", url="https://api.openai.com/v1/responses", body=body)
    response = encode_reply(asked, None, text="Ho")
    read = facts("POST", asked.url, request=body, response=response.body, content_type=None)
    assert read is not None
    assert (read.model, read.text) == (None, "Ho")


def test_a_request_that_is_no_model_call_gets_no_text() -> None:
    """A text for a model listing, a token count or a search is refused, naming method and URL."""
    for method, url, body in [
        ("GET", "https://api.anthropic.com/v1/models", b""),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens", b'{"model":"m"}'),
        ("POST", "https://search.example/v1/responses", b"{}"),
        ("POST", "https://api.anthropic.com/v1/messages", b"not json"),
    ]:
        with pytest.raises(UsageError, match="is no model call") as caught:
            encode_reply(Request(method=method, url=url, body=body), None, text="x")
        assert f"{method} {url}" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"text": "a", "tool_input": {}}])
def test_exactly_one_change(given: dict[str, Any]) -> None:
    """Neither or both of text and tool input is a mistake."""
    with pytest.raises(UsageError, match="either"):
        encode_reply(ASKED, None, **given)
