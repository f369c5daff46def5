"""Exchanges at the seam: each has a record and a span, which others see too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Status, StatusCode

from ..exchange import Outcome, Request
from ..recording.exchange import TOLD_BY_FIELDS, Ending, Ids, OpenExchange
from ..session.events import body_event, link_record, service_of
from ..settings import CONTENT_VARIABLE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from ..session.own_span import OwnSpan
    from ..session.session import Session


class SeamExchange(OpenExchange):
    """One exchange of this process; none of its ends raises into the application."""

    __slots__ = ("host", "process_id", "seen", "seq", "session", "span")

    def __init__(
        self, session: Session, span: OwnSpan, request: Request, *, host: str, seq: int, replayed: bool
    ) -> None:
        ids = Ids(span.trace_id, span.span_id, span.parent_span_id)
        super().__init__(session, ids, request, name=span.name, started_ns=span.started_ns, replayed=replayed)
        self.session = session
        self.span = span
        self.host = host
        self.seq = seq
        self.seen: ReadableSpan | None = None
        """The ended span as other processors left it."""
        self.process_id = session.process_id

    def open(self, *, complete: bool) -> None:
        """Write the request down, after what led to it."""
        session, span = self.session, self.span
        # A killed agent has all draws that reached a request on its way.
        session.flush_draws(span.trace_id)
        session.open[span.context.span_id] = self
        service = session.service if span.sdk is None else service_of(span.sdk) or session.service
        self.begin(seq=self.seq, service=service, complete=complete)

    def finish(
        self, outcome: Outcome, error: BaseException | None = None, *, ended_ns: int | None = None
    ) -> None:
        """End the exchange and write it down; only the first call counts, and none raises."""
        if self.process_id != self.session.process_id:
            return  # a forked child's copy ends with the child: the exchange is the parent's
        try:
            super().finish(outcome, error, ended_ns=ended_ns)
        except Exception as problem:
            self.give_up("end of an exchange", problem)

    def give_up(self, where: str, problem: BaseException) -> None:
        """Leave the exchange `in_flight` in the store, count the loss, and leave no span open."""
        session, span = self.session, self.span.sdk
        session.open.pop(self.span.context.span_id, None)
        session.lost(where, problem)
        if span is not None and span.is_recording():
            span.end()

    def _end_span(self, ending: Ending) -> dict[str, Any]:
        if self.span.sdk is not None:
            self._tell(self.span.sdk, ending)
            self.span.sdk.end(ending.ended_ns)
        self.session.open.pop(self.span.context.span_id, None)
        return self._kept_attributes()

    def _tell(self, span: Any, ending: Ending) -> None:
        limit = self.session.settings.event_body_limit
        request, response = self.request, ending.response
        attributes = dict(self.attributes)
        if response is not None:
            attributes["http.response.status_code"] = response.status
            attributes["network.protocol.version"] = response.http_version.removeprefix("HTTP/")
        else:
            attributes["tracefork.outcome"] = ending.outcome
        if ending.error_type is not None or (ending.failed and response is not None):
            attributes["error.type"] = ending.error_type or str(response.status if response else "_OTHER")
        span.set_attributes(attributes)
        if ending.failed:
            span.set_status(Status(StatusCode.ERROR, ending.error_message))
        sent = request.body if ending.request_body is None else ending.request_body
        span.add_event(
            "tracefork.request.body", body_event(sent, request.headers, limit), self.span.started_ns
        )
        if response is not None:
            event = body_event(response.body, response.headers, limit)
            event["tracefork.chunk.sizes"] = response.chunk_sizes
            event["tracefork.chunk.offsets_us"] = response.chunk_offsets_us
            event["tracefork.outcome"] = ending.outcome
            span.add_event("tracefork.response.body", event, ending.ended_ns)
        if os.environ.get(CONTENT_VARIABLE):
            from . import content

            if content.wanted():
                span.set_attributes(content.content_attributes(request.url, sent, response, limit=limit))

    def _kept_attributes(self) -> dict[str, Any]:
        """Return what the record has no field for: ours whole, and what other processors put on the span."""
        seen = self.seen
        found: dict[str, Any] = {}
        if seen is not None:
            self.name = seen.name
            self.links = [link_record(link) for link in seen.links]
            found |= self.session.redactor.attributes(seen.attributes or {})
        found |= self.span.attributes
        found |= self.attributes
        return {name: value for name, value in found.items() if name not in TOLD_BY_FIELDS}
