"""Web applications whose requests are runs of their own: by ASGI and by WSGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import current, root
from .inbound import Asked, Inbound, of_environ, of_scope

if TYPE_CHECKING:
    from .session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


_SEEN = "tracefork.recorded"
"""In what a server says of a request: one application around another has it already."""


class Recorded:
    """An application, whose requests are runs of their own."""

    def __init__(self, app: Any, entrypoint: str | None) -> None:
        """`entrypoint` is `asgi:pkg.mod:app`, by which it can be asked; None where nobody knows."""
        self.app = app
        self.entrypoint = entrypoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    def _begun(self, read: Callable[[Any], Asked], request: MutableMapping[str, Any]) -> Inbound | None:
        """Return the request; None where it is not recorded, or is already by another around this one."""
        session = current.session
        if session is None or session.player is not None or not session.capturing or _SEEN in request:
            return None
        # Not by the context: a server may read a connection's next request in that of the one before.
        request[_SEEN] = True
        try:
            return Inbound(session, self.entrypoint, read(request))
        except Exception as problem:
            session.lost("start of a request", problem)
            return None


@contextmanager
def _within(inbound: Inbound) -> Iterator[None]:
    """Have what is asked within the block be part of the request, which ends with what fails in it."""
    token = root.waiting.set(inbound.open)
    try:
        yield
    except BaseException as error:
        inbound.end(error)
        raise
    finally:
        root.waiting.reset(token)


class AsgiApplication(Recorded):
    """One that speaks ASGI."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does."""
        inbound = self._begun(of_scope, scope) if scope["type"] == "http" else None
        if inbound is None:
            await self.app(scope, receive, send)
            return

        async def kept_receive() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.request":
                inbound.read(message.get("body", b""), whole=not message.get("more_body", False))
            return message

        async def kept_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                inbound.answering(int(message["status"]))
            elif message["type"] == "http.response.body":
                inbound.answered(message.get("body", b""))
            await send(message)

        with _within(inbound):
            await self.app(scope, kept_receive, kept_send)
        inbound.end(None)


class WsgiApplication(Recorded):
    """One that speaks WSGI."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer as the application does."""
        inbound = self._begun(of_environ, environ)
        if inbound is None:
            return self.app(environ, start_response)

        def kept_start(status: str, headers: Any, *error: Any) -> Callable[[bytes], Any]:
            write = start_response(status, headers, *error)
            with _harmless():
                inbound.answering(int(status.split(" ", 1)[0]))

            def kept_write(piece: bytes) -> Any:
                inbound.answered(piece)
                return write(piece)

            return kept_write

        if "wsgi.input" in environ:
            environ["wsgi.input"] = _Body(environ["wsgi.input"], environ.get("CONTENT_LENGTH"), inbound)
        with _within(inbound):
            answer = self.app(environ, kept_start)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(answer, list | tuple):
            for piece in answer:  # a server counts them, so it gets them as they are
                inbound.answered(piece)
        elif not (isinstance(wrapper, type) and isinstance(answer, wrapper)):  # that a server sends by itself
            return (_SizedAnswer if hasattr(answer, "__len__") else _Answer)(answer, inbound)
        inbound.end(None)
        return answer


@contextmanager
def _harmless() -> Iterator[None]:
    """Have what fails within the block cost what is kept of a request, not its answer."""
    try:
        yield
    except Exception as problem:
        session: Session | None = current.session
        if session is not None:
            session.lost("an answer to a request", problem)


class _Answer:
    """The pieces of an answer, in the making of which something may be asked."""

    def __init__(self, pieces: Iterable[bytes], inbound: Inbound) -> None:
        self._pieces = pieces
        self._inbound = inbound
        self._next: Iterator[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _within(self._inbound):
            if self._next is None:
                self._next = iter(self._pieces)
            piece = next(self._next, None)
        if piece is None:
            raise StopIteration
        self._inbound.answered(piece)
        return piece

    def close(self) -> None:
        """Close what the application gave, after which the request is over."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            with _within(self._inbound):
                close()
        self._inbound.end(None)


class _SizedAnswer(_Answer):
    """The same, whose pieces a server may count."""

    def __len__(self) -> int:
        return len(cast("Sized", self._pieces))


class _Body:
    """The body of a request, which is kept as it is read."""

    def __init__(self, stream: Any, length: str | None, inbound: Inbound) -> None:
        self._stream = stream
        self._length = int(length) if length and length.isdigit() else None
        self._inbound = inbound

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name == "read1":
            return lambda *size: self._kept(found(*size), wanted=size != (0,))
        return self._into if name in ("readinto", "readinto1") else found

    def _into(self, buffer: Any) -> int:
        """Read into the buffer as much as it takes, as servers' streams do; return how much came."""
        view = memoryview(buffer).cast("B")
        came = self._stream.readinto(buffer) or 0
        self._kept(bytes(view[:came]), wanted=len(view) > 0)
        return came

    def _kept(self, piece: bytes, *, wanted: bool = True) -> bytes:
        inbound = self._inbound
        so_far = inbound.size + len(piece)
        inbound.read(
            piece, whole=so_far >= self._length if self._length is not None else wanted and not piece
        )
        return piece

    def read(self, size: int | None = None, *more: Any) -> bytes:
        """Return the next bytes of the body."""
        if size is not None and size >= 0:
            return self._kept(self._stream.read(size, *more), wanted=size > 0)
        piece = self._kept(self._stream.read(*more))
        self._kept(b"")  # there is no more of it
        return piece

    def readline(self, *size: Any) -> bytes:
        """Return the next line of the body."""
        return self._kept(self._stream.readline(*size), wanted=size != (0,))

    def readlines(self, *hint: Any) -> list[bytes]:
        """Return the lines of the body."""
        return [self._kept(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line
