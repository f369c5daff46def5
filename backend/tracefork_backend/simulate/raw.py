"""Routes below /raw/ that answer with awkward HTTP, for tests of whatever records it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

from .wire import Answer, sse

_JSON = ("content-type", "application/json")
_STREAM = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
_TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "


def _sse(query: Mapping[str, str], seed: int) -> Answer:
    count = int(query.get("events", "44"))
    parts = tuple(sse({"number": number, "text": _TEXT}, event="tick") for number in range(count))
    return Answer(
        headers=_STREAM,
        parts=parts,
        chunked=True,
        delay_s=float(query.get("delay_ms", "0")) / 1000,
        chunk_bytes=int(query["chunk_bytes"]) if "chunk_bytes" in query else None,
        encoding=query.get("encoding"),
    )


def _bytes(size: str, query: Mapping[str, str], seed: int) -> Answer:
    # 0xff never occurs in UTF-8, so the body is not text whatever the seed.
    body = b"\xff" + random.Random(seed).randbytes(int(size) - 1) if int(size) else b""
    pieces = max(1, int(query.get("pieces", "1")))
    step = max(1, -(-len(body) // pieces))
    parts = tuple(body[at : at + step] for at in range(0, len(body), step))
    return Answer(headers=(("content-type", "application/octet-stream"),), parts=parts, chunked=pieces > 1)


def _json(value: object, *, status: int = 200) -> Answer:
    return Answer(status=status, headers=(_JSON,), parts=(json.dumps(value, ensure_ascii=False).encode(),))


def answer(
    path: str, query: Mapping[str, str], *, content_type: str | None, body: bytes, seed: int
) -> Answer | None:
    """Return what the route answers with, or None where there is no such route."""
    match path.split("/")[2:]:
        case ["status", code]:
            status = int(code)
            return Answer(status=status) if status in (204, 304) else _json({"status": status}, status=status)
        case ["bytes", size]:
            return _bytes(size, query, seed)
        case ["empty"]:
            return Answer(headers=(_JSON,))
        case ["204"]:
            return Answer(status=204)
        case ["encoded", ("gzip" | "br" | "zstd" | "deflate") as encoding]:
            text = json.dumps({"encoding": encoding, "text": _TEXT * 20}, ensure_ascii=False)
            return Answer(headers=(_JSON,), parts=(text.encode(),), encoding=encoding)
        case ["sse"]:
            return _sse(query, seed)
        case ["cut"]:
            parts = tuple(sse({"number": number}, event="tick") for number in range(10))
            return Answer(headers=_STREAM, parts=parts, chunked=True, cut_after=int(query.get("after", "3")))
        case ["redirect"]:
            location = query.get("to", "/raw/echo")
            return Answer(status=int(query.get("code", "307")), headers=(("location", location),))
        case ["echo"]:
            return Answer(
                headers=(("content-type", content_type or "application/octet-stream"),), parts=(body,)
            )
        case ["slow"]:
            delay = float(query.get("ms", "100")) / 1000
            return Answer(headers=(_JSON,), parts=(b'{"slow": true}',), first_delay_s=delay)
        case _:
            return None
