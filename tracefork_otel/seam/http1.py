"""HTTP/1.1 beside `http.client`: bodies kept as they are read from a connection, and given as from one."""

from __future__ import annotations

import io
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from http.client import IncompleteRead
from time import time_ns
from typing import TYPE_CHECKING, Any

from .. import private_names as names
from ..exchange import Response, header_of

if TYPE_CHECKING:
    from ..exchange import Headers
    from .exchange import SeamExchange

TUNNEL = "tracefork_tunnel"
"""Attribute of a connection that is to be made by way of a proxy: what makes it."""
_LONGEST = 65_536
"""Bytes of a chunk's first line, as `http.client` has it."""
_LINE_ENDS = re.compile(r"[\r\n]+")


class Framing:
    """Takes the bytes of a connection after a response's head and gives those of the body."""

    def __init__(self, *, chunked: bool, length: int | None) -> None:
        """`length` is that of the body; None where it goes on until the connection ends."""
        self._chunked = chunked
        self.left = 0 if chunked else length
        """What is missing of the body, or of its chunk."""
        self.complete = not chunked and length == 0
        self._line = b""
        self._between = False
        """Whether the next line only ends a chunk."""

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield what of these bytes is the body's, cut where chunks end."""
        if not self._chunked:
            if self.left is not None:
                data = data[: self.left]
                self.left -= len(data)
                self.complete = self.left == 0
            if data:
                yield data
            return
        at = 0
        while at < len(data) and not self.complete:
            if self.left:
                piece = data[at : at + self.left]
                at += len(piece)
                self.left -= len(piece)
                self._between = self.left == 0
                yield piece
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if end:
                self._begin()
            elif len(self._line) > _LONGEST:
                raise ValueError("no chunk begins here")

    def _begin(self) -> None:
        line, self._line = self._line, b""
        if self._between:
            self._between = False
            return
        self.left = int(line.partition(b";")[0].strip(), 16)
        self.complete = self.left == 0

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end ends the body."""
        return not self._chunked and self.left is None


class BodyTee:
    """The file from which a response is read: what is the body's is kept, and handed on as it comes."""

    def __init__(self, file: Any, exchange: SeamExchange, framing: Framing) -> None:
        self._file = file
        self._exchange = exchange
        self._framing = framing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int | None = -1) -> bytes:
        """Read as the file does."""
        return self._kept(self._file.read, size, fills=True)

    def read1(self, size: int = -1) -> bytes:
        """Read as the file does."""
        return self._kept(self._file.read1, size)

    def readline(self, size: int = -1) -> bytes:
        """Read as the file does."""
        return self._kept(self._file.readline, size)

    def readinto(self, buffer: Any) -> int:
        """Read as the file does."""
        data = self._kept(self._file.read, len(memoryview(buffer).cast("B")), fills=True)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def _kept(self, read: Any, size: int | None, *, fills: bool = False) -> bytes:
        """Keep what is read; one that `fills` gives less than is asked for only where the connection ends."""
        exchange, framing = self._exchange, self._framing
        try:
            data: bytes = read(size)
        except BaseException as error:
            exchange.fail(error)
            raise
        if exchange.done:
            return data
        try:
            for piece in framing.take(data):
                exchange.chunk(piece)
            if framing.complete:
                exchange.finish("complete")
            elif (not data and size != 0) or (fills and (size is None or size < 0 or len(data) < size)):
                if framing.ends_with_connection:
                    exchange.finish("complete")
                else:  # who reads says so in its own way
                    exchange.fail(IncompleteRead(b"", framing.left or None))
        except ValueError as problem:
            exchange.give_up("body of a response", problem)
        return data

    def close(self) -> None:
        """Close the file; a body that was not read to its end was left."""
        try:
            self._file.close()
        finally:
            exchange = self._exchange
            if not exchange.done:
                if _is_dropped():
                    # A garbage collection may come while this thread holds any lock: a later call ends it.
                    exchange.session.abandoned.put((exchange, time_ns()))
                else:
                    exchange.finish("closed")


def _is_dropped() -> bool:
    """Return whether the response is closed because nobody has it any more."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") in ("http.client", "urllib3.response"):
        if getattr(frame.f_locals.get("self"), names.FINALIZING, False):
            return True
        frame = frame.f_back
    return False


def wire(recorded: Response, pieces: Iterable[bytes], *, method: str, whole: bool) -> Iterator[bytes]:
    """Yield the bytes by which a server gives this response, the body in these pieces.

    A body that is `whole` has the length that its head says, also where it is another one than was recorded.
    """
    headers = list(recorded.headers)
    chunked = "chunked" in (header_of(recorded.headers, "transfer-encoding") or "").lower()
    if not chunked and whole and method != "HEAD":
        headers = _measured(headers, len(recorded.body))
    version = recorded.http_version if recorded.http_version in ("HTTP/1.0", "HTTP/1.1") else "HTTP/1.1"
    reason = _LINE_ENDS.sub(" ", recorded.reason_phrase or "")
    lines = [f"{version} {recorded.status} {reason}"]
    lines += [f"{name}: {_LINE_ENDS.sub(' ', value)}" for name, value in headers]
    yield "\r\n".join([*lines, "", ""]).encode("latin-1", "backslashreplace")
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece
    if chunked and whole:
        yield b"0\r\n\r\n"


def _measured(headers: Headers | list[tuple[str, str]], length: int) -> list[tuple[str, str]]:
    return [(name, str(length) if name.lower() == "content-length" else value) for name, value in headers]


class _Source(io.RawIOBase):
    """What comes from a server, piece by piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class Played:
    """In the place of a connection's socket: takes whatever is sent, and gives a response."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._file = io.BufferedReader(_Source(pieces))
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def makefile(self, *_: Any, **__: Any) -> Any:
        """Return what the response is read from."""
        return self._file

    def sendall(self, *_: Any) -> None:
        """Send nothing."""

    def send(self, data: Any, *_: Any) -> int:
        """Send nothing."""
        return len(memoryview(data).cast("B"))

    def fileno(self) -> int:
        """Return a descriptor that is ready to be read from, as an answer waits."""
        if self._pair is None:
            self._pair = socket.socketpair()
            self._pair[1].send(b"\0")
        return self._pair[0].fileno()

    def gettimeout(self) -> float | None:
        """Return that it may take any time."""
        return None

    def _nothing(self, *_: Any) -> None:
        """Do nothing."""

    settimeout = setblocking = setsockopt = shutdown = _nothing

    def close(self) -> None:
        """Close what was opened; the response is read on from its own file."""
        for end in self._pair or ():
            end.close()
        self._pair = None
