"""Spans of others that carry their messages, as the request and response that they tell of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tracefork_otel.store.records import SpanRecord

_OPERATIONS = ("chat", "text_completion", "generate_content")
"""Of these a span is one call of a model; an `invoke_agent` span repeats the messages of those below it."""
_INPUT, _OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
_SYSTEM = "gen_ai.system_instructions"
_DETAILS = "gen_ai.client.inference.operation.details"
_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gcp.gemini": "generativelanguage.googleapis.com",
    "gcp.gen_ai": "generativelanguage.googleapis.com",
    "gcp.vertex_ai": "aiplatform.googleapis.com",
}

Parts = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A model call in its provider's wire format, made from messages: the same words, not the same bytes."""

    url: str
    request: bytes
    response: bytes


def read(span: SpanRecord) -> Conversation | None:
    """The call that the span tells of, or None if it tells no messages."""
    told: dict[str, Any] = dict(span.attributes)
    for event in span.events:
        if event["name"] == _DETAILS:
            told = {**cast("Mapping[str, Any]", event["attributes"]), **told}
    if told.get("gen_ai.operation.name", "chat") not in _OPERATIONS:
        return None
    asked, said = _messages(told.get(_INPUT)), _messages(told.get(_OUTPUT))
    if not asked and not said:
        return None
    provider = str(told.get("gen_ai.provider.name") or told.get("gen_ai.system") or "unknown")
    host = str(told.get("server.address") or _HOSTS.get(provider) or f"{provider}.invalid")
    system = "\n".join(_texts(_items(told.get(_SYSTEM))))
    if provider == "anthropic":
        return _anthropic(host, told, asked, said, system)
    if provider.startswith("gcp."):
        return _gemini(host, told, asked, said, system)
    return _openai(host, told, asked, said, system)


def _openai(host: str, told: Mapping[str, Any], asked: Parts, said: Parts, system: str) -> Conversation:
    turns = [{"role": "system", "content": system}] if system else []
    turns += [turn for message in asked for turn in _openai_turns(message)]
    request = {"model": told.get("gen_ai.request.model"), "messages": turns}
    choices = [
        {"index": at, "message": turn, "finish_reason": message.get("finish_reason")}
        for at, message in enumerate(said)
        for turn in _openai_turns(message)[:1]
    ]
    response = {
        "id": told.get("gen_ai.response.id"),
        "object": "chat.completion",
        "model": told.get("gen_ai.response.model") or told.get("gen_ai.request.model"),
        "choices": choices,
        "usage": {
            "prompt_tokens": told.get("gen_ai.usage.input_tokens"),
            "completion_tokens": told.get("gen_ai.usage.output_tokens"),
        },
    }
    return Conversation(
        url=f"https://{host}/v1/chat/completions", request=_dumped(request), response=_dumped(response)
    )


def _openai_turns(message: Mapping[str, Any]) -> Parts:
    parts = _items(message.get("parts"))
    turns: Parts = []
    own: dict[str, Any] = {"role": message.get("role") or "assistant"}
    texts = _texts(parts) or ([message["content"]] if isinstance(message.get("content"), str) else [])
    calls = [part for part in parts if part.get("type") == "tool_call"]
    results = [part for part in parts if part.get("type") == "tool_call_response"]
    if texts or calls or not results:
        own["content"] = "\n".join(texts) if texts else None
        if calls:
            own["tool_calls"] = [
                {
                    "id": call.get("id"),
                    "type": "function",
                    "function": {"name": call.get("name"), "arguments": _as_text(call.get("arguments"))},
                }
                for call in calls
            ]
        turns.append(own)
    turns += [
        {"role": "tool", "tool_call_id": one.get("id"), "content": _as_text(_result(one))} for one in results
    ]
    return turns


def _anthropic(host: str, told: Mapping[str, Any], asked: Parts, said: Parts, system: str) -> Conversation:
    request: dict[str, Any] = {
        "model": told.get("gen_ai.request.model"),
        "max_tokens": told.get("gen_ai.request.max_tokens"),
        "messages": [
            {
                "role": "assistant" if message.get("role") == "assistant" else "user",
                "content": _blocks(message),
            }
            for message in asked
        ],
    }
    if system:
        request["system"] = system
    reasons = told.get("gen_ai.response.finish_reasons") or [
        one.get("finish_reason") for one in said if one.get("finish_reason")
    ]
    response = {
        "id": told.get("gen_ai.response.id"),
        "type": "message",
        "role": "assistant",
        "model": told.get("gen_ai.response.model") or told.get("gen_ai.request.model"),
        "content": [block for message in said for block in _blocks(message)],
        "stop_reason": reasons[0] if reasons else None,
        "usage": {
            "input_tokens": told.get("gen_ai.usage.input_tokens"),
            "output_tokens": told.get("gen_ai.usage.output_tokens"),
        },
    }
    return Conversation(
        url=f"https://{host}/v1/messages", request=_dumped(request), response=_dumped(response)
    )


def _blocks(message: Mapping[str, Any]) -> Parts:
    blocks: Parts = []
    for part in _items(message.get("parts")):
        match part.get("type"):
            case "text":
                blocks.append({"type": "text", "text": _as_text(part.get("content"))})
            case "reasoning" | "thinking":
                blocks.append({"type": "thinking", "thinking": _as_text(part.get("content"))})
            case "tool_call":
                blocks.append(
                    {
                        "type": "tool_use",
                        "id": part.get("id"),
                        "name": part.get("name"),
                        "input": _as_value(part.get("arguments")),
                    }
                )
            case "tool_call_response":
                result = _as_text(_result(part))
                blocks.append({"type": "tool_result", "tool_use_id": part.get("id"), "content": result})
            case _:
                blocks.append({"type": "text", "text": _as_text(part)})
    if not blocks and isinstance(message.get("content"), str):
        blocks.append({"type": "text", "text": message["content"]})
    return blocks


def _gemini(host: str, told: Mapping[str, Any], asked: Parts, said: Parts, system: str) -> Conversation:
    model = str(told.get("gen_ai.request.model") or "unknown").removeprefix("models/")
    names = {
        part.get("id"): part.get("name")
        for message in asked
        for part in _items(message.get("parts"))
        if part.get("type") == "tool_call"
    }
    request: dict[str, Any] = {
        "contents": [
            {
                "role": "model" if message.get("role") in ("assistant", "model") else "user",
                "parts": _gemini_parts(message, names),
            }
            for message in asked
        ]
    }
    if system:
        request["systemInstruction"] = {"parts": [{"text": system}]}
    response = {
        "candidates": [
            {
                "content": {"role": "model", "parts": _gemini_parts(message, names)},
                "finishReason": message.get("finish_reason"),
                "index": at,
            }
            for at, message in enumerate(said)
        ],
        "modelVersion": told.get("gen_ai.response.model") or told.get("gen_ai.request.model"),
        "responseId": told.get("gen_ai.response.id"),
        "usageMetadata": {
            "promptTokenCount": told.get("gen_ai.usage.input_tokens"),
            "candidatesTokenCount": told.get("gen_ai.usage.output_tokens"),
        },
    }
    return Conversation(
        url=f"https://{host}/v1beta/models/{model}:generateContent",
        request=_dumped(request),
        response=_dumped(response),
    )


def _gemini_parts(message: Mapping[str, Any], names: Mapping[Any, Any]) -> Parts:
    found: Parts = []
    for part in _items(message.get("parts")):
        match part.get("type"):
            case "text":
                found.append({"text": _as_text(part.get("content"))})
            case "reasoning" | "thinking":
                found.append({"text": _as_text(part.get("content")), "thought": True})
            case "tool_call":
                call = {"name": part.get("name"), "args": _as_value(part.get("arguments"))}
                found.append({"functionCall": call})
            case "tool_call_response":
                name = part.get("name") or names.get(part.get("id")) or part.get("id")
                result = _as_value(_result(part))
                response = result if isinstance(result, Mapping) else {"result": result}
                found.append({"functionResponse": {"name": name, "response": response}})
            case _:
                found.append({"text": _as_text(part)})
    if not found and isinstance(message.get("content"), str):
        found.append({"text": message["content"]})
    return found


def _messages(value: Any) -> Parts:
    return _items(value)


def _items(value: Any) -> Parts:
    """The objects of a list, which comes as JSON text or as a structured attribute."""
    found = _as_value(value)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    return [dict(one) for one in found if isinstance(one, Mapping)]


def _texts(parts: Parts) -> list[str]:
    return [_as_text(part.get("content")) for part in parts if part.get("type", "text") == "text"]


def _result(part: Mapping[str, Any]) -> Any:
    return part.get("response", part.get("result"))


def _as_value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
