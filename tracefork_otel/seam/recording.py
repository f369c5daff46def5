"""The seam while it records: a request is written down, sent, and its response kept."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from ..exchange import Request
from ..recording.exchange import named
from ..session import calls, spans, tool_calls
from ..session.events import BELOW_CALL, begun_attributes
from ..session.root import parent_and_tracer, run_of
from .exchange import RUN_ID, SeamExchange, sent_here
from .sites import site
from .streams import RequestTee, Tees

if TYPE_CHECKING:
    from ..play.answers import Live
    from ..session.session import Session


def record(
    session: Session,
    module: ModuleType,
    tees: Tees,
    original: Any,
    client: Any,
    request: Any,
    live: Live | None = None,
) -> Any:
    """Send the request, record it and return the answer; `live` says which part of a fork it is."""
    exchange = begin(session, module, tees, request, live)
    if exchange is None:
        return original(client, request)
    with Sending(exchange, request):
        response = original(client, request)
    whole: bytes | None = None
    if _ready(response):
        try:
            whole = b"".join(response.stream)
        except Exception:
            whole = _decoded(exchange, response)
    return received(exchange, tees.response_sync, response, whole)


async def arecord(
    session: Session,
    module: ModuleType,
    tees: Tees,
    original: Any,
    client: Any,
    request: Any,
    live: Live | None = None,
) -> Any:
    """Do what `record` does, for an asynchronous client."""
    exchange = begin(session, module, tees, request, live)
    if exchange is None:
        return await original(client, request)
    with Sending(exchange, request):
        response = await original(client, request)
    whole: bytes | None = None
    if _ready(response):
        try:
            whole = b"".join([chunk async for chunk in response.stream])
        except Exception:
            whole = _decoded(exchange, response)
    return received(exchange, tees.response_async, response, whole)


class Sending:
    """The time in which a client sends a request: its span is current, and an error ends its exchange."""

    __slots__ = ("_exchange", "_outer", "_request", "_token")

    def __init__(self, exchange: SeamExchange, request: Any = None) -> None:
        self._exchange = exchange
        self._request = request

    def __enter__(self) -> None:
        # A span that no provider records must not become current: others would send its ids along.
        span = self._exchange.span.sdk
        self._token = None if span is None else otel_context.attach(trace.set_span_in_context(span))
        self._outer = sent_here.set(self._exchange)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._exchange.fail(error)
        sent_here.reset(self._outer)
        if self._token is not None:
            otel_context.detach(self._token)
        stream = getattr(self._request, "stream", None)
        if isinstance(stream, RequestTee):
            self._request.stream = stream.stream


def begin(
    session: Session, module: ModuleType, tees: Tees, request: Any, live: Live | None = None
) -> SeamExchange | None:
    """Open an exchange and write its request down; where that fails, count the loss and return None."""

    def tee(exchange: SeamExchange) -> None:
        request.stream = tees.request(module, request.stream, exchange)

    return opened(session, request, lambda: known_body(module, request), tee, live)


def opened(
    session: Session,
    request: Any,
    body: Callable[[], tuple[bytes, bool]],
    tee: Callable[[SeamExchange], None],
    live: Live | None = None,
) -> SeamExchange | None:
    """Open an exchange and write its request down; where that fails, count the loss and return None.

    `body` gives what is sent, and whether it is known yet; where it is not, `tee` has it kept as it is sent.
    """
    exchange: SeamExchange | None = None
    try:
        session.reap()
        sent, complete = body()
        exchange = start(session, request, value_of(session, request, sent), replayed=False)
        if live is not None:
            exchange.belongs_to(live.phase, live.label)
        if not complete:
            tee(exchange)
        exchange.open(complete=complete)
        return exchange
    except Exception as error:
        if exchange is None:
            session.lost("start of an exchange", error)
        else:
            exchange.give_up("start of an exchange", error)
        return None


def known_body(module: ModuleType, request: Any) -> tuple[bytes, bool]:
    """Return the request's body, and whether it is known yet: a streamed one is only once it was sent."""
    try:
        return request.content, True
    except module.RequestNotRead:
        pass
    if isinstance(request.stream, module.ByteStream):  # a redirect's request carries the first one's stream
        return b"".join(request.stream), True
    return b"", False


def value_of(session: Session, request: Any, body: bytes) -> Request:
    """Return the request as it is recorded and matched, secrets replaced."""
    return session.redactor.request(request.method, str(request.url), request.headers.raw, body)


def start(session: Session, request: Any, value: Request, *, replayed: bool) -> SeamExchange:
    """Start an exchange and its span, without writing it down yet."""
    url = request.url
    host = url.host
    seq = session.next_seq()
    tool_calls.count()
    attributes = begun_attributes(value, seq=seq, replayed=replayed, host=host, port=url.port)
    name, recognised = named(value, host)
    attributes |= recognised
    parent, tracer = parent_and_tracer(session)
    run_id = run_of(session, parent)
    if run_id is not None:
        attributes[RUN_ID] = run_id
    kind, above = SpanKind.INTERNAL, None
    if recognised:
        above = calls.span_of_call(trace.get_current_span(parent.context))
        attributes[BELOW_CALL] = above is not None
        if above is None:
            kind = SpanKind.CLIENT
    span = spans.start(session, tracer, name, parent, attributes, kind=kind)
    exchange = SeamExchange(
        session, span, value, host=host, seq=seq, replayed=replayed, run_id=run_id, above=above
    )
    if session.settings.sites:
        exchange.site = site(session.redactor)
    return exchange


def received(exchange: SeamExchange, tee: type[Any], response: Any, whole: bytes | None) -> Any:
    """Keep the response's head, and its body: now where it is `whole` already, else as it is read."""
    try:
        reason, stream_id = map(response.extensions.get, ("reason_phrase", "stream_id"))
        exchange.answered(
            response.status_code,
            exchange.session.redactor.response_headers(response.headers.raw, exchange.replaced),
            response.http_version,
            reason_phrase=reason.decode("latin-1") if isinstance(reason, bytes) else None,
            stream_id=stream_id if isinstance(stream_id, int) else None,
        )
        if whole is None:
            response.stream = tee(response.stream, exchange)
        else:
            if whole:
                exchange.chunk(whole)
            exchange.finish("complete")
    except Exception as error:
        exchange.give_up("head of a response", error)
    return response


def _ready(response: Any) -> bool:
    """Return whether the transport gave the body at once (a mock, a cache): nobody iterates its stream."""
    return response.is_closed or response.is_stream_consumed


def _decoded(exchange: SeamExchange, response: Any) -> bytes:
    # The wire's bytes are gone when a transport has read the body itself: what is left is decoded.
    exchange.attributes["tracefork.response.decoded"] = True
    try:
        return response.content
    except Exception as error:
        exchange.session.lost("body of a response", error)
        return b""
