"""The seam while it plays: a request is answered from a tape, and nothing of it reaches the network."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import private_names as names
from ..play.answers import Live
from .holding import asleep
from .kept import heard, note_kept
from .recording import Sending, arecord, known_body, received, record
from .staging import Staged, leaving, pythons_error, staged, unheard

if TYPE_CHECKING:
    from ..session.session import Session
    from .streams import Tees


def send(session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any) -> Any:
    """Return the recorded or a fork's live response; raise the recorded error, or that of a drift."""
    body, complete = known_body(module, request)
    body = body if complete else request.read()
    found = _transport(session, module, request, body)
    if isinstance(found, Live):
        edited = _edited(module, request, body, found)
        with leaving(found):
            return record(session, module, tees, _moving(session, original), client, edited, found)
    with Sending(found.exchange, request):
        response = original(_Stage(client, found), request)
    return received(found.exchange, tees.response_sync, response, None)


async def asend(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any
) -> Any:
    """Do what `send` does, for an asynchronous client."""
    body, complete = known_body(module, request)
    body = body if complete else await request.aread()
    found = _transport(session, module, request, body)
    if isinstance(found, Live):
        edited = _edited(module, request, body, found)
        with leaving(found):
            return await arecord(session, module, tees, _moving(session, original), client, edited, found)
    with Sending(found.exchange, request):
        response = await original(_Stage(client, found), request)
    return received(found.exchange, tees.response_async, response, None)


def _edited(module: ModuleType, request: Any, body: bytes, live: Live) -> Any:
    """Return the request as it goes out: another one where a fork changes its body or its path."""
    if live.body is None and live.path is None:
        return request
    edited = with_body(module, request, body if live.body is None else live.body)
    if live.path is not None:
        edited.url = at_path(edited.url, live.path)
    return edited


def _moving(session: Session, original: Any) -> Any:
    """Return what sends a request, which is written down by then, to where its address has moved."""
    if not session.settings.moved:
        return original
    moved = dict(session.settings.moved)

    def send(client: Any, request: Any) -> Any:
        url = request.url
        there = moved.get(f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}".lower())
        if there is not None:
            request.url = url.join(f"{there}{url.raw_path.decode('ascii', 'replace')}")
            request.headers["host"] = request.url.netloc.decode("ascii", "replace")
        return original(client, request)

    return send


def at_path(url: Any, path: str) -> Any:
    """Return the URL with another path, its query kept."""
    _, mark, query = url.raw_path.partition(b"?")
    return url.copy_with(raw_path=path.encode("ascii", "replace") + mark + query)


def with_body(module: ModuleType, request: Any, body: bytes) -> Any:
    """Return the request with another body, the new length in the place of the old header."""
    headers = module.Headers(request.headers.raw)
    headers.pop("transfer-encoding", None)
    headers["content-length"] = str(len(body))
    return module.Request(
        request.method, request.url, headers=headers, content=body, extensions=request.extensions
    )


def _unheard(session: Session, module: ModuleType, request: Any, why: str) -> BaseException:
    body, complete = known_body(module, request)
    return unheard(session, request, body, module.ConnectError(why, request=request), complete=complete)


def _transport(session: Session, module: ModuleType, request: Any, body: bytes) -> _Transport | Live:
    """Return what answers the request, or how to go live; raise the drift else."""
    found = staged(session, request, body, lambda why: module.ConnectError(why, request=request))
    if isinstance(found, Live):
        return found
    return _Transport(found.exchange, found.recorded, found.waits, found.held, module=module)


def refuse(session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any) -> Any:
    """Refuse the connection as this machine would: nobody listens there, and the tape has no such address.

    It may be that of a service of the run's own that is about to start; else the replay fails by it.
    """
    raise _unheard(session, module, request, "[Errno 111] Connection refused")


async def arefuse(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any
) -> Any:
    """Do what `refuse` does, as an asynchronous client says it."""
    raise _unheard(session, module, request, "All connection attempts failed")


def keep(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any, *, who: str
) -> Any:
    """Return that somebody's telemetry arrived, and send none of it."""
    note_kept(session, request.url, who)
    return original(_Stage(client, _Kept(module)), request)


async def akeep(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any, *, who: str
) -> Any:
    """Do what `keep` does, for an asynchronous client."""
    note_kept(session, request.url, who)
    return await original(_Stage(client, _Kept(module)), request)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A transport by which nothing leaves."""

    module: ModuleType

    def handle_request(self, request: Any) -> Any:
        """Return a plain success."""
        answer = heard(request)
        return self.module.Response(answer.status, headers=list(answer.headers), content=answer.body)

    async def handle_async_request(self, request: Any) -> Any:
        """Return a plain success."""
        return self.handle_request(request)


class _Stage:
    """A stand-in for the client that differs in its transport alone, so its own method does all the rest."""

    def __init__(self, client: Any, transport: _Transport | _Kept) -> None:
        self._client = client
        setattr(self, names.TRANSPORT_FOR_URL, lambda url: transport)

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._client)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@dataclass(slots=True)
class _Transport(Staged):
    """A transport that answers one request with one recorded exchange."""

    module: ModuleType = field(kw_only=True)

    def handle_request(self, request: Any) -> Any:
        """Return the recorded response, or raise the recorded error."""
        if self.recorded.response is None:
            time.sleep(self.left_until_the_end() if self.waits else 0)
            self.hold()
            raise self.error(request)
        return self.response(request)

    async def handle_async_request(self, request: Any) -> Any:
        """Do what `handle_request` does, for an asynchronous client."""
        if self.recorded.response is None:
            if self.recorded.outcome == "cancelled":
                await self.hang()
            if self.waits:
                await asleep(self.left_until_the_end())
            await self.ahold()
            raise self.error(request)
        return self.response(request)

    def response(self, request: Any) -> Any:
        """Return the recorded head with a stream that gives the recorded chunks."""
        recorded = self.recorded.response
        assert recorded is not None
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in recorded.headers]
        extensions: dict[str, object] = {"http_version": recorded.http_version.encode("ascii", "replace")}
        if recorded.reason_phrase is not None:
            extensions["reason_phrase"] = recorded.reason_phrase.encode("latin-1", "replace")
        if recorded.stream_id is not None:
            extensions["stream_id"] = recorded.stream_id
        return self.module.Response(
            recorded.status,
            headers=headers,
            stream=_playback_class(self.module)(self, request),
            extensions=extensions,
        )

    def error(self, request: Any) -> BaseException:
        """Return the recorded error, of the client library's own class."""
        module, recorded = self.module, self.recorded
        name = (recorded.error_type or "").rpartition(".")[2]
        message = recorded.error_message or ""
        cls = getattr(module, name, None)
        if isinstance(cls, type) and issubclass(cls, module.RequestError):
            return cls(message, request=request)
        if (error := pythons_error(recorded)) is not None:
            return error
        fallback = module.ConnectError if recorded.response is None else module.ReadError
        return fallback(self.ending(), request=request)


@functools.cache
def _playback_class(module: ModuleType) -> type[Any]:
    class Playback(module.SyncByteStream, module.AsyncByteStream):
        """A stream of the recorded body in its recorded cuts, with its recorded end."""

        def __init__(self, transport: _Transport, request: Any) -> None:
            self._transport = transport
            self._request = request
            # One for all iterations: an SDK that stopped at its last event reads on, as from a connection.
            self._chunks = transport.chunks()

        def __iter__(self) -> Iterator[bytes]:
            transport = self._transport
            for number, wait, chunk, is_last in self._chunks:
                if wait:
                    time.sleep(wait)
                if is_last:
                    transport.hold()
                transport.came(number)
                if chunk:
                    yield chunk
            if not transport.ends_well:
                raise transport.error(self._request)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            transport = self._transport
            for number, wait, chunk, is_last in self._chunks:
                if wait:
                    await asleep(wait)
                await transport.apart(number)
                if is_last and transport.recorded.outcome != "cancelled":
                    await transport.ahold()
                transport.came(number)
                if chunk:
                    yield chunk
            if transport.recorded.outcome == "cancelled":
                await transport.hang()
            if not transport.ends_well:
                raise transport.error(self._request)

        def close(self) -> None:
            """Let nobody wait for this end: no connection is held."""
            self._transport.leave()

        async def aclose(self) -> None:
            """Let nobody wait for this end: no connection is held."""
            self.close()

    return Playback
