"""What a received span is in the store: an exchange of ours, a conversation of others, or a plain span."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeAlias, cast, get_args

from tracefork_otel.exchange import Headers, Outcome, Request, Response
from tracefork_otel.redaction import redact
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.seam.exchange import _TOLD_BY_FIELDS
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, SpanRecord

from ..rerun.reconstruct import FIDELITY, TRUNCATED
from . import conversation

Records: TypeAlias = tuple[SpanRecord | ExchangeStarted | ExchangeEnded, ...]
_URLS = ("url.full", "http.url", "http.target", "url.query")


def records_of(span: SpanRecord, redactor: Redactor) -> Records:
    """The records that the span is in the store; secrets in its URLs are replaced, bytes become text."""
    if span.attributes.get("tracefork.exchange"):
        return _exchange(span, redactor)
    told = conversation.read(span)
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
    attributes = {
        name: value
        for name, value in redactor.attributes(_plain(told)).items()
        if name not in _TOLD_BY_FIELDS
    }
    if whys:
        attributes[TRUNCATED] = "; ".join(whys)
    seq = told.get("tracefork.seq")
    request = Request(
        method=str(told.get("http.request.method", "POST")),
        url=redactor.url(str(told.get("url.full", ""))),
        headers=_headers(asked),
        body=request_body,
    )
    request, response = _redacted(redactor, request, response, attributes)
    error = told.get("error.type") if response is None or outcome != "complete" else None
    return _pair(
        span,
        request,
        response,
        outcome=cast("Outcome", outcome),
        attributes=attributes,
        seq=seq if isinstance(seq, int) else 0,
        error_type=None if error is None else str(error),
    )


def _redacted(
    redactor: Redactor, request: Request, response: Response | None, attributes: dict[str, Any]
) -> tuple[Request, Response | None]:
    """Both as the rules of who receives let them be recorded; `attributes` say what they did."""
    asked: Counter[str] = Counter()
    given: Counter[str] = Counter()
    body, why = redactor.request_body(request, request.body, asked)
    if response is not None:
        response, other = redactor.response(response, given)
        why = why or other
    if asked or given:
        redact.told(attributes, asked, given, why)
    return replace(request, body=body), response


def _messages(span: SpanRecord, told: conversation.Conversation, redactor: Redactor) -> Records:
    attributes = {
        name: value
        for name, value in redactor.attributes(_plain(span.attributes)).items()
        if name not in _TOLD_BY_FIELDS
    }
    attributes[FIDELITY] = "messages"
    kind: Headers = (("content-type", "application/json"),)
    request = Request(method="POST", url=told.url, headers=kind, body=told.request)
    response = Response(
        status=200, headers=kind, body=told.response, chunk_sizes=(len(told.response),), chunk_offsets_us=(0,)
    )
    request, answer = _redacted(redactor, request, response, attributes)
    failed = span.status == "ERROR"
    error = span.attributes.get("error.type")
    return _pair(
        span,
        request,
        None if failed else answer,
        outcome="no_response" if failed else "complete",
        attributes=attributes,
        seq=0,
        error_type=str(error) if failed and error is not None else None,
    )


def _pair(
    span: SpanRecord,
    request: Request,
    response: Response | None,
    *,
    outcome: Outcome,
    attributes: Mapping[str, object],
    seq: int,
    error_type: str | None,
) -> Records:
    told = span.attributes
    intervention = told.get("tracefork.intervention")
    replayed = told.get("tracefork.replayed") is True
    started = ExchangeStarted(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        seq=seq,
        started_ns=span.started_ns,
        request=request,
        name=span.name,
        service=span.service,
        replayed=replayed,
    )
    ended = ExchangeEnded(
        span_id=span.span_id,
        ended_ns=span.ended_ns or span.started_ns,
        outcome=outcome,
        response=response,
        error_type=error_type,
        error_message=span.status_message,
        replayed=replayed,
        intervention=None if intervention is None else str(intervention),
        name=span.name,
        span_status=span.status,
        attributes=attributes,
        links=tuple({**link, "attributes": _plain(link["attributes"])} for link in span.links),
    )
    return started, ended


def _event(span: SpanRecord, name: str) -> Mapping[str, Any] | None:
    for event in span.events:
        if event["name"] == name:
            return cast("Mapping[str, Any]", event["attributes"])
    return None


def _body(event: Mapping[str, Any] | None, side: str) -> tuple[bytes, str]:
    """What came of a body, and why that is not all of it, if it is not."""
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
    """The attributes as JSON can hold them: bytes that are text as text, others in base64, NaN as text."""
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
