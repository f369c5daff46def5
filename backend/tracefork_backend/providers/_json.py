"""JSON from strangers: readers that return a default where the shape is not the expected one."""

from __future__ import annotations

import json
import re
from typing import Any

# A request with more keys of the wanted name than this is parsed whole, which is then the cheaper way.
MAX_CANDIDATES = 16
# The store's token columns are 64-bit.
MAX_COUNT = 2**63 - 1

_VALUE = re.compile(rb'\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*"|.)', re.DOTALL)


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
    """Return the value as compact-enough JSON that people read, empty where it nests too deep."""
    try:
        return json.dumps(value, ensure_ascii=False)
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


def top_level_string(body: bytes, key: str) -> str | None:
    """Return the string at a key of the outermost object, parsing the rest only where it must.

    In valid JSON the bytes `"key"` with no backslash before them are a whole string token, so only the depth
    of each such key has to be known; escaped and nested keys therefore never answer for the outermost one.
    """
    found, certain = _scan(body, b'"' + key.encode() + b'"')
    if certain:
        return found
    return string(mapping(loads(body)).get(key))


def _scan(body: bytes, token: bytes) -> tuple[str | None, bool]:
    """Return the value at the last outermost token, and whether the scan can answer for a full parse."""
    found, seen, start, depth, candidates = None, False, 0, 0, 0
    while (at := body.find(token, start)) >= 0:
        candidates += 1
        if candidates > MAX_CANDIDATES:
            return None, False
        end = at + len(token)
        value = _VALUE.match(body, end)
        if body[at - 1 : at] == b"\\" or value is None:
            # The end of a longer string, or a value and not a key: its closing quote still has to be counted.
            step = _depth_change(body[start:end])
        else:
            before = _depth_change(body[start:at])
            if before is not None and depth + before == 1:
                text = value[1]
                found, seen = (string(loads(text)) if text.startswith(b'"') else None), True
            step = before
        if step is None:
            return None, False
        depth += step
        start = end
    return found, seen


def _depth_change(part: bytes) -> int | None:
    """Return how many more brackets the part opens than it closes, None where it ends inside a string."""
    if b"\\" in part:
        part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
    pieces = part.split(b'"')
    if len(pieces) % 2 == 0:
        return None
    outside = b"".join(pieces[::2])
    opened = outside.count(b"{") + outside.count(b"[")
    return opened - outside.count(b"}") - outside.count(b"]")
