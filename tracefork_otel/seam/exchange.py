"""An exchange while it is open: what came so far, and how it ends, exactly once."""

from __future__ import annotations

import os
import threading
from collections import Counter
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Status, StatusCode

from ..exchange import Headers, Outcome, RedactedRequest, Request, Response
from ..redaction import redact
from ..session.events import body_event, link_record, qualified
from ..settings import CONTENT_VARIABLE
from ..store.records import ExchangeEnded, ExchangeStarted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from ..session.session import Session
    from ..session.spans import OwnSpan

_BROKEN = ("RemoteProtocolError", "ReadError", "CloseError", "WriteError", "ProtocolError")
"""Errors of the client libraries that mean that the connection ended in mid-body."""
_CANCELLED = ("CancelledError", "Cancelled")
"""asyncio's and trio's."""
_ERRORS: tuple[Outcome, ...] = ("cut", "failed", "no_response")
"""Outcomes that make the span an error; to leave a stream early is none."""


class LiveExchange:
    """Collects what arrives; `finish` writes it down."""

    __slots__ = (
        "_once",
        "asked",
        "attributes",
        "chunks",
        "error_type",
        "host",
        "http_version",
        "intervention",
        "name",
        "offsets",
        "process_id",
        "replaced",
        "replayed",
        "request",
        "request_parts",
        "response_headers",
        "seen",
        "seq",
        "served_span_id",
        "session",
        "span",
        "started",
        "status",
        "withheld",
    )

    def __init__(self, session: Session, span: OwnSpan, request: Request, *, host: str, seq: int) -> None:
        self.session = session
        self.span = span
        self.name = span.name
        self.attributes: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        """How often the user's rules replaced something in the request."""
        self.withheld: str | None = None
        """Why a body is not recorded, if one is not."""
        if isinstance(request, RedactedRequest):
            self.asked.update(request.counts)
            self.withheld, request = request.withheld, request.recorded()
        self.request = request
        """As it is recorded."""
        self.replaced: Counter[str] = Counter()
        """The same in the response."""
        self.host = host
        self.seq = seq
        self.chunks: list[bytes] = []
        self.offsets: list[int] = []
        self.request_parts: list[bytes] | None = None
        """Parts of a request body that was not known at the start, as they are sent."""
        self.status: int | None = None
        self.response_headers: Headers = ()
        self.http_version = "HTTP/1.1"
        self.replayed = False
        self.served_span_id: str | None = None
        self.intervention: str | None = None
        self.error_type: str | None = None
        """Given where the error that the client sees is not the one to record."""
        self.seen: ReadableSpan | None = None
        """The ended span as other processors left it."""
        self.process_id = session.process_id
        self.started = perf_counter_ns()
        self._once = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether its end was written."""
        return self._once.locked()

    def belongs_to(self, phase: str, intervention: str | None) -> None:
        """Its part in a fork is known; `intervention` says what was changed, if it is the forked one."""
        self.attributes["tracefork.phase"] = phase
        if intervention is not None:
            self.attributes["tracefork.intervention"] = self.intervention = intervention

    def begin(self, *, complete: bool) -> None:
        """The request is in the WAL."""
        span = self.span
        session = self.session
        # A killed agent has all draws that reached a request on its way.
        session.flush_draws(span.trace_id)
        session.open[span.context.span_id] = self
        session.append(
            ExchangeStarted(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_span_id=span.parent_span_id,
                seq=self.seq,
                started_ns=span.started_ns,
                request=self.request,
                name=span.name,
                service=session.service if span.sdk is None else _service(span.sdk) or session.service,
                request_complete=complete,
                replayed=self.replayed,
            )
        )

    def answered(self, status: int, headers: Headers, http_version: str) -> None:
        """The head of the response is known."""
        self.status = status
        self.response_headers = headers
        self.http_version = http_version

    def chunk(self, data: bytes) -> None:
        """The chunk and its time of arrival are kept."""
        self.offsets.append((perf_counter_ns() - self.started) // 1000)
        self.chunks.append(data)

    def fail(self, error: BaseException) -> None:
        """The exchange is ended by an error, whose class says how."""
        kind = type(error).__name__
        if kind in _CANCELLED:
            outcome: Outcome = "cancelled"
        elif self.status is None:
            outcome = "no_response"
        elif kind in _BROKEN or isinstance(error, ConnectionError | EOFError):
            outcome = "cut"
        else:
            outcome = "failed"
        self.finish(outcome, error)

    def finish(
        self, outcome: Outcome, error: BaseException | None = None, *, ended_ns: int | None = None
    ) -> None:
        """The exchange is ended and in the WAL; only the first call counts, and none raises."""
        if not self._once.acquire(blocking=False) or self.process_id != self.session.process_id:
            return  # a forked child's copy ends with the child: the exchange is the parent's
        try:
            self._finish(outcome, error, ended_ns or time_ns())
        except Exception as problem:
            self.give_up("end of an exchange", problem)

    def give_up(self, where: str, problem: BaseException) -> None:
        """The exchange stays `in_flight` in the store, the loss is counted, and its span is not left open."""
        session, span = self.session, self.span.sdk
        session.open.pop(self.span.context.span_id, None)
        session.lost(where, problem)
        if span is not None and span.is_recording():
            span.end()

    def _finish(self, outcome: Outcome, error: BaseException | None, ended_ns: int) -> None:
        response, body = self._redacted(self._response())
        error_type = self.error_type or (None if error is None else qualified(type(error)))
        failed = outcome in _ERRORS or (self.status is not None and self.status >= 400)
        self._end_span(outcome, response, body, error_type, error, ended_ns, failed)
        session = self.session
        session.open.pop(self.span.context.span_id, None)
        attributes, links = self._kept_attributes()
        session.append(
            ExchangeEnded(
                span_id=self.span.span_id,
                ended_ns=ended_ns,
                outcome=outcome,
                response=response,
                request_body=body,
                error_type=error_type,
                error_message=None if error is None else str(error),
                replayed=self.replayed,
                served_span_id=self.served_span_id,
                intervention=self.intervention,
                name=self.seen.name if self.seen is not None else self.name,
                span_status="ERROR" if failed else "UNSET",
                attributes=attributes,
                links=links,
            )
        )
        # A response that the application keeps must not keep a second copy of its body alive.
        self.chunks, self.offsets, self.request_parts = [], [], None

    def _redacted(self, response: Response | None) -> tuple[Response | None, bytes | None]:
        """The response and the body that was sent in pieces, as the user's rules let them be recorded."""
        redactor = self.session.redactor
        body = None if self.request_parts is None else b"".join(self.request_parts)
        if body is not None:
            body, why = redactor.request_body(self.request, body, self.asked)
            self.withheld = self.withheld or why
        if response is not None and not self.replayed:  # what a tape serves was redacted when it was recorded
            response, why = redactor.response(response, self.replaced)
            self.withheld = self.withheld or why
        redact.told(self.attributes, self.asked, self.replaced, self.withheld)
        return response, body

    def _response(self) -> Response | None:
        if self.status is None:
            return None
        return Response(
            status=self.status,
            headers=self.response_headers,
            body=b"".join(self.chunks),
            chunk_sizes=tuple(map(len, self.chunks)),
            chunk_offsets_us=tuple(self.offsets),
            http_version=self.http_version,
        )

    def _end_span(
        self,
        outcome: Outcome,
        response: Response | None,
        body: bytes | None,
        error_type: str | None,
        error: BaseException | None,
        ended_ns: int,
        failed: bool,
    ) -> None:
        span = self.span.sdk
        if span is None:
            return
        limit = self.session.settings.event_body_limit
        request = self.request
        attributes = dict(self.attributes)
        if response is not None:
            attributes["http.response.status_code"] = response.status
            attributes["network.protocol.version"] = response.http_version.removeprefix("HTTP/")
        else:
            attributes["tracefork.outcome"] = outcome
        if error_type is not None or (failed and response is not None):
            attributes["error.type"] = error_type or str(response.status if response else "_OTHER")
        span.set_attributes(attributes)
        if failed:
            span.set_status(Status(StatusCode.ERROR, None if error is None else str(error)))
        sent = request.body if body is None else body
        span.add_event(
            "tracefork.request.body", body_event(sent, request.headers, limit), self.span.started_ns
        )
        if response is not None:
            event = body_event(response.body, response.headers, limit)
            event["tracefork.chunk.sizes"] = response.chunk_sizes
            event["tracefork.chunk.offsets_us"] = response.chunk_offsets_us
            event["tracefork.outcome"] = outcome
            span.add_event("tracefork.response.body", event, ended_ns)
        if os.environ.get(CONTENT_VARIABLE):
            from . import content

            if content.wanted():
                span.set_attributes(content.content_attributes(request.url, sent, response, limit=limit))
        span.end(ended_ns)

    def _kept_attributes(self) -> tuple[dict[str, Any], list[dict[str, object]]]:
        """What the record's own fields do not say: ours whole, and what other processors put on the span."""
        seen = self.seen
        found: dict[str, Any] = {}
        if seen is not None:
            found |= self.session.redactor.attributes(seen.attributes or {})
        found |= self.span.attributes
        found |= self.attributes
        kept = {name: value for name, value in found.items() if name not in _TOLD_BY_FIELDS}
        links = [] if seen is None else [link_record(link) for link in seen.links]
        return kept, links


_TOLD_BY_FIELDS = frozenset(
    {
        "tracefork.exchange",
        "tracefork.seq",
        "tracefork.replayed",
        "tracefork.intervention",
        "tracefork.outcome",
        "http.request.method",
        "http.response.status_code",
        "network.protocol.version",
        "url.full",
        "server.address",
        "server.port",
        "error.type",
        # The bodies once more.
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
    }
)


def _service(span: Any) -> str | None:
    resource = getattr(span, "resource", None)
    name = None if resource is None else resource.attributes.get("service.name")
    return name if isinstance(name, str) and not name.startswith("unknown_service") else None
