"""OTLP over HTTP read: bytes of a request to spans, within limits, in protobuf and JSON."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tracefork_otel.store.records import SpanRecord
from tracefork_otel.wire.codings import UnknownCoding, Unreadable, undone

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MAX_COMPRESSED = 32 * 1024 * 1024
"""A batch of an SDK is 512 spans: whoever sends more than this at once is not one."""
MAX_PLAIN = 128 * 1024 * 1024
"""What a request may grow to when it is decompressed: a bomb is stopped here."""
MAX_ITEMS = 2_000_000
"""Messages, objects and values of one request: each takes some 200 bytes here, and may take 2 on the wire."""
_DEEPEST = 100
"""How deep protobuf's own reader goes."""
_JSON_ITEM = re.compile(rb'[{\[,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

Form: TypeAlias = Literal["protobuf", "json"]
_FORMS: dict[str, Form] = {"application/x-protobuf": "protobuf", "application/json": "json"}
_KINDS = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


class Refused(Exception):
    """A request that is not taken: the status to answer with, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def form_of(content_type: str | None) -> Form:
    """Return the form that a request is written in; Refused with 415 for any other."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind.startswith("application/grpc"):
        raise Refused(415, "gRPC is not spoken here: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
    if kind not in _FORMS:
        raise Refused(
            415, f"content-type {kind or '(none)'}: send application/x-protobuf or application/json"
        )
    return _FORMS[kind]


def decompressed(body: bytes, encoding: str | None, *, limit: int = MAX_PLAIN) -> bytes:
    """Return the body with its content encoding undone; Refused where it is cut, foreign, or too large."""
    kind = (encoding or "identity").strip().lower()
    if kind == "identity":
        return body
    if kind not in ("gzip", "zstd", "deflate"):
        raise Refused(415, f"content-encoding {kind}: send gzip, zstd or identity")
    try:
        plain = undone(body, kind, limit=limit)
    except UnknownCoding as error:
        raise Refused(
            415, f"the body cannot be decompressed here: {error}; send gzip, or install it"
        ) from None
    except Unreadable as error:
        raise Refused(400, f"the body cannot be decompressed: {error}") from error
    if plain.end == "limit":
        raise Refused(413, f"the request has more than {limit} bytes when decompressed")
    if plain.end != "whole":
        why = "ends before its end" if plain.end == "cut" else "goes on after its end"
        raise Refused(400, f"the compressed body {why}")
    return plain.body


def parse(body: bytes, form: Form) -> ExportTraceServiceRequest:
    """Return the request as a message; Refused with 400 where it is none."""
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    if _has_too_many(body, form, ExportTraceServiceRequest.DESCRIPTOR):
        raise Refused(413, f"more than {MAX_ITEMS} spans, attributes and values: make the batches smaller")
    try:
        if form == "protobuf":
            return ExportTraceServiceRequest.FromString(body)
        found = json.loads(body)
        if not isinstance(found, dict):
            raise Refused(400, "the JSON body is no object")
        return ParseDict(_ids_as_base64(found), ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except Refused:
        raise
    except Exception as error:  # protobuf's JSON reader raises what it likes, SystemError among it
        raise Refused(400, _printable(f"not an OTLP trace request: {error}")) from error


def _has_too_many(body: bytes, form: Form, kind: Any) -> bool:
    """Return whether a request has more items than are taken, without making any of them."""
    if len(body) <= 2 * MAX_ITEMS:  # none is written in fewer bytes
        return False
    found = _messages_in(body, kind) if form == "protobuf" else _JSON_ITEM.finditer(body)
    return next(islice(found, MAX_ITEMS, None), None) is not None


def _messages_in(body: bytes, kind: Any) -> Iterator[int]:
    """Yield where each message within the message begins, as far as it can be followed."""
    todo = [(0, len(body), _children(kind))]
    with contextlib.suppress(IndexError):  # cut: what parses it says so
        while todo and len(todo) <= _DEEPEST:
            at, end, children = todo.pop()
            while at < end:
                tag, at = _varint(body, at)
                if tag & 7 == 0:
                    _, at = _varint(body, at)
                elif tag & 7 == 2:
                    length, at = _varint(body, at)
                    child = children.get(tag >> 3)
                    if child is not None:
                        yield at
                        todo.append((at + length, end, children))
                        end, children = min(at + length, end), _children(child)
                    else:
                        at += length
                elif tag & 7 in (1, 5):
                    at += 8 if tag & 7 == 1 else 4
                else:
                    break


@cache
def _children(kind: Any) -> dict[int, Any]:
    """Return the messages that a message may have in it, by the numbers of their fields."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:
            return value, at
        shift += 7


def _printable(text: str) -> str:
    return text[:500].encode("utf-8", "replace").decode()


def _ids_as_base64(value: Any) -> Any:
    """Return the same JSON with ids, which OTLP writes in hex, as protobuf's own JSON form wants them."""
    if isinstance(value, list):
        return [_ids_as_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _base64_of(one) if key in _IDS and isinstance(one, str) else _ids_as_base64(one)
        for key, one in value.items()
    }


def _base64_of(digits: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(digits)).decode()
    except ValueError as error:
        raise binascii.Error(f"{digits[:40]!r} is no id in hex") from error


def spans_of(message: ExportTraceServiceRequest) -> Iterator[tuple[SpanRecord | str, Mapping[str, Any]]]:
    """Yield each span as a record, or why it cannot be one, and the attributes of its resource."""
    for resource in message.resource_spans:
        about = _attributes(resource.resource.attributes)
        service = str(about.get("service.name", ""))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(span, service, scope.scope.name), about


def _span(span: Any, service: str, scope: str) -> SpanRecord | str:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return f"span {span.name[:60]!r}: its trace id is not 16 bytes, or all zero"
    if len(span.span_id) != 8 or not any(span.span_id):
        return f"span {span.name[:60]!r}: its span id is not 8 bytes, or all zero"
    # The store keeps times in signed 64 bits.
    if max(span.start_time_unix_nano, span.end_time_unix_nano) >= 1 << 63:
        return f"span {span.name[:60]!r}: its time is out of range"
    parent = span.parent_span_id
    return SpanRecord(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=parent.hex() if len(parent) == 8 and any(parent) else None,
        name=span.name,
        kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "INTERNAL",
        started_ns=span.start_time_unix_nano,
        ended_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        status=_STATUSES[span.status.code] if 0 <= span.status.code < len(_STATUSES) else "UNSET",
        status_message=span.status.message or None,
        service=service,
        scope=scope,
        attributes=_attributes(span.attributes),
        events=tuple(
            {
                "name": event.name,
                "time_ns": event.time_unix_nano,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ),
        links=tuple(
            {
                "trace_id": one.trace_id.hex(),
                "span_id": one.span_id.hex(),
                "attributes": _attributes(one.attributes),
            }
            for one in span.links
        ),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(one) for one in found.values]
    if kind == "kvlist_value":
        return _attributes(found.values)
    return found


def answer_of(form: Form, rejected: int, why: str) -> bytes:
    """Return the body of a 200: empty, or what of the request was not taken and why."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    if form == "json":
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": why}}
        return json.dumps(partial if rejected else {}).encode()
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = why
    return response.SerializeToString()


def error_of(form: Form, why: str) -> bytes:
    """Return a google.rpc.Status with the message, as the protocol wants the body of an error to be."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    if form == "json":
        return json.dumps({"message": why}).encode()
    # A span's status has its message in the same field.
    return Status(message=why).SerializeToString()
