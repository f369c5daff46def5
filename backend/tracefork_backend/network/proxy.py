"""A reverse proxy that records what passes byte for byte, or answers from a tape with the same player."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any

import httpx2

from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.play.loading import load_player
from tracefork_otel.play.player import Live, Miss, Served
from tracefork_otel.recording.exchange import OpenExchange
from tracefork_otel.seam.playing import at_path
from tracefork_otel.settings import Settings

from .addresses import LOOPBACK
from .asgi import (
    ClientLeft,
    Receive,
    Scope,
    Send,
    TooLarge,
    answer_error,
    is_foreign,
    left,
    path_of,
    read_body,
)
from .ledger import RUN_HEADER, Ledger
from .server import Server

MAX_REQUEST = 512 * 1024 * 1024
"""Requests are in the WAL before they are sent, so they are held in memory: this is how much one may take."""
_CONNECT_S = 30.0
_GRACE_S = 1.0
"""Running answers may take this long when the proxy is stopped; also how long a client that left while it was
recorded may take to leave again."""
_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_BAD_GATEWAY = 502
_NOT_SENT = (b"host", RUN_HEADER.encode(), b"expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A port that the proxy listens on, and where its requests go."""

    socket: socket
    origin: str
    """Scheme and host, and a path that is put before each request's own."""

    @property
    def port(self) -> int:
        """The port."""
        return int(self.socket.getsockname()[1])


class Proxy(Server):
    """Passes requests on and writes them down."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        settings: Settings,
        name: str = "proxy",
        host: str = LOOPBACK,
        launch: tuple[str, str] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare the proxy; in a replay or fork the tape answers, and a fork's tail goes upstream."""
        super().__init__(self._app, [one.socket for one in upstreams], grace_s=_GRACE_S)
        self.upstreams = {one.port: one.origin.rstrip("/") for one in upstreams}
        self.ledger = Ledger(
            settings.store, settings=settings, name=name, launch=launch, attributes=attributes
        )
        self._settings = settings
        self._host = host
        self._player = load_player(settings) if settings.mode in ("replay", "fork") else None
        self._client: httpx2.AsyncClient | None = None

    @property
    def went_on(self) -> bool:
        """Whether a fork's change was made, so that what followed was the agent's own way."""
        return self._player is not None and not self._player.watching

    def ended(self) -> None:
        """Close the ledger too, which can be sealed then."""
        super().ended()
        self.ledger.close()

    def _upstream(self) -> httpx2.AsyncClient:
        if self._client is None:
            # The agent's own client decides how long it waits.
            timeout = httpx2.Timeout(None, connect=_CONNECT_S)
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
            self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        return self._client

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope["raw_path"]
        if is_foreign(scope, self._host):
            await answer_error(
                send, 421, "tracefork_foreign_host", "this proxy answers to loopback names only"
            )
            return
        if scope["method"] == "CONNECT" or not path.startswith(b"/"):
            await answer_error(
                send,
                405,
                "tracefork_reverse_proxy",
                "this is a reverse proxy: give its address to the SDK as base URL, not as HTTP proxy",
            )
            return
        try:
            body = await read_body(scope, receive, MAX_REQUEST)
        except ClientLeft:
            return
        except TooLarge:
            await answer_error(
                send, 413, "tracefork_too_large", f"the request has more than {MAX_REQUEST} bytes"
            )
            return
        request = self._request(scope, body)
        await self._answer(scope, request, body, receive, send)

    def _request(self, scope: Scope, body: bytes) -> httpx2.Request:
        url = self.upstreams[scope["server"][1]] + path_of(scope)
        headers = [(key, value) for key, value in _passed_on(scope["headers"]) if key not in _NOT_SENT]
        return httpx2.Request(scope["method"], url, headers=headers, content=body or None)

    def _value(self, request: httpx2.Request, body: bytes) -> Request:
        return self.ledger.redactor.request(request.method, str(request.url), request.headers.raw, body)

    async def _answer(
        self, scope: Scope, request: httpx2.Request, body: bytes, receive: Receive, send: Send
    ) -> None:
        value = self._value(request, body)
        headers = {key.decode("latin-1"): text.decode("latin-1") for key, text in scope["headers"]}
        found: Any = None
        why = ""
        if self._player is not None:
            try:
                found = self._player.answer(value)
            except Exception as error:
                why = f"the tape gave no answer: {error}"
        if isinstance(found, Live) and (found.body is not None or found.path is not None):
            body = body if found.body is None else found.body
            kept = [(key, text) for key, text in request.headers.raw if key.lower() != b"content-length"]
            url = request.url if found.path is None else at_path(request.url, found.path)
            request = httpx2.Request(request.method, url, headers=kept, content=body)
            value = self._value(request, body)
        entry = self.ledger.begin(value, headers, replayed=isinstance(found, Served))
        if found is not None and found.phase is not None:
            entry.belongs_to(found.phase, None if isinstance(found, Miss) else found.label)
        if isinstance(found, Miss):
            entry.attributes["tracefork.drift"] = found.explanation.to_json()
            why = found.explanation.text()
        if isinstance(found, Served):
            work = self._play(scope, entry, found, send)
        elif self._player is None or isinstance(found, Live):
            work = self._forward(scope, entry, request, send)
        else:
            text = f"tracefork {self._settings.mode}: {why}"
            entry.error_type, entry.error_message = "tracefork_otel.Drift", text
            entry.finish("no_response")
            await answer_error(send, _BAD_GATEWAY, "tracefork_drift", text)
            return
        await _until_left(entry, work, receive)

    async def _forward(self, scope: Scope, entry: OpenExchange, request: httpx2.Request, send: Send) -> None:
        try:
            response = await self._upstream().send(request, stream=True)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            entry.fail(error)
            await _bad_gateway(send, str(error), type(error).__name__)
            return
        try:
            raw = response.headers.raw
            entry.answered(
                response.status_code,
                self.ledger.redactor.response_headers(raw, entry.replaced),
                response.http_version,
            )
            await send(
                {"type": "http.response.start", "status": response.status_code, "headers": _passed_on(raw)}
            )
            async for chunk in response.aiter_raw():
                entry.chunk(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx2.RequestError as error:
            entry.fail(error)
            await self.hang_up(scope)
            return
        finally:
            await response.aclose()
        # In the WAL before the client knows that it is over, and may end the proxy.
        entry.finish("complete")
        await send({"type": "http.response.body", "body": b""})

    async def _play(self, scope: Scope, entry: OpenExchange, served: Served, send: Send) -> None:
        recorded = served.exchange
        entry.served_span_id = None if served.changed else recorded.span_id
        response = recorded.response
        if response is None:
            await self._play_failure(scope, entry, served, send)
            return
        entry.answered(response.status, response.headers, response.http_version)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        pieces = response.chunks() or ((response.body,) if response.body else ())
        for piece in pieces:
            # What the client was given, also where it leaves in the middle as it did in the recording.
            entry.chunk(piece)
        await send({"type": "http.response.start", "status": response.status, "headers": _passed_on(raw)})
        waits = self._settings.timing == "recorded"
        last = 0
        for number, piece in enumerate(pieces):
            if waits and number < len(response.chunk_offsets_us):
                due = response.chunk_offsets_us[number]
                await asyncio.sleep(max(0, due - last) / 1e6)
                last = due
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if recorded.outcome == "complete":
            entry.finish("complete")
            await send({"type": "http.response.body", "body": b""})
            return
        if recorded.outcome in ("closed", "cancelled", "abandoned"):
            await asyncio.sleep(_GRACE_S)
        entry.error_type, entry.error_message = recorded.error_type, recorded.error_message
        entry.finish(recorded.outcome)
        await self.hang_up(scope)

    async def _play_failure(self, scope: Scope, entry: OpenExchange, served: Served, send: Send) -> None:
        recorded: Exchange = served.exchange
        if recorded.outcome in ("cancelled", "in_flight"):
            length_ns = (recorded.ended_ns or recorded.started_ns) - recorded.started_ns
            await asyncio.sleep(length_ns / 1e9 + _GRACE_S)
        entry.error_type, entry.error_message = recorded.error_type, recorded.error_message
        entry.finish(recorded.outcome)
        if served.changed or recorded.outcome != "no_response":
            await self.hang_up(scope)
            return
        kind = (recorded.error_type or "").rpartition(".")[2]
        await _bad_gateway(send, recorded.error_message or "", kind)


async def _until_left(entry: OpenExchange, work: Any, receive: Receive) -> None:
    """Do the work, or give it up when its client leaves."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(left(receive))
    gone.add_done_callback(lambda _: task.cancel())
    try:
        await task
    except asyncio.CancelledError as error:
        if entry.status is None:
            entry.fail(error)
        else:
            entry.finish("closed")
        if not gone.done():
            raise
    except BaseException as error:
        entry.fail(error)
        raise
    finally:
        gone.cancel()


async def _bad_gateway(send: Send, text: str, kind: str) -> None:
    """Tell a client that its upstream did not answer, by the error alone, so that it replays."""
    why = f"the upstream gave no answer ({kind}): {text}"
    await answer_error(send, _BAD_GATEWAY, "tracefork_upstream", why, retry=True)


def _passed_on(raw: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers but those of one connection only, as HTTP or its `connection` header names them."""
    named = {
        word.strip().lower()
        for key, value in raw
        if key.lower() == b"connection"
        for word in value.split(b",")
    }
    return [(key, value) for key, value in raw if key.lower() not in _HOP and key.lower() not in named]
