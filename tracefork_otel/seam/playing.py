"""The seam while it plays: a request is answered from a tape, and nothing of it reaches the network."""

from __future__ import annotations

import asyncio
import builtins
import functools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from .. import private_names as names
from ..draws.blaming import after_draws
from ..exchange import Exchange
from ..play.answers import Live, Miss, Served
from ..play.retries import at_once
from ..play.tools import GRACE_S
from ..session.housekeeping import renewing
from .exchange import SeamExchange
from .holding import Held
from .noting import at
from .recording import Sending, arecord, known_body, received, record, start, value_of

if TYPE_CHECKING:
    from ..play.answers import Answer
    from ..play.match import Explanation
    from ..session.session import Session
    from .streams import Tees


def send(session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any) -> Any:
    """Return the recorded or a fork's live response; raise the recorded error, or that of a drift."""
    body, complete = known_body(module, request)
    body = body if complete else request.read()
    staged = _staged(session, module, request, body)
    if isinstance(staged, Live):
        edited = _edited(module, request, body, staged)
        with _leaving(staged):
            return record(session, module, tees, _moving(session, original), client, edited, staged)
    exchange, transport = staged
    with Sending(exchange, request):
        response = original(_Stage(client, transport), request)
    return received(exchange, tees.response_sync, response, None)


async def asend(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any
) -> Any:
    """Do what `send` does, for an asynchronous client."""
    body, complete = known_body(module, request)
    body = body if complete else await request.aread()
    staged = _staged(session, module, request, body)
    if isinstance(staged, Live):
        edited = _edited(module, request, body, staged)
        with _leaving(staged):
            return await arecord(session, module, tees, _moving(session, original), client, edited, staged)
    exchange, transport = staged
    with Sending(exchange, request):
        response = await original(_Stage(client, transport), request)
    return received(exchange, tees.response_async, response, None)


def _edited(module: ModuleType, request: Any, body: bytes, live: Live) -> Any:
    """Return the request as it goes out: another one where a fork changes its body or its path."""
    if live.body is None and live.path is None:
        return request
    edited = with_body(module, request, body if live.body is None else live.body)
    if live.path is not None:
        edited.url = at_path(edited.url, live.path)
    return edited


@contextmanager
def _leaving(live: Live) -> Iterator[None]:
    """Let the request leave this machine, where a fork asks for a key before its change."""
    token = renewing.set(live.phase == "prefix")
    try:
        yield
    finally:
        renewing.reset(token)


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


def _staged(
    session: Session, module: ModuleType, request: Any, body: bytes
) -> tuple[SeamExchange, _Transport] | Live:
    """Return an open exchange and the transport that answers it, or how to go live; else raise the drift."""
    value = value_of(session, request, body)
    player = session.player
    assert player is not None
    answer: Answer | None = None
    why = ""
    try:
        answer = player.answer(value)
        if session.draws is not None:
            answer = session.draws.seen(answer)
    except Exception as error:
        session.lost("answer of a tape", error)
        why = f"the tape gave no answer: {error}"
    if isinstance(answer, Live) and answer.step is not None:
        player.order.passed(answer.step)
    elif isinstance(answer, Live | Miss):
        player.order.free()
    if isinstance(answer, Live):
        return answer
    served = answer if isinstance(answer, Served) else None
    if served is not None and served.asked is not None:
        value = served.asked
    exchange = start(session, request, value, replayed=served is not None)
    if answer is not None and answer.phase is not None:
        exchange.belongs_to(answer.phase, None if served is None else served.label)
    if served is not None:
        exchange.served_span_id = None if served.changed else served.exchange.span_id
        exchange.not_compared(served.uncompared)
    exchange.open(complete=True)
    if served is not None:
        waits = session.settings.timing == "recorded"
        held = None
        if not waits and player.order.has_others(served.step):
            held = Held(player.order, served.step)
            player.order.begun(served.step)
        recorded = served.exchange
        if served.retried and not waits and recorded.response is not None:
            recorded = replace(recorded, response=at_once(recorded.response))
        return exchange, _Transport(module, exchange, recorded, waits=waits, held=held)
    if isinstance(answer, Miss):
        explanation = _advised(session, answer.explanation)
        exchange.attributes["tracefork.drift"] = explanation.to_json()
        why = explanation.text()
        player.tell(explanation)
    exchange.error_type = "tracefork_otel.Drift"
    # A class of the client's own, so that SDKs handle it as they handle a connection that failed.
    error = module.ConnectError(f"tracefork {session.settings.mode}: {why}", request=request)
    exchange.fail(error)
    raise error


def refuse(session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any) -> Any:
    """Refuse the connection as this machine would: nobody listens there, and the tape has no such address.

    It may be that of a service of the run's own that is about to start; else the replay fails by it.
    """
    _unheard(session, module, request, "[Errno 111] Connection refused")


async def arefuse(
    session: Session, module: ModuleType, tees: Tees, original: Any, client: Any, request: Any
) -> Any:
    """Do what `refuse` does, as an asynchronous client says it."""
    _unheard(session, module, request, "All connection attempts failed")


def _unheard(session: Session, module: ModuleType, request: Any, why: str) -> NoReturn:
    body, complete = known_body(module, request)
    exchange = start(session, request, value_of(session, request, body), replayed=False)
    exchange.open(complete=complete)
    error = module.ConnectError(why, request=request)
    exchange.fail(error)
    raise error


def _advised(session: Session, explanation: Explanation) -> Explanation:
    """Return the explanation with advice that helps where this process is the reason."""
    if session.paused is None:
        return after_draws(explanation) if session.player and session.player.drew else explanation
    advice = (
        f"it is made where the recording is off, by uninstrument(){at(session.paused)}: leave that out, and "
        "record anew"
    )
    return replace(explanation, advice=advice)


class _Stage:
    """A stand-in for the client that differs in its transport alone, so its own method does all the rest."""

    def __init__(self, client: Any, transport: _Transport) -> None:
        self._client = client
        setattr(self, names.TRANSPORT_FOR_URL, lambda url: transport)

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._client)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@dataclass(slots=True)
class _Transport:
    """A transport that answers one request with one recorded exchange."""

    module: ModuleType
    exchange: SeamExchange
    recorded: Exchange
    waits: bool
    held: Held | None = None

    def handle_request(self, request: Any) -> Any:
        """Return the recorded response, or raise the recorded error."""
        if self.recorded.response is None:
            time.sleep(self.left_until_the_end() if self.waits else 0)
            self.hold()
            raise self.error(request)
        return self.response(request)

    def hold(self) -> None:
        """Wait for whatever ended before this in the recording; this has ended then."""
        if self.held is not None:
            self.held.wait(self.left_until_the_end() + GRACE_S)
            self.held.over()

    async def ahold(self) -> None:
        """Do what `hold` does, in an event loop."""
        if self.held is not None:
            try:
                await self.held.turn(self.left_until_the_end() + GRACE_S)
            finally:
                self.held.over()

    async def handle_async_request(self, request: Any) -> Any:
        """Do what `handle_request` does, for an asynchronous client."""
        if self.recorded.response is None:
            if self.recorded.outcome == "cancelled":
                await self.hang()
            await _sleep(self.left_until_the_end() if self.waits else 0)
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

    def chunks(self) -> Iterator[tuple[float, bytes, bool]]:
        """Yield each recorded chunk, the number of seconds in which it is due, and whether it is the last."""
        response = self.recorded.response
        assert response is not None
        offsets = response.chunk_offsets_us if self.waits else ()
        # What came in over OTLP without its cuts is served in one piece.
        pieces = response.chunks() or ((response.body,) if response.body else ())
        for number, piece in enumerate(pieces):
            due_ns = offsets[number] * 1000 if number < len(offsets) else 0
            due_s = max(0.0, (self.exchange.started + due_ns - perf_counter_ns()) / 1e9)
            yield due_s, piece, number == len(pieces) - 1
        if not pieces:
            yield 0.0, b"", True

    def left_until_the_end(self) -> float:
        """Return the seconds until the recorded exchange was over, counted from this one's start."""
        length_ns = (self.recorded.ended_ns or self.recorded.started_ns) - self.recorded.started_ns
        return max(0.0, (self.exchange.started + length_ns - perf_counter_ns()) / 1e9)

    async def hang(self) -> None:
        """Wait to be cancelled as in the recording; raise the cancellation if nobody does."""
        try:
            await _sleep(self.left_until_the_end() + GRACE_S)
        finally:
            if self.held is not None:
                self.held.over()
        raise asyncio.CancelledError

    def error(self, request: Any) -> BaseException:
        """Return the recorded error, of the client library's own class."""
        module, recorded = self.module, self.recorded
        home, _, name = (recorded.error_type or "").rpartition(".")
        message = recorded.error_message or ""
        cls = getattr(module, name, None)
        if isinstance(cls, type) and issubclass(cls, module.RequestError):
            return cls(message, request=request)
        cls = getattr(builtins, name, None) if home == "builtins" else None
        if isinstance(cls, type) and issubclass(cls, OSError | RuntimeError | ValueError | EOFError):
            return cls(message)
        fallback = module.ConnectError if recorded.response is None else module.ReadError
        what = message or f"the recording of this exchange ends here ({recorded.outcome})"
        return fallback(f"{recorded.error_type}: {what}" if recorded.error_type else what, request=request)

    @property
    def ends_well(self) -> bool:
        """Whether the recorded body was read to its end."""
        return self.recorded.outcome == "complete"


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
            for wait, chunk, is_last in self._chunks:
                if wait:
                    time.sleep(wait)
                if is_last:
                    transport.hold()
                if chunk:
                    yield chunk
            if not transport.ends_well:
                raise transport.error(self._request)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            transport = self._transport
            for wait, chunk, is_last in self._chunks:
                if wait:
                    await _sleep(wait)
                if is_last and transport.recorded.outcome != "cancelled":
                    await transport.ahold()
                if chunk:
                    yield chunk
            if transport.recorded.outcome == "cancelled":
                await transport.hang()
            if not transport.ends_well:
                raise transport.error(self._request)

        def close(self) -> None:
            """Let nobody wait for this end: no connection is held."""
            if self._transport.held is not None:
                self._transport.held.over()

        async def aclose(self) -> None:
            """Let nobody wait for this end: no connection is held."""
            self.close()

    return Playback


async def _sleep(seconds: float) -> None:
    if seconds > 0:
        import anyio  # both client libraries bring it; it also serves agents that run on trio

        await anyio.sleep(seconds)
