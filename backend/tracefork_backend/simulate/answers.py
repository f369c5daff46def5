"""Turns a behaviour's reply into the response that goes on the wire, for each API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from . import anthropic, gemini, openai_chat, openai_responses
from .model import Ids, Operation, Provider, Reply, count, count_tokens
from .wire import Answer

# A slow answer without a pace of its own: long against loopback, short against a client's time limit.
_SLOW_S = 0.2
# A JSON answer that is paced or breaks off goes out in this many parts.
_JSON_PARTS = 4
_DISCONNECT_AFTER = 3
_STATUS_FAULTS = ("429", "500", "529")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API: where it is, who reads and writes its messages, and how its provider lays JSON out."""

    provider: Provider
    operation: Operation
    wire: ModuleType
    """Has read, check, whole, stream and error_event."""
    common: ModuleType
    """Has error and headers, which an API shares with its provider's others."""
    indent: int | None


DIALECTS = {
    "/v1/messages": Dialect("anthropic", "messages", anthropic, anthropic, None),
    "/v1/chat/completions": Dialect("openai", "chat", openai_chat, openai_chat, 2),
    "/v1/responses": Dialect("openai", "responses", openai_responses, openai_chat, 2),
}
_GEMINI = Dialect("gemini", "generate_content", gemini, gemini, 2)


def dialect_of(path: str) -> tuple[Dialect, Mapping[str, Any]] | None:
    """The API at a path, and what of the request the path tells; None where no API is there."""
    if path in DIALECTS:
        return DIALECTS[path], {}
    found = gemini.called(path)
    return None if found is None else (_GEMINI, {"model": found[0], "stream": found[1]})


def _json(
    common: ModuleType, body: Mapping[str, Any], ids: Ids, *, status: int = 200, indent: int | None = None
) -> Answer:
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(body, indent=indent, separators=separators, ensure_ascii=False)
    headers = (("content-type", "application/json"), *common.headers(body, ids))
    return Answer(status=status, headers=headers, parts=(text.encode(),))


def token_count(request: bytes, ids: Ids) -> Answer:
    """The answer of Anthropic's token counting, by the same estimate that usage is made with."""
    return _json(anthropic, {"input_tokens": count_tokens(len(request))}, ids)


def not_found(path: str, ids: Ids) -> Answer:
    """The provider's answer where it has no such route."""
    common = anthropic if "messages" in path else gemini if "/models/" in path else openai_chat
    return _json(common, common.error(404, f"Not found: {path}", ids), ids, status=404)


def failure(dialect: Dialect, reply: Reply, ids: Ids) -> Answer:
    """The provider's error answer for the reply's fault or status."""
    status = int(reply.fault) if reply.fault in _STATUS_FAULTS else reply.status
    if dialect.wire is gemini:
        status = gemini.status_of(status)
    body = dialect.common.error(status, reply.text, ids)
    answer = _json(dialect.common, body, ids, status=status, indent=dialect.indent)
    wait = 1.0 if reply.retry_after is None and status == 429 else reply.retry_after
    extra = reply.headers if wait is None else (("retry-after", f"{wait:g}"), *reply.headers)
    return replace(
        answer,
        headers=answer.headers + extra,
        first_delay_s=reply.first_delay_s,
        encoding=reply.encoding,
    )


def answer(dialect: Dialect, body: Mapping[str, Any], reply: Reply, *, length: int, ids: Ids) -> Answer:
    """The response to a valid request of `length` bytes."""
    streamed = body.get("stream") is True
    breaks_stream = streamed and reply.cut_after_events is not None
    if reply.status >= 400 or (reply.fault in _STATUS_FAULTS and not breaks_stream):
        return failure(dialect, reply, ids)
    base = Answer(
        status=reply.status,
        first_delay_s=reply.first_delay_s,
        delay_s=reply.chunk_delay_s or (_SLOW_S if reply.fault == "slow" else 0.0),
        encoding=reply.encoding,
        chunk_bytes=reply.chunk_bytes,
    )
    return (
        _streamed(dialect, body, reply, base=base, length=length, ids=ids)
        if streamed
        else _whole(dialect, body, reply, base=base, length=length, ids=ids)
    )


def _whole(
    dialect: Dialect, body: Mapping[str, Any], reply: Reply, *, base: Answer, length: int, ids: Ids
) -> Answer:
    message = dialect.wire.whole(body, reply, count(reply, length), ids)
    plain = _json(dialect.common, message, ids, indent=dialect.indent)
    text, parts, cut = plain.parts[0], plain.parts, None
    if base.delay_s or reply.fault == "disconnect":
        step = max(1, -(-len(text) // _JSON_PARTS))
        parts = tuple(text[at : at + step] for at in range(0, len(text), step))
    if reply.fault == "disconnect":
        cut = 0 if reply.cut_after_events == 0 else _JSON_PARTS // 2
    return replace(base, headers=plain.headers + reply.headers, parts=parts, cut_after=cut)


def _streamed(
    dialect: Dialect, body: Mapping[str, Any], reply: Reply, *, base: Answer, length: int, ids: Ids
) -> Answer:
    parts = tuple(dialect.wire.stream(body, reply, count(reply, length), ids))
    headers = (
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        *dialect.common.headers({}, ids),
        *reply.headers,
    )
    cut = _DISCONNECT_AFTER if reply.cut_after_events is None else reply.cut_after_events
    if reply.fault in _STATUS_FAULTS:
        broken = dialect.common.error(int(reply.fault), None, ids)
        parts = (*parts[:cut], dialect.wire.error_event(broken))
    closes = cut if reply.fault == "disconnect" else None
    return replace(base, headers=headers, parts=parts, chunked=True, cut_after=closes)
