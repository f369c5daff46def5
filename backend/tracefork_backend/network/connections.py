"""HTTP/1.1 connections of a server: each can be found, and none waits for ever for the rest of a request."""

from __future__ import annotations

import asyncio
import resource
import socket
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

ARRIVAL_S = 60.0
"""A request has so long to arrive, from the connection's start or from its first byte."""
SLOWEST = 64 * 1024
"""Bytes a second: a large body has more time, as long as it comes at least so fast."""
LINGER_S = 5.0
"""Who was refused before its body had come may go on sending for so long, or it would miss the answer."""
MOST_WAITING = 512
"""Of connections that wait for a request, so many are kept however long they wait."""
PATIENCE_S = 5.0
"""Where more wait, one that has waited for so long makes room; 1,000 at once are read within one second."""
FOR_CLIENTS = 0.75
"""Of the files that a process may open: the others are the store's. Where clients have more connections,
those whose request has not come make room at once, the oldest first."""
FOR_ANSWERS = 0.25
"""Of the files that a process may open, for connections to upstreams, one for each request that goes on."""
MOST_AT_ALL = 65_536
"""So many may there be where a process may open any number."""


def share_of_files(share: float) -> int:
    """Return that share of the files that the process may open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_AT_ALL if allowed == resource.RLIM_INFINITY else int(allowed * share)


@dataclass(slots=True)
class Connections:
    """The connections of one server."""

    most_at_once: int
    arrival_s: float = ARRIVAL_S
    transports: dict[tuple[str, int], asyncio.Transport] = field(
        default_factory=dict[tuple[str, int], asyncio.Transport]
    )
    """All, by their peer's address."""
    idle: dict[Connection, float] = field(default_factory=dict["Connection", float])
    """Those that were answered and are kept, and since when, in that order."""
    waiting: dict[Connection, float] = field(default_factory=dict["Connection", float])
    """Those whose request has yet to come, and since when, in that order."""

    def make_room(self, now: float) -> None:
        """Have room for one more: close who waited for long, idle ones first; any if files are scarce."""
        # A whole backlog is accepted before anything is read: who has just come may have sent all there is.
        for line in (self.idle, self.waiting):
            while line:
                scarce = len(self.transports) > self.most_at_once
                first, since = next(iter(line.items()))
                if not scarce and len(self.idle) + len(self.waiting) < MOST_WAITING:
                    return
                if not scarce and now - since < PATIENCE_S:
                    break
                first.drop()


class _BareMark(bytes):
    """A target that ends with a `?`, which uvicorn's scope would leave out: it has no query to tell of."""

    def partition(self, sep: Any, /) -> tuple[bytes, bytes, bytes]:
        """Give it all as the path, where it is divided into path and query."""
        return bytes(self), b"", b""


def _with_bare_mark(event: Any) -> Any:
    if isinstance(event, h11.Request) and event.target.find(b"?") == len(event.target) - 1:
        object.__setattr__(event, "target", _BareMark(event.target))
    return event


class Connection(H11Protocol):
    """A connection that writes without delay, and is closed where its request does not arrive in time."""

    def __init__(self, open_ones: Connections, **given: Any) -> None:
        super().__init__(**given)
        told = self.conn.next_event
        vars(self.conn)["next_event"] = lambda: _with_bare_mark(told())
        self._open = open_ones
        self._timer: asyncio.TimerHandle | None = None
        self._came = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection, and wait for its request."""
        super().connection_made(transport)
        # asyncio sets this only where the listening socket was made with its protocol named.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = transport.get_extra_info("peername")[:2]
        self._open.transports[self._peer] = transport
        self._wait(self._open.arrival_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._open.transports.pop(self._peer, None)
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; once a request is whole, nothing more is waited for."""
        self._came += len(data)
        super().data_received(data)
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Refuse what breaks off or is no HTTP; an application that waits for its rest is let go."""
        super().send_400_response(msg)
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Wait for the next request, or let the rest of this one run out."""
        answered = self.cycle
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.cycle is not answered:  # the next one had come already
            self._look()
        elif answered.more_body:
            self._arrived()
            self._wait(LINGER_S)
        else:
            self._stand_in(self._open.idle)  # uvicorn's limit for them holds until a byte comes

    def _look(self) -> None:
        cycle = self.cycle
        if self.transport.is_closing() or (cycle and not (cycle.more_body or cycle.response_complete)):
            self._arrived()
        elif self._timer is None:
            self._wait(self._open.arrival_s)

    def _wait(self, limit_s: float) -> None:
        self._came = 0
        self._timer = self.loop.call_later(limit_s, self._late, self.loop.time() + limit_s)
        self._open.idle.pop(self, None)
        self._stand_in(self._open.waiting)

    def _stand_in(self, line: dict[Connection, float]) -> None:
        now = self.loop.time()
        self._open.make_room(now)
        line[self] = now

    def drop(self) -> None:
        """Close the connection at once, whatever was still to be sent."""
        self._arrived()
        self._open.transports.pop(self._peer, None)
        self.transport.abort()

    def _late(self, end: float) -> None:
        more = 0.0 if self.cycle and self.cycle.response_complete else self._came / SLOWEST
        left = end + more - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._late, end)
        else:
            self.drop()

    def _arrived(self) -> None:
        self._open.idle.pop(self, None)
        self._open.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
