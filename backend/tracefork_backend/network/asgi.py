"""Requests as an ASGI server hands them on, and short answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .addresses import is_loopback

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

_NO_RETRY = (b"x-should-retry", b"false")


class TooLarge(Exception):
    """A request body is longer than the limit."""


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that lower-case name, or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def path_of(scope: Scope) -> str:
    """Return path and query as they were sent."""
    query = scope["query_string"].decode("latin-1")
    return scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")


def is_foreign(scope: Scope, listening_on: str) -> bool:
    """Return whether a request to a loopback server names another host, as a rebound web page does."""
    if not is_loopback(listening_on):
        return False
    named = header(scope, b"host")
    if named is None:
        return scope.get("http_version") != "1.0"
    host = named.rpartition("]")[0].removeprefix("[") if named.startswith("[") else named.partition(":")[0]
    return not is_loopback(host.lower().rstrip("."))


async def read_body(scope: Scope, receive: Receive, limit: float = math.inf) -> bytes:
    """Return the whole body of a request.

    Raises TooLarge as soon as it is known to be, ClientLeft if it never ends.
    """
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise TooLarge
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def left(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


async def answer(
    send: Send, status: int, body: bytes, content_type: str, extra: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a short answer."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, status: int, kind: str, text: str, *, retry: bool = False) -> None:
    """Send an error as Anthropic's and OpenAI's clients read it, the same bytes for the same text.

    They are told not to try again, unless `retry` leaves that to them.
    """
    body = json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()
    await answer(send, status, body, "application/json", () if retry else (_NO_RETRY,))
