"""The event loop under our servers: uvicorn's HTTP/1.1, started and stopped at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Self, cast

import uvicorn

from .asgi import App, Receive, Scope, Send, answer, header
from .connections import FOR_CLIENTS, Connection, Connections, share_of_files

# Longer than any pause in a test, so that a kept-alive connection is never closed under a client's request.
_KEEP_ALIVE_S = 120
# So many connections are accepted before the first of them is looked at, each of which takes a file.
_AT_A_TIME = 32
_BACKLOG = 2048
# How often uvicorn's Date header is renewed.
_DATE_S = 1.0
# How often the server looks whether connections and answers have ended.
_DRAIN_S = 0.001


class Server(uvicorn.Server):
    """An ASGI app on sockets; a context manager, within which it answers on a thread of its own."""

    def __init__(
        self,
        app: App,
        sockets: Sequence[socket.socket],
        *,
        grace_s: float = 0.0,
        date_header: bool = False,
        most_clients: int | None = None,
    ) -> None:
        """Prepare the server; running answers get `grace_s` to end when it is stopped."""
        self.connections = Connections(most_clients or share_of_files(FOR_CLIENTS))
        self.transports = self.connections.transports
        super().__init__(
            uvicorn.Config(
                _unambiguous(app),
                http=cast("type[Connection]", functools.partial(Connection, self.connections)),
                interface="asgi3",
                proxy_headers=False,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="error",  # what is odd of a request, its answer says: the terminal is the agent's
                access_log=False,
                server_header=False,
                date_header=date_header,
                timeout_keep_alive=_KEEP_ALIVE_S,
                backlog=_AT_A_TIME,
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; whoever is not accepted yet waits in the kernel."""
        await super().startup(sockets)
        for one in self._sockets:
            one.listen(_BACKLOG)

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


def _unambiguous(app: App) -> App:
    """Return the app, which no request reaches that says in two ways where it ends.

    Its next reader might believe the other.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if header(scope, b"transfer-encoding") is not None and header(scope, b"content-length") is not None:
            why = b"a request has content-length or transfer-encoding, not both\n"
            await answer(send, 400, why, "text/plain")
        else:
            await app(scope, receive, send)

    return guarded


class Stopped:
    """What ended servers, where anything has."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C; SIGTERM and SIGHUP are how those who keep servers ask for a good end."""
        return self.signal == signal.SIGINT


@contextlib.contextmanager
def until_signalled(*servers: Server) -> Iterator[Stopped]:
    """Stop the servers on Ctrl-C, SIGTERM and SIGHUP, which are handled as before after the block."""
    stopped = Stopped()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.signal = stopped.signal or number
        for one in servers:
            one.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_stopped(servers: Sequence[Server]) -> Stopped:
    """Answer with all of these until a signal ends them; then close what they hold, in the other order."""
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(until_signalled(*servers))
        for one in servers[1:]:
            stack.enter_context(one)
        servers[0].run()
    return stopped
