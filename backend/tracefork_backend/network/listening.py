"""The sockets and the thread under the proxy and the receiver, and who may talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TypeAlias

from tracefork_otel.errors import UsageError

from .listen import Listener

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

_NAMES = frozenset({"localhost", "host.docker.internal"})
"""Names that mean this machine; the second is how a container's agent reaches it."""
# Connections that wait to be accepted: a fan-out opens many at once.
_BACKLOG = 512


class TooLarge(Exception):
    """A request body is longer than the limit."""


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


def bind(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """Return a socket that listens there, if `or_any` on a free port where that is taken; else UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if or_any and port and error.errno in (errno.EADDRINUSE, errno.EACCES):
            return bind(host, 0)
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror}): "
            "name another with --port, or --port 0 for a free one"
        ) from error
    return listener


def is_loopback(host: str) -> bool:
    """Return whether an address or name means this machine alone."""
    if host in _NAMES:
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that lower-case name, or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def is_foreign(scope: Scope, listening_on: str) -> bool:
    """Return whether a request to a loopback server names another host, as a rebound web page does."""
    if not is_loopback(listening_on):
        return False
    named = header(scope, b"host")
    if named is None:
        return scope.get("http_version") != "1.0"
    host = named.rpartition("]")[0].removeprefix("[") if named.startswith("[") else named.partition(":")[0]
    return not is_loopback(host.lower().rstrip("."))


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
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


async def answer_error(
    send: Send, status: int, kind: str, text: str, extra: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send an error in the shape that model SDKs read, and tell them not to try again."""
    await answer(send, status, error_body(kind, text), "application/json", (_NO_RETRY, *extra))


_NO_RETRY = (b"x-should-retry", b"false")


def error_body(kind: str, text: str) -> bytes:
    """Return an error as Anthropic's and OpenAI's clients read it, the same bytes for the same text."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()


class Server:
    """An ASGI app on sockets, on a thread of its own or on the calling one."""

    def __init__(
        self, app: Callable[..., Any], sockets: Sequence[socket.socket], *, grace_s: float = 0.0
    ) -> None:
        self.listener = Listener(app)
        # What an upstream says about its date and itself is passed on, and nothing put beside it.
        self.listener.config.date_header = False
        self.listener.grace_s = grace_s
        self._sockets = list(sockets)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer requests on a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self.run, name="tracefork-receive", daemon=True)
        self._thread.start()
        self.listener.ready.wait()

    def run(self) -> None:
        """Answer on this thread until `stop`; then close all connections."""
        try:
            self.listener.run(sockets=self._sockets)
        finally:
            self.listener.ready.set()
            for one in self._sockets:
                one.close()

    def stop(self) -> None:
        """End `run` soon; may be called from any thread and from a signal handler."""
        self.listener.stop()

    def close(self) -> None:
        """Stop, and wait until the thread has ended and the ports are free."""
        self.stop()
        if self._thread is not None:
            self._thread.join()


@contextlib.contextmanager
def until_signalled(server: Server) -> Iterator[None]:
    """Stop the server on Ctrl-C, SIGTERM and SIGHUP, which are handled as before after the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def left(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
