"""One attempt of a pool of urllib3: recorded, or answered from a tape."""

from __future__ import annotations

import http.client
import inspect
import io
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, cast
from urllib.parse import urlsplit

from .. import private_names as names
from ..play.answers import Live
from ..session.session import Session
from .asked import Asked, asked
from .exchange import SeamExchange
from .http1 import TUNNEL, BodyTee, Framing, Played, wire
from .kept import heard, note_kept
from .recording import Sending, opened
from .routing import aside, note_missed, routed
from .staging import Staged, leaving, moved_to, pythons_error, staged, unheard

_PORTS = {"http": 80, "https": 443}
_PIECE = 65_536
"""Bytes that are read at once of a file that is sent."""


def sent(
    session: Session,
    module: ModuleType,
    original: Callable[..., Any],
    pool: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Return what answers the request; `original` is the pool's own method, called with these arguments."""
    try:
        given = dict(_signature(original).bind(pool, *args, **kwargs).arguments)
        given |= given.pop("httplib_request_kw", {})  # where 1.26 has the body and the headers
        conn = given.pop("conn")
        given.pop("self")
        attempt = _Attempt(module, session, pool, conn, _asked(pool, given), given, original)
    except Exception as error:
        if session.player is not None:
            raise  # a replay sends nothing
        session.lost("start of an exchange", error)
        _connect(module, pool, args[0] if args else kwargs["conn"])
        return original(pool, *args, **kwargs)
    return _routed(attempt)


def _connect(module: ModuleType, pool: Any, conn: Any) -> None:
    """Make the connection by way of a proxy that the pool would have made before, with the same errors."""
    tunnel = vars(conn).pop(TUNNEL, None)
    if tunnel is None or getattr(conn, "sock", None):
        return
    try:
        tunnel()
    except OSError as error:
        if module.__version__ >= "2":
            late = getattr(pool, names.RAISE_TIMEOUT)
            late(err=error, url=pool.proxy.url, timeout_value=conn.timeout)
        raise


@cache
def _signature(original: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(original)


@dataclass(slots=True)
class _Attempt:
    """One request of a pool, on a connection of it."""

    module: ModuleType
    session: Session
    pool: Any
    conn: Any
    request: Asked
    given: dict[str, Any]
    """The arguments besides."""
    original: Callable[..., Any]

    def send(self) -> Any:
        """Send it as it is; nothing of it is recorded here."""
        _connect(self.module, self.pool, self.conn)
        return self.original(self.pool, self.conn, **self.given)


def _asked(pool: Any, given: Mapping[str, Any]) -> Asked:
    url, host = str(given["url"]), str(pool.host)
    if not url.startswith(("http://", "https://")):  # to a proxy it is whole
        name = f"[{host.strip('[]')}]" if ":" in host else host
        own = _PORTS.get(pool.scheme)
        place = name if pool.port in (None, own) else f"{name}:{pool.port}"
        url = f"{pool.scheme}://{place}{url}"
    listed = _headers(given)
    if not any(_name(name) == "host" for name, _ in listed):
        listed.insert(0, ("host", urlsplit(url).netloc))
    return asked(str(given["method"]), url, listed)


def _headers(given: Mapping[str, Any]) -> list[tuple[str | bytes, str | bytes]]:
    headers: Any = given.get("headers") or {}
    return list(headers.items())


def _name(name: str | bytes) -> str:
    return (name.decode("latin-1") if isinstance(name, bytes) else name).lower()


def _routed(attempt: _Attempt) -> Any:
    session, request = attempt.session, attempt.request
    try:
        way, who = routed(session, request, lambda: _known(attempt)[0])
    except Exception as error:
        if session.player is not None:
            raise  # a replay sends nothing
        session.lost("start of an exchange", error)
        way, who = "own", ""
    if way == "aside":
        with aside(session, request.url, who):
            return attempt.send()
    if way == "own":
        return attempt.send()
    if way == "kept":
        note_kept(session, request.url, who)
        answer = heard(request)
        return _given(attempt, wire(answer, [answer.body], method=request.method, whole=True))
    if way == "paused":
        note_missed(session, request.url.host)
        return attempt.send()
    if way == "record":
        return _recorded(attempt)
    if way == "refuse":
        body, complete = _known(attempt)
        error = _refused(attempt, "[Errno 111] Connection refused")
        raise unheard(session, request, body, error, complete=complete)
    return _played(attempt)


def _known(attempt: _Attempt) -> tuple[bytes, bool]:
    """Return the body, and whether it is known yet: one that is read or iterated is only once it was sent."""
    body = attempt.given.get("body")
    if body is None:
        return b"", True
    if isinstance(body, str):
        return body.encode("utf-8" if attempt.module.__version__ >= "2" else "latin-1", "replace"), True
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), True
    if hasattr(body, "read"):
        if attempt.session.player is None and not isinstance(body, io.TextIOBase):
            return b"", False  # it is read once, as it is sent: a file may be larger than the memory
        with suppress(Exception):
            at = body.tell()
            found = body.read()
            body.seek(at)
            return _bytes(found), True
    elif isinstance(body, list | tuple):
        return b"".join(map(_bytes, cast("Iterable[Any]", body))), True
    return b"", False


def _bytes(piece: Any) -> bytes:
    return piece.encode("utf-8") if isinstance(piece, str) else bytes(piece)


def _pieces(body: Any) -> Iterator[Any]:
    """Yield what is sent of a body that is read or iterated."""
    if not hasattr(body, "read"):
        yield from body
        return
    while piece := body.read(_PIECE):
        yield piece


def _recorded(attempt: _Attempt, live: Live | None = None) -> Any:
    """Send the request, record it and return the answer; `live` says which part of a fork it is."""

    def tee(exchange: SeamExchange) -> None:
        body, parts = attempt.given["body"], list[bytes]()
        exchange.request_parts = parts

        def kept() -> Iterator[Any]:
            for piece in _pieces(body):
                parts.append(_bytes(piece))
                yield piece

        attempt.given["body"] = kept()

    exchange = opened(attempt.session, attempt.request, lambda: _known(attempt), tee, live)
    if exchange is None:
        return attempt.send()
    return _answered(attempt, exchange, attempt.send, live)


def _answered(
    attempt: _Attempt, exchange: SeamExchange, send: Callable[[], Any], live: Live | None = None
) -> Any:
    """Return what `send` gives, its head kept and its body as it is read."""
    given = attempt.given
    # Else the body would be read before anybody could keep it.
    at_once = given.get("preload_content") if "preload_content" in given else False
    if at_once:
        given["preload_content"] = False
    with Sending(exchange):
        response = send()
    _keep(exchange, response)
    if at_once:
        decode = given.get("decode_content", True)
        setattr(response, names.BODY, response.read(decode_content=decode))
    return response


def _keep(exchange: SeamExchange, response: Any) -> None:
    """Keep the response's head, and have its body kept as it is read."""
    try:
        raw = getattr(response, names.ORIGINAL_RESPONSE, response)
        if not isinstance(raw, http.client.HTTPResponse):
            exchange.answered(response.status, _lines(exchange, response.headers.items()), "HTTP/2")
            exchange.chunk(response.data)
            exchange.finish("complete")
            return
        version = "HTTP/1.0" if raw.version == 10 else "HTTP/1.1"
        exchange.answered(
            raw.status, _lines(exchange, raw.msg.items()), version, reason_phrase=raw.reason or None
        )
        file: Any = raw.fp
        framing = Framing(chunked=bool(raw.chunked), length=raw.length)
        if file is None or framing.complete:
            exchange.finish("complete")
        else:
            raw.fp = cast("Any", BodyTee(file, exchange, framing))
    except Exception as error:
        exchange.give_up("head of a response", error)


def _lines(exchange: SeamExchange, headers: Iterable[tuple[str, str]]) -> Any:
    raw = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]
    return exchange.session.redactor.response_headers(raw, exchange.replaced)


def _played(attempt: _Attempt) -> Any:
    """Return the recorded or a fork's live response; raise the recorded error, or that of a drift."""
    body, complete = _known(attempt)
    if not complete:
        body = b"".join(map(_bytes, _pieces(attempt.given["body"])))
        attempt.given["body"] = body
    found = staged(attempt.session, attempt.request, body, lambda why: _refused(attempt, why))
    if isinstance(found, Live):
        _edit(attempt, found)
        with leaving(found):
            return _moved(attempt, found)
    return _answered(attempt, found.exchange, lambda: _served(attempt, found))


def _served(attempt: _Attempt, found: Staged) -> Any:
    recorded, conn, given = found.recorded, attempt.conn, attempt.given
    conn.__dict__.pop(TUNNEL, None)
    if recorded.response is None:
        time.sleep(found.left_until_the_end() if found.waits else 0)
        found.hold()
        error = _error(attempt, found)
        setattr(conn, names.CONNECTED_TO_PROXY, _leaves_connected(error))
        raise error
    return _given(
        attempt,
        wire(recorded.response, _body(attempt, found), method=str(given["method"]), whole=found.ends_well),
    )


def _given(attempt: _Attempt, pieces: Iterator[bytes]) -> Any:
    """Return what the pool makes of these bytes in the place of a server's."""
    conn = attempt.conn
    conn.__dict__.pop(TUNNEL, None)
    if getattr(conn, "sock", None) is not None:
        conn.close()
    conn.sock = Played(pieces)
    if hasattr(conn, "is_verified"):
        conn.is_verified = True  # what it says comes from nobody
    try:
        return attempt.original(attempt.pool, conn, **attempt.given)
    finally:
        conn.sock = None  # the response has a file of its own


def _body(attempt: _Attempt, found: Staged) -> Iterator[bytes]:
    """Yield the recorded body in its recorded cuts, with its recorded end."""
    for number, wait, piece, is_last in found.chunks():
        if wait:
            time.sleep(wait)
        if is_last:
            found.hold()
        found.came(number)
        if piece:
            yield piece
    if not found.ends_well and not (found.recorded.error_type or "").endswith(".IncompleteRead"):
        raise _error(attempt, found)


def _error(attempt: _Attempt, found: Staged) -> BaseException:
    """Return the recorded error, of the class that it had."""
    recorded = found.recorded
    home, _, name = (recorded.error_type or "").rpartition(".")
    message = recorded.error_message or ""
    if (error := pythons_error(recorded)) is not None:
        return error
    if home == "urllib3.exceptions" and (error := _made(attempt, name, message)) is not None:
        return error
    if name.endswith("Timeout"):  # another client's, as those of faults are
        late = _made(attempt, "ReadTimeoutError", message) if recorded.response is None else None
        return TimeoutError(message) if late is None else late
    if recorded.response is None and name == "RemoteProtocolError":
        return http.client.RemoteDisconnected("Remote end closed connection without response")
    if recorded.response is None:
        return _refused(attempt, found.ending())
    return ConnectionResetError(found.ending())


def _leaves_connected(error: BaseException) -> bool:
    """Return whether a connection is there after the error: where none is, a pool says it of its proxy."""
    if type(error).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError"):
        return False
    return isinstance(error, ssl.SSLError) or not isinstance(error, OSError)


def _refused(attempt: _Attempt, why: str) -> BaseException:
    error = _made(attempt, "NewConnectionError", why)
    return ConnectionRefusedError(why) if error is None else error


def _made(attempt: _Attempt, name: str, message: str) -> BaseException | None:
    """Return an error of urllib3's, whose constructors differ from version to version, with this message."""
    cls: Any = getattr(attempt.module.exceptions, name, None)
    if not (isinstance(cls, type) and issubclass(cls, attempt.module.exceptions.HTTPError)):
        return None
    error = cast("BaseException", cls.__new__(cls, message))
    error.args = (message,)
    for attribute, value in (("pool", attempt.pool), ("conn", attempt.conn), ("url", attempt.given["url"])):
        with suppress(AttributeError):
            setattr(error, attribute, value)
    return error


def _edit(attempt: _Attempt, live: Live) -> None:
    """Have the request go out as a fork changes its body or its path."""
    given = attempt.given
    if live.body is not None:
        told = ("content-length", "transfer-encoding")
        headers = {name: value for name, value in _headers(given) if _name(name) not in told}
        headers["Content-Length"] = str(len(live.body))
        given |= {"body": live.body, "chunked": False, "headers": headers}
    if live.path is not None:
        before, _, after = str(given["url"]).partition("?")
        parts = urlsplit(before)
        start = before[: len(before) - len(parts.path)] if parts.netloc else ""
        given["url"] = f"{start}{live.path}" + (f"?{after}" if after else "")
    if live.body is not None or live.path is not None:
        attempt.request = _asked(attempt.pool, given)


def _moved(attempt: _Attempt, live: Live) -> Any:
    """Send the request to where its address has moved, and record it as it was addressed."""
    there = moved_to(attempt.session, attempt.request.url)
    if there is None:
        return _recorded(attempt, live)
    pool = attempt.module.connectionpool.connection_from_url(there)
    conn = attempt.conn = getattr(pool, names.GET_CONNECTION)()
    headers = {name: value for name, value in _headers(attempt.given) if _name(name) != "host"}
    attempt.pool, attempt.given["headers"] = pool, headers
    url = urlsplit(str(attempt.request.url))
    attempt.given["url"] = f"{urlsplit(there).path}{url.path}" + (f"?{url.query}" if url.query else "")
    if "response_conn" in attempt.given:
        attempt.given["response_conn"] = conn
    return _recorded(attempt, live)
