"""Anthropic's Messages format: at its own host, on Vertex AI and behind gateways."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import anthropic_writing
from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import Message, Reply, Usage, message, plain_text
from .sse import sse_events, streams_by_body

if TYPE_CHECKING:
    from .writing import WireForm

_VERTEX = re.compile(r"/publishers/anthropic/models/([^/:]+):(?:streamRawPredict|rawPredict)$")
# Which field of a block each kind of delta extends.
_DELTAS = MappingProxyType(
    {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
)


streams = streams_by_body


def form(path: str) -> WireForm:
    """Return what writes replies for this path."""
    return anthropic_writing


def request_messages(request: dict[str, Any]) -> tuple[Message, ...]:
    """Return the system prompt and the conversation as messages."""
    turns = [("system", request["system"])] if request.get("system") is not None else []
    turns += [
        (string(turn.get("role")) or "user", turn.get("content"))
        for turn in mappings(request.get("messages"))
    ]
    names = _tool_names(content for _, content in turns)
    return tuple(m for role, content in turns for m in _content_messages(role, content, names))


def reply(path: str, response: dict[str, Any]) -> Reply:
    """Return what a whole message (or error) says."""
    if response.get("type") == "error" or "error" in response:
        return Reply(error_type=string(mapping(response.get("error")).get("type")) or "error")
    messages = _content_messages("assistant", response.get("content"), _tool_names([response.get("content")]))
    return Reply(
        messages=tuple(messages),
        text=plain_text(messages),
        model=string(response.get("model")),
        response_id=string(response.get("id")),
        finish_reason=string(response.get("stop_reason")),
        usage=_usage(mapping(response.get("usage"))),
    )


def streamed_reply(path: str, body: bytes) -> Reply:
    """Return what a stream says, with the blocks that had begun when it was cut."""
    start: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    stop: dict[str, Any] = {}
    blocks: dict[int, _Block] = {}
    error: str | None = None
    for _, data in sse_events(body):
        event = mapping(loads(data))
        kind = event.get("type")
        if kind == "content_block_delta":
            block = blocks.get(count(event.get("index")) or 0)
            if block is not None:
                block.extend(mapping(event.get("delta")))
        elif kind == "content_block_start":
            blocks[count(event.get("index")) or 0] = _Block(mapping(event.get("content_block")))
        elif kind == "message_start":
            start = mapping(event.get("message"))
            usage = dict(mapping(start.get("usage")))
        elif kind == "message_delta":
            stop = mapping(event.get("delta"))
            # Counts here are running totals; the ones that do not apply are absent or null.
            usage.update({k: v for k, v in mapping(event.get("usage")).items() if v is not None})
        elif kind == "error":
            error = string(mapping(event.get("error")).get("type")) or "error"
    content = [*mappings(start.get("content")), *(block.whole() for _, block in sorted(blocks.items()))]
    messages = _content_messages("assistant", content, _tool_names([content]))
    return Reply(
        messages=tuple(messages),
        text=plain_text(messages),
        model=string(start.get("model")),
        response_id=string(start.get("id")),
        finish_reason=string(stop.get("stop_reason")),
        error_type=error,
        usage=_usage(usage),
    )


@dataclass(slots=True)
class _Block:
    """A content block that is still arriving."""

    begun: dict[str, Any]
    parts: dict[str, list[str]] = field(default_factory=dict)

    def extend(self, delta: dict[str, Any]) -> None:
        """Add one delta's text to the field that it belongs to."""
        name = _DELTAS.get(string(delta.get("type")) or "")
        text = string(delta.get(name)) if name else None
        if name and text:
            self.parts.setdefault(name, []).append(text)

    def whole(self) -> dict[str, Any]:
        """Return the block as it stands, a tool's input parsed where it is complete."""
        block = dict(self.begun)
        for name, parts in self.parts.items():
            text = "".join(parts)
            if name != "partial_json":
                block[name] = (string(block.get(name)) or "") + text
            else:
                parsed = loads(text)
                block["input"] = text if parsed is None else parsed
        return block


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts, with the cached parts added to the input: on this wire they stand beside it."""
    fresh = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=None if fresh is None else count(fresh + (read or 0) + (written or 0)),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=count(mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")),
    )


def _tool_names(contents: Any) -> dict[str, str]:
    """Return the name of each tool call in the contents by its id."""
    names: dict[str, str] = {}
    for content in contents:
        for block in mappings(content):
            identity, name = string(block.get("id")), string(block.get("name"))
            if identity is not None and name is not None:
                names[identity] = name
    return names


def _content_messages(role: str, content: Any, names: dict[str, str]) -> list[Message]:
    """Return a turn's content, a string or blocks, as messages."""
    if isinstance(content, str):
        return [message(role, "text", content)]
    return [_block_message(role, block, names) for block in mappings(content)]


def _block_message(role: str, block: dict[str, Any], names: dict[str, str]) -> Message:
    """Return one content block as a message."""
    kind = string(block.get("type")) or ""
    if kind == "text":
        return message(role, "text", string(block.get("text")) or "")
    if kind == "thinking":
        return message(role, "thinking", string(block.get("thinking")) or "")
    if kind == "redacted_thinking":
        return message(role, "redacted_thinking", "")
    # Server tools and MCP tools carry a prefix: server_tool_use, web_search_tool_result, mcp_tool_result …
    if kind.endswith("tool_use"):
        given = block.get("input", {})
        return message(
            role, "tool_use", given if isinstance(given, str) else dumps(given), string(block.get("name"))
        )
    if kind.endswith("tool_result"):
        identity = string(block.get("tool_use_id"))
        return message(role, "tool_result", _flat(block.get("content")), names.get(identity or "", identity))
    if kind == "image":
        return message(role, "image", _media(block))
    if kind in ("document", "search_result"):
        return message(role, "document", _part_text(block), string(block.get("title")))
    return message(role, "other", _part_text(block))


def _flat(content: Any) -> str:
    """Return a tool result as text: a part a line, JSON where it is not made of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(_part_text(part) for part in content)
    return dumps(content)


def _part_text(part: dict[str, Any]) -> str:
    """Return one part as text, base64 data left out."""
    kind = part.get("type")
    if kind == "text":
        return string(part.get("text")) or ""
    if kind == "image":
        return _media(part)
    if kind == "document":
        source = mapping(part.get("source"))
        text = string(source.get("data")) if source.get("type") == "text" else None
        inner = source.get("content")
        if isinstance(inner, list):
            text = "\n".join(string(p.get("text")) or _media(p) for p in mappings(inner))
        return text if text is not None else string(inner) or _media(part)
    if kind == "search_result":
        return "\n".join(string(p.get("text")) or "" for p in mappings(part.get("content")))
    if kind == "compaction":
        return string(part.get("content")) or ""
    return dumps(part)


def _media(part: dict[str, Any]) -> str:
    """Return where a picture or file is, or how long its base64 data are."""
    source = mapping(part.get("source"))
    data = string(source.get("data"))
    if data is not None:
        return f"[{string(source.get('media_type')) or 'data'}, {len(data)} base64 characters]"
    return string(source.get("url")) or string(source.get("file_id")) or dumps(source)
