"""Conversations on exchange spans, by OTel's GenAI convention, for those whose environment asks for them.

The store has the bodies whole anyway; this is for backends that show a conversation. Nothing here raises.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..log import warn_once
from ..wire.codings import decode_body
from ..wire.genai import INPUT, OUTPUT, SYSTEM, USAGE, told_of

if TYPE_CHECKING:
    from ..exchange import Response

_LIMIT = 64 * 2**20
"""The largest body that is read beside the agent."""


def content_attributes(
    url: str, request: bytes, response: Response | None, *, limit: int, usage: bool = True
) -> dict[str, str | int | list[str]]:
    """Return the attributes that these bodies add to their exchange's span, none in an unknown format.

    `usage` says whether the tokens are among them: below the call's own span they would be counted twice.

    Messages take at most about `limit` bytes together, the answer and the newest first;
    `tracefork.content.truncated` says that some were left out.
    """
    try:
        found = _attributes(url, request, response, limit)
        return {name: value for name, value in found.items() if usage or not name.startswith(USAGE)}
    except Exception as error:
        warn_once(
            "content",
            "message content could not be put on a span (%s: %s); the bodies are stored all the same",
            type(error).__name__,
            error,
        )
        return {}


def _attributes(
    url: str, request: bytes, response: Response | None, limit: int
) -> dict[str, str | int | list[str]]:
    body, content_type = None, None
    if response is not None:
        body = decode_body(response.body, response.header("content-encoding"), limit=_LIMIT)
        content_type = response.header("content-type")
    told = told_of(url, request, body, content_type)
    if told is None:
        return {}
    attributes = {name: _clean(value) for name, value in told.facts.items()}
    truncated = False
    for name, messages in ((OUTPUT, told.outputs), (SYSTEM, told.system), (INPUT, told.inputs)):
        if messages:
            text, cut = _fitted(messages, limit)
            attributes[name] = text
            limit -= len(text.encode())
            truncated = truncated or cut
    if truncated:
        attributes["tracefork.content.truncated"] = True
    return attributes


def _clean(value: str | int | list[str]) -> str | int | list[str]:
    """Return the value as OTLP can carry it: one that it cannot would fail a whole batch."""
    if isinstance(value, list):
        return [_text(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Return the text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _fitted(messages: list[dict[str, Any]], limit: int) -> tuple[str, bool]:
    """Return the newest messages as JSON of at most `limit` bytes, and whether something was left out."""
    kept: list[str] = []
    left = limit - 2
    for message in reversed(messages):
        text = _dumped(message)
        if len(text.encode()) + 2 > left:
            if not kept:
                cut = _dumped(_cut(message, limit))
                kept += [cut] if len(cut.encode()) + 2 <= limit else []
            break
        left -= len(text.encode()) + 2
        kept.append(text)
    return f"[{', '.join(reversed(kept))}]", len(kept) < len(messages) or (left == limit - 2)


def _dumped(message: Any) -> str:
    return _text(json.dumps(message, ensure_ascii=False))


def _cut(value: Any, limit: int) -> Any:
    """Return the value with each string cut to a share of the limit, so that a few of them fit."""
    if isinstance(value, dict):
        return {name: _cut(item, limit) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, limit // max(1, len(value))) for item in value]
    share = max(0, limit // 8)
    return f"{value[:share]}…" if isinstance(value, str) and len(value) > share + 1 else value
