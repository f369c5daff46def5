"""How bodies and links are told on spans and in the store's records of them, and what spans tell."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from ..exchange import Headers


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
    """Return the attributes of a body's event: length and digest of the whole, text up to `limit` bytes."""
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
    try:
        event["tracefork.body"] = body.decode() if not truncated else _prefix(body[:limit])
    except UnicodeDecodeError:
        event["tracefork.body"] = body[:limit]
    return event


def _prefix(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # A character that the limit cut in two is left out; anything else says that this is no text.
        if error.reason == "unexpected end of data":
            return data[: error.start].decode()
        raise
