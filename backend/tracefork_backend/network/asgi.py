"""Requests as an ASGI server hands them on, and short answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .addresses import is_loopback

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[0-9a-z._-]+))(?::[0-9]*)?", re.IGNORECASE)
_NO_RETRY = (b"x-should-retry", b"false")


class TooLarge(Exception):
    """A request body is longer than the limit."""


class NoRoom(Exception):
    """Other requests take the room that a server has for them."""


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that lower-case name, or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def path_of(scope: Scope) -> str:
    """Return path and query as they were sent; a `?` behind which nothing stands is the path's."""
    query = scope["query_string"].decode("latin-1")
    return scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")


def is_foreign(scope: Scope, listening_on: str) -> bool:
    """Return whether a request to a loopback server names another host, as a rebound web page does."""
    if not is_loopback(listening_on):
        return False
    named = header(scope, b"host")
    if named is None:
        return scope.get("http_version") != "1.0"
    found = _HOST.fullmatch(named)
    return found is None or not is_loopback((found["address"] or found["name"]).lower().removesuffix("."))


@dataclass(slots=True)
class Room:
    """How many requests a server has at once, and bytes of them, those that have come by half among them."""

    most: float = math.inf
    most_requests: float = math.inf
    held: int = 0
    requests: int = 0

    def _left(self) -> bool:
        if self.held > self.most or self.requests > self.most_requests:
            raise NoRoom
        return True

    @contextlib.asynccontextmanager
    async def body(self, scope: Scope, receive: Receive, limit: float = math.inf) -> AsyncIterator[bytes]:
        """Yield the whole body of a request, which takes its room until the block ends.

        Raises TooLarge as soon as it is known to be, NoRoom where there is none, ClientLeft if it never ends.
        """
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise TooLarge
        body = bytearray()  # not a list of parts: a client may send a byte in each
        mine, more = 0, True
        self.requests += 1
        try:
            while self._left() and more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part = message.get("body", b"")
                body += part
                mine += len(part)
                self.held += len(part)
                if mine > limit:
                    raise TooLarge
                more = message.get("more_body", False)
            whole = bytes(body)
            body.clear()
            yield whole
        finally:
            self.held -= mine
            self.requests -= 1


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
