"""The socket and the event loop under the server: uvicorn's HTTP/1.1, started and stopped at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .addresses import LOOPBACK

# Longer than any pause in a test, so that a kept-alive connection is never closed under a client's request.
_KEEP_ALIVE_S = 120
# How often uvicorn's Date header is renewed.
_DATE_S = 1.0
# How often the server looks whether connections and answers have ended.
_DRAIN_S = 0.001


def bind(port: int = 0, *, tries: int = 1, shared: bool = False) -> socket.socket:
    """Return a socket that listens on loopback: on `port`, or on the first free one of `tries` from there.

    A shared port may be held by several servers at once, which each take some of the connections.
    """
    problem = OSError(errno.EADDRINUSE, f"no free port in {port}-{port + tries - 1} on {LOOPBACK}")
    for candidate in range(port, port + tries):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((LOOPBACK, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
        else:
            return listener
    raise problem


class Listener(uvicorn.Server):
    """Runs an ASGI app on sockets until it is told to stop, and can close a connection under an answer."""

    def __init__(self, app: Callable[..., Any]) -> None:
        """Prepare the server, which runs nothing before `run`."""
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}
        transports = self.transports

        class Connection(H11Protocol):
            """An HTTP/1.1 connection that writes without delay and can be found by its peer's address."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                """Register the connection."""
                super().connection_made(transport)
                # asyncio sets this only where the listening socket was made with its protocol named.
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transports[transport.get_extra_info("peername")[:2]] = transport
                self.registered = transport.get_extra_info("peername")[:2]

            def connection_lost(self, exc: Exception | None) -> None:
                """Forget the connection."""
                transports.pop(self.registered, None)
                super().connection_lost(exc)

        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                interface="asgi3",
                proxy_headers=False,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self.ready = threading.Event()
        self.grace_s = 0.0
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    async def hang_up(self, client: tuple[str, int]) -> None:
        """Close the connection from that address, after all that was written to it has been sent."""
        if client in self.transports:
            self.transports[client].close()
        # uvicorn complains about an unfinished answer, unless it knows by then that the connection is gone.
        while client in self.transports:
            await asyncio.sleep(_DRAIN_S)

    def stop(self) -> None:
        """End the server soon; may be called from any thread and from a signal handler."""
        self._stopped = True
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(wake.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals as the process that runs the server has set them."""
        yield

    async def main_loop(self) -> None:
        """Wait until the server is told to stop."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        self.ready.set()
        while not self._stopped:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _DATE_S)
            await self.on_tick(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, close idle connections, and give running answers their grace."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        end = asyncio.get_running_loop().time() + self.grace_s
        while self.server_state.tasks and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_DRAIN_S)
        for transport in list(self.transports.values()):
            transport.abort()
        # Lets the connections hear of their end before the loop goes.
        await asyncio.sleep(0)
