"""Bodies as people read them, in a terminal and on a page."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tracefork_otel.wire.facts import recorded_body
from tracefork_otel.wire.websocket import is_websocket, messages

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange, Response

_BASE64 = re.compile(r"(data:[\w/+.;=-]+,)?[A-Za-z0-9+/_-]+={0,2}")
_PICTURE = 2000
"""Characters from which such a text is no id, key or signature that a person reads."""
_SHOWN = 60


def said(exchange: Exchange) -> list[str]:
    """Return what both sides of a websocket said, a line each and when; nothing of any other exchange."""
    response = exchange.response
    if response is None or not is_websocket(exchange):
        return []
    try:
        told = messages(response.chunks())
    except ValueError:
        return []  # of another's making: as it is
    lines: list[str] = []
    for one, at in zip(told, response.chunk_offsets_us or (0,) * len(told), strict=False):
        if isinstance(one.data, bytes):
            what = f"({len(one.data)} bytes: {one.data[:16].hex(' ')}{' …' if len(one.data) > 16 else ''})"
        elif one.data is not None:
            what = _in_a_line(one.data)
        else:
            what = " ".join(["closed the connection:", str(one.code or "no code"), one.reason]).rstrip()
        lines.append(f"{at / 1e6:9.3f} s  {one.sender + ':':8}{what}")
    return lines


def _in_a_line(text: str) -> str:
    try:
        return json.dumps(without_pictures(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text.rstrip("\n")


def decoded(response: Response) -> bytes:
    """Return the body with its content encoding undone, as it came where that cannot be done."""
    body = recorded_body(response)
    return response.body if body is None else body


def pretty(body: bytes) -> str:
    """Return a body for a person: JSON indented, other text as it is, bytes as a count and their start."""
    if not body:
        return "(empty body)"
    try:
        return json.dumps(without_pictures(json.loads(body)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode().rstrip("\n")
    except UnicodeDecodeError:
        return f"({len(body)} bytes, not text: {body[:32].hex(' ')} …)"


def without_pictures(value: Any) -> Any:
    """Return the value with long base64 texts (pictures, documents, audio) as their start and length."""
    if isinstance(value, dict):
        return {name: without_pictures(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_pictures(one) for one in value]
    if isinstance(value, str) and len(value) > _PICTURE and _BASE64.fullmatch(value):
        return f"{value[:_SHOWN]}… ({len(value)} base64 characters)"
    return value
