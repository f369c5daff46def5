"""An exchange while it goes on, whoever sees it: the seam, the proxy, the OTLP receiver or an import."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from time import perf_counter_ns, time_ns
from typing import Any, NamedTuple, Protocol

from ..exchange import Headers, Outcome, RedactedRequest, Request, Response
from ..redaction import redact
from ..store.records import ExchangeEnded, ExchangeStarted
from ..wire.codings import plain_request
from ..wire.counted_paths import counted_call
from ..wire.registry import recognise
from .outcome import is_failure, outcome_of, qualified

TOLD_BY_FIELDS = frozenset(
    {
        "tracefork.exchange",
        "tracefork.seq",
        "tracefork.replayed",
        "tracefork.intervention",
        "tracefork.outcome",
        "tracefork.run.id",
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
"""Attributes of an exchange's span that its record has as fields."""


_LATE_NS = 10 * 10**9
"""A clock that was set, not a load, is further from the start than this."""
UNCOMPARED = "tracefork.uncompared"
"""Attribute of a replayed exchange: the names of replaced values that were not compared with the tape's."""


class Book(Protocol):
    """Where exchanges are written down, and the redactor that says what of them may be."""

    @property
    def redactor(self) -> redact.Redactor:
        """The redactor that replaces secrets."""
        ...

    def append(self, record: ExchangeStarted | ExchangeEnded, /) -> object:
        """Write the record down."""


class Ids(NamedTuple):
    """The ids of an exchange's span."""

    trace_id: str
    """The run's."""
    span_id: str
    parent_span_id: str | None
    span_trace_id: str | None = None
    """The span's own, where that is another one."""


class Ending(NamedTuple):
    """How an exchange ended, as it is written down."""

    outcome: Outcome
    response: Response | None
    request_body: bytes | None
    """What was sent in pieces; None where it was known at the start."""
    error_type: str | None
    error_message: str | None
    ended_ns: int
    failed: bool


def named(request: Request, host: str) -> tuple[str, dict[str, Any]]:
    """Return the span name of a request to that host, and what is recognised of it as attributes."""
    body = plain_request(request)
    call = recognise(request.method, request.url, body) or counted_call(request.method, request.url, body)
    if call is None:
        return f"{request.method} {host}", {}
    attributes = {"gen_ai.provider.name": call.provider, "gen_ai.operation.name": call.operation}
    if call.model is None:
        return call.operation, attributes
    attributes["gen_ai.request.model"] = call.model
    return f"{call.operation} {call.model}", attributes


@dataclass(slots=True, eq=False, repr=False)
class OpenExchange:
    """An exchange that goes on: it collects what arrives, and `finish` writes that down exactly once."""

    book: Book
    ids: Ids
    request: Request
    """As it is recorded."""
    _: KW_ONLY
    name: str
    started_ns: int
    replayed: bool = False
    """Whether a tape answers it."""
    attributes: dict[str, Any] = field(default_factory=dict)
    was_redacted: bool = field(init=False)
    """Whether its response was redacted before: a tape's was, when it was recorded."""
    asked: Counter[str] = field(default_factory=Counter, init=False)
    """How often the user's rules replaced something in the request."""
    replaced: Counter[str] = field(default_factory=Counter, init=False)
    """How often the rules replaced something in the response."""
    withheld: str | None = field(default=None, init=False)
    """Why a body is not recorded, if one is not."""
    chunks: list[bytes] = field(default_factory=list, init=False)
    offsets: list[int] = field(default_factory=list, init=False)
    request_parts: list[bytes] | None = field(default=None, init=False)
    """Parts of a request body that was not known at the start, as they are sent."""
    status: int | None = field(default=None, init=False)
    response_headers: Headers = field(default=(), init=False)
    http_version: str = field(default="HTTP/1.1", init=False)
    reason_phrase: str | None = field(default=None, init=False)
    stream_id: int | None = field(default=None, init=False)
    whole: Response | None = field(default=None, init=False)
    served_span_id: str | None = field(default=None, init=False)
    intervention: str | None = field(default=None, init=False)
    site: str | None = field(default=None, init=False)
    """Where the agent's code asked for it, where whoever records can tell."""
    error_type: str | None = field(default=None, init=False)
    """Given, as the message below, where the error to record is not the one that is seen here."""
    error_message: str | None = field(default=None, init=False)
    span_status: str | None = field(default=None, init=False)
    """Given where others said it."""
    links: Sequence[Mapping[str, object]] = field(default=(), init=False)
    started: int = field(default_factory=perf_counter_ns, init=False)
    """The start by the clock that its parts are timed by."""
    _once: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        # What is loaded for the first of them takes milliseconds, by which the parts of streams that overlap
        # would be told in another order.
        late = time_ns() - self.started_ns
        if 0 < late < _LATE_NS:
            self.started -= late
        self.was_redacted = self.replayed
        if isinstance(self.request, RedactedRequest):
            self.asked.update(self.request.counts)
            self.withheld, self.request = self.request.withheld, self.request.recorded()

    @property
    def done(self) -> bool:
        """Whether its end was written."""
        return self._once.locked()

    def drop(self) -> None:
        """Let nothing that comes later be written down as its end."""
        self._once.acquire(blocking=False)

    def belongs_to(self, phase: str, intervention: str | None) -> None:
        """Keep its part in a fork; `intervention` says what was changed, if it is the forked one."""
        self.attributes["tracefork.phase"] = phase
        if intervention is not None:
            self.attributes["tracefork.intervention"] = self.intervention = intervention

    def not_compared(self, names: Sequence[str]) -> None:
        """Keep which replaced values could not be compared with those of the request that answers it."""
        if names:
            self.attributes[UNCOMPARED] = list(names)

    def begin(self, *, seq: int, service: str, complete: bool = True) -> None:
        """Write the request down; `complete` says whether its body is known already."""
        ids = self.ids
        self.book.append(
            ExchangeStarted(
                trace_id=ids.trace_id,
                span_id=ids.span_id,
                parent_span_id=ids.parent_span_id,
                seq=seq,
                started_ns=self.started_ns,
                request=self.request,
                name=self.name,
                service=service,
                span_trace_id=ids.span_trace_id,
                request_complete=complete,
                replayed=self.replayed,
            )
        )

    def answered(
        self,
        status: int,
        headers: Headers,
        http_version: str,
        *,
        reason_phrase: str | None = None,
        stream_id: int | None = None,
    ) -> None:
        """Keep the head of the response."""
        if reason_phrase is not None:
            self.reason_phrase = self.book.redactor.error(reason_phrase)
        self.stream_id = stream_id
        self.status = status
        self.response_headers = headers
        self.http_version = http_version

    def chunk(self, data: bytes) -> None:
        """Keep the chunk and its time of arrival, unless its end was written or never will be."""
        if self.done:
            return
        self.offsets.append((perf_counter_ns() - self.started) // 1000)
        self.chunks.append(data)

    def got(self, response: Response | None) -> None:
        """Keep a response that others have seen whole; None if none came."""
        self.whole, self.status = response, None if response is None else response.status

    def fail(self, error: BaseException) -> None:
        """End the exchange by an error, whose class says how."""
        self.finish(outcome_of(error, answered=self.status is not None), error)

    def finish(
        self, outcome: Outcome, error: BaseException | None = None, *, ended_ns: int | None = None
    ) -> None:
        """End the exchange and write it down; only the first call counts."""
        if self._once.acquire(blocking=False):
            self._write_end(outcome, error, ended_ns or time_ns())

    def _write_end(self, outcome: Outcome, error: BaseException | None, ended_ns: int) -> None:
        response, body = self._redacted(self._response())
        error_type = self.error_type or (None if error is None else qualified(type(error)))
        message = self.error_message if error is None else self.book.redactor.error(str(error))
        failed = is_failure(outcome, self.status)
        ending = Ending(outcome, response, body, error_type, message, ended_ns, failed)
        attributes = self._end_span(ending)
        self.book.append(
            ExchangeEnded(
                span_id=self.ids.span_id,
                ended_ns=ended_ns,
                outcome=outcome,
                response=response,
                request_body=body,
                error_type=error_type,
                error_message=message,
                replayed=self.replayed,
                served_span_id=self.served_span_id,
                intervention=self.intervention,
                site=self.site,
                name=self.name,
                span_status=self.span_status or ("ERROR" if failed else "UNSET"),
                attributes=attributes,
                links=self.links,
            )
        )
        # A response that the application keeps must not keep a second copy of its body alive.
        self.chunks, self.offsets, self.request_parts = [], [], None

    def _end_span(self, ending: Ending) -> Mapping[str, Any]:
        """End what else tells of this exchange; return the attributes that its record has no field for."""
        return self.attributes

    def _redacted(self, response: Response | None) -> tuple[Response | None, bytes | None]:
        """Return the response and what was sent in pieces, as the user's rules let them be recorded."""
        redactor = self.book.redactor
        body = None if self.request_parts is None else b"".join(self.request_parts)
        if body is not None:
            body, why = redactor.request_body(self.request, body, self.asked)
            self.withheld = self.withheld or why
        if response is not None and not self.was_redacted:
            response, why = redactor.response(response, self.replaced)
            self.withheld = self.withheld or why
        redact.told(self.attributes, self.asked, self.replaced, self.withheld)
        return response, body

    def _response(self) -> Response | None:
        if self.whole is not None or self.status is None:
            return self.whole
        return Response(
            status=self.status,
            headers=self.response_headers,
            body=b"".join(self.chunks),
            chunk_sizes=tuple(map(len, self.chunks)),
            chunk_offsets_us=tuple(self.offsets),
            http_version=self.http_version,
            reason_phrase=self.reason_phrase,
            stream_id=self.stream_id,
        )
