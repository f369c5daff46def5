"""The Anthropic Messages API on the wire: requests read; answers, events, errors and headers written."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from .model import Conversation, Counted, Ids, Reply, ToolUse, cut
from .wire import sse

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_MESSAGES = {
    429: "This request would exceed your organization's rate limit of 50 requests per minute.",
    500: "Internal server error",
    529: "Overloaded",
}


def flatten(content: object) -> str:
    """The text of a message's content, tool results included, other kinds of block left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts: list[str] = []
    for block in content:
        if not isinstance(block, Mapping):
            continue
        if isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif block.get("type") == "tool_result":
            texts.append(flatten(block.get("content")))
    return "\n".join(texts)


def _blocks(message: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, Mapping) and block.get("type") == kind]


def read(body: Mapping[str, Any]) -> Conversation:
    """The request's conversation."""
    uses: list[ToolUse] = []
    results: list[tuple[str, str]] = []
    for message in body["messages"]:
        for block in _blocks(message, "tool_use"):
            uses.append(ToolUse(str(block.get("name")), block.get("input") or {}, str(block.get("id"))))
        for block in _blocks(message, "tool_result"):
            use_id = str(block.get("tool_use_id"))
            name = next((use.name for use in reversed(uses) if use.id == use_id), use_id)
            results.append((name, flatten(block.get("content"))))
    return Conversation(
        system=flatten(body.get("system", "")),
        messages=tuple((str(m.get("role")), flatten(m.get("content"))) for m in body["messages"]),
        tool_uses=tuple(uses),
        tool_results=tuple(results),
        tools=tuple(str(tool.get("name")) for tool in body.get("tools") or ()),
    )


def check(body: Mapping[str, Any]) -> str | None:
    """What the provider would reject the request for, or None."""
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if name not in body:
            return f"{name}: Field required"
        if not isinstance(body[name], kind):
            return f"{name}: Input should be a valid {kind.__name__}"
    messages = body["messages"]
    if not messages:
        return "messages: at least one message is required"
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            return f"messages.{at}.role: Input should be 'user' or 'assistant'"
        used = {block.get("id") for block in _blocks(messages[at - 1], "tool_use")} if at else set()
        given = {block.get("tool_use_id") for block in _blocks(message, "tool_result")}
        if given - used:
            found = ", ".join(sorted(map(str, given - used)))
            return (
                f"messages.{at}.content: unexpected `tool_use_id` found in `tool_result` blocks: {found}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if used - given:
            missing = ", ".join(sorted(map(str, used - given)))
            return (
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {missing}. Each `tool_use` block must have a corresponding `tool_result` block "
                "in the next message."
            )
    return None


def _usage(counted: Counted, output: int) -> dict[str, Any]:
    return {
        "input_tokens": counted.input - counted.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counted.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _signature(thinking: str) -> str:
    # A signature depends on what it signs, and is opaque: so do and are these bytes.
    return base64.b64encode(random.Random(thinking).randbytes(96)).decode()


def _content(reply: Reply, ids: Ids) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.thinking is not None:
        signature = _signature(reply.thinking)
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": signature})
    if reply.content:
        blocks.append({"type": "text", "text": reply.content})
    for tool in reply.tools:
        use_id = tool.id or ids.base58("toolu_01", 22)
        blocks.append({"type": "tool_use", "id": use_id, "name": tool.name, "input": dict(tool.input)})
    return blocks


def _message(body: Mapping[str, Any], usage: dict[str, Any], ids: Ids) -> dict[str, Any]:
    return {
        "model": body["model"],
        "id": ids.base58("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop(reply: Reply) -> str:
    return reply.stop or ("tool_use" if reply.tools else "end_turn")


def whole(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> dict[str, Any]:
    """The answer to a request that asked for no stream."""
    message = _message(body, _usage(counted, counted.output), ids)
    return {**message, "content": _content(reply, ids), "stop_reason": _stop(reply)}


def _deltas(block: Mapping[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    if block["type"] == "thinking":
        for piece in cut(block["thinking"], reply.chunk_chars):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "text":
        for piece in reply.deltas():
            yield {"type": "text_delta", "text": piece}
    else:
        # The provider opens every tool's input with an empty delta.
        arguments = ToolUse(block["name"], block["input"]).arguments
        for piece in ("", *cut(arguments, reply.chunk_chars)):
            yield {"type": "input_json_delta", "partial_json": piece}


def stream(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> Iterator[bytes]:
    """The answer's events, in the provider's order."""

    def event(kind: str, **data: Any) -> bytes:
        return sse({"type": kind, **data}, event=kind)

    yield event("message_start", message=_message(body, _usage(counted, 1), ids))
    empty = {
        "thinking": {"thinking": "", "signature": ""},
        "text": {"text": ""},
        "tool_use": {"input": {}},
    }
    for index, block in enumerate(_content(reply, ids)):
        opened = {**block, **empty[block["type"]]}
        yield event("content_block_start", index=index, content_block=opened)
        if index == 0:
            yield event("ping")
        for delta in _deltas(block, reply):
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    total = _usage(counted, counted.output)
    total = {name: value for name, value in total.items() if name.endswith("_tokens")}
    yield event("message_delta", delta={"stop_reason": _stop(reply), "stop_sequence": None}, usage=total)
    yield event("message_stop")


def error(status: int, message: str | None, ids: Ids) -> dict[str, Any]:
    """The body of an error answer."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    text = message or _MESSAGES.get(status, f"The request failed with status {status}.")
    return {
        "type": "error",
        "error": {"type": kind, "message": text},
        "request_id": ids.base58("req_011", 21),
    }


def error_event(body: Mapping[str, Any]) -> bytes:
    """The event that breaks a stream off with an error."""
    return sse({"type": "error", "error": {**body["error"], "details": None}}, event="error")


def headers(body: Mapping[str, Any], ids: Ids) -> tuple[tuple[str, str], ...]:
    """The headers that come with every answer."""
    reset = (datetime.fromtimestamp(ids.now, UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    limits = {"requests": 50, "input-tokens": 40_000, "output-tokens": 8_000, "tokens": 48_000}
    pairs: list[tuple[str, str]] = []
    for name, limit in limits.items():
        pairs.append((f"anthropic-ratelimit-{name}-limit", str(limit)))
        pairs.append((f"anthropic-ratelimit-{name}-remaining", str(limit - 1)))
        pairs.append((f"anthropic-ratelimit-{name}-reset", reset))
    pairs.append(("request-id", body.get("request_id") or ids.base58("req_011", 21)))
    pairs.append(("anthropic-organization-id", "a3f0c1d2-0000-4000-8000-5f2b7c9e1d40"))
    return tuple(pairs)
