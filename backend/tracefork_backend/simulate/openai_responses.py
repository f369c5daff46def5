"""The OpenAI Responses API on the wire: its requests read, its answers and events written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .anthropic import flatten
from .model import Conversation, Counted, Ids, Reply, ToolUse, cut
from .openai_chat import parse_arguments
from .wire import sse

_SYSTEM_ROLES = ("system", "developer")


def _items(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())


def read(body: Mapping[str, Any]) -> Conversation:
    """The request's conversation."""
    system = [body["instructions"]] if isinstance(body.get("instructions"), str) else []
    messages: list[tuple[str, str]] = []
    uses: list[ToolUse] = []
    results: list[tuple[str, str]] = []
    for item in _items(body):
        kind = item.get("type", "message")
        if kind == "function_call":
            arguments = parse_arguments(item.get("arguments"))
            uses.append(ToolUse(str(item.get("name")), arguments, str(item.get("call_id"))))
        elif kind == "function_call_output":
            call_id = str(item.get("call_id"))
            name = next((use.name for use in reversed(uses) if use.id == call_id), call_id)
            text = flatten(item.get("output"))
            results.append((name, text))
            messages.append(("tool", text))
        elif kind == "message":
            role, text = str(item.get("role")), flatten(item.get("content"))
            if role in _SYSTEM_ROLES:
                system.append(text)
            else:
                messages.append((role, text))
    return Conversation(
        system="\n".join(system),
        messages=tuple(messages),
        tool_uses=tuple(uses),
        tool_results=tuple(results),
        tools=tuple(str(tool.get("name") or tool.get("type")) for tool in body.get("tools") or ()),
    )


def check(body: Mapping[str, Any]) -> str | None:
    """What the provider would reject the request for, or None."""
    if not isinstance(body.get("model"), str):
        return "Missing required parameter: 'model'."
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        return "Missing required parameter: 'input'."
    called: set[str] = set()
    for at, item in enumerate(_items(body)):
        if not isinstance(item, Mapping):
            return f"Invalid type for 'input[{at}]': expected an object."
        if item.get("type") == "function_call":
            called.add(str(item.get("call_id")))
        if item.get("type") == "function_call_output":
            # Items of an earlier response that the provider keeps are out of this server's sight.
            if item.get("call_id") not in called and not body.get("previous_response_id"):
                return f"No tool call found for function call output with call_id {item.get('call_id')}."
            called.discard(str(item.get("call_id")))
    if called:
        return f"No tool output found for function call {', '.join(sorted(called))}."
    return None


def _usage(counted: Counted) -> dict[str, Any]:
    return {
        "input_tokens": counted.input,
        "input_tokens_details": {"cached_tokens": counted.cached, "cache_write_tokens": 0},
        "output_tokens": counted.output,
        "output_tokens_details": {"reasoning_tokens": counted.thinking},
        "total_tokens": counted.input + counted.output,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _output(reply: Reply, ids: Ids) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.thinking is not None:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        items.append({"id": ids.hex("rs_", 48), "type": "reasoning", "summary": summary})
    if reply.content or not reply.tools:
        items.append(
            {
                "id": ids.hex("msg_", 48),
                "type": "message",
                "status": "completed",
                "content": [_text_part(reply.content)],
                "role": "assistant",
            }
        )
    for tool in reply.tools:
        items.append(
            {
                "id": ids.hex("fc_", 48),
                "type": "function_call",
                "status": "completed",
                "arguments": tool.arguments,
                "call_id": tool.id or ids.base58("call_", 24),
                "name": tool.name,
            }
        )
    return items


def _frame(body: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    return {
        "id": ids.hex("resp_", 48),
        "object": "response",
        "created_at": ids.now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def whole(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> dict[str, Any]:
    """The answer to a request that asked for no stream."""
    frame = _frame(body, ids)
    return {**frame, "status": "completed", "output": _output(reply, ids), "usage": _usage(counted)}


def _reasoning_events(item: Mapping[str, Any], reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"], "summary_index": 0}
    text = item["summary"][0]["text"]
    yield "reasoning_summary_part.added", {**at, "part": {"type": "summary_text", "text": ""}}
    for piece in cut(text, reply.chunk_chars):
        yield "reasoning_summary_text.delta", {**at, "delta": piece}
    yield "reasoning_summary_text.done", {**at, "text": text}
    yield "reasoning_summary_part.done", {**at, "part": item["summary"][0]}


def _message_events(item: Mapping[str, Any], reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"], "content_index": 0}
    yield "content_part.added", {**at, "part": _text_part("")}
    for piece in reply.deltas():
        yield "output_text.delta", {**at, "delta": piece, "logprobs": []}
    yield "output_text.done", {**at, "text": reply.content, "logprobs": []}
    yield "content_part.done", {**at, "part": item["content"][0]}


def _call_events(item: Mapping[str, Any], reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"]}
    for piece in cut(item["arguments"], reply.chunk_chars):
        yield "function_call_arguments.delta", {**at, "delta": piece}
    yield "function_call_arguments.done", {**at, "arguments": item["arguments"]}


_ITEM_EVENTS = {"reasoning": _reasoning_events, "message": _message_events, "function_call": _call_events}
_OPENED: dict[str, dict[str, Any]] = {
    "reasoning": {"summary": []},
    "message": {"status": "in_progress", "content": []},
    "function_call": {"status": "in_progress", "arguments": ""},
}


def stream(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> Iterator[bytes]:
    """The answer's events, in the provider's order."""
    number = -1

    def event(kind: str, **data: Any) -> bytes:
        nonlocal number
        number += 1
        full = f"response.{kind}"
        return sse({"type": full, "sequence_number": number, **data}, event=full)

    frame = _frame(body, ids)
    output = _output(reply, ids)
    yield event("created", response=frame)
    yield event("in_progress", response=frame)
    for index, item in enumerate(output):
        opened = {**item, **_OPENED[item["type"]]}
        yield event("output_item.added", output_index=index, item=opened)
        for kind, data in _ITEM_EVENTS[item["type"]](item, reply):
            yield event(kind, output_index=index, **data)
        yield event("output_item.done", output_index=index, item=item)
    done = {**frame, "status": "completed", "output": output, "usage": _usage(counted)}
    yield event("completed", response=done)


def error_event(body: Mapping[str, Any]) -> bytes:
    """The event that breaks a stream off with an error."""
    return sse({"type": "error", "sequence_number": 0, **body}, event="error")
