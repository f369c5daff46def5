"""Server-sent events, read from the bytes of a whole (or cut) body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_DATA = re.compile(r"^data:[ ]?([^\r\n]*)", re.M)


def sse_events(body: bytes) -> Iterator[tuple[str | None, bytes]]:
    """Yield each finished event that carries data, as (event name or None, data).

    What follows the last blank line is an event that the client never saw, so it is not one here either.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    name: str | None = None
    data: list[bytes] = []
    lines = body.split(b"\n")
    del lines[-1]
    for line in lines:
        if not line:
            if data:
                yield name, data[0] if len(data) == 1 else b"\n".join(data)
            name, data = None, []
            continue
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace") or None


def is_sse(body: bytes, content_type: str | None) -> bool:
    """Return whether the body is a stream of events: by its content type, else by how it begins."""
    if content_type is not None and "event-stream" in content_type.lower():
        return True
    return body[:64].lstrip().startswith((b"event:", b"data:", b":", b"id:", b"retry:"))


def data_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the value of each `data` line begins and ends."""
    return (found.span(1) for found in _DATA.finditer(text))


def sse_event(data: bytes, name: str | None = None, *, end: bytes = b"\n") -> bytes:
    """Return one event, every line of its data behind a field of its own."""
    lines = [b"data: " + line for line in data.split(b"\n")]
    if name:
        lines.insert(0, b"event: " + name.encode())
    return b"".join(line + end for line in lines) + end
