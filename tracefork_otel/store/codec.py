"""How a record looks in a WAL: a compact JSON header, then raw body bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from struct import Struct
from typing import Any, cast

from ..exchange import Request, Response
from .delta import Delta, restore
from .records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, Record, Rotated, SpanRecord

MAGIC = b"tracefork wal 1\n"
FRAME = Struct("<II")
"""Length and CRC-32 of what follows."""
HEADER = Struct("<I")
"""Length of the JSON header, which the bodies follow."""
FIRST_KEY = b'{"t":"'
"""Every JSON header begins so: by it the reader finds the next record after a damaged one."""


def _plain(value: object) -> object:
    # Attributes come from other people's spans: what is not JSON is kept as text, never an error.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, Sequence | set | frozenset):
        return list(cast("Sequence[Any]", value))
    return str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def frame(header: Mapping[str, object], bodies: Sequence[bytes] = ()) -> list[bytes]:
    """The buffers of one record, to be written by one call."""
    text = _encode(header).encode("ascii")
    head = HEADER.pack(len(text)) + text
    length, crc = len(head), zlib.crc32(head)
    for body in bodies:
        length += len(body)
        crc = zlib.crc32(body, crc)
    return [FRAME.pack(length, crc) + head, *bodies]


def start_header(record: ExchangeStarted, delta: Delta, middle: int) -> dict[str, object]:
    """The header of a request whose new part has `middle` bytes."""
    request = record.request
    return {
        "t": "request",
        "trace": record.trace_id,
        "span": record.span_id,
        "parent": record.parent_span_id,
        "seq": record.seq,
        "at": record.started_ns,
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "name": record.name,
        "service": record.service,
        "whole": record.request_complete,
        "replayed": record.replayed,
        "body": (delta.base, delta.prefix, delta.suffix, middle, delta.target),
    }


def end_header(record: ExchangeEnded) -> dict[str, object]:
    """The header of a response; both bodies follow it whole."""
    header: dict[str, object] = {
        "t": "response",
        "span": record.span_id,
        "at": record.ended_ns,
        "outcome": record.outcome,
        "name": record.name,
        "status": record.span_status,
    }
    response = record.response
    if response is not None:
        header["http"] = (response.status, response.http_version, response.headers)
        header["chunks"] = (response.chunk_sizes, response.chunk_offsets_us)
        header["body"] = len(response.body)
    if record.request_body is not None:
        header["request"] = len(record.request_body)
    if record.error_type is not None or record.error_message is not None:
        header["error"] = (record.error_type, record.error_message)
    if record.replayed or record.served_span_id is not None or record.intervention is not None:
        header["served"] = (record.replayed, record.served_span_id, record.intervention)
    if record.attributes:
        header["attributes"] = record.attributes
    if record.links:
        header["links"] = record.links
    return header


def other_header(record: ProcessStarted | SpanRecord | Note | Rotated) -> dict[str, object]:
    """The header of a record without bodies: its fields by name, defaults left out."""
    kind = _KINDS[type(record)]
    header: dict[str, object] = {"t": kind}
    for name, default in _FIELDS[kind]:
        value = getattr(record, name)
        if value != default:
            header[name] = value
    return header


_KINDS: dict[type, str] = {ProcessStarted: "process", SpanRecord: "span", Note: "note", Rotated: "rotated"}
_CLASSES: dict[str, type] = {kind: cls for cls, kind in _KINDS.items()}


def _fields(cls: type) -> tuple[tuple[str, object], ...]:
    # A field without a default is always written: no value equals MISSING.
    return tuple(
        (spec.name, spec.default if spec.default_factory is MISSING else spec.default_factory())
        for spec in fields(cls)
    )


_FIELDS = {kind: _fields(cls) for cls, kind in _KINDS.items()}


def decode(header: dict[str, Any], bodies: memoryview, slots: dict[int, bytes]) -> tuple[Record, bool]:
    """The record, and whether it lacks its body because the base of its delta is not in `slots`."""
    kind = header["t"]
    if kind == "request":
        return _decode_start(header, bodies, slots)
    if kind == "response":
        return _decode_end(header, bodies), False
    known = {name: header[name] for name, _ in _FIELDS[kind] if name in header}
    for name in ("argv", "carried", "events", "links"):
        if name in known:
            known[name] = tuple(known[name])
    return _CLASSES[kind](**known), False


def _decode_start(
    header: dict[str, Any], bodies: memoryview, slots: dict[int, bytes]
) -> tuple[ExchangeStarted, bool]:
    base, prefix, suffix, middle, target = header["body"]
    body = b""
    lost = base >= 0 and base not in slots
    if lost:
        slots.pop(target, None)
    else:
        body = restore(slots.get(base, b""), prefix, suffix, bytes(bodies[:middle]))
        if target >= 0:
            slots[target] = body
    record = ExchangeStarted(
        trace_id=header["trace"],
        span_id=header["span"],
        parent_span_id=header["parent"],
        seq=header["seq"],
        started_ns=header["at"],
        request=Request(
            method=header["method"], url=header["url"], headers=_headers(header["headers"]), body=body
        ),
        name=header["name"],
        service=header["service"],
        request_complete=header["whole"],
        replayed=header["replayed"],
    )
    return record, lost


def _decode_end(header: dict[str, Any], bodies: memoryview) -> ExchangeEnded:
    response, size = None, 0
    if "http" in header:
        (status, version, headers), (sizes, offsets) = header["http"], header["chunks"]
        size = header["body"]
        response = Response(
            status=status,
            headers=_headers(headers),
            body=bytes(bodies[:size]),
            chunk_sizes=tuple(sizes),
            chunk_offsets_us=tuple(offsets),
            http_version=version,
        )
    error_type, error_message = header.get("error", (None, None))
    replayed, served, intervention = header.get("served", (False, None, None))
    return ExchangeEnded(
        span_id=header["span"],
        ended_ns=header["at"],
        outcome=header["outcome"],
        response=response,
        request_body=bytes(bodies[size : size + header["request"]]) if "request" in header else None,
        error_type=error_type,
        error_message=error_message,
        replayed=replayed,
        served_span_id=served,
        intervention=intervention,
        name=header["name"],
        span_status=header["status"],
        attributes=header.get("attributes", {}),
        links=tuple(header.get("links", ())),
    )


def _headers(pairs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs)
