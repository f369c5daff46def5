"""JSON as the columns of text hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(value: object) -> str:
    """Return compact JSON that any reader takes: no NaN, and U+FFFD for half of a surrogate pair."""
    if not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    try:
        text = _encode(value)
    except ValueError:
        value = _finite(value)
        text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str, check_circular=False
).encode
