"""JSON from strangers: readers that return a default where the shape is not the expected one."""

from __future__ import annotations

import json
import re
from typing import Any

# How far from the start, and at least from the end, a key is looked for before the whole is parsed: counting
# brackets costs more per byte than parsing, so it pays only where it can leave most bytes out.
NEAR = 4096
# The store's token columns are 64-bit.
MAX_COUNT = 2**63 - 1

_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


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


def top_level_string(body: bytes, key: str) -> str | None:
    """Return the string at a key of the outermost object of valid JSON, parsing the rest only where it must.

    In valid JSON the bytes `"key"` with no backslash before them are a whole string token, so only the depth
    of each such key has to be known, and brackets count from the end as well as from the start: clients put
    short keys before or after the long ones. Of keys that stand there twice, either answers.
    """
    token = b'"' + key.encode() + b'"'
    found = _from_front(body, token) or _from_back(body, token)
    return string(loads(found) if found is not None else mapping(loads(body)).get(key))


def _from_front(body: bytes, token: bytes) -> bytes | None:
    """Return the string after the outermost token near the start, None where that is not certain."""
    start, depth, seek = 0, 0, 0
    while (at := body.find(token, seek, NEAR)) >= 0:
        change = _depth_change(body[start:at])
        if change is None:
            return None
        depth += change
        value = _VALUE.match(body, at + len(token))
        if depth == 1 and value is not None:
            return value[1]
        start, seek = at, at + 1
    return None


def _from_back(body: bytes, token: bytes) -> bytes | None:
    """Return the string after the last outermost token, None where it is not certain or far from the end."""
    end, depth = len(body), 0
    floor = min(len(body) // 2, len(body) - NEAR)
    while (at := body.rfind(token, max(floor, 0), end)) >= 0:
        change = _depth_change(body[at:end])
        if change is None or body[at - 1 : at] == b"\\":
            return None
        depth -= change
        value = _VALUE.match(body, at + len(token))
        if depth == 1 and value is not None:
            return value[1]
        end = at
    return None


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
