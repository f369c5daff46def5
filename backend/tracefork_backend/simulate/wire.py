"""How an answer goes to the socket exactly as it is cut: encodings, pauses, and ends that come too early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tracefork_otel.wire.codings import encoder
from tracefork_otel.wire.sse import sse_event

from ..network.asgi import Send

# Statuses whose answer has no body and no content-length.
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response in the pieces that are written one by one."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes, ...] = ()
    chunked: bool = False
    """Without a content-length, in HTTP/1.1 chunks of one part each."""
    first_delay_s: float = 0.0
    delay_s: float = 0.0
    """Pause before each part but the first."""
    cut_after: int | None = None
    """The connection is closed after this many parts; 0: before the head."""
    encoding: str | None = None
    chunk_bytes: int | None = None
    """Re-cut what goes out into writes of this many bytes."""


def encoded(parts: tuple[bytes, ...], encoding: str) -> Iterator[bytes]:
    """Yield each part as compressed bytes that a reader can decode up to the part's end."""
    stream = encoder(encoding)
    for part in parts:
        yield stream.compress(part) + stream.flush()
    yield stream.finish()


def sse(data: Mapping[str, Any] | str, *, event: str | None = None) -> bytes:
    """Return one server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return sse_event(text.encode(), event)


def _recut(parts: tuple[bytes, ...], size: int) -> tuple[bytes, ...]:
    whole = b"".join(parts)
    return tuple(whole[at : at + size] for at in range(0, len(whole), size))


def _head(answer: Answer, length: int) -> dict[str, Any]:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    if answer.encoding:
        headers.append((b"content-encoding", answer.encoding.encode()))
    if not answer.chunked and answer.status not in _BODILESS:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def write(answer: Answer, send: Send, hang_up: Callable[[], Awaitable[None]]) -> None:
    """Send the answer, each part by a write of its own, or close the connection where it says."""
    parts = tuple(encoded(answer.parts, answer.encoding)) if answer.encoding else answer.parts
    kept = parts if answer.cut_after is None else parts[: answer.cut_after]
    if answer.chunk_bytes:
        kept = _recut(kept, answer.chunk_bytes)
    if answer.first_delay_s:
        await asyncio.sleep(answer.first_delay_s)
    if answer.cut_after == 0:
        await hang_up()
        return
    await send(_head(answer, sum(map(len, parts))))
    for number, part in enumerate(kept):
        if number and answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        if part:  # an empty chunk would end the body
            await send({"type": "http.response.body", "body": part, "more_body": True})
    if answer.cut_after is not None:
        await hang_up()
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})
