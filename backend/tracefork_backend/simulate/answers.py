"""A behaviour's reply as the response that goes on the wire, for each API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tracefork_otel.wire import messages as wire
from tracefork_otel.wire.messages import message
from tracefork_otel.wire.registry import load

from .apis import APIS, Api, spelled
from .model import Ids, Reply, Usage, count_tokens, cut
from .wire import Answer

# A slow answer without a pace of its own: long against loopback, short against a client's time limit.
_SLOW_S = 0.2
# A JSON answer that is paced or breaks off goes out in this many parts.
_JSON_PARTS = 4
_DISCONNECT_AFTER = 3
_STATUS_FAULTS = ("429", "500", "529")


def _json(
    api: Api, body: Mapping[str, Any], ids: Ids, *, status: int = 200, indent: int | None = None
) -> Answer:
    headers = (("content-type", "application/json"), *api.headers(body, ids))
    return Answer(status=status, headers=headers, parts=(spelled(body, indent),))


def token_count(request: bytes, ids: Ids) -> Answer:
    """Return the answer of Anthropic's token counting, by the same estimate that usage is made with."""
    return _json(APIS["anthropic"], {"input_tokens": count_tokens(len(request))}, ids)


def not_found(path: str, ids: Ids) -> Answer:
    """Return the provider's answer where it has no such route."""
    name = "anthropic" if "messages" in path else "gemini" if "/models/" in path else "openai_chat"
    status, body, _ = load(name).error(404, ids, f"Not found: {path}")
    return _json(APIS[name], body, ids, status=status)


def failure(api: Api, reply: Reply, ids: Ids) -> Answer:
    """Return the provider's error answer for the reply's fault or status."""
    status = int(reply.fault) if reply.fault in _STATUS_FAULTS else reply.status
    status, body, _ = load(api.form).error(status, ids, reply.text)
    answer = _json(api, body, ids, status=status, indent=api.indent)
    wait = 1.0 if reply.retry_after is None and status == 429 else reply.retry_after
    extra = reply.headers if wait is None else (("retry-after", f"{wait:g}"), *reply.headers)
    return replace(
        answer,
        headers=answer.headers + extra,
        first_delay_s=reply.first_delay_s,
        encoding=reply.encoding,
    )


def answer(api: Api, body: Mapping[str, Any], reply: Reply, *, length: int, ids: Ids) -> Answer:
    """Return the response to a valid request of `length` bytes."""
    streamed = body.get("stream") is True
    breaks_stream = streamed and reply.cut_after_events is not None
    if reply.status >= 400 or (reply.fault in _STATUS_FAULTS and not breaks_stream):
        return failure(api, reply, ids)
    base = Answer(
        status=reply.status,
        first_delay_s=reply.first_delay_s,
        delay_s=reply.chunk_delay_s or (_SLOW_S if reply.fault == "slow" else 0.0),
        encoding=reply.encoding,
        chunk_bytes=reply.chunk_bytes,
    )
    said = _said(api, reply, length)
    whole = load(api.form).write_reply(said, request=dict(body), frame=api.frame(ids), ids=ids)
    if streamed:
        return _streamed(api, body, reply, whole, base=base, ids=ids)
    return _whole(api, reply, whole, base=base, ids=ids)


def _said(api: Api, reply: Reply, length: int) -> wire.Reply:
    """Return the reply as the wire forms take it; a thought has no place in a chat completion."""
    said: list[wire.Message] = []
    if reply.thinking is not None and api.operation != "chat":
        said.append(message("assistant", "thinking", reply.thinking))
    if reply.content or not (reply.tools or api.provider == "gemini"):
        said.append(message("assistant", "text", reply.content))
    for tool in reply.tools:
        said.append(message("assistant", "tool_use", tool.arguments, tool.name, call_id=tool.id))
    return wire.Reply(choices=(tuple(said),), finish_reasons=(reply.stop,), usage=_usage(reply, length))


def _usage(reply: Reply, request_length: int) -> wire.Usage:
    """Return the answer's tokens: as the reply says, else estimated from both lengths."""
    said = reply.usage or Usage()
    thinking = count_tokens(len(reply.thinking.encode())) if reply.thinking else 0
    written = reply.content + "".join(tool.name + tool.arguments for tool in reply.tools)
    given = count_tokens(request_length) if said.input_tokens is None else said.input_tokens
    output = (
        thinking + count_tokens(len(written.encode())) if said.output_tokens is None else said.output_tokens
    )
    return wire.Usage(
        input_tokens=max(given, said.cached_tokens),
        output_tokens=output,
        cached_tokens=said.cached_tokens,
        thinking_tokens=min(thinking, output),
    )


def _whole(api: Api, reply: Reply, whole: dict[str, Any], *, base: Answer, ids: Ids) -> Answer:
    plain = _json(api, whole, ids, indent=api.indent)
    text, parts, closes = plain.parts[0], plain.parts, None
    if base.delay_s or reply.fault == "disconnect":
        step = max(1, -(-len(text) // _JSON_PARTS))
        parts = tuple(text[at : at + step] for at in range(0, len(text), step))
    if reply.fault == "disconnect":
        closes = 0 if reply.cut_after_events == 0 else _JSON_PARTS // 2
    return replace(base, headers=plain.headers + reply.headers, parts=parts, cut_after=closes)


def _streamed(
    api: Api, body: Mapping[str, Any], reply: Reply, whole: dict[str, Any], *, base: Answer, ids: Ids
) -> Answer:
    form = load(api.form)
    framing = form.FRAMINGS[0]

    def pieces(text: str) -> tuple[str, ...]:
        return reply.deltas() if text == reply.content else cut(text, reply.chunk_chars)

    events = form.write_events(dict(body), whole, pieces)
    headers = (
        ("content-type", framing.content_type),
        ("cache-control", "no-cache"),
        *api.headers({}, ids),
        *reply.headers,
    )
    at = _DISCONNECT_AFTER if reply.cut_after_events is None else reply.cut_after_events
    if reply.fault in _STATUS_FAULTS:
        events = [*events[:at], api.broken(form.error(int(reply.fault), ids)[1])]
    closes = at if reply.fault == "disconnect" else None
    parts = tuple(framing.write(events))
    return replace(base, headers=headers, parts=parts, chunked=True, cut_after=closes)
