"""Gemini's wire format read as messages of OTel's GenAI convention, in the agent's process, if asked for."""

from __future__ import annotations

import json
from typing import Any

from .genai_formats import (
    Json,
    Part,
    Read,
    answered,
    called,
    count,
    events,
    json_object,
    mapping,
    message,
    objects,
    shortened,
)

_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "MALFORMED_RESPONSE": "error",
}
"""What Gemini calls the ends that the convention has words for; others stay as they are."""
_ROLES = {"model": "assistant", "function": "tool"}


def gemini(asked: Json, answer: bytes | None) -> Read:
    """The conversation of a generateContent request and its answer."""
    said = json_object(answer) or _streamed(answer)
    usage = mapping(said.get("usageMetadata"))
    output, thoughts = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    given, read = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    candidates = objects(said.get("candidates"))
    told = [reason for one in candidates if isinstance(reason := one.get("finishReason"), str)]
    system = _either(asked, "systemInstruction", "system_instruction")
    return (
        _parts({"parts": [{"text": system}]} if isinstance(system, str) else mapping(system)),
        [_turn(content) for content in objects(asked.get("contents"))],
        [found for one in candidates if (found := _candidate(one)) is not None],
        {
            "gen_ai.response.id": said.get("responseId"),
            "gen_ai.response.model": said.get("modelVersion"),
            "gen_ai.response.finish_reasons": told or None,
            "gen_ai.usage.input_tokens": None if given is None else given + (read or 0),
            "gen_ai.usage.output_tokens": None
            if output is None and thoughts is None
            else (output or 0) + (thoughts or 0),
            "gen_ai.usage.cache_read.input_tokens": usage.get("cachedContentTokenCount"),
        },
    )


def _streamed(answer: bytes | None) -> Json:
    said: Json = {}
    usage: Json = {}
    candidates: dict[int, Json] = {}
    for chunk in _chunks(answer):
        said.update({name: chunk[name] for name in ("modelVersion", "responseId") if chunk.get(name)})
        usage.update(mapping(chunk.get("usageMetadata")))
        for one in objects(chunk.get("candidates")):
            known = candidates.setdefault(count(one.get("index")) or 0, {"content": {"parts": []}})
            known["finishReason"] = one.get("finishReason") or known.get("finishReason")
            for part in objects(mapping(one.get("content")).get("parts")):
                _extend(known["content"]["parts"], part)
    return {
        **said,
        "usageMetadata": usage,
        "candidates": [one for _, one in sorted(candidates.items())],
    }


def _chunks(answer: bytes | None) -> list[Json]:
    if (answer or b"").lstrip()[:1] != b"[":
        return list(events(answer))
    try:
        return objects(json.loads(answer or b""))
    except ValueError:
        return []


def _extend(parts: list[Json], part: Json) -> None:
    last = parts[-1] if parts else {}
    both = isinstance(part.get("text"), str) and isinstance(last.get("text"), str)
    if both and bool(part.get("thought")) == bool(last.get("thought")):
        last["text"] += part["text"]
    else:
        parts.append(dict(part))


def _turn(content: Json) -> Json:
    parts = _parts(content)
    role = content.get("role") or "user"
    if parts and all(part["type"] == "tool_call_response" for part in parts):
        role = "tool"
    return message({"role": _ROLES.get(role, role) if isinstance(role, str) else "user"}, parts)


def _candidate(one: Json) -> Json | None:
    parts, reason = _parts(mapping(one.get("content"))), one.get("finishReason")
    if not parts and not reason:
        return None
    # The API ends a call of a function like any other answer.
    calls = reason == "STOP" and any(part["type"] == "tool_call" for part in parts)
    told = "tool_call" if calls else _REASONS.get(str(reason), reason)
    return {"role": "assistant", "parts": parts, "finish_reason": told}


def _parts(content: Json) -> list[Part]:
    return [found for part in objects(content.get("parts")) if (found := _part(part)) is not None]


def _part(part: Json) -> Part | None:
    text = part.get("text")
    if isinstance(text, str):
        if not text and _either(part, "thoughtSignature", "thought_signature"):
            return None
        return {"type": "reasoning" if part.get("thought") is True else "text", "content": text}
    call = _either(part, "functionCall", "function_call")
    if isinstance(call, dict):
        return called(call.get("id"), call.get("name"), call.get("args") or {})
    result = _either(part, "functionResponse", "function_response")
    if isinstance(result, dict):
        # The wire tells calls by id only where the model gave them one.
        return {**answered(result.get("id"), _returned(result.get("response"))), "name": result.get("name")}
    return {"type": next(iter(part), "part"), **shortened(part)}


def _returned(response: Any) -> Any:
    """What the function returned, without what an SDK wrapped it in."""
    if isinstance(response, dict) and len(response) == 1:
        return response.get("result", response.get("output", response))
    return response


def _either(found: Json, camel: str, snake: str) -> Any:
    return found.get(camel) if found.get(camel) is not None else found.get(snake)


FORMATS = {":generateContent": gemini, ":streamGenerateContent": gemini}
"""How the bodies of a path are read, by its ending."""
