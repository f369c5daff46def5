"""What a received span is in the store: an exchange of ours, a conversation of others, or a plain span."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeAlias, cast, get_args

from tracefork_otel.exchange import Headers, Outcome, RedactedRequest, Request, Response
from tracefork_otel.recording.exchange import TOLD_BY_FIELDS, Ids, OpenExchange
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, SpanRecord
from tracefork_otel.tape.fidelity import FIDELITY, TRUNCATED
from tracefork_otel.tape.start import UNSENT
from tracefork_otel.wire.genai import Conversation, conversation

_Side: TypeAlias = ExchangeStarted | ExchangeEnded
Records: TypeAlias = tuple[SpanRecord | _Side, ...]
_DETAILS = "gen_ai.client.inference.operation.details"
"""The event on which some instrumentations put the messages."""
_URLS = ("url.full", "http.url", "http.target", "url.query")


def records_of(span: SpanRecord, redactor: Redactor) -> Records:
    """Return the records that the span is in the store, secrets in its URLs replaced, bytes as text.

    What was received never says what runs here: attributes of which a replay would take that are left out.
    """
    span = replace(span, attributes={k: v for k, v in span.attributes.items() if k not in UNSENT})
    if span.attributes.get("tracefork.exchange"):
        return _exchange(span, redactor)
    told = conversation(_told(span), span.span_id)
    if told is not None:
        return _messages(span, told, redactor)
    attributes = redactor.attributes(_plain(span.attributes))
    for name in _URLS:
        if isinstance(attributes.get(name), str):
            attributes[name] = redactor.url(attributes[name])
    events = tuple(
        {**event, "attributes": redactor.attributes(_plain(event["attributes"]))} for event in span.events
    )
    links = tuple({**link, "attributes": _plain(link["attributes"])} for link in span.links)
    return (replace(span, attributes=attributes, events=events, links=links),)


def _told(span: SpanRecord) -> dict[str, Any]:
    """Return what a span tells of a call, by its attributes and its event of details."""
    told: dict[str, Any] = {}
    for event in span.events:
        if event["name"] == _DETAILS:
            told |= cast("Mapping[str, Any]", event["attributes"])
    return {**told, **span.attributes}


def _exchange(span: SpanRecord, redactor: Redactor) -> Records:
    told = span.attributes
    asked = _event(span, "tracefork.request.body")
    given = _event(span, "tracefork.response.body")
    request_body, why = _body(asked, "request")
    whys = [why] if why else []
    response: Response | None = None
    status = told.get("http.response.status_code")
    if given is not None or isinstance(status, int):
        body, why = _body(given, "response")
        if why:
            whys.append(why)
        sizes = _numbers(given, "tracefork.chunk.sizes")
        whole = sum(sizes) == len(body)
        response = Response(
            status=status if isinstance(status, int) else 0,
            headers=_headers(given),
            body=body,
            chunk_sizes=sizes if whole else (),
            chunk_offsets_us=_numbers(given, "tracefork.chunk.offsets_us") if whole else (),
            http_version=f"HTTP/{told.get('network.protocol.version', '1.1')}",
        )
    outcome = (given or {}).get("tracefork.outcome") or told.get("tracefork.outcome")
    if outcome not in get_args(Outcome):
        outcome = "complete" if response is not None else "no_response"
    seq = told.get("tracefork.seq")
    request = Request(
        method=str(told.get("http.request.method", "POST")),
        url=str(told.get("url.full", "")),
        headers=_headers(asked),
        body=request_body,
    )
    error = None if outcome == "complete" else told.get("error.type")
    if response is not None and error == str(response.status):
        error = None  # a span says so of a status that is an error, without anything having been raised
    return written(
        span,
        redactor,
        request,
        response,
        outcome=cast("Outcome", outcome),
        more={TRUNCATED: "; ".join(whys)} if whys else {},
        seq=seq if isinstance(seq, int) else 0,
        error_type=None if error is None else str(error),
    )


def _messages(span: SpanRecord, told: Conversation, redactor: Redactor) -> Records:
    kind: Headers = (("content-type", "application/json"),)
    request = Request(method="POST", url=told.url, headers=kind, body=told.request)
    response = Response(
        status=200, headers=kind, body=told.response, chunk_sizes=(len(told.response),), chunk_offsets_us=(0,)
    )
    failed = span.status == "ERROR"
    error = span.attributes.get("error.type")
    return written(
        span,
        redactor,
        request,
        None if failed else response,
        outcome="no_response" if failed else "complete",
        more={FIDELITY: "messages"},
        seq=0,
        error_type=str(error) if failed and error is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Page:
    """What an exchange is written down on, by the rules of who receives."""

    redactor: Redactor
    records: list[ExchangeStarted | ExchangeEnded] = field(
        default_factory=list[ExchangeStarted | ExchangeEnded]
    )

    def append(self, record: _Side, /) -> None:
        """Keep the record."""
        self.records.append(record)


def written(
    span: SpanRecord,
    redactor: Redactor,
    request: Request,
    response: Response | None,
    *,
    outcome: Outcome,
    more: Mapping[str, object],
    seq: int,
    error_type: str | None,
) -> Records:
    """Return the records of the exchange that a span tells of."""
    told, page = _plain(span.attributes), _Page(redactor)
    kept = {name: value for name, value in redactor.attributes(told).items() if name not in TOLD_BY_FIELDS}
    intervention = told.get("tracefork.intervention")
    exchange = OpenExchange(
        page,
        Ids(span.trace_id, span.span_id, span.parent_span_id),
        _redacted(redactor, request),
        name=span.name,
        started_ns=span.started_ns,
        replayed=told.get("tracefork.replayed") is True,
        attributes={**kept, **more},
    )
    exchange.was_redacted = False  # whatever its sender says
    exchange.begin(seq=seq, service=span.service)
    exchange.got(response)
    exchange.intervention = None if intervention is None else str(intervention)
    exchange.error_type, exchange.error_message = error_type, span.status_message
    exchange.span_status = span.status
    exchange.links = tuple({**link, "attributes": _plain(link["attributes"])} for link in span.links)
    exchange.finish(outcome, ended_ns=span.ended_ns or span.started_ns)
    return tuple(page.records)


def _redacted(redactor: Redactor, request: Request) -> Request:
    """Return the request as the rules of who receives let it be recorded."""
    counts: Counter[str] = Counter()
    url = redactor.url(request.url, counts)
    body, why = redactor.request_body(request, request.body, counts)
    return RedactedRequest(
        method=request.method, url=url, headers=request.headers, body=body, counts=counts, withheld=why
    )


def _event(span: SpanRecord, name: str) -> Mapping[str, Any] | None:
    for event in span.events:
        if event["name"] == name:
            return cast("Mapping[str, Any]", event["attributes"])
    return None


def _body(event: Mapping[str, Any] | None, side: str) -> tuple[bytes, str]:
    """Return what came of a body, and why that is not all of it, if it is not."""
    if event is None:
        return b"", f"the {side} body did not come"
    found = event.get("tracefork.body")
    body = found if isinstance(found, bytes) else str(found or "").encode("utf-8", "surrogatepass")
    length = event.get("tracefork.body.length")
    if event.get("tracefork.body.truncated") is True or len(body) != length:
        return body, f"{len(body)} of {length} bytes of the {side} body came"
    if sha256(body).hexdigest() != event.get("tracefork.body.sha256"):
        return body, f"the {side} body does not match its digest"
    return body, ""


def _headers(event: Mapping[str, Any] | None) -> Headers:
    names = (
        ("content-type", "tracefork.body.content_type"),
        ("content-encoding", "tracefork.body.content_encoding"),
    )
    return tuple((name, str(event[key])) for name, key in names if event and event.get(key))


def _numbers(event: Mapping[str, Any] | None, name: str) -> tuple[int, ...]:
    found = (event or {}).get(name)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return ()
    return tuple(one for one in found if isinstance(one, int) and one >= 0)


def _plain(attributes: object) -> dict[str, Any]:
    """Return the attributes as JSON holds them: bytes as text or else in base64, NaN as text."""
    return {str(name): _json(value) for name, value in cast("Mapping[str, Any]", attributes).items()}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return value
