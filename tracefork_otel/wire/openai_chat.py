"""The Chat Completions format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import Message, Reply, Usage, message, plain_text
from .sse import sse_events

# Where servers put the model's reasoning: vLLM and DeepSeek in the first, OpenRouter in the second.
_REASONING = ("reasoning_content", "reasoning")


def request_messages(request: dict[str, Any]) -> tuple[Message, ...]:
    """Return the conversation as messages, in order."""
    turns = mappings(request.get("messages"))
    names: dict[str, str] = {}
    for turn in turns:
        for call in mappings(turn.get("tool_calls")):
            identity, name = string(call.get("id")), _called(call)[0]
            if identity is not None and name is not None:
                names[identity] = name
    return tuple(m for turn in turns for m in _turn_messages(turn, names))


def reply(response: dict[str, Any]) -> Reply:
    """Return what a whole completion (or error) says."""
    if "choices" not in response and "error" in response:
        return Reply(error_type=error_type(response.get("error")))
    first: list[Message] = []
    messages: list[Message] = []
    finish_reason = None
    for position, choice in enumerate(mappings(response.get("choices"))):
        said = _turn_messages({"role": "assistant", **mapping(choice.get("message"))}, {})
        messages += said
        if position == 0:
            first, finish_reason = said, string(choice.get("finish_reason"))
    return Reply(
        messages=tuple(messages),
        text=plain_text(first),
        model=string(response.get("model")),
        response_id=string(response.get("id")),
        finish_reason=finish_reason,
        usage=_usage(mapping(response.get("usage"))),
    )


def streamed_reply(body: bytes) -> Reply:
    """Return what the chunks say, put together to one completion."""
    whole: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    error: str | None = None
    for _, data in sse_events(body):
        chunk = mapping(loads(data))
        if chunk.get("error") is not None:
            error = error_type(chunk.get("error"))
        for key in ("id", "model", "usage"):
            # Azure's first chunk carries empty strings, and all chunks but the last a null usage.
            if chunk.get(key):
                whole[key] = chunk[key]
        for choice in mappings(chunk.get("choices")):
            choices.setdefault(count(choice.get("index")) or 0, _Choice()).extend(choice)
    parts = [choice.whole() for _, choice in sorted(choices.items())]
    read = reply({**whole, "choices": parts})
    return read if error is None else replace(read, error_type=error)


def error_type(error: Any) -> str:
    """Return an error's type or code, in OpenAI's and its copiers' shapes."""
    found = mapping(error)
    return string(found.get("type")) or string(found.get("code")) or "error"


@dataclass(slots=True)
class _Choice:
    """A choice that is still arriving."""

    role: str = "assistant"
    parts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None

    def extend(self, choice: dict[str, Any]) -> None:
        """Add one chunk's delta."""
        delta = mapping(choice.get("delta"))
        self.role = string(delta.get("role")) or self.role
        self.finish_reason = string(choice.get("finish_reason")) or self.finish_reason
        for key in ("content", "refusal", *_REASONING):
            text = string(delta.get(key))
            if text:
                self.parts.setdefault(key, []).append(text)
        for call in mappings(delta.get("tool_calls")):
            # Some servers send whole calls without an index; each is a call of its own.
            index = count(call.get("index"))
            self._call(len(self.calls) if index is None else index, call)
        if isinstance(delta.get("function_call"), dict):
            self._call(0, {"function": delta["function_call"]})

    def _call(self, index: int, delta: dict[str, Any]) -> None:
        """Add one delta of a tool call."""
        call = self.calls.setdefault(index, {"name": None, "parts": []})
        name, given = _called(delta)
        call["name"] = name or call["name"]
        call["parts"].append(given)

    def whole(self) -> dict[str, Any]:
        """Return the choice as a whole response would hold it."""
        said: dict[str, Any] = {key: "".join(parts) for key, parts in self.parts.items()}
        said["tool_calls"] = [
            {"function": {"name": call["name"], "arguments": "".join(call["parts"])}}
            for _, call in sorted(self.calls.items())
        ]
        return {"message": {"role": self.role, **said}, "finish_reason": self.finish_reason}


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts; on this wire the input holds the cached parts already."""
    details = mapping(usage.get("prompt_tokens_details"))
    cached = count(details.get("cached_tokens"))
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        # DeepSeek's name for the same count.
        cached_tokens=count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )


def _called(call: dict[str, Any]) -> tuple[str | None, str]:
    """Return the name and the input of a function's or custom tool's call, as the wire has it."""
    function = mapping(call.get("function") or call.get("custom"))
    given = function.get("arguments", function.get("input"))
    return string(function.get("name")), given if isinstance(given, str) else "" if given is None else dumps(
        given
    )


def _turn_messages(turn: dict[str, Any], names: dict[str, str]) -> list[Message]:
    """Return one turn as messages: thoughts, content, refusal, tool calls."""
    role = string(turn.get("role")) or "user"
    content = turn.get("content")
    if role in ("tool", "function"):
        identity = string(turn.get("tool_call_id")) or string(turn.get("name"))
        return [message(role, "tool_result", _flat(content), names.get(identity or "", identity))]
    found: list[Message] = []
    thought = next((t for key in _REASONING if (t := string(turn.get(key)))), None)
    if thought:
        found.append(message(role, "thinking", thought))
    if isinstance(content, str):
        # Beside tool calls or a refusal an empty content says nothing.
        if content or not (turn.get("tool_calls") or turn.get("refusal") or turn.get("function_call")):
            found.append(message(role, "text", content))
    else:
        found += [part_message(role, part) for part in mappings(content)]
    refusal = string(turn.get("refusal"))
    if refusal:
        found.append(message(role, "refusal", refusal))
    audio = string(mapping(turn.get("audio")).get("transcript"))
    if audio:
        found.append(message(role, "other", audio))
    calls = mappings(turn.get("tool_calls"))
    if isinstance(turn.get("function_call"), dict):
        calls = [*calls, {"function": turn["function_call"]}]
    for call in calls:
        name, given = _called(call)
        found.append(message(role, "tool_use", given, name))
    return found


def _flat(content: Any) -> str:
    """Return a tool result as text: a part a line, JSON where it is not made of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(part_message("tool", part).content for part in content)
    return dumps(content)


def part_message(role: str, part: dict[str, Any]) -> Message:
    """Return one content part, of Chat Completions or of Responses, as a message."""
    kind = string(part.get("type")) or ""
    if kind in ("text", "input_text", "output_text", "summary_text"):
        return message(role, "text", string(part.get("text")) or "")
    if kind == "reasoning_text":
        return message(role, "thinking", string(part.get("text")) or "")
    if kind == "refusal":
        return message(role, "refusal", string(part.get("refusal")) or "")
    if kind in ("image_url", "input_image", "computer_screenshot"):
        image = part.get("image_url")
        where = string(image) or string(mapping(image).get("url")) or string(part.get("file_id")) or ""
        return message(role, "image", short_url(where))
    if kind in ("file", "input_file"):
        file = mapping(part.get("file")) or part
        data = string(file.get("file_data"))
        where = string(file.get("file_url")) or string(file.get("file_id")) or ""
        return message(role, "document", short_url(data or where), string(file.get("filename")))
    if kind == "input_audio":
        audio = mapping(part.get("input_audio"))
        data = string(audio.get("data")) or ""
        return message(role, "other", f"[audio/{string(audio.get('format'))}, {len(data)} base64 characters]")
    return message(role, "other", dumps(part))


def short_url(url: str) -> str:
    """Return a URL as it is, and base64 data as their kind and length."""
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:"):
        return f"[{head[5:].partition(';')[0] or 'data'}, {len(data)} base64 characters]"
    # A bare id or link is never this long; base64 without a data: head is.
    return url if len(url) < 4096 else f"[data, {len(url)} base64 characters]"
