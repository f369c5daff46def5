"""Another answer in its parts: any choice of them is an edit, in whichever wire form it was given."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from answering import whole
from reported import exchange
from tracefork_backend.repairing.hunks import Answer, Parts, Whole, answer_parts, parts_of
from tracefork_backend.rerun.edits.answer import Response, Text, ToolInput
from tracefork_backend.rerun.edits.fault import Fault
from tracefork_backend.rerun.edits.request import Request as RequestEdit

from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.tape.tape import Tape

CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash:generateContent"


def chat(*messages: dict[str, Any]) -> dict[str, Any]:
    """A chat completion with these choices."""
    choices = [
        {"index": at, "message": {"role": "assistant", "content": None, **one}, "finish_reason": "stop"}
        for at, one in enumerate(messages)
    ]
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5", "choices": choices}


def call(name: str, **given: Any) -> dict[str, Any]:
    """A tool call of a chat completion."""
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}


def output(*items: dict[str, Any]) -> dict[str, Any]:
    """A response of these items."""
    return {"id": "r", "object": "response", "status": "completed", "model": "gpt-5", "output": list(items)}


def gemini(*parts: dict[str, Any]) -> dict[str, Any]:
    """An answer of Gemini's of these parts."""
    said = {"content": {"role": "model", "parts": list(parts)}, "index": 0, "finishReason": "STOP"}
    return {"candidates": [said], "modelVersion": "gemini-3-flash"}


def parted(url: str, old: dict[str, Any], new: dict[str, Any]) -> Parts | None:
    """What the new answer says otherwise than the old one, which was recorded."""
    request = Request(method="POST", url=url, body=b'{"model": "gpt-5"}')
    return answer_parts(exchange(0, "", None, {}, request=request, response=whole(old)), whole(new))


TOGETHER = {
    "a call of the legacy form": (
        CHAT,
        chat({"tool_calls": [call("w", a=1)]}),
        chat({"function_call": {"name": "w", "arguments": '{"a": 2}'}}),
    ),
    "the other choice": (CHAT, chat({"content": "a"}, {}), chat({}, {"content": "b"})),
    "thoughts by another name": (
        CHAT,
        chat({"content": "a", "reasoning_content": "one"}),
        chat({"content": "b", "reasoning": "two"}),
    ),
    "a custom tool": (
        RESPONSES,
        output({"type": "function_call", "call_id": "x", "name": "w", "arguments": '{"a": 1}'}),
        output({"type": "custom_tool_call", "call_id": "x", "name": "w", "input": "hello"}),
    ),
    "a signature in a part of its own": (
        GEMINI,
        gemini({"text": "a"}, {"text": "", "thoughtSignature": "s"}),
        gemini({"text": "", "thoughtSignature": "s"}, {"text": "b"}),
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_differences_that_say_it_only_together_are_one_part(name: str) -> None:
    """What one of them alone would make is an answer that nobody gave: it is tried whole."""
    url, old, new = TOGETHER[name]
    parts = parted(url, old, new)
    assert isinstance(parts, Whole)
    edit = parts.edit({0})
    assert isinstance(edit, Response | Text)


APART = {
    "arguments of two calls": (
        CHAT,
        chat({"tool_calls": [call("w", a=1), call("v", a=3)]}),
        chat({"tool_calls": [call("w", a=2), call("v", b=3)]}),
        3,
    ),
    "a thought and a text": (
        GEMINI,
        gemini({"text": "one", "thought": True}, {"text": "a"}),
        gemini({"text": "two", "thought": True}, {"text": "b"}),
        2,
    ),
    "an argument of a function": (
        RESPONSES,
        output({"type": "function_call", "call_id": "x", "name": "w", "arguments": '{"a": 1, "b": 1}'}),
        output({"type": "function_call", "call_id": "y", "name": "w", "arguments": '{"a": 2, "b": 2}'}),
        2,
    ),
}


@pytest.mark.parametrize("name", APART)
def test_any_choice_of_parts_is_an_edit(name: str) -> None:
    """Each value of an argument, and each piece of an answer, can be changed without the others."""
    url, old, new, many = APART[name]
    parts = parted(url, old, new)
    assert isinstance(parts, Answer)
    assert len(parts.hunks) == many
    for size in range(1, many + 1):
        for kept in combinations(range(many), size):
            assert isinstance(parts.edit(kept), Response | Text | ToolInput)
            assert parts.words(kept)


def test_arguments_that_are_no_json_are_given_as_they_are() -> None:
    """A call whose arguments were cut is no tool input that could be spelled: the whole answer is."""
    broken = {"id": "x", "type": "function", "function": {"name": "w", "arguments": '{"a": '}}
    old, new = chat({"tool_calls": [call("w", a=1)]}), chat({"tool_calls": [broken]})
    parts = parted(CHAT, old, new)
    assert parts is not None
    assert isinstance(parts.edit({0}), Response)


CLERK = "You are a clerk. Be brief."


def asked(system: str) -> Exchange:
    """A recorded request with this system prompt."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "q"}]
    body = json.dumps({"model": "gpt-5", "messages": messages}).encode()
    request = Request(method="POST", url=CHAT, body=body)
    return exchange(0, "", None, {}, request=request, response=whole(chat({"content": "a"})))


@pytest.mark.parametrize(
    ("old", "new", "many"),
    [
        (CLERK, f"{CLERK}\nCheck it twice.\nBe polite.", 2),
        (f"{CLERK}\n", f"{CLERK}\nCheck it twice.\nBe polite.\n", 2),
        (f"{CLERK} 0 are known.", f"{CLERK}\nCheck it twice.\nBe polite.", 3),
        (f"{CLERK}\r\nDo not check.\r\nBe quick.", f"{CLERK}\r\nCheck it twice.", 2),
    ],
)
def test_each_line_of_a_prompt_is_a_part(old: str, new: str, many: int) -> None:
    """Lines that were added or left out together are made one without the others."""
    tape = Tape(run_id="0" * 32, exchanges=(asked(old),))
    parts = parts_of(RequestEdit(system=new), tape, 0)
    assert parts is not None
    assert len(parts.hunks) == many
    assert parts.edit(range(many)) == RequestEdit(system=new)
    checked = next(at for at, one in enumerate(parts.hunks) if "Check it twice." in one.new)
    edit = parts.edit({checked})
    assert isinstance(edit, RequestEdit)
    lines = (edit.system or "").splitlines()
    assert "Check it twice." in lines
    assert "Be polite." not in lines
    assert old.splitlines()[0] in lines


def test_a_change_without_parts_is_told_by_what_it_is() -> None:
    """It neither adds nor leaves out anything that could be shown."""
    tape = Tape(run_id="0" * 32, exchanges=(asked(CLERK),))
    parts = parts_of(Fault.named("429"), tape, 0)
    assert parts is not None
    assert parts.words({0}) == Fault.named("429").variant


def test_a_request_that_stays_as_it_was_is_no_change() -> None:
    """Its prompt, or a value: unless a later request, which the edit holds in too, has another."""
    first, later = asked(CLERK), asked(f"{CLERK} Be brief.")
    same = RequestEdit(system=CLERK, changes=(("messages[1].content", "q"),))
    assert parts_of(same, Tape(run_id="0" * 32, exchanges=(first, first)), 0) is None
    tape = Tape(run_id="0" * 32, exchanges=(first, later))
    assert parts_of(same, tape, 0) is not None
    assert parts_of(replace(same, scope="once"), tape, 0) is None
