"""JSON from strangers: readers that return a default where the shape is not the expected one."""

from __future__ import annotations

import json
from typing import Any

# The store's token columns are 64-bit.
MAX_COUNT = 2**63 - 1


def loads(data: bytes | str) -> Any:
    """Return the parsed value, None where it is not JSON; bytes that are not UTF-8 become U+FFFD."""
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        pass
    except (ValueError, RecursionError):
        return None
    try:
        return json.loads(data.decode("utf-8", "replace")) if isinstance(data, bytes) else None
    except (ValueError, RecursionError):
        return None


def dumps(value: Any) -> str:
    """Return the value as compact JSON, empty where it nests too deep."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""


def string(value: Any) -> str | None:
    """Return the value where it is a string, else None."""
    return value if isinstance(value, str) else None


def count(value: Any) -> int | None:
    """Return the value where it is a whole number that a 64-bit column holds, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    return None


def mapping(value: Any) -> dict[str, Any]:
    """Return the value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the objects in the value where it is an array, else an empty list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def clean(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced, so that it encodes as UTF-8.

    JSON escapes can carry half a character, and deltas can split a pair; a trailing first half is dropped,
    because a cut there must leave a prefix of the whole.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        if "\ud800" <= text[-1] <= "\udbff":
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
