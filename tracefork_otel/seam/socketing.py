"""One connection of websockets: recorded with what both sides said; a replay refuses it by name."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any
from weakref import WeakSet

from ..exchange import Request, Response
from ..play.match import Explanation
from ..play.player import Player
from ..session.session import Session
from ..wire.websocket import SWITCHING, Message, Side
from .asked import asked
from .exchange import SeamExchange
from .recording import opened, start, value_of
from .routing import note_missed, routed
from .unseen import expected

_CONTINUED, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
"""Opcodes of frames (RFC 6455, 5.2); pings and pongs keep a connection and say nothing."""
_AS_JSON = (("content-type", "application/json"),)
_REPLAYED = (
    "a websocket is recorded, not replayed; `show` tells what both sides said. Ask the model by HTTP in runs "
    "that are to be replayed or forked"
)

_open: WeakSet[Socket] = WeakSet()


def connecting(session: Session, uri: Any) -> None:
    """Note that a client is about to connect there; where a tape is played, raise the drift instead."""
    request = asked("GET", _address(uri, uri.resource_name), ())
    if session.player is None:
        expected.add(request.url.host)
        return
    way, _ = routed(session, request, lambda: b"")
    if way in ("play", "refuse"):
        raise _refused(session, request)


def begun(session: Session, protocol: Any, request: Any) -> Socket | None:
    """Return what records the connection, its request written down; None where it is not to be recorded."""
    try:
        wanted = asked("GET", _address(protocol.uri, request.path), request.headers.raw_items())
        way, _ = routed(session, wanted, lambda: b"")
        if way == "paused":
            note_missed(session, wanted.url.host)
        if way != "record":
            return None
        exchange = opened(session, wanted, lambda: (b"", True), lambda _: None)
    except Exception as error:
        session.lost("start of an exchange", error)
        return None
    if exchange is None:
        return None
    exchange.was_redacted = True  # each message is, by itself
    socket = Socket(protocol, exchange)
    if not _open:
        atexit.unregister(_at_exit)
        atexit.register(_at_exit)
    _open.add(socket)
    return socket


def _address(uri: Any, path: str) -> str:
    scheme, own = ("wss", 443) if uri.secure else ("ws", 80)
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    return f"{scheme}://{host}{'' if uri.port == own else f':{uri.port}'}{path}"


class Socket:
    """A connection while it goes on; nothing of it raises into the application."""

    def __init__(self, protocol: Any, exchange: SeamExchange) -> None:
        self._protocol = protocol
        self._exchange = exchange
        self._parts: dict[Side, tuple[int, list[bytes]]] = {}
        self._closed_by: Side | None = None
        self._lock = Lock()  # the sync client reads in a thread of its own

    def called(
        self, name: str, call: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return what the protocol's method of this name gives, and keep what it tells."""
        if name == "receive_eof":
            result = call()
            self._kept(self.over)
            return result
        result = call()
        if name == "events_received":
            self._kept(lambda: self._came(result))
        elif name == "send_close":
            self._kept(lambda: self._closed("agent", *args, **kwargs))
        elif name != "send_request":
            opcode = {"send_text": _TEXT, "send_binary": _BINARY}.get(name, _CONTINUED)
            self._kept(lambda: self._part("agent", opcode, *args, **kwargs))
        return result

    def over(self) -> None:
        """End the exchange as its connection has ended, or has not."""
        exchange, protocol = self._exchange, self._protocol
        _open.discard(self)
        if exchange.status is None and protocol.handshake_exc is not None:
            exchange.fail(protocol.handshake_exc)
        elif exchange.status != SWITCHING:
            exchange.finish("complete" if exchange.status is not None else "no_response")
        elif self._closed_by is None:
            exchange.finish("abandoned" if protocol.state.name == "OPEN" else "cut")
        else:
            both = protocol.close_rcvd is not None and protocol.close_sent is not None
            exchange.finish("complete" if both else "closed")

    def _kept(self, keep: Callable[[], None]) -> None:
        try:
            with self._lock:
                keep()
        except Exception as error:
            self._exchange.give_up("message of a websocket", error)

    def _came(self, events: Sequence[Any]) -> None:
        for event in events:
            opcode = getattr(event, "opcode", None)
            if opcode is None:
                self._answered(event)
            elif opcode == _CLOSE:
                close = self._protocol.close_rcvd
                self._closed("server", close and close.code, "" if close is None else close.reason)
            elif opcode in (_CONTINUED, _TEXT, _BINARY):
                self._part("server", opcode, event.data, event.fin)

    def _answered(self, response: Any) -> None:
        exchange = self._exchange
        raw = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()
        ]
        headers = exchange.session.redactor.response_headers(raw, exchange.replaced)
        exchange.answered(response.status_code, headers, "HTTP/1.1", reason_phrase=response.reason_phrase)
        if response.status_code != SWITCHING:
            exchange.was_redacted = False
            if response.body:
                exchange.chunk(bytes(response.body))

    def _part(self, side: Side, opcode: int, data: Any, fin: bool = True) -> None:
        if opcode != _CONTINUED:
            self._parts[side] = opcode, []
        kind, parts = self._parts.setdefault(side, (_BINARY, []))
        parts.append(bytes(data))
        if fin:
            del self._parts[side]
            self._said(side, kind, b"".join(parts))

    def _said(self, side: Side, kind: int, data: bytes) -> None:
        kept = self._redacted(side, data) if data else data
        text = kept.decode("utf-8", "replace") if kind == _TEXT else kept
        self._exchange.chunk(Message(side, text).line())

    def _redacted(self, side: Side, data: bytes) -> bytes:
        exchange = self._exchange
        redactor, request = exchange.session.redactor, exchange.request
        if side == "agent":
            told = Request(method=request.method, url=request.url, headers=_AS_JSON)
            kept, why = redactor.request_body(told, data, exchange.asked)
        else:
            response = Response(status=200, headers=_AS_JSON, body=data, chunk_sizes=(len(data),))
            found, why = redactor.response(response, exchange.replaced)
            kept = found.body
        exchange.withheld = exchange.withheld or why
        return kept

    def _closed(self, side: Side, code: int | None = None, reason: str = "") -> None:
        if self._closed_by is None:
            self._closed_by = side
            reason = self._exchange.session.redactor.error(reason)
            number = None if code is None else int(code)
            self._exchange.chunk(Message(side, None, number, reason).line())


def _refused(session: Session, request: Any) -> BaseException:
    """Return the error by which nobody listens there, once it is written down as the exchange's end."""
    value, player = value_of(session, request, b""), session.player
    place = request.method, value.url
    recorded = player.tape.exchanges if isinstance(player, Player) else ()
    step = next((n for n, one in enumerate(recorded) if (one.request.method, one.request.url) == place), None)
    explanation = Explanation(
        step=len(recorded) if step is None else step,
        path="",
        recorded=None,
        got=None,
        nearest=step,
        cause="websocket",
        request=f"GET {value.url}",
        advice=_REPLAYED,
    )
    exchange = start(session, request, value, replayed=False)
    exchange.attributes["tracefork.drift"] = explanation.to_json()
    if player is not None:
        player.tell(explanation)
    exchange.error_type = "tracefork_otel.Drift"
    error = ConnectionError(f"tracefork {session.settings.mode}: {explanation.text()}")
    exchange.open(complete=True)
    exchange.fail(error)
    return error


def _at_exit() -> None:
    # A connection that nobody closed: what was said on it is kept.
    for socket in list(_open):
        socket.over()
