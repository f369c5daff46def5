"""What of a request's body counts when it is compared: all but what a transport makes up anew each time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache

from ..exchange import Request
from ..wire.codings import plain_request
from ..wire.json_places import Place, places
from ..wire.registry import place, placed
from .sessions import says_session, without_session

_BOUNDARY = re.compile(
    r"multipart/[^;]+;.*?boundary=(?:\"([^\"]+)\"|([^\s\";,]+))", re.IGNORECASE | re.DOTALL
)
_IN_PART = re.compile(rb"\r?\ncontent-type:[ \t]*(multipart/[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE)
_LINE = re.compile(rb"(?:\A|(?<=\n))--([^\r\n]*)(?=\r?\n|\Z)")
_PLAIN = "boundary"
"""Stands for every boundary."""
_LOOKS = 16
"""How often a body's length is read to look into each `_meta` in it: more is no client's nesting."""

_TRACE_CONTEXT = re.compile(
    r"traceparent|tracestate|baggage|b3|x-b3-\w+|uber-trace-id|uberctx-.+|ot-tracer-.+|ot-baggage-.+"
    r"|x-amzn-trace-id|x-cloud-trace-context|x-datadog-.+|sentry-trace|newrelic|elastic-apm-traceparent",
    re.IGNORECASE,
)
"""Names that propagators give to the context that they inject."""
# In JSON a string that a colon follows is a key, and no quote inside a string stands without a backslash.
_META = re.compile(r'(?<!\\)"_meta"[ \t\r\n]*:[ \t\r\n]*(?=\{)')
_NO_PARAMS = re.compile(r'(?<!\\)"params"[ \t\r\n]*:[ \t\r\n]*\{[ \t\r\n]*\}')
_SPACE = " \t\r\n"
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False)


def counts_whole(request: Request) -> bool:
    """Return whether each byte of the body counts, as far as that can be told without reading it.

    A conversation with a model grows from call to call: to look through each of its bodies anew would take
    time and memory by the square of its length.
    """
    if request.header("content-encoding") is not None or says_session(request):
        return False
    return not _is_multipart(request) and _is_model_call(request.method, request.url)


def _is_multipart(request: Request) -> bool:
    return (request.header("content-type") or "")[:10].lower() == "multipart/"


@lru_cache(maxsize=512)
def _is_model_call(method: str, url: str) -> bool:
    return method.upper() == "POST" and placed(place(url)[1]) is not None


def meant(request: Request) -> bytes:
    """Return the body as it is compared.

    Content codings are undone; a multipart boundary, of which each request has another, is one word; and
    trace context under `_meta`, where the Model Context Protocol puts it, is left out, as is a `_meta` or the
    `params` of JSON-RPC without anything else. A session that an agent's program makes up is one word too.
    Every other byte stays.
    """
    body = without_session(request, plain_request(request))
    media = request.header("content-type")
    if media is not None and (found := _BOUNDARY.match(media)):
        return _without_boundary(body, found[1] or found[2])
    if not _is_model_call(request.method, request.url) and (b'"_meta"' in body or b'"jsonrpc"' in body):
        return _without_trace_context(body)
    return body


def _without_boundary(body: bytes, boundary: str) -> bytes:
    """Return the multipart with its boundary, and those of multiparts in it, written as one word."""
    names = {boundary.encode("latin-1", "replace")}

    def named(part: re.Match[bytes]) -> bytes:
        media = part[1].decode("latin-1")
        found = _BOUNDARY.match(media)
        if found is None:
            return part[0]
        start, end = found.span(found.lastindex or 0)
        names.add(media[start:end].encode("latin-1"))
        before = part[0][: part.start(1) - part.start()]
        return before + (media[:start] + _PLAIN + media[end:]).encode("latin-1")

    def delimiting(line: re.Match[bytes]) -> bytes:
        # Nothing but `--` and spaces stands after the boundary.
        said = line[1].rstrip(b" \t")
        name = said if said in names else said[:-2] if said[-2:] == b"--" else b""
        return b"--" + _PLAIN.encode() + line[1][len(name) :] if name in names else line[0]

    body = _IN_PART.sub(named, body)
    return _LINE.sub(delimiting, body)


def _without_trace_context(body: bytes) -> bytes:
    text = body.decode("utf-8", "surrogateescape")
    gone: list[tuple[int, int]] = []
    seek, left = 0, _LOOKS * len(text)
    while left > 0 and (found := _META.search(text, seek)):
        seek = found.end()
        try:
            value, end = _DECODER.raw_decode(text, seek)
        except (ValueError, RecursionError):
            break  # no JSON, or too deep
        left -= end - seek
        kept = [name for name in value if not _TRACE_CONTEXT.fullmatch(name)]
        if not kept:
            gone.append((found.start(), end))
            seek = end
        elif len(kept) < len(value):
            gone += _trace_context(text, seek, end)
            seek = end
    text = _without(text, gone)
    if '"jsonrpc"' in text and _NO_PARAMS.search(text):
        text = _without(text, list(_no_params(text)))
    return text.encode("utf-8", "surrogateescape")


def _trace_context(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the members of an object stand that are trace context."""
    key: Place | None = None
    for one in places(text, start, end, depth=1):
        if one is None or one.within is None or one.within.within is not None:
            continue
        if one.kind == "key":
            key = one
        elif key is not None and _TRACE_CONTEXT.fullmatch(str(key.token)):
            yield key.start, one.end


def _no_params(text: str) -> Iterator[tuple[int, int]]:
    """Yield where empty `params` stand in a message, or in one of a batch."""
    key: Place | None = None
    for one in places(text, depth=2):
        if one is None or one.token != "params":
            continue
        within = one.within
        batch = None if within is None else within.within
        if within is None or not (batch is None or (batch.within is None and not batch.keyed)):
            continue
        if one.kind == "key":
            key = one
        elif key is not None and one.kind == "container" and not text[one.start + 1 : one.end - 1].strip():
            yield key.start, one.end


def _without(text: str, gone: list[tuple[int, int]]) -> str:
    """Return the text without those members of objects, each with the comma that goes with it."""
    kept: list[str] = []
    at = 0
    for start, end in gone:
        before = start
        while before > at and text[before - 1] in _SPACE:
            before -= 1
        if before > at and text[before - 1] == ",":
            start = before - 1
        else:
            following = _COMMA.match(text, end)
            end = end if following is None else following.end()
        kept.append(text[at:start])
        at = end
    return "".join((*kept, text[at:]))
