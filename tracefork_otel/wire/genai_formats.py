"""Anthropic's and OpenAI's wire formats as messages of OTel's GenAI convention, in the agent's process.

They are read only where asked for. The backend's provider modules read more formats, into other words; this
package cannot import them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from .sse import sse_events

_LONG = 1024
"""A string of a picture, a file or a part unknown here that is longer is data, not something to read."""
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "refusal": "content_filter",
    "failed": "error",
}
"""What providers call the ends that the convention has words for; others stay as they are."""

Json: TypeAlias = dict[str, Any]
Part: TypeAlias = dict[str, Any]
Read: TypeAlias = tuple[list[Part], list[Json], list[Json], dict[str, Any]]
"""System instructions, messages in, messages out, and what else the response says."""


def _anthropic(asked: Json, answer: bytes | None) -> Read:
    said, usage = _anthropic_answer(answer)
    cached = (usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens"))
    counted = count(usage.get("input_tokens"))
    parts = _parts(said.get("content"))
    return (
        _parts(asked.get("system")),
        [message(turn, _parts(turn.get("content"))) for turn in objects(asked.get("messages"))],
        _output([(parts, said.get("stop_reason"))]),
        {
            **_response_facts(said, [said.get("stop_reason")]),
            # On this wire the cached parts stand beside the input; the convention counts them in.
            "gen_ai.usage.input_tokens": None
            if counted is None
            else counted + sum(count(n) or 0 for n in cached),
            "gen_ai.usage.output_tokens": usage.get("output_tokens"),
            "gen_ai.usage.cache_read.input_tokens": cached[0],
            "gen_ai.usage.cache_creation.input_tokens": cached[1],
        },
    )


def _anthropic_answer(answer: bytes | None) -> tuple[Json, Json]:
    whole = json_object(answer)
    if whole:
        return whole, mapping(whole.get("usage"))
    said: Json = {}
    usage: Json = {}
    blocks: dict[int, Json] = {}
    for event in events(answer):
        kind = event.get("type")
        if kind == "message_start":
            said = dict(mapping(event.get("message")))
            usage.update(mapping(said.get("usage")))
        elif kind == "content_block_start":
            blocks[count(event.get("index")) or 0] = dict(mapping(event.get("content_block")))
        elif kind == "content_block_delta":
            _extend(blocks.get(count(event.get("index")) or 0, {}), mapping(event.get("delta")))
        elif kind == "message_delta":
            said.update(mapping(event.get("delta")))
            usage.update({name: n for name, n in mapping(event.get("usage")).items() if n is not None})
    for block in blocks.values():
        given = block.pop("partial_json", None)
        if given:
            block["input"] = _parsed(given)
    if blocks:
        said["content"] = [block for _, block in sorted(blocks.items())]
    return said, usage


def _extend(block: Json, delta: Json) -> None:
    for name in ("text", "thinking", "partial_json"):
        if isinstance(delta.get(name), str):
            block[name] = block.get(name, "") + delta[name]


def _chat(asked: Json, answer: bytes | None) -> Read:
    said = json_object(answer) or _chat_stream(answer)
    choices = objects(said.get("choices"))
    usage = mapping(said.get("usage"))
    reasons = [choice.get("finish_reason") for choice in choices]
    return (
        [],
        [message(turn, _chat_parts(turn)) for turn in objects(asked.get("messages"))],
        _output(
            [(_chat_parts(mapping(choice.get("message"))), choice.get("finish_reason")) for choice in choices]
        ),
        {
            **_response_facts(said, reasons),
            "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
            "gen_ai.usage.cache_read.input_tokens": mapping(usage.get("prompt_tokens_details")).get(
                "cached_tokens"
            ),
        },
    )


def _chat_stream(answer: bytes | None) -> Json:
    said: Json = {}
    choices: dict[int, Json] = {}
    for chunk in events(answer):
        said.update({name: chunk[name] for name in ("id", "model", "usage") if chunk.get(name)})
        for part in objects(chunk.get("choices")):
            choice = choices.setdefault(count(part.get("index")) or 0, {"message": {"calls": {}}})
            choice["finish_reason"] = part.get("finish_reason") or choice.get("finish_reason")
            message, delta = choice["message"], mapping(part.get("delta"))
            for name in ("content", "refusal", "reasoning_content", "reasoning"):
                if isinstance(delta.get(name), str):
                    message[name] = message.get(name, "") + delta[name]
            for call in objects(delta.get("tool_calls")):
                # Some servers send whole calls without an index; each is a call of its own.
                index = count(call.get("index"))
                place = len(message["calls"]) if index is None else index
                known = message["calls"].setdefault(place, {"arguments": ""})
                function = mapping(call.get("function"))
                known["id"] = call.get("id") or known.get("id")
                known["name"] = function.get("name") or known.get("name")
                if isinstance(function.get("arguments"), str):
                    known["arguments"] += function["arguments"]
    for choice in choices.values():
        calls = choice["message"].pop("calls")
        choice["message"]["tool_calls"] = [
            {"id": call.get("id"), "function": call} for _, call in sorted(calls.items())
        ]
    return {**said, "choices": [choice for _, choice in sorted(choices.items())]}


def _chat_parts(turn: Json) -> list[Part]:
    if turn.get("role") == "tool":
        return [answered(turn.get("tool_call_id"), turn.get("content"))]
    thought = turn.get("reasoning_content") or turn.get("reasoning")
    parts: list[Part] = [{"type": "reasoning", "content": thought}] if isinstance(thought, str) else []
    parts += _parts(turn.get("content"))
    if turn.get("refusal"):
        parts.append({"type": "refusal", "content": turn["refusal"]})
    for call in objects(turn.get("tool_calls")):
        function = mapping(call.get("function"))
        parts.append(called(call.get("id"), function.get("name"), _parsed(function.get("arguments"))))
    return parts


def _responses(asked: Json, answer: bytes | None) -> Read:
    said = json_object(answer)
    if not said:
        # The last event carries everything; a stream that was cut before it has the items that were done.
        for event in events(answer):
            said = {**said, **mapping(event.get("response"))}
            if event.get("type") == "response.output_item.done":
                said["output"] = [*objects(said.get("output")), mapping(event.get("item"))]
    usage = mapping(said.get("usage"))
    reason = mapping(said.get("incomplete_details")).get("reason") or said.get("status")
    parts = [part for item in objects(said.get("output")) for part in _item_parts(item)]
    if reason == "completed" and any(part["type"] == "tool_call" for part in parts):
        reason = "tool_calls"
    given = asked.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else objects(given)
    return (
        _parts(asked.get("instructions")),
        [
            message({"role": _ROLES.get(str(item.get("type")), "user"), **item}, _item_parts(item))
            for item in items
        ],
        _output([(parts, reason)]),
        {
            **_response_facts(said, [reason]),
            "gen_ai.usage.input_tokens": usage.get("input_tokens"),
            "gen_ai.usage.output_tokens": usage.get("output_tokens"),
            "gen_ai.usage.cache_read.input_tokens": mapping(usage.get("input_tokens_details")).get(
                "cached_tokens"
            ),
        },
    )


_ROLES = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}
"""Who speaks in items that name nobody."""


def _item_parts(item: Json) -> list[Part]:
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        given = item.get("arguments") if kind == "function_call" else item.get("input")
        return [called(item.get("call_id"), item.get("name"), _parsed(given))]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [answered(item.get("call_id"), item.get("output"))]
    if kind == "reasoning":
        texts = [*objects(item.get("summary")), *objects(item.get("content"))]
        return [{"type": "reasoning", "content": text.get("text")} for text in texts]
    return _parts(item["content"]) if "content" in item else [shortened(item)]


FORMATS: dict[str, Callable[[Json, bytes | None], Read]] = {
    "/v1/messages": _anthropic,
    "/chat/completions": _chat,
    "/responses": _responses,
}
"""How the bodies of a path are read, by its ending."""


def _parts(content: Any) -> list[Part]:
    """A turn's content, a string or blocks, as parts of the convention."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    return [_part(block) for block in objects(content)]


def _part(block: Json) -> Part:
    kind = str(block.get("type", ""))
    if kind in ("text", "input_text", "output_text"):
        return {"type": "text", "content": block.get("text")}
    if kind == "thinking":
        return {"type": "reasoning", "content": block.get("thinking")}
    if kind == "refusal":
        return {"type": "refusal", "content": block.get("refusal")}
    if kind.endswith("tool_use"):
        return called(block.get("id"), block.get("name"), block.get("input"))
    if kind.endswith("tool_result"):
        return answered(block.get("tool_use_id"), block.get("content"))
    return shortened(block)


def called(identity: Any, name: Any, given: Any) -> Part:
    """Return a tool call as a part of a message."""
    return {"type": "tool_call", "id": identity, "name": name, "arguments": given}


def answered(identity: Any, content: Any) -> Part:
    """Return a tool's result as a part of a message."""
    if isinstance(content, list):
        parts = _parts(content)
        texts = [part.get("content") for part in parts]
        whole = all(part["type"] == "text" and isinstance(part.get("content"), str) for part in parts)
        content = "\n".join(texts) if whole else parts  # pyright: ignore[reportArgumentType, reportCallIssue]
    return {"type": "tool_call_response", "id": identity, "response": content}


def shortened(value: Any) -> Any:
    """The value without what is data: pictures and files are told by kind and length."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _LONG:
        return f"[{len(value)} characters]"
    return value


def message(turn: Json, parts: list[Part]) -> Json:
    """Return a message of these parts in the role of its turn."""
    return {"role": turn.get("role", "user"), "parts": parts}


def _output(choices: Iterable[tuple[list[Part], Any]]) -> list[Json]:
    return [
        {"role": "assistant", "parts": parts, "finish_reason": _REASONS.get(str(reason), reason)}
        for parts, reason in choices
        if parts or reason
    ]


def _response_facts(said: Json, reasons: list[Any]) -> dict[str, Any]:
    told = [reason for reason in reasons if isinstance(reason, str)]
    return {
        "gen_ai.response.id": said.get("id"),
        "gen_ai.response.model": said.get("model"),
        "gen_ai.response.finish_reasons": told or None,
    }


def events(body: bytes | None) -> Iterable[Json]:
    """The JSON objects of a stream of server-sent events, as far as it goes."""
    return filter(None, (json_object(data) for _, data in sse_events(body or b"")))


def json_object(body: bytes | None) -> Json:
    """The JSON object that the body is, empty if it is none."""
    try:
        value = json.loads(body) if body else None
    except ValueError:
        value = None
    return mapping(value)


def _parsed(text: Any) -> Any:
    """The value that the text is JSON of, else the text: a call that was cut is no JSON yet."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def mapping(value: Any) -> Json:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Json]:
    """Return the objects of a list, none of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: Any) -> int | None:
    """Return the value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
