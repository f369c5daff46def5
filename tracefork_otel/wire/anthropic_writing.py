"""The Messages format written: replies, their events, errors."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .json_values import count, loads, mapping, mappings, string
from .sse import sse_events
from .writing import Call, Ids, ToolInput, ToolResult, compact, deltas, event, shifted, tokens, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..exchange import Headers

REQUEST_ID = "request-id"

_ERRORS = MappingProxyType(
    {
        429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
        529: ("overloaded_error", "Overloaded"),
    }
)
# What a reply counts that the text in its place did not do.
_UNDONE = ("server_tool_use", "output_tokens_details", "iterations")


def frame(body: bytes, streamed: bool) -> dict[str, Any]:
    """Return a recorded message without its content, its usage as at the end."""
    if not streamed:
        whole = mapping(loads(body))
        return without(whole, "content") if is_reply(whole) else {}
    begun: dict[str, Any] = {}
    for _, data in sse_events(body):
        said = mapping(loads(data))
        if said.get("type") == "message_start":
            begun = without(said.get("message"), "content")
        elif said.get("type") == "message_delta" and begun:
            later = {key: value for key, value in mapping(said.get("usage")).items() if value is not None}
            begun["usage"] = {**mapping(begun.get("usage")), **later}
    return begun


def text_reply(
    request: dict[str, Any], frame: dict[str, Any], text: str, *, prompt: int, ids: Ids
) -> dict[str, Any]:
    """Return a message of one text block; of none for no text, as the API does not send empty blocks."""
    usage = without(frame.get("usage"), *_UNDONE) or {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "service_tier": "standard",
    }
    return {
        "model": request.get("model"),
        **without(frame, "stop_details", "container"),
        "id": ids.base58("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": tokens(text)},
    }


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a message."""
    return whole.get("type") == "message" and isinstance(whole.get("content"), list)


def events(request: dict[str, Any], whole: dict[str, Any]) -> list[bytes]:
    """Return the events of a message, in the API's order."""
    usage = mapping(whole.get("usage"))
    begun = {**without(whole, "stop_details"), "content": [], "stop_reason": None, "stop_sequence": None}
    begun["usage"] = {**usage, "output_tokens": min(1, count(usage.get("output_tokens")) or 0)}
    found = [_event("message_start", message=begun)]
    for index, block in enumerate(mappings(whole.get("content"))):
        found.append(_event("content_block_start", index=index, content_block=_opened(block)))
        if index == 0:
            found.append(_event("ping"))
        found += [_event("content_block_delta", index=index, delta=delta) for delta in _deltas(block)]
        found.append(_event("content_block_stop", index=index))
    ended = {key: whole[key] for key in ("stop_details", "container") if whole.get(key) is not None}
    ended |= {"stop_reason": whole.get("stop_reason"), "stop_sequence": whole.get("stop_sequence")}
    totals = {key: value for key, value in usage.items() if key.endswith("_tokens") and value is not None}
    found.append(_event("message_delta", delta=ended, usage=totals))
    found.append(_event("message_stop"))
    return found


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: Ids) -> dict[str, Any]:
    """Return the message with a tool call's input replaced, its id new, the call's id kept."""
    content = whole.get("content")
    blocks = [block for block in mappings(content) if block.get("type") == "tool_use"]
    olds = [compact(block.get("input")) for block in blocks]
    chosen = given.choose(
        [Call(name=string(b.get("name")), given=old) for b, old in zip(blocks, olds, strict=True)]
    )
    usage = mapping(whole.get("usage"))
    output = shifted(usage.get("output_tokens"), old=olds[chosen], new=given.spelled())
    return {
        **whole,
        "id": ids.base58("msg_01", 22),
        "content": [
            {**block, "input": given.value} if block is blocks[chosen] else block
            for block in (content if isinstance(content, list) else [])
        ],
        "usage": {**usage, "output_tokens": output},
    }


def with_streamed_tool_input(body: bytes, given: ToolInput, ids: Ids) -> list[bytes]:
    """Return the events with a tool call's input replaced; what does not speak of it is as it was."""
    recorded = [(name, data, mapping(loads(data))) for name, data in sse_events(body)]
    calls, olds = _streamed_calls([said for _, _, said in recorded])
    at = list(calls)[given.choose(list(calls.values()))]
    spelled = given.spelled(olds[at])
    found: list[bytes] = []
    for name, data, said in recorded:
        kind, mine = said.get("type"), said.get("index") == at
        if kind == "message_start":
            begun = {**mapping(said.get("message")), "id": ids.base58("msg_01", 22)}
            found.append(event({**said, "message": begun}, name))
        elif kind == "content_block_start" and mine:
            opened = {**mapping(said.get("content_block")), "input": {}}
            found.append(event({**said, "content_block": opened}, name))
            found += [
                _event("content_block_delta", index=at, delta=delta) for delta in _input_deltas(spelled)
            ]
        elif kind == "content_block_delta" and mine:
            continue
        elif kind == "message_delta":
            usage = mapping(said.get("usage"))
            output = shifted(usage.get("output_tokens"), old=olds[at], new=spelled)
            found.append(event({**said, "usage": {**usage, "output_tokens": output}}, name))
        else:
            found.append(event(data, name))
    return found


def error(status: int, ids: Ids) -> tuple[int, dict[str, Any], Headers]:
    """Return the status, the API's error body of it, and its headers."""
    kind, text = _ERRORS.get(status, ("api_error", "Internal server error"))
    request_id = ids.base58("req_011", 21)
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
    # The API says itself that trying again may help, and the SDK goes by that.
    return status, body, ((REQUEST_ID, request_id), ("x-should-retry", "true"))


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that makes this the system prompt, whether it was text, blocks or absent."""
    return "system", system


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the `tool_result` blocks of the conversation, each under its call's name."""
    names: dict[Any, str | None] = {}
    found: list[ToolResult] = []
    for at, turn in _numbered(request.get("messages")):
        for place, block in _numbered(turn.get("content")):
            if block.get("type") == "tool_use":
                names[block.get("id")] = string(block.get("name"))
            elif block.get("type") == "tool_result":
                where = f"messages[{at}].content[{place}]"
                called = string(block.get("tool_use_id"))
                undone = ((f"{where}.is_error", False),) if block.get("is_error") else ()
                found.append(
                    ToolResult(name=names.get(called), call_id=called, path=f"{where}.content", undone=undone)
                )
    return found


def _numbered(items: Any) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of an array with their places in it."""
    given = items if isinstance(items, list) else []
    return [(at, item) for at, item in enumerate(given) if isinstance(item, dict)]


def _streamed_calls(said: list[dict[str, Any]]) -> tuple[dict[Any, Call], dict[Any, str]]:
    """Return the tool calls of a stream by the index of their block, and their inputs as they came."""
    calls: dict[Any, Call] = {}
    olds: dict[Any, str] = {}
    for one in said:
        block, delta = mapping(one.get("content_block")), mapping(one.get("delta"))
        if one.get("type") == "content_block_start" and block.get("type") == "tool_use":
            calls[one.get("index")] = Call(name=string(block.get("name")), given="")
            olds[one.get("index")] = ""
        elif delta.get("type") == "input_json_delta" and one.get("index") in olds:
            olds[one.get("index")] += string(delta.get("partial_json")) or ""
    return calls, olds


def _event(kind: str, **members: Any) -> bytes:
    """Return one event of that type."""
    return event({"type": kind, **members}, kind)


def _opened(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block as it begins: without what its deltas will say."""
    kind = string(block.get("type")) or ""
    if kind == "text":
        return {**without(block, "citations"), "text": ""}
    if kind == "thinking":
        return {**block, "thinking": "", "signature": ""}
    return {**block, "input": {}} if kind.endswith("tool_use") else block


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the deltas of a block; kinds that have none begin whole."""
    kind = string(block.get("type")) or ""
    if kind == "text":
        for piece in deltas(string(block.get("text")) or ""):
            yield {"type": "text_delta", "text": piece}
        for citation in mappings(block.get("citations")):
            yield {"type": "citations_delta", "citation": citation}
    elif kind == "thinking":
        for piece in deltas(string(block.get("thinking")) or ""):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": string(block.get("signature")) or ""}
    elif kind.endswith("tool_use"):
        yield from _input_deltas(compact(block.get("input") or {}))


def _input_deltas(spelled: str) -> list[dict[str, Any]]:
    """Return the deltas of a tool's input: the API opens each with an empty one."""
    return [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *deltas(spelled))]
