"""How bodies and links are told on spans and in the store's records of them, and what spans tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ..exchange import Headers, Outcome, Request, Response

CONTENT = frozenset(
    {
        "exception.message",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "tracefork.arguments",
        "tracefork.call.state",
        "tracefork.call.state.lost",
        "tracefork.drift",
        "tracefork.fork.problem.text",
        "tracefork.output",
        "tracefork.result",
        "tracefork.tool.error",
    }
)
"""Attributes of spans of ours that hold texts of the agent's."""


BELOW_CALL = "tracefork.below_call"
"""On a call's exchange: whether it lies below the call's own span, of another's making, with its usage."""


def link_record(link: Any) -> dict[str, object]:
    """Return an OTel link as the store keeps it."""
    return {
        "trace_id": f"{link.context.trace_id:032x}",
        "span_id": f"{link.context.span_id:016x}",
        "attributes": dict(link.attributes or {}),
    }


def service_of(span: Any) -> str | None:
    """Return the service that the span's provider names, None where it names none or cannot be asked."""
    resource = getattr(span, "resource", None)
    name = None if resource is None else resource.attributes.get("service.name")
    return name if isinstance(name, str) and not name.startswith("unknown_service") else None


def body_event(body: bytes, headers: Headers, limit: int) -> dict[str, Any]:
    """Return the attributes of a body's event: length and digest of the whole, text up to `limit` bytes.

    With a limit of 0 a body that is not empty is told by its length and digest alone.
    """
    event: dict[str, Any] = {
        "tracefork.body.length": len(body),
        "tracefork.body.sha256": sha256(body).hexdigest(),
    }
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type":
            event["tracefork.body.content_type"] = value
        elif lower == "content-encoding":
            event["tracefork.body.content_encoding"] = value
    truncated = len(body) > limit
    event["tracefork.body.truncated"] = truncated
    if truncated and limit == 0:
        return event
    try:
        event["tracefork.body"] = body.decode() if not truncated else _prefix(body[:limit])
    except UnicodeDecodeError:
        event["tracefork.body"] = body[:limit]
    return event


LEFT_OUT = re.compile(r"\n\.\.\. \d+ bytes left out \.\.\.\n")
"""What stands between the beginning and the end of a text that was cut."""


def cut(text: str, limit: int) -> str:
    """Return the text, or as much of its beginning as takes `limit` bytes."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def ends(text: str, limit: int) -> tuple[str, int]:
    """Return the text, or its beginning and end in `limit` bytes, and how much that leaves out."""
    if len(text) * 4 <= limit:
        return text, 0
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text, 0
    note = f"\n... {len(data) - limit} bytes left out ...\n"
    half = max(0, limit - len(note)) // 2
    head, tail = (part.decode("utf-8", "ignore") for part in (data[:half], data[len(data) - half :]))
    return f"{head}{note}{tail}", len(data) - 2 * half


def exported(attributes: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the attributes as the user's exporters may have them: the agent's texts cut, or left out."""
    return {
        name: cut(str(value), limit) if name in CONTENT else value
        for name, value in attributes.items()
        if limit or name not in CONTENT
    }


def exported_message(message: str | None, limit: int) -> str | None:
    """Return the message of a span of ours as the user's exporters may have it: at least what kind it is."""
    return message if message is None or limit else message.partition(":")[0]


def begun_attributes(
    request: Request, *, seq: int, replayed: bool, host: str, port: int | None
) -> dict[str, Any]:
    """Return what an exchange's span says of its request."""
    told: dict[str, Any] = {
        "tracefork.exchange": True,
        "tracefork.seq": seq,
        "tracefork.replayed": replayed,
        "http.request.method": request.method,
        "url.full": request.url,
        "server.address": host,
    }
    if port is not None:
        told["server.port"] = port
    return told


def ended_attributes(
    response: Response | None, outcome: Outcome, error_type: str | None, *, failed: bool
) -> dict[str, Any]:
    """Return what an exchange's span says of how it ended."""
    told: dict[str, Any] = {}
    if response is not None:
        told["http.response.status_code"] = response.status
        told["network.protocol.version"] = response.http_version.removeprefix("HTTP/")
    else:
        told["tracefork.outcome"] = outcome
    if error_type is not None or (failed and response is not None):
        told["error.type"] = error_type or str(response.status if response else "_OTHER")
    return told


def exchange_events(
    request: Request,
    response: Response | None,
    outcome: Outcome,
    limit: int,
    *,
    started_ns: int,
    ended_ns: int,
) -> list[dict[str, Any]]:
    """Return the events of an exchange's span as records have them: its bodies as far as the limit allows."""
    asked = body_event(request.body, request.headers, limit)
    events = [{"name": "tracefork.request.body", "time_ns": started_ns, "attributes": asked}]
    if response is not None:
        said = body_event(response.body, response.headers, limit)
        said["tracefork.chunk.sizes"] = response.chunk_sizes
        said["tracefork.chunk.offsets_us"] = response.chunk_offsets_us
        said["tracefork.outcome"] = outcome
        events.append({"name": "tracefork.response.body", "time_ns": ended_ns, "attributes": said})
    return events


def _prefix(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # A character that the limit cut in two is left out; anything else says that this is no text.
        if error.reason == "unexpected end of data":
            return data[: error.start].decode()
        raise
