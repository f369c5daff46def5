"""A conversation that is read as it grows reads as each of its requests read alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conversations import messages_by, request_messages
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.exchange import Request
from tracefork_otel.wire.growing import Growing
from tracefork_otel.wire.messages import Asked
from tracefork_otel.wire.replies import tool_results

IDS = ("", "c0", "c1")
"""Local servers repeat ids, and send empty ones."""
TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.sampled_from(["user", "assistant"]), st.sampled_from(["a", "b"])),
        st.tuples(st.just("call"), st.sampled_from(IDS), st.sampled_from(["foo", "bar"])),
        st.tuples(st.just("result"), st.sampled_from(IDS), st.sampled_from(["1", "2"])),
    ),
    max_size=6,
)


def openai(turn: tuple[str, str, str]) -> dict[str, Any]:
    """A turn of a chat completion's request."""
    kind, first, second = turn
    if kind == "text":
        return {"role": first, "content": second}
    if kind == "call":
        call = {"id": first, "type": "function", "function": {"name": second, "arguments": "{}"}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "tool", "tool_call_id": first, "content": second}


def anthropic(turn: tuple[str, str, str]) -> dict[str, Any]:
    """A turn of a message's request."""
    kind, first, second = turn
    if kind == "text":
        return {"role": first, "content": second}
    if kind == "call":
        return {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": first, "name": second, "input": {}}],
        }
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": first, "content": second}]}


FORMS = {"openai_chat": openai, "anthropic": anthropic}


def body(form: str, turns: list[tuple[str, str, str]]) -> bytes:
    """The request of a conversation of those turns."""
    return json.dumps({"model": "m", "messages": [FORMS[form](turn) for turn in turns]}).encode()


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.tuples(st.integers(0, 6), TURNS), min_size=1, max_size=5))
def test_what_was_read_before_changes_nothing(form: str, grown: list[tuple[int, Any]]) -> None:
    """Whatever earlier requests a conversation goes on from, at whichever turn, and whatever ids repeat."""
    growing: Growing[Asked] = Growing()
    turns: list[tuple[str, str, str]] = []
    for kept, more in grown:
        turns = [*turns[:kept], *more]
        asked = body(form, turns)
        assert messages_by(growing, form, asked) == request_messages(form, asked)


def test_a_result_goes_by_the_call_before_it() -> None:
    """An id that comes twice is that of two calls: each result has the name of its own."""
    turns = [
        ("call", "c0", "foo"),
        ("result", "c0", "1"),
        ("call", "c0", "bar"),
        ("result", "c0", "2"),
    ]
    for form, url in (
        ("openai_chat", "https://api.openai.com/v1/chat/completions"),
        ("anthropic", "https://api.anthropic.com/v1/messages"),
    ):
        asked = body(form, turns)
        said = [one.name for one in request_messages(form, asked) if one.kind == "tool_result"]
        found = tool_results(Request(method="POST", url=url, body=asked))
        assert said == [one.name for one in found] == ["foo", "bar"]
