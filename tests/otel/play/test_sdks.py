"""Before trials are forked the SDKs that the agent imported have read answers of its tape once."""

from __future__ import annotations

import gzip
import importlib
import json
from typing import Any

import pytest

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play.sdks import prepare

ANTHROPIC = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
CHAT = {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Yes."}}]}
RESPONSE = {"object": "response", "output": []}


def exchange(body: bytes, *headers: tuple[str, str]) -> Exchange:
    """Any call that was answered with this body."""
    return Exchange(
        trace_id="ab" * 16,
        span_id="cd" * 8,
        parent_span_id=None,
        process_id="1-ab",
        seq=0,
        started_ns=1,
        ended_ns=2,
        request=Request(method="POST", url="https://api.example.com/v1/messages"),
        response=Response(status=200, headers=headers, body=body),
    )


@pytest.mark.parametrize(
    ("answer", "module", "model"),
    [
        (ANTHROPIC, "anthropic.types", "Message"),
        (CHAT, "openai.types.chat", "ChatCompletion"),
        (RESPONSE, "openai.types.responses", "Response"),
    ],
)
def test_the_model_of_an_sdk_has_read_an_answer(
    answer: dict[str, Any], module: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the names is one that the SDK has, and an encoded answer is read as another is."""
    read: list[dict[str, Any]] = []
    reader = getattr(importlib.import_module(module), model)
    construct = reader.construct
    monkeypatch.setattr(reader, "construct", lambda **fields: (read.append(fields), construct(**fields)))
    plain = json.dumps(answer).encode()
    prepare([exchange(plain), exchange(gzip.compress(plain), ("content-encoding", "gzip"))])
    assert read == [answer, answer]


def test_what_no_sdk_can_read_is_left_to_the_trials() -> None:
    """Nothing that a tape holds keeps a process from being forked."""
    odd = {**ANTHROPIC, "content": [{"type": []}], "usage": "none"}
    bodies = [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b"data: {}\n\n", json.dumps(odd).encode()]
    prepare([exchange(body) for body in bodies])
    prepare(
        [exchange(b"{}", ("content-encoding", "unheard-of")), exchange(b"{}", ("content-encoding", "gzip"))]
    )
