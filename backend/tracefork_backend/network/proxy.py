"""A reverse proxy that records what passes byte for byte, or answers from a tape with the same player."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from socket import socket
from typing import Any

import httpx2

from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.log import warn_once
from tracefork_otel.play.answers import Live, Miss, Served
from tracefork_otel.play.loading import load_player
from tracefork_otel.play.retries import at_once
from tracefork_otel.recording.exchange import OpenExchange
from tracefork_otel.settings import Settings
from tracefork_otel.wire.registry import is_called_at

from .addresses import LOOPBACK
from .asgi import (
    ClientLeft,
    NoRoom,
    Receive,
    Room,
    Scope,
    Send,
    TooLarge,
    answer_error,
    is_foreign,
    left,
    path_of,
)
from .connections import FOR_ANSWERS, FOR_CLIENTS, share_of_files
from .ledger import RUN_HEADER, Ledger
from .server import Server

MAX_REQUEST = 512 * 1024 * 1024
"""Requests are in the WAL before they are sent, so they are held in memory: this is how much one may take."""
MAX_HELD = 512 * 1024 * 1024
"""Bytes of requests that go on at once; whoever sends more is asked to try again."""
_CONNECT_S = 30.0
_NOT_FORWARD = (
    "this is a reverse proxy: give its address to the SDK as base URL (OPENAI_BASE_URL and the like), not as "
    "HTTPS_PROXY or HTTP_PROXY. What goes through such a tunnel is encrypted for the provider: to read it, "
    "every client would have to trust a certificate of this proxy's for all hosts, which tracefork-otel does "
    "not offer"
)
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
_TARGET = re.compile(rb"[\x21-\x7e]+")
"""What a request line can hold as it is."""
_NOT_SENT = (b"host", RUN_HEADER.encode(), b"expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A port that the proxy listens on, and where its requests go."""

    socket: socket
    origin: str
    """Scheme and host, and a path that is put before each request's own."""
    base: str = ""
    """What the provider's own paths begin with, where an agent may have it in its base URL, or not."""

    @property
    def port(self) -> int:
        """The port."""
        return int(self.socket.getsockname()[1])


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it goes upstream: its path and query are the client's, byte for byte."""

    method: str
    host: str
    """With the scheme."""
    target: str
    """Path and query."""
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    @property
    def url(self) -> str:
        """As it is recorded and matched."""
        return self.host + self.target

    def request(self) -> httpx2.Request:
        """Return it for a client, which would spell a path in its own way were it not told the target."""
        target = self.target.encode("latin-1")
        url, extensions = self.url, dict[str, bytes]()
        if _TARGET.fullmatch(target):
            url, extensions = f"{self.host}/", {"target": target}
        content = self.body or None
        return httpx2.Request(self.method, url, headers=self.headers, content=content, extensions=extensions)

    def edited(self, body: bytes | None, path: str | None) -> _Asked:
        """Return it with another body, or at another path, its query kept."""
        _, mark, query = self.target.partition("?")
        return replace(
            self,
            target=self.target if path is None else path + mark + query,
            headers=[(key, text) for key, text in self.headers if key.lower() != b"content-length"],
            body=self.body if body is None else body,
        )


def based(path: str, base: str) -> str:
    """Return the path as the provider has it, whose own all begin with `base`.

    SDKs differ in whether the base URL that they are given is to have it: Anthropic's own and Vercel's read
    one variable, and put `/v1/messages` and `/messages` behind it. All but a model's calls stays as it is:
    providers have other paths beside those, such as `/api/oauth/profile`.
    """
    asked = path.partition("?")[0]
    if asked.startswith(f"{base}{base}/"):
        return path[len(base) :] if is_called_at(asked[len(base) :], base) else path
    if asked.startswith(f"{base}/") or not is_called_at(base + asked, base):
        return path
    return base + path


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
        super().__init__(
            self._app,
            [one.socket for one in upstreams],
            grace_s=_GRACE_S,
            most_clients=share_of_files(FOR_CLIENTS - FOR_ANSWERS),
        )
        self.upstreams = {one.port: one for one in upstreams}
        self.ledger = Ledger(
            settings.store, settings=settings, name=name, launch=launch, attributes=attributes
        )
        self._settings = settings
        self._host = host
        self._room = Room(MAX_HELD, share_of_files(FOR_ANSWERS))
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
        if scope["method"] == "CONNECT" or not path.startswith(b"/"):
            wanted = path.decode("ascii", "replace")
            warn_once("forward proxy", "a client asked for %s: %s", wanted, _NOT_FORWARD)
            await answer_error(send, 405, "tracefork_reverse_proxy", _NOT_FORWARD)
            return
        if is_foreign(scope, self._host):
            await answer_error(
                send, 421, "tracefork_foreign_host", "this proxy answers to loopback names only"
            )
            return
        try:
            async with self._room.body(scope, receive, MAX_REQUEST) as body:
                await self._answer(scope, body, receive, send)
        except ClientLeft:
            return
        except TooLarge:
            await answer_error(
                send, 413, "tracefork_too_large", f"the request has more than {MAX_REQUEST} bytes"
            )
        except NoRoom:
            why = "more requests go on than there are files for, or room in memory: try again"
            await answer_error(send, 503, "tracefork_no_room", why, retry=True)

    def _asked(self, scope: Scope, body: bytes) -> _Asked:
        upstream = self.upstreams[scope["server"][1]]
        scheme, _, rest = upstream.origin.rstrip("/").partition("://")
        host, slash, prefix = rest.partition("/")
        target = slash + prefix + based(path_of(scope), upstream.base)
        headers = [(key, value) for key, value in _passed_on(scope["headers"]) if key not in _NOT_SENT]
        return _Asked(scope["method"], f"{scheme}://{host}", target, headers, body)

    def _value(self, asked: _Asked) -> Request:
        # The headers as a request has them, its length among them.
        sent = asked.request().headers.raw
        return self.ledger.redactor.request(asked.method, asked.url, sent, asked.body)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        asked = self._asked(scope, body)
        value = self._value(asked)
        headers = {key.decode("latin-1"): text.decode("latin-1") for key, text in scope["headers"]}
        found: Any = None
        why = ""
        if self._player is not None:
            try:
                found = self._player.answer(value)
            except Exception as error:
                why = f"the tape gave no answer: {error}"
        if isinstance(found, Live) and (found.body is not None or found.path is not None):
            asked = asked.edited(found.body, found.path)
            value = self._value(asked)
        if isinstance(found, Live) and self._player is not None:
            await asyncio.to_thread(self._player.leave.wait, value)
        if isinstance(found, Served) and found.asked is not None:
            value = found.asked
        entry = self.ledger.begin(value, headers, replayed=isinstance(found, Served))
        if found is not None and found.phase is not None:
            entry.belongs_to(found.phase, None if isinstance(found, Miss) else found.label)
        if isinstance(found, Miss):
            entry.attributes["tracefork.drift"] = found.explanation.to_json()
            why = found.explanation.text()
        if isinstance(found, Served):
            work = self._play(scope, entry, found, send)
        elif self._player is None or isinstance(found, Live):
            work = self._forward(scope, entry, asked.request(), send)
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
        entry.not_compared(served.uncompared)
        response = recorded.response
        if response is None:
            await self._play_failure(scope, entry, served, send)
            return
        waits = self._settings.timing == "recorded"
        if served.retried and not waits:
            response = at_once(response)
        entry.answered(
            response.status,
            response.headers,
            response.http_version,
            reason_phrase=response.reason_phrase,
            stream_id=response.stream_id,
        )
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        pieces = response.chunks() or ((response.body,) if response.body else ())
        for piece in pieces:
            # What the client was given, also where it leaves in the middle as it did in the recording.
            entry.chunk(piece)
        await send({"type": "http.response.start", "status": response.status, "headers": _passed_on(raw)})
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
