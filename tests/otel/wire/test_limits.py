"""The most that a call can take, by its request in any wire form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracefork_otel.wire.limits import most_of, most_read

MESSAGES = "https://api.anthropic.com/v1/messages"
CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
CONVERSE = (
    "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-3-haiku-20240307-v1:0/converse"
)
COHERE = "https://api.cohere.com/v2/chat"
PICTURE = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}


def said(text: Any) -> dict[str, Any]:
    """One message of a user."""
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("url", "request_", "told"),
    [
        (MESSAGES, said("hello"), True),
        (CHAT, said("hello"), True),
        (COHERE, said("hello"), True),
        (RESPONSES, {"model": "m", "input": "hello"}, True),
        (GEMINI, {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}, True),
        (CONVERSE, {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}, True),
        (MESSAGES, said([PICTURE]), False),
        (MESSAGES, said([{"type": "tool_result", "tool_use_id": "t", "content": [PICTURE]}]), False),
        (
            MESSAGES,
            said([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "5"}]}]),
            True,
        ),
        (CHAT, said([{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]), False),
        (CHAT, said([{"type": "file", "file": {"file_id": "file-1"}}]), False),
        (RESPONSES, {"model": "m", "input": "and now?", "previous_response_id": "resp_1"}, False),
        (RESPONSES, {"model": "m", "input": "and now?", "conversation": "conv_1"}, False),
        (RESPONSES, {"model": "m", "prompt": {"id": "pmpt_1"}}, False),
        (GEMINI, {"contents": [{"parts": [{"text": "and?"}]}], "cachedContent": "cachedContents/1"}, False),
        (
            GEMINI,
            {"contents": [{"parts": [{"fileData": {"fileUri": "https://x.example/a.mp4"}}]}]},
            False,
        ),
        (CONVERSE, {"messages": [{"role": "user", "content": [{"image": {"format": "png"}}]}]}, False),
    ],
)
def test_input_is_no_more_than_the_bytes_of_a_request_that_is_text(
    url: str, request_: dict[str, Any], told: bool
) -> None:
    """Of anything else no bytes tell how many tokens it is."""
    body = json.dumps(request_).encode()
    found = most_read("POST", url, body)
    assert (found is not None) == told
    assert found is None or found >= len(body)


@pytest.mark.parametrize(
    ("more", "rounds"),
    [
        ({}, 1),
        ({"tools": [{"name": "look", "input_schema": {}}]}, 1),
        ({"tools": [{"type": "function", "function": {"name": "look"}}]}, 1),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 1),
        ({"tools": [{"functionDeclarations": [{"name": "look"}]}]}, 1),
        ({"tools": [{"type": "code_execution_20250522", "name": "code_execution"}]}, 11),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 30}]}, 31),
        ({"tools": [{"type": "mcp", "server_url": "https://x.example"}]}, 11),
        ({"mcp_servers": [{"url": "https://x.example"}]}, 11),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, 2),
    ],
)
def test_a_provider_that_runs_tools_reads_the_conversation_again(more: dict[str, Any], rounds: int) -> None:
    """Once for each of its own calls; the agent's tools are no calls of its."""
    assert most_of(json.dumps({**said("hello"), **more}).encode()).rounds == rounds


def test_each_answer_that_is_asked_for_may_be_as_long() -> None:
    """Of a chat completion that asks for three."""
    most = most_of(json.dumps({**said("hello"), "n": 3, "max_tokens": 50}).encode())
    assert (most.output_tokens, most.choices) == (150, 3)
