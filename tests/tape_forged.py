"""Tapes with right sums, whatever stands in them: what a reader finds behind its checksums."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

from tracefork_otel.exchange import Exchange
from tracefork_otel.tape.digest import FORMAT, FORMATS, chain, chain_start
from tracefork_otel.tape.file import checked, end_line
from tracefork_otel.wire.cuts import decode_piece

ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of summing up values that are of any type."""


def summed(data: bytes) -> bytes:
    """Return the file with each sum in it made anew, as far as what it holds can be summed up."""
    lines = data.split(b"\n")
    records = [_record(line) for line in lines]
    told = (records[0] or {}).get("tracefork_tape")
    form = told if type(told) is int and told in FORMATS else FORMAT
    link = chain_start(form)
    for at, record in enumerate(records):
        if record is None or "check" not in record:
            continue
        if "request" in record:
            with contextlib.suppress(*ODD):
                link = _exchange(record, lines, link, form)
        lines[at] = _checked(record, lines[at])
    if (first := records[0]) is not None and "digest" in first:
        first["digest"] = link.hex()
        lines[0] = _checked(first, lines[0])
    end = records[-2] if len(records) > 1 else None
    if end is not None and end.get("end") is True:
        lines[-2] = end_line(lines[:-2], end.get("chunks", 0), end.get("exchanges", 0))
    return b"\n".join(lines)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checked(record: dict[str, Any], line: bytes) -> bytes:
    try:
        return checked({name: value for name, value in record.items() if name != "check"})
    except ODD:
        return line


def _exchange(record: dict[str, Any], lines: Sequence[bytes], link: bytes, form: int) -> bytes:
    """Return the link after the exchange, whose bodies' sums and whose own link are right then."""
    bodies = [_body(record, side, lines) for side in ("request", "response")]
    request = SimpleNamespace(method=record["method"], url=record["url"], body=bodies[0])
    request.sha256 = sha256(bodies[0]).hexdigest()
    response = record.get("response") and SimpleNamespace(
        status=record["status"],
        headers=record["response_headers"],
        body=bodies[1],
        chunk_sizes=record["response"]["chunk_sizes"],
    )
    told = SimpleNamespace(request=request, response=response, outcome=record["outcome"])
    link = chain(link, cast("Exchange", told), form)
    record["chain"] = link.hex()
    return link


def _body(record: dict[str, Any], side: str, lines: Sequence[bytes]) -> bytes:
    if not (part := record.get(side)):
        return b""
    body = b"".join(
        decode_piece(lines[line - 1])
        for first, last in part["lines"]
        for line in range(first, last + 1)[:500]
    )
    part |= {"bytes": len(body), "sha256": sha256(body).hexdigest()}
    return body
