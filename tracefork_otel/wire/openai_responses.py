"""The Responses format."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import Kind, Message, Reply, Usage, message, plain_text
from .openai_chat import error_type, part_message, short_url
from .sse import sse_events

_TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
# Which field of an item (and, where it is a list of parts, under which index) each kind of delta extends.
_DELTAS = MappingProxyType(
    {
        "response.output_text.delta": ("content", "content_index", "output_text", "text"),
        "response.refusal.delta": ("content", "content_index", "refusal", "refusal"),
        "response.reasoning_text.delta": ("content", "content_index", "reasoning_text", "text"),
        "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text", "text"),
        "response.function_call_arguments.delta": ("arguments", None, "function_call", ""),
        "response.mcp_call_arguments.delta": ("arguments", None, "mcp_call", ""),
        "response.custom_tool_call_input.delta": ("input", None, "custom_tool_call", ""),
        "response.code_interpreter_call_code.delta": ("code", None, "code_interpreter_call", ""),
    }
)
# What each item says of a tool's input and of its output; other keys of a call are identity and state.
_INPUTS = ("arguments", "input", "action", "actions", "queries", "code", "operation")
_OUTPUTS = ("output", "outputs", "results", "result", "error", "tools")


def request_messages(request: dict[str, Any]) -> tuple[Message, ...]:
    """Return the instructions and the input items as messages."""
    found: list[Message] = []
    instructions, given = request.get("instructions"), request.get("input")
    if isinstance(instructions, str):
        found.append(message("system", "text", instructions))
    else:
        found += _items_messages(mappings(instructions), "system")
    if isinstance(given, str):
        found.append(message("user", "text", given))
    return (*found, *_items_messages(mappings(given), "user"))


def reply(response: dict[str, Any]) -> Reply:
    """Return what a whole response (or error) says."""
    error = response.get("error")
    if "output" not in response and error is not None:
        return Reply(error_type=error_type(error))
    messages = _items_messages(mappings(response.get("output")), "assistant")
    status = string(response.get("status"))
    reason = string(mapping(response.get("incomplete_details")).get("reason"))
    return Reply(
        messages=tuple(messages),
        text=plain_text(messages),
        model=string(response.get("model")),
        response_id=string(response.get("id")),
        finish_reason=reason or (None if status in ("in_progress", "queued") else status),
        error_type=None if error is None else error_type(error),
        usage=_usage(mapping(response.get("usage"))),
    )


def streamed_reply(body: bytes) -> Reply:
    """Return what the last event says, which carries everything; without it, what the deltas add up to."""
    events = list(sse_events(body))
    for _, data in reversed(events):
        # The end is one of the last events: parse nothing that cannot be it.
        if any(name.encode() in data for name in _TERMINAL):
            event = mapping(loads(data))
            if event.get("type") in _TERMINAL and isinstance(event.get("response"), dict):
                return reply(event["response"])
    return _assembled(events)


def _assembled(events: list[tuple[str | None, bytes]]) -> Reply:
    """Return the reply that the events before the end add up to."""
    begun: dict[str, Any] = {}
    items: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[tuple[str, int | None, str, str], list[str]]] = {}
    error: Any = None
    for _, data in events:
        event = mapping(loads(data))
        kind = string(event.get("type")) or ""
        index = count(event.get("output_index")) or 0
        if kind in _DELTAS:
            name, position, part_type, part_key = _DELTAS[kind]
            place = (name, count(event.get(position)) or 0 if position else None, part_type, part_key)
            parts.setdefault(index, {}).setdefault(place, []).append(string(event.get("delta")) or "")
        elif kind in ("response.output_item.added", "response.output_item.done"):
            items[index] = mapping(event.get("item"))
            if kind.endswith("done"):
                # The finished item holds what its deltas said.
                parts.pop(index, None)
        elif isinstance(event.get("response"), dict):
            begun = event["response"]
        elif kind == "error":
            error = {"type": event.get("code"), **mapping(event.get("error"))}
    output = [_with_parts(items.get(i, {}), parts.get(i, {})) for i in sorted({*items, *parts})]
    whole = {**begun, "output": output}
    return reply(whole if error is None else {**whole, "error": error})


def _with_parts(
    item: dict[str, Any], parts: dict[tuple[str, int | None, str, str], list[str]]
) -> dict[str, Any]:
    """Return an item with the text of its deltas in place."""
    whole = dict(item)
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for (name, position, part_type, part_key), texts in parts.items():
        text = "".join(texts)
        if position is None:
            whole.setdefault("type", part_type)
            whole[name] = text
        else:
            whole.setdefault("type", "message" if part_type in ("output_text", "refusal") else "reasoning")
            lists.setdefault(name, {})[position] = {"type": part_type, part_key: text}
    for name, found in lists.items():
        whole[name] = [part for _, part in sorted(found.items())]
    return whole


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts; on this wire the input holds the cached parts already."""
    details = mapping(usage.get("input_tokens_details"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=count(details.get("cached_tokens")),
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )


def _items_messages(items: list[dict[str, Any]], role: str) -> list[Message]:
    """Return input or output items as messages; `role` is for items that name none."""
    names: dict[str, str] = {}
    for item in items:
        identity, name = string(item.get("call_id")), string(item.get("name"))
        if identity is not None and name is not None:
            names[identity] = name
    return [m for item in items for m in _item_messages(item, role, names)]


def _item_messages(item: dict[str, Any], role: str, names: dict[str, str]) -> list[Message]:
    """Return one item as messages."""
    kind = string(item.get("type")) or ("message" if "content" in item else "item_reference")
    if kind == "message":
        role, content = string(item.get("role")) or role, item.get("content")
        if isinstance(content, str):
            return [message(role, "text", content)]
        return [part_message(role, part) for part in mappings(content)]
    if kind == "reasoning":
        return _reasoning(item)
    if kind.endswith("_output"):
        identity = string(item.get("call_id"))
        called = names.get(identity or "", identity)
        return [message("tool", "tool_result", _flat(item.get("output", item.get("tools"))), called)]
    if kind.endswith("_call"):
        return _call(item, kind)
    if kind == "compaction":
        return [message("assistant", "other", "")]
    return [message(role, "other", dumps(item))]


def _reasoning(item: dict[str, Any]) -> list[Message]:
    """Return a reasoning item's text, else its summary, else a mark that it was there."""
    for key in ("content", "summary"):
        texts = [text for part in mappings(item.get(key)) if (text := string(part.get("text")))]
        if texts:
            return [message("assistant", "thinking", "\n\n".join(texts))]
    kind: Kind = "redacted_thinking" if item.get("encrypted_content") else "thinking"
    return [message("assistant", kind, "")]


def _call(item: dict[str, Any], kind: str) -> list[Message]:
    """Return a tool call, and for tools that the provider runs the result beside it."""
    name = string(item.get("name")) or kind.removesuffix("_call")
    given = next((item[key] for key in _INPUTS if item.get(key) is not None), None)
    found = [
        message(
            "assistant",
            "tool_use",
            "" if given is None else given if isinstance(given, str) else dumps(given),
            name,
        )
    ]
    result = next((item[key] for key in _OUTPUTS if item.get(key) is not None), None)
    if result is not None:
        image = kind == "image_generation_call" and isinstance(result, str)
        found.append(message("tool", "tool_result", short_url(result) if image else _flat(result), name))
    return found


def _flat(output: Any) -> str:
    """Return a tool's output as text: content parts a line each, JSON where it is anything else."""
    if output is None:
        return ""
    if isinstance(output, str):
        return output
    if isinstance(output, dict) and output.get("type") == "computer_screenshot":
        return part_message("tool", output).content
    parts = mappings(output)
    if parts and len(parts) == len(output) and all(str(p.get("type")).startswith("input_") for p in parts):
        return "\n".join(part_message("tool", part).content for part in parts)
    return dumps(output)
