"""Exchanges at the seam: each has a record and a span, which others see too."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Status, StatusCode

from ..exchange import Outcome, Request
from ..recording.exchange import TOLD_BY_FIELDS, Ending, Ids, OpenExchange
from ..session import guarded
from ..session.calls import tells_messages
from ..session.events import ended_attributes, exchange_events, exported, link_record, service_of
from ..settings import content_wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from ..session.own_span import OwnSpan
    from ..session.session import Session

RUN_ID = "tracefork.run.id"
"""Attribute of an exchange's span: the run that it is part of, where that is not its trace."""

sent_here: ContextVar[SeamExchange | None] = ContextVar("tracefork_sent_here", default=None)
"""The exchange that a client is sending: a client below it sends the same once more."""


class SeamExchange(OpenExchange):
    """One exchange of this process; none of its ends raises into the application."""

    __slots__ = ("above", "host", "process_id", "seen", "seq", "session", "span")

    def __init__(
        self,
        session: Session,
        span: OwnSpan,
        request: Request,
        *,
        host: str,
        seq: int,
        replayed: bool,
        run_id: str | None = None,
        above: Any = None,
    ) -> None:
        """Have an exchange of that span; `run_id` is its run where that is not the span's trace.

        `above` is the call's own span, of another's making, where it lies below one.
        """
        ids = Ids(span.trace_id, span.span_id, span.parent_span_id)
        if run_id is not None and run_id != span.trace_id:
            ids = ids._replace(trace_id=run_id, span_trace_id=span.trace_id)
        super().__init__(session, ids, request, name=span.name, started_ns=span.started_ns, replayed=replayed)
        self.session = session
        self.span = span
        self.host = host
        self.seq = seq
        self.seen: ReadableSpan | None = None
        """The ended span as other processors left it."""
        self.above = above
        self.process_id = session.process_id

    def open(self, *, complete: bool) -> None:
        """Write the request down, after what led to it."""
        session, span = self.session, self.span
        # A killed agent has all draws that reached a request on its way.
        session.flush_draws(self.ids.trace_id)
        session.open[span.context.span_id] = self
        service = session.service if span.sdk is None else service_of(span.sdk) or session.service
        self.begin(seq=self.seq, service=service, complete=complete)

    def chunk(self, data: bytes) -> None:
        """Keep the chunk; one that cannot be kept leaves the exchange without an end."""
        try:
            super().chunk(data)
        except Exception as problem:
            self.give_up("chunk of a response", problem)

    def fail(self, error: BaseException) -> None:
        """End the exchange by an error, whose class says how."""
        try:
            super().fail(error)
        except Exception as problem:
            self.give_up("end of an exchange", problem)

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
        self.drop()  # or what comes later made it look whole
        session.open.pop(self.span.context.span_id, None)
        session.lost(where, problem)
        if span is not None and span.is_recording():
            guarded.end(span)

    def _end_span(self, ending: Ending) -> dict[str, Any]:
        if self.span.sdk is not None:
            self._tell(self.span.sdk, ending)
            guarded.end(self.span.sdk, ending.ended_ns)
        self.session.open.pop(self.span.context.span_id, None)
        return self._kept_attributes()

    def _tell(self, span: Any, ending: Ending) -> None:
        limit = self.session.settings.event_body_limit
        request, response = self.request, ending.response
        told = ended_attributes(response, ending.outcome, ending.error_type, failed=ending.failed)
        span.set_attributes(exported({**self.attributes, **told}, self.session.settings.content_limit))
        if ending.failed:
            span.set_status(Status(StatusCode.ERROR, ending.error_message))
        if ending.request_body is not None:
            request = replace(request, body=ending.request_body)
        times = {"started_ns": self.span.started_ns, "ended_ns": ending.ended_ns}
        for event in exchange_events(request, response, ending.outcome, limit, **times):
            span.add_event(event["name"], event["attributes"], event["time_ns"])
        # The user asked for messages: where the call's own span has none, as the anthropic SDK's, ours has.
        if content_wanted() and not (self.above is not None and tells_messages(self.above)):
            from ..wire.codings import plain_request
            from . import content

            limit = self.session.settings.content_limit
            asked = plain_request(request)
            usage = self.above is None
            span.set_attributes(
                content.content_attributes(request.url, asked, response, limit=limit, usage=usage)
            )

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
