"""The event loop under our servers: uvicorn's HTTP/1.1, started and stopped at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .asgi import Receive, Scope, Send

# Longer than any pause in a test, so that a kept-alive connection is never closed under a client's request.
_KEEP_ALIVE_S = 120
# How often uvicorn's Date header is renewed.
_DATE_S = 1.0
# How often the server looks whether connections and answers have ended.
_DRAIN_S = 0.001


class Server(uvicorn.Server):
    """An ASGI app on sockets; a context manager, within which it answers on a thread of its own."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        sockets: Sequence[socket.socket],
        *,
        grace_s: float = 0.0,
        date_header: bool = False,
    ) -> None:
        """Prepare the server; running answers get `grace_s` to end when it is stopped."""
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}
        transports = self.transports

        class Connection(H11Protocol):
            """An HTTP/1.1 connection that writes without delay and can be found by its peer's address."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                """Register the connection."""
                super().connection_made(transport)
                # asyncio sets this only where the listening socket was made with its protocol named.
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.registered = transport.get_extra_info("peername")[:2]
                transports[self.registered] = transport

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
                date_header=date_header,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._sockets = list(sockets)
        self._grace_s = grace_s
        self._ready = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Answer requests on a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self.run, name="tracefork-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer on this thread until `stop`; then close all connections."""
        try:
            super().run(sockets=self._sockets)
        finally:
            self._ready.set()
            self.ended()

    def ended(self) -> None:
        """Close what the server holds, after its last answer."""
        for one in self._sockets:
            one.close()

    def stop(self) -> None:
        """End the server soon; may be called from any thread and from a signal handler."""
        self._stopped = True
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(wake.set)

    def close(self) -> None:
        """Stop, and wait until the thread has ended and the ports are free."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    async def hang_up(self, scope: Scope) -> None:
        """Close the connection that the request came by, after all that was written to it has been sent."""
        client = tuple(scope["client"][:2])
        if client in self.transports:
            self.transports[client].close()
        # uvicorn complains about an unfinished answer, unless it knows by then that the connection is gone.
        while client in self.transports:
            await asyncio.sleep(_DRAIN_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals as the process that runs the server has set them."""
        yield

    async def main_loop(self) -> None:
        """Wait until the server is told to stop."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        self._ready.set()
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
        end = asyncio.get_running_loop().time() + self._grace_s
        while self.server_state.tasks and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_DRAIN_S)
        for transport in list(self.transports.values()):
            transport.abort()
        # Lets the connections hear of their end before the loop goes.
        await asyncio.sleep(0)


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
