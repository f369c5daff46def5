"""What a connection of aiohttp's sends and receives for one attempt, kept as it passes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterable
from time import time_ns
from typing import TYPE_CHECKING, Any

from .. import private_names as names
from .http1 import Framing

if TYPE_CHECKING:
    from .exchange import SeamExchange

_PARAMS = "set_response_params"
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[^\n]*chunked", re.IGNORECASE)
_EMPTY = (204, 304)
"""Statuses of responses that have no body, whatever their head says."""


def _words(reason: str | None) -> str | None:
    """Return what a status line says, a character a byte as it is recorded; aiohttp reads it as UTF-8."""
    return reason.encode("utf-8", "surrogateescape").decode("latin-1") if reason else None


class Reading:
    """In the place of the parser of a connection: what is the response's is kept, and how it ends."""

    def __init__(self, exchange: SeamExchange, timer: Any, method: str) -> None:
        """`timer` is that of the whole request."""
        self.payload: Any = None
        """Where the application reads the body, once the head has come."""
        self.left_early: Callable[[], None] | None = None
        """What ends an exchange that is played, and that the application left."""
        self._exchange = exchange
        self._timer = timer
        self._method = method
        self._protocol: Any = None
        self._parser: Any = None
        self._framing: Framing | None = None
        self._raw = b""
        """What came so far, until the head is whole."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def attach(self, conn: Any) -> None:
        """Stand in for the parser that this connection is given for the request that it is there for."""
        protocol = self._protocol = conn.protocol
        conn.add_callback(self.end)

        def params(*args: Any, **kwargs: Any) -> None:
            vars(protocol).pop(_PARAMS, None)
            protocol.set_response_params(*args, **kwargs)
            self._parser = getattr(protocol, names.PARSER)
            setattr(protocol, names.PARSER, self)

        vars(protocol)[_PARAMS] = params

    def feed_data(self, data: bytes, *more: Any) -> Any:
        """Parse these bytes, what is the body's kept."""
        awaited = self._framing is None and not self._exchange.done
        if awaited:
            self._raw += data
        else:
            self._keep(data)  # before the application has it: at the last it lets go of the connection
        found = self._parser.feed_data(data, *more)
        if awaited:
            self._begin(found[0])
        return found

    def feed_eof(self) -> Any:
        """End what is parsed; a body that is not whole yet, and does not end so, is cut."""
        exchange, framing = self._exchange, self._framing
        if framing is not None and not exchange.done:
            if self._protocol.transport is None:
                exchange.finish("closed")  # by its session, with all its connections
            elif framing.ends_with_connection:
                exchange.finish("complete")
        try:
            return self._parser.feed_eof()
        finally:
            if framing is not None and not exchange.done:
                # By then the connection has told the body why.
                asyncio.get_running_loop().call_soon(self.end)

    def _begin(self, messages: Iterable[tuple[Any, Any]]) -> None:
        """Keep the head that these bytes made whole, and what came of the body with it."""
        exchange = self._exchange
        try:
            for message, payload in messages:
                self._raw = self._raw.lstrip(b"\r\n")
                end = _HEAD_ENDS.search(self._raw)
                self._raw = self._raw[len(self._raw) if end is None else end.end() :]
                if 100 <= message.code < 200 and message.code != 101:
                    continue
                raw, self._raw = self._raw, b""
                self.payload = payload
                version = "HTTP/1.0" if tuple(message.version) == (1, 0) else "HTTP/1.1"
                headers = [(bytes(name), bytes(value)) for name, value in message.raw_headers]
                exchange.answered(
                    message.code,
                    exchange.session.redactor.response_headers(headers, exchange.replaced),
                    version,
                    reason_phrase=_words(message.reason),
                )
                self._framing = self._framed(message, payload)
                self._keep(raw, at_once=True)
                return
        except Exception as problem:
            exchange.give_up("head of a response", problem)

    def _framed(self, message: Any, payload: Any) -> Framing:
        if self._method == "HEAD" or message.code in _EMPTY or message.code == 101:
            return Framing(chunked=False, length=0)
        told = message.headers.get("Content-Length")
        length = int(told) if told is not None and not message.chunked else None
        if length is None and not message.chunked and payload.is_eof():
            length = 0  # a client that reads no body which only the connection's end would end
        return Framing(chunked=bool(message.chunked), length=length)

    def _keep(self, data: bytes, *, at_once: bool = False) -> None:
        exchange, framing = self._exchange, self._framing
        if framing is None or exchange.done or not (data or at_once):
            return
        try:
            for piece in framing.take(bytes(data)):
                exchange.chunk(piece)
            if framing.complete:
                exchange.finish("complete")
        except ValueError as problem:
            exchange.give_up("body of a response", problem)

    def end(self) -> None:
        """End the exchange where nothing has: its connection is let go, or lost."""
        vars(self._protocol).pop(_PARAMS, None)
        exchange = self._exchange
        if exchange.done:
            return
        if _is_dropped():
            # A garbage collection may come while this thread holds any lock: a later call ends it.
            exchange.session.abandoned.put((exchange, time_ns()))
            return
        error = self._error()
        if error is not None:
            exchange.fail(error)
        elif self.left_early is not None:
            self.left_early()
        else:
            exchange.finish("no_response" if exchange.status is None else "closed")

    def _error(self) -> BaseException | None:
        """Return what the application is told of the response, if that is an error."""
        raised = sys.exception()
        if self.payload is None:
            return raised if raised is None else timed(raised, self._timer)
        for told in (self.payload.exception(), self._protocol.exception()):
            if told is not None and str(told) != "Connection closed":  # as it says itself of what is left
                return told
        if getattr(self._timer, names.CANCELLED, False):
            return raised if isinstance(raised, TimeoutError) else TimeoutError()
        return raised if isinstance(raised, asyncio.CancelledError) else None


def timed(error: BaseException, timer: Any) -> BaseException:
    """Return the error as the application gets it: a timer of aiohttp's ends a task by cancelling it."""
    over = isinstance(error, asyncio.CancelledError) and getattr(timer, names.CANCELLED, False)
    return TimeoutError() if over else error


def _is_dropped() -> bool:
    """Return whether the connection is let go because nobody has its response any more."""
    frame = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("aiohttp."):
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


class Writing:
    """In the place of a connection's transport: what is a request's body is kept, as it is sent."""

    def __init__(self, protocol: Any, exchange: SeamExchange) -> None:
        self._protocol = protocol
        self._exchange = exchange
        self._transport = protocol.transport
        self._parts = exchange.request_parts = []
        self._framing: Framing | None = None
        self._raw = b""
        protocol.transport = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        """Send it."""
        self._seen((data,))
        self._transport.write(data)

    def writelines(self, pieces: Iterable[Any]) -> None:
        """Send them."""
        listed = list(pieces)
        self._seen(listed)
        self._transport.writelines(listed)

    def _seen(self, pieces: Iterable[Any]) -> None:
        """Keep what is sent; what cannot be kept goes out all the same."""
        try:
            self._keep(b"".join(map(bytes, pieces)))
        except Exception as problem:
            self.over()
            self._exchange.give_up("body of a request", problem)

    def _keep(self, data: bytes) -> None:
        if self._framing is None:
            self._raw += data
            end = _HEAD_ENDS.search(self._raw)
            if end is None:
                return
            head, data, self._raw = self._raw[: end.end()], self._raw[end.end() :], b""
            length = _LENGTH.search(head)
            chunked = _CHUNKED.search(head) is not None
            self._framing = Framing(chunked=chunked, length=int(length[1]) if length else None)
        self._parts.extend(self._framing.take(data))
        if self._framing.complete:
            self.over()

    def over(self) -> None:
        """Stand in for it no longer."""
        if self._protocol.transport is self:
            self._protocol.transport = self._transport
