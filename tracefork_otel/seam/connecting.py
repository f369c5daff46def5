"""One attempt of a session of aiohttp: recorded, or answered from a tape."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import private_names as names
from ..play.answers import Live
from ..session.session import Session
from ..session.telemetry import sender_above
from .asked import Asked, asked
from .connect_errors import connect_timeout, is_of_connecting, recorded_error, refused
from .exchange import SeamExchange
from .holding import asleep
from .http1 import wire
from .kept import heard, note_kept
from .parsed import Reading, Writing, timed
from .recording import Sending, opened
from .routing import aside, note_missed, routed
from .staging import Staged, leaving, moved_to, staged, unheard
from .unseen import noted

_TURNS = 20
"""Turns of an event loop in which the application may take what came, before more comes."""
_LOOK_S = (0.001, 0.05)
"""How soon it is looked for whether it wants more, and how seldom in the end."""


@dataclass(slots=True)
class _Attempt:
    """One request of a session, before it has a connection."""

    module: ModuleType
    session: Session
    connector: Any
    req: Any
    request: Asked
    connect: Callable[[], Awaitable[Any]]
    """Makes the connection, or takes one that was kept."""

    @property
    def timer(self) -> Any:
        """That of the whole request."""
        return getattr(self.req, names.TIMER, None)


async def connected(
    session: Session, module: ModuleType, connector: Any, req: Any, connect: Callable[[], Awaitable[Any]]
) -> Any:
    """Return the connection by which the request is sent and answered; `connect` makes a real one."""
    if req.headers.get("Upgrade", "").lower() == "websocket":
        if session.player is None and sender_above(sys._getframe(1)) is None:
            noted(session, "aiohttp", str(req.host), req.port or 443)
        return await connect()
    try:
        attempt = _Attempt(module, session, connector, req, _asked(req), connect)
        way, who = routed(session, attempt.request, lambda: _known(attempt)[0])
    except Exception as error:
        if session.player is not None:
            raise  # a replay sends nothing
        session.lost("start of an exchange", error)
        return await connect()
    if way == "aside":
        with aside(session, attempt.request.url, who):
            return await connect()
    if way == "own":
        return await connect()
    if way == "kept":
        note_kept(session, attempt.request.url, who)
        return _kept(attempt)
    if way == "paused":
        note_missed(session, attempt.request.url.host)
        return await connect()
    if way == "record":
        return await _recorded(attempt)
    if way == "refuse":
        body, complete = _known(attempt)
        error = refused(module, req, "Connection refused")
        raise unheard(session, attempt.request, body, error, complete=complete)
    return await _played(attempt)


def _asked(req: Any) -> Asked:
    return asked(req.method, str(req.url), req.headers.items())


def _known(attempt: _Attempt) -> tuple[bytes, bool]:
    """Return the body, and whether it is known yet: one that is read, or compressed, once it was sent."""
    body = attempt.req.body
    if body is None or (isinstance(body, bytes) and not body):
        return b"", True
    if attempt.req.compress:
        return b"", False
    if isinstance(body, attempt.module.payload.BytesPayload):
        body = getattr(body, names.VALUE)
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), True
    return b"", False


async def _recorded(attempt: _Attempt, live: Live | None = None) -> Any:
    """Return a connection of which is recorded what passes; `live` says which part of a fork it is."""
    streamed = False

    def tee(exchange: SeamExchange) -> None:
        nonlocal streamed
        streamed = True

    exchange = opened(attempt.session, attempt.request, lambda: _known(attempt), tee, live)
    if exchange is None:
        return await attempt.connect()
    with Sending(exchange):
        try:
            conn = await attempt.connect()
        except asyncio.CancelledError as error:
            exchange.fail(timed(error, attempt.timer))
            raise
        except TimeoutError:
            exchange.fail(connect_timeout(attempt.module, attempt.req))  # as the session says it
            raise
    try:
        Reading(exchange, attempt.timer, attempt.req.method).attach(conn)
        if streamed:
            writing = Writing(conn.protocol, exchange)
            conn.add_callback(writing.over)
    except Exception as problem:
        exchange.give_up("head of a response", problem)
    return conn


async def _played(attempt: _Attempt) -> Any:
    """Return a connection that gives the recorded response, or a fork's own; raise the error of a drift."""
    body, complete = _known(attempt)
    if not complete:
        body = await _read(attempt)
    found = staged(
        attempt.session, attempt.request, body, lambda why: refused(attempt.module, attempt.req, why)
    )
    if isinstance(found, Live):
        if not complete:
            _send_read(attempt, body)
        await _edit(attempt, found)
        with leaving(found):
            return await _recorded(attempt, found)
    error = recorded_error(attempt.module, attempt.req, found)
    if found.recorded.outcome == "no_response" and is_of_connecting(attempt.module, error):
        await asleep(found.left_until_the_end() if found.waits else 0)
        await found.ahold()
        found.exchange.fail(error)
        raise error
    return _stage(attempt, found)


async def _read(attempt: _Attempt) -> bytes:
    """Return what would be sent of a body that is read; in a replay nothing of it is sent after that."""
    module, req, body = attempt.module, attempt.req, attempt.req.body
    protocol, sent = _protocol(module), _Sent()
    protocol.connection_made(sent)
    writer = module.http_writer.StreamWriter(protocol, req.loop)
    if req.compress:
        writer.enable_compression(req.compress)
    await type(body).write(body, writer)
    await writer.write_eof()
    vars(body).update(dict.fromkeys(("write", "write_with_length"), _write_nothing))
    return b"".join(sent.pieces)


async def _write_nothing(*_: Any, **__: Any) -> None:
    """Do nothing: a file is read, and may be closed by now."""


def _send_read(attempt: _Attempt, body: bytes) -> None:
    """Have the body sent that was read, as it would have been."""
    req = attempt.req
    own = names.BODY if hasattr(req, names.BODY) else "body"
    setattr(req, own, attempt.module.payload.BytesPayload(body))
    req.compress = None  # it is, by now


def _protocol(module: ModuleType) -> Any:
    return module.client_proto.ResponseHandler(asyncio.get_running_loop())


async def _edit(attempt: _Attempt, live: Live) -> None:
    """Have the request go out as a fork changes its body or its path, to where its address has moved."""
    req = attempt.req
    if live.body is not None:
        for name in ("Content-Length", "Transfer-Encoding"):
            req.headers.popall(name, None)
        req.chunked = req.compress = None
        if hasattr(req, "update_body"):
            await req.update_body(live.body)
        else:
            req.update_body_from_data(live.body)
    if live.path is not None:
        req.url = _url(req, f"{req.url.origin()}{live.path}", req.url.raw_query_string)
        req.original_url = req.url
    attempt.request = _asked(req)
    there = moved_to(attempt.session, attempt.request.url)
    if there is not None:
        req.url = _url(req, f"{there}{req.url.raw_path}", req.url.raw_query_string)
        req.headers["Host"] = req.url.authority


def _url(req: Any, start: str, query: str) -> Any:
    return type(req.url)(f"{start}?{query}" if query else start, encoded=True)


def _stage(attempt: _Attempt, found: Staged) -> Any:
    """Return a connection that nothing is behind but the recorded response."""
    module, req = attempt.module, attempt.req
    protocol = _protocol(module)
    protocol.force_close()
    connector: Any = _Nowhere(attempt.connector)
    conn = module.connector.Connection(connector, req.connection_key, protocol, asyncio.get_running_loop())
    reading = Reading(found.exchange, attempt.timer, req.method)
    reading.attach(conn)
    protocol.connection_made(_Played(attempt, found, protocol, reading))
    return conn


def _kept(attempt: _Attempt) -> Any:
    """Return a connection by which nothing is sent, and a plain success is heard."""
    req, loop = attempt.req, asyncio.get_running_loop()
    protocol = _protocol(attempt.module)
    protocol.force_close()
    connector: Any = _Nowhere(attempt.connector)
    conn = attempt.module.connector.Connection(connector, req.connection_key, protocol, loop)
    protocol.connection_made(_Sent())
    answer = heard(attempt.request)
    told = b"".join(wire(answer, [answer.body], method=req.method, whole=True))
    loop.call_soon(protocol.data_received, told)
    return conn


class _Nowhere:
    """In the place of a connector: a connection that is played goes into no pool."""

    def __init__(self, connector: Any) -> None:
        self._connector = connector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        protocol.close()


class _Sent(asyncio.Transport):
    """A transport that sends nothing, and keeps what it would."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.pieces.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        """Keep them."""
        for piece in list_of_data:
            self.write(piece)

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Send no more."""
        self.closed = True

    def abort(self) -> None:
        """Send no more."""
        self.close()

    def get_write_buffer_size(self) -> int:
        """Return that nothing waits."""
        return 0


class _Played(_Sent):
    """A transport that gives one connection one recorded response, in its recorded cuts."""

    def __init__(self, attempt: _Attempt, found: Staged, protocol: Any, reading: Reading) -> None:
        super().__init__()
        self._attempt = attempt
        self._found = found
        self._protocol = protocol
        self._reading = reading
        reading.left_early = self._left
        self._pieces = self._cut()
        self._due: tuple[int, float, bool] | None = None
        """Of the piece taken last: its number, the seconds in which it is due, whether it is the last."""
        self._next = b""
        """That piece, until it has come."""
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def write(self, data: Any) -> None:
        """Send nothing."""

    def pause_reading(self) -> None:
        """Give nothing until the application has read."""
        self._goes_on.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._goes_on.set()

    def is_reading(self) -> bool:
        """Return whether it goes on."""
        return self._goes_on.is_set()

    def close(self) -> None:
        """Give no more, and let nobody wait for it."""
        if not self.closed:
            self.closed = True
            self._found.leave()
            self._task.cancel()

    def _left(self) -> None:
        """End the exchange as it was recorded: bytes come whether or not the application reads them."""
        found = self._found
        outcome = found.recorded.outcome
        if outcome in ("complete", "closed"):
            for piece in (self._next, *self._pieces):
                if piece:
                    found.exchange.chunk(piece)
        found.exchange.finish(outcome if outcome in ("complete", "abandoned") else "closed")

    async def _run(self) -> None:
        found = self._found
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)  # no server answers before it was asked
            if found.recorded.outcome == "cancelled" and found.recorded.response is None:
                await found.hang()
            if found.recorded.response is None:
                await asleep(found.left_until_the_end() if found.waits else 0)
                await found.ahold()
                self._fail(self._error())
            else:
                await self._answer()
        except asyncio.CancelledError as error:
            if self.closed:
                raise
            self._fail(error)
        except Exception as problem:
            self._attempt.session.lost("answer of a tape", problem)
            why = f"the tape gave no answer: {problem}"
            self._fail(refused(self._attempt.module, self._attempt.req, why))

    async def _answer(self) -> None:
        found, exchange = self._found, self._found.exchange
        recorded, req = found.recorded.response, self._attempt.req
        assert recorded is not None
        if not recorded.body and found.recorded.outcome != "cancelled":
            await found.ahold()  # the head is all of it
        if "100-continue" in req.headers.get("Expect", "").lower():
            self._protocol.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
        for data in wire(recorded, self._pieces, method=req.method, whole=found.ends_well):
            await self._wait()
            self._next = b""
            if data:
                self._protocol.data_received(data)
            await self._taken()
        if found.ends_well:
            if not exchange.done:
                self._protocol.connection_lost(None)  # which is what ends it
            return
        if found.recorded.outcome == "cancelled":
            await found.hang()
        await self._wanted()
        self._fail(self._error())

    def _cut(self) -> Iterator[bytes]:
        for number, wait, piece, is_last in self._found.chunks():
            self._due, self._next = (number, wait, is_last), piece
            yield piece

    async def _wait(self) -> None:
        """Return when the piece that was taken last may come."""
        due, self._due, found = self._due, None, self._found
        if due is not None:
            number, wait, is_last = due
            await asyncio.sleep(wait)
            await found.apart(number)
            if is_last and found.recorded.outcome != "cancelled":
                await found.ahold()
            found.came(number)
        await self._goes_on.wait()

    async def _taken(self) -> None:
        """Return when the application has what came, or had the time to take it."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            if not getattr(self._reading.payload, names.BUFFER, ()):
                return

    async def _wanted(self) -> None:
        """Return when the application has read all that came, and waits for more."""
        pause, longest = _LOOK_S
        while self._reads_on() is False:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _reads_on(self) -> bool:
        payload = self._reading.payload
        return not getattr(payload, names.BUFFER, ()) and getattr(payload, names.WAITER, None) is not None

    def _error(self) -> BaseException:
        return recorded_error(self._attempt.module, self._attempt.req, self._found)

    def _fail(self, error: BaseException) -> None:
        self._protocol.set_exception(error)
        if self._reading.payload is not None:
            self._reading.payload.set_exception(error)
            self._reading.end()
