"""The OpenAI Chat Completions API on the wire; errors and headers are those of every OpenAI API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .anthropic import flatten
from .model import Conversation, Counted, Ids, Reply, ToolUse, cut
from .wire import sse

_SYSTEM_ROLES = ("system", "developer")
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    529: ("server_error", None, "The engine is currently overloaded, please try again later."),
}


def parse_arguments(text: object) -> Mapping[str, Any]:
    """A tool call's arguments as an object; what is no JSON object is kept under `_raw`."""
    try:
        parsed = json.loads(str(text))
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"_raw": text}


def read(body: Mapping[str, Any]) -> Conversation:
    """The request's conversation."""
    uses: list[ToolUse] = []
    results: list[tuple[str, str]] = []
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            arguments = parse_arguments(function.get("arguments"))
            uses.append(ToolUse(str(function.get("name")), arguments, str(call.get("id"))))
        if message.get("role") == "tool":
            call_id = str(message.get("tool_call_id"))
            name = next((use.name for use in reversed(uses) if use.id == call_id), call_id)
            results.append((name, flatten(message.get("content"))))
    roles = tuple((str(m.get("role")), flatten(m.get("content"))) for m in body["messages"])
    return Conversation(
        system="\n".join(text for role, text in roles if role in _SYSTEM_ROLES),
        messages=tuple((role, text) for role, text in roles if role not in _SYSTEM_ROLES),
        tool_uses=tuple(uses),
        tool_results=tuple(results),
        tools=tuple(str((tool.get("function") or tool).get("name")) for tool in body.get("tools") or ()),
    )


def check(body: Mapping[str, Any]) -> str | None:
    """What the provider would reject the request for, or None."""
    if not isinstance(body.get("model"), str):
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list):
        return "Missing required parameter: 'messages'."
    if not messages:
        return "Invalid 'messages': empty array. Expected an array with minimum length 1."
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            return f"Invalid type for 'messages[{at}]': expected an object."
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                return (
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                )
            open_calls.discard(str(message["tool_call_id"]))
            continue
        if open_calls:
            break
        open_calls = {str(call.get("id")) for call in message.get("tool_calls") or ()}
    if open_calls:
        missing = ", ".join(sorted(open_calls))
        return (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {missing}"
        )
    return None


def _usage(counted: Counted) -> dict[str, Any]:
    return {
        "prompt_tokens": counted.input,
        "completion_tokens": counted.output,
        "total_tokens": counted.input + counted.output,
        "prompt_tokens_details": {"cached_tokens": counted.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counted.thinking,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _calls(reply: Reply, ids: Ids) -> list[dict[str, Any]]:
    return [
        {
            "id": ids.base58("call_", 24) if tool.id is None else tool.id,
            "type": "function",
            "function": {"name": tool.name, "arguments": tool.arguments},
        }
        for tool in reply.tools
    ]


def _finish(reply: Reply) -> str:
    return reply.stop or ("tool_calls" if reply.tools else "stop")


def whole(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> dict[str, Any]:
    """The answer to a request that asked for no stream."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.content or (None if reply.tools else ""),
        "refusal": None,
        "annotations": [],
    }
    answer_id = ids.base58("chatcmpl-", 29)
    if reply.tools:
        message["tool_calls"] = _calls(reply, ids)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": ids.now,
        "model": body["model"],
        "choices": [choice],
        "usage": _usage(counted),
        "service_tier": "default",
        "system_fingerprint": "fp_50cad350e4",
    }


def _deltas(reply: Reply, ids: Ids) -> Iterator[dict[str, Any]]:
    calls = _calls(reply, ids)
    content = None if calls and not reply.content else ""
    yield {"role": "assistant", "content": content, "refusal": None}
    if reply.content:
        for piece in reply.deltas():
            yield {"content": piece}
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        opened = {**call, "function": {**call["function"], "arguments": ""}}
        yield {"tool_calls": [{"index": index, **opened}]}
        for piece in cut(arguments, reply.chunk_chars):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def stream(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> Iterator[bytes]:
    """The answer's chunks, in the provider's order, and the [DONE] that ends them."""
    counts = bool((body.get("stream_options") or {}).get("include_usage"))
    frame: dict[str, Any] = {
        "id": ids.base58("chatcmpl-", 29),
        "object": "chat.completion.chunk",
        "created": ids.now,
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_50cad350e4",
    }

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        # Where usage was asked for, every chunk has the field, and all but the last leave it null.
        return sse({**frame, "choices": [choice], **({"usage": None} if counts else {})})

    for delta in _deltas(reply, ids):
        yield chunk(delta)
    yield chunk({}, _finish(reply))
    if counts:
        yield sse({**frame, "choices": [], "usage": _usage(counted)})
    yield sse("[DONE]")


def error(status: int, message: str | None, ids: Ids) -> dict[str, Any]:
    """The body of an error answer."""
    usual = ("server_error" if status >= 500 else "invalid_request_error", None, f"Status {status}.")
    kind, code, text = _ERRORS.get(status, usual)
    return {"error": {"message": message or text, "type": kind, "param": None, "code": code}}


def error_event(body: Mapping[str, Any]) -> bytes:
    """The event that breaks a stream off with an error."""
    return sse(body)


def headers(body: Mapping[str, Any], ids: Ids) -> tuple[tuple[str, str], ...]:
    """The headers that come with every answer."""
    return (
        ("x-request-id", ids.hex("req_", 32)),
        ("openai-organization", "user-simulated"),
        ("openai-processing-ms", str(ids.number(180, 900))),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-remaining-tokens", "199968"),
        ("x-ratelimit-reset-requests", "120ms"),
        ("x-ratelimit-reset-tokens", "9ms"),
    )
