"""Anthropic's Messages form: at its own host, on Vertex AI and behind gateways."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .framing import SSE, Event, event, sse_if_asked
from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import (
    Asked,
    Message,
    Reply,
    Turn,
    Usage,
    answering,
    base64_note,
    billed,
    flat,
    message,
    served_by,
)
from .placing import Placed, Tools, named, named_at, one_at, system_turns, texts_at
from .writing import (
    Call,
    ToolInput,
    ToolResult,
    as_blocks,
    call_id_of,
    compact,
    deltas,
    numbered,
    parts_or_text,
    shifted,
    signature,
    spaced,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..exchange import Headers
    from .writing import Cut, IdSource

FRAMINGS = (SSE,)
REQUEST_ID = "request-id"
TURNS = "messages"
streams = sse_if_asked

# Which field of a block each kind of delta extends.
_DELTAS = MappingProxyType(
    {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
)
_ERRORS = MappingProxyType(
    {
        400: ("invalid_request_error", None),
        401: ("authentication_error", None),
        403: ("permission_error", None),
        404: ("not_found_error", None),
        413: ("request_too_large", None),
        429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
        529: ("overloaded_error", "Overloaded"),
    }
)
# What a recorded reply counts, or tells of itself, that another in its place did not do.
_UNDONE = ("server_tool_use", "output_tokens_details", "iterations")


def read_request(request: dict[str, Any]) -> Asked:
    """Return the system prompt and the conversation."""
    turns = mappings(request.get("messages"))
    return Asked(
        _content("system", request.get("system")),
        answering(_content(string(turn.get("role")) or "user", turn.get("content")) for turn in turns),
    )


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole message (or error) says."""
    failed = whole.get("type") == "error" or "error" in whole
    return Reply(
        choices=answering([_content("assistant", whole.get("content"))]),
        finish_reasons=(string(whole.get("stop_reason")),),
        model=string(whole.get("model")),
        response_id=string(whole.get("id")),
        error_type=string(mapping(whole.get("error")).get("type")) or "error" if failed else None,
        usage=_usage(mapping(whole.get("usage"))),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the message with the blocks that had begun when its stream was cut."""
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    parts: dict[tuple[int, str], list[str]] = {}
    for one in events:
        said = one.said()
        kind, index = said.get("type"), count(said.get("index")) or 0
        if kind == "content_block_delta":
            delta = mapping(said.get("delta"))
            name = _DELTAS.get(string(delta.get("type")) or "")
            text = string(delta.get(name)) if name else None
            if name and text and index in blocks:
                parts.setdefault((index, name), []).append(text)
        elif kind == "content_block_start":
            blocks[index] = dict(mapping(said.get("content_block")))
        elif kind == "message_start":
            whole = dict(mapping(said.get("message")))
        elif kind == "message_delta":
            # Counts here are running totals; the ones that do not apply are absent or null.
            later = {k: v for k, v in mapping(said.get("usage")).items() if v is not None}
            whole.update(mapping(said.get("delta")), usage={**mapping(whole.get("usage")), **later})
        elif kind == "error":
            whole["error"] = said.get("error")
    for (index, name), texts in parts.items():
        text = "".join(texts)
        if name == "partial_json":
            given = loads(text)
            blocks[index]["input"] = text if given is None else given
        else:
            blocks[index][name] = (string(blocks[index].get(name)) or "") + text
    if blocks:
        whole["content"] = [*mappings(whole.get("content")), *(block for _, block in sorted(blocks.items()))]
    return whole


_RESULT_PARTS = ("text", "image", "document", "search_result")


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a message."""
    return whole.get("type") == "message" and isinstance(whole.get("content"), list)


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the `tool_result` blocks of the conversation."""
    found: list[ToolResult] = []
    for at, turn in numbered(request.get("messages")):
        for place, block in numbered(turn.get("content")):
            if block.get("type") == "tool_result":
                where = f"messages[{at}].content[{place}]"
                undone = ((f"{where}.is_error", False),) if block.get("is_error") else ()
                called = string(block.get("tool_use_id"))
                saying = parts_or_text(block.get("content"), _RESULT_PARTS)
                found.append(
                    ToolResult(call_id=called, path=f"{where}.content", undone=undone, saying=saying)
                )
    return found


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that makes this the system prompt, whether it was text, blocks or absent."""
    return "system", system


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the system prompt, be it text or blocks, and the turns that are the system's."""
    turns = system_turns(request.get("messages"), "messages", ("system",))
    return [*texts_at(request.get("system"), "system"), *turns]


def tools(request: dict[str, Any]) -> Tools:
    """Return the tools, those that the provider runs among them."""
    chosen = named(request.get("tool_choice"), "name")
    return Tools(
        offered=tuple(named_at(request.get("tools"), "tools", "name", "type")),
        chosen=tuple(one_at(chosen, "tool_choice")),
        beside=("tool_choice",),
    )


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns."""
    system = "\n".join(one.content for one in asked.system)
    messages = as_blocks(asked.turns, _block)
    return {"model": model, **({"system": system} if system else {}), "messages": messages}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a message of these blocks; of none for an empty text, as the API does not send empty blocks."""
    counted = reply.usage
    cached, written = counted.cached_tokens or 0, counted.cache_write_tokens or 0
    given = counted.input_tokens
    usage = without(frame.get("usage"), *_UNDONE) or {
        "input_tokens": None if given is None else max(0, given - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - (counted.cache_write_1h_tokens or 0),
            "ephemeral_1h_input_tokens": counted.cache_write_1h_tokens or 0,
        },
        "service_tier": "standard",
    }
    said = [one for one in reply.messages if one.content or one.kind != "text"]
    calls = any(one.kind == "tool_use" for one in said)
    return {
        "model": reply.model or request.get("model"),
        **without(frame, "stop_details", "container"),
        "id": reply.response_id or ids.base58("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [_block(one, ids) for one in said],
        "stop_reason": reply.finish_reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": counted.output_tokens},
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the events of a message, in the API's order."""
    usage = mapping(whole.get("usage"))
    begun = {**without(whole, "stop_details"), "content": [], "stop_reason": None, "stop_sequence": None}
    begun["usage"] = {**usage, "output_tokens": min(1, count(usage.get("output_tokens")) or 0)}
    found = [_event("message_start", message=begun)]
    for index, block in enumerate(mappings(whole.get("content"))):
        found.append(_event("content_block_start", index=index, content_block=_opened(block)))
        if index == 0:
            found.append(_event("ping"))
        found += [_event("content_block_delta", index=index, delta=delta) for delta in _deltas(block, cut)]
        found.append(_event("content_block_stop", index=index))
    ended = {key: whole[key] for key in ("stop_details", "container") if whole.get(key) is not None}
    ended |= {"stop_reason": whole.get("stop_reason"), "stop_sequence": whole.get("stop_sequence")}
    totals = {key: value for key, value in usage.items() if key.endswith("_tokens") and value is not None}
    return [*found, _event("message_delta", delta=ended, usage=totals), _event("message_stop")]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the message with a tool call's input replaced, its id new, the call's id kept."""
    content = whole.get("content")
    blocks = [block for block in mappings(content) if block.get("type") == "tool_use"]
    calls = [Call(name=string(block.get("name")), given=compact(block.get("input"))) for block in blocks]
    chosen = given.choose(calls)
    usage = mapping(whole.get("usage"))
    return {
        **whole,
        "id": ids.base58("msg_01", 22),
        "content": [
            {**block, "input": given.value} if block is blocks[chosen] else block
            for block in (content if isinstance(content, list) else [])
        ],
        "usage": _moved(usage, calls[chosen].given, given.spelled()),
    }


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the events with a tool call's input replaced; what does not speak of it is as it was."""
    recorded = [(one, one.said()) for one in events]
    calls = _streamed_calls(said for _, said in recorded)
    at = list(calls)[given.choose(list(calls.values()))]
    old, spelled = calls[at].given, given.spelled(calls[at].given)
    found: list[Event] = []
    for one, said in recorded:
        kind, mine = said.get("type"), count(said.get("index")) == at
        if kind == "message_start":
            begun = {**mapping(said.get("message")), "id": ids.base58("msg_01", 22)}
            found.append(event({**said, "message": begun}, one.name))
        elif kind == "content_block_start" and mine:
            opened = {**mapping(said.get("content_block")), "input": {}}
            found.append(event({**said, "content_block": opened}, one.name))
            pieces = _input_deltas(spelled, deltas)
            found += [_event("content_block_delta", index=at, delta=delta) for delta in pieces]
        elif kind == "content_block_delta" and mine:
            continue
        elif kind == "message_delta":
            usage = mapping(said.get("usage"))
            found.append(event({**said, "usage": _moved(usage, old, spelled)}, one.name))
        else:
            found.append(one)
    return found


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return the status, the API's error body of it, and its headers."""
    usual = ("api_error", "Internal server error") if status >= 500 else ("invalid_request_error", None)
    kind, said = _ERRORS.get(status, usual)
    request_id = ids.base58("req_011", 21)
    told = {"type": kind, "message": text or said or f"The request failed with status {status}."}
    body = {"type": "error", "error": told, "request_id": request_id}
    # The API says itself that trying again may help, and the SDK goes by that.
    return status, body, ((REQUEST_ID, request_id), ("x-should-retry", "true"))


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts; where they are told by iteration, those of a compaction stand nowhere else."""
    used = mapping(usage.get("server_tool_use"))
    how: dict[str, Any] = {
        "units": billed(
            web_searches=count(used.get("web_search_requests")),
            code_executions=count(used.get("code_execution_requests")),
        ),
        "served": served_by(
            service_tier=usage.get("service_tier"),
            speed=usage.get("speed"),
            inference_geo=usage.get("inference_geo"),
        ),
    }
    parts = [_counted(one, of_model=string(one.get("model"))) for one in mappings(usage.get("iterations"))]
    if any(one.input_tokens is None or one.output_tokens is None for one in parts):
        parts = []
    return Usage.total(parts, **how) if len(parts) > 1 else _counted(usage, **how)


def _counted(usage: dict[str, Any], **more: Any) -> Usage:
    """Return the counts of one iteration, or of a call that has one."""
    return Usage.with_cache_beside(
        count(usage.get("input_tokens")),
        output=count(usage.get("output_tokens")),
        read=count(usage.get("cache_read_input_tokens")),
        written=count(usage.get("cache_creation_input_tokens")),
        hour=count(mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        thinking_tokens=count(mapping(usage.get("output_tokens_details")).get("thinking_tokens")),
        **more,
    )


def _moved(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return the usage after one tool input became another: of the last iteration, where it has several."""
    moved = {**usage, "output_tokens": shifted(usage.get("output_tokens"), old=old, new=new)}
    if parts := mappings(usage.get("iterations")):
        output = shifted(parts[-1].get("output_tokens"), old=old, new=new)
        moved["iterations"] = [*parts[:-1], {**parts[-1], "output_tokens": output}]
    return moved


def _content(role: str, content: Any) -> Turn:
    """Return a turn's content, a string or blocks, as messages."""
    if isinstance(content, str):
        return (message(role, "text", content),)
    return tuple(_message(role, block) for block in mappings(content))


def _message(role: str, block: dict[str, Any]) -> Message:
    """Return one content block as a message."""
    kind = string(block.get("type")) or ""
    if kind == "text":
        return message(role, "text", string(block.get("text")) or "")
    if kind == "thinking":
        return message(role, "thinking", string(block.get("thinking")) or "")
    if kind == "redacted_thinking":
        return message(role, "redacted_thinking", "", wire=block)
    # Server tools and MCP tools carry a prefix: server_tool_use, web_search_tool_result, mcp_tool_result …
    if kind.endswith("tool_use"):
        given = block.get("input", {})
        told, name = given if isinstance(given, str) else dumps(given), string(block.get("name"))
        return message(role, "tool_use", told, name, call_id=string(block.get("id")))
    if kind.endswith("tool_result"):
        called = string(block.get("tool_use_id"))
        told = flat(block.get("content"), _part_text)
        return message(role, "tool_result", told, called, call_id=called)
    if kind == "image":
        return message(role, "image", _media(block), wire=block)
    if kind in ("document", "search_result"):
        return message(role, "document", _part_text(block), string(block.get("title")), wire=block)
    return message(role, "other", _part_text(block), wire=block)


def _block(said: Message, ids: IdSource | None = None) -> dict[str, Any]:
    """Return a message as a content block."""
    if isinstance(said.wire, dict) and "type" in said.wire:
        return said.wire
    if said.kind == "thinking":
        return {"type": "thinking", "thinking": said.content, "signature": signature(said.content)}
    if said.kind == "tool_use":
        given = loads(said.content) if said.content else {}
        identity = call_id_of(said, ids, "toolu_01", 22)
        return {
            "type": "tool_use",
            "id": identity,
            "name": said.name,
            "input": said.content if given is None else given,
        }
    if said.kind == "tool_result":
        return {"type": "tool_result", "tool_use_id": said.call_id, "content": said.content}
    return {"type": "text", "text": said.content}


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
        return base64_note(string(source.get("media_type")), data)
    return string(source.get("url")) or string(source.get("file_id")) or dumps(source)


def _streamed_calls(said: Iterable[dict[str, Any]]) -> dict[Any, Call]:
    """Return the tool calls of a stream by the index of their block, with their inputs as they came."""
    calls: dict[Any, Call] = {}
    for one in said:
        block, delta, index = (
            mapping(one.get("content_block")),
            mapping(one.get("delta")),
            count(one.get("index")),
        )
        if one.get("type") == "content_block_start" and block.get("type") == "tool_use":
            calls[index] = Call(name=string(block.get("name")), given="")
        elif delta.get("type") == "input_json_delta" and index in calls:
            piece = string(delta.get("partial_json")) or ""
            calls[index] = Call(name=calls[index].name, given=calls[index].given + piece)
    return calls


def _event(kind: str, **members: Any) -> Event:
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


def _deltas(block: dict[str, Any], cut: Cut) -> Iterator[dict[str, Any]]:
    """Yield the deltas of a block; kinds that have none begin whole."""
    kind = string(block.get("type")) or ""
    if kind == "text":
        for piece in cut(string(block.get("text")) or ""):
            yield {"type": "text_delta", "text": piece}
        for citation in mappings(block.get("citations")):
            yield {"type": "citations_delta", "citation": citation}
    elif kind == "thinking":
        for piece in cut(string(block.get("thinking")) or ""):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": string(block.get("signature")) or ""}
    elif kind.endswith("tool_use"):
        yield from _input_deltas(spaced(block.get("input") or {}), cut)


def _input_deltas(spelled: str, cut: Cut) -> list[dict[str, Any]]:
    """Return the deltas of a tool's input: the API opens each with an empty one."""
    return [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *cut(spelled))]
