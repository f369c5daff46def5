"""What an exchange is about, as far as a glance at path and body tells: nothing here parses a body."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_HEAD = 2048
"""Bytes from the front in which a leading `model` is looked for."""
_TAIL = 32 * 1024
"""Bytes from the end in which a trailing one is: SDKs write `model` after the messages, before the tools."""
_TRIES = 4
"""Candidates looked at before giving up, which bounds the time that a hostile body can cost."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR = rb"(?:" + _STRING + rb"|[-+.0-9eE]++|true|false|null)"
_LEADING = re.compile(
    rb"\s*\{(?:\s*" + _STRING + rb"\s*:\s*" + _SCALAR + rb'\s*,)*?\s*"model"\s*:\s*"([^"\\]{1,200})"',
    re.DOTALL,
)
_GEMINI = re.compile(
    r"/(?:models|tunedModels|endpoints)/([^/:]{1,200}?)(?::|%3[Aa])(?:generateContent|streamGenerateContent)\Z"
)
_VERTEX = re.compile(r"/publishers/|/projects/")
_KEY = b'"model"'
_VALUE = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_BEFORE = re.compile(rb"[{,]\s*\Z")
_STRINGS = re.compile(_STRING, re.DOTALL)


class Call(NamedTuple):
    """A request that is recognised as a call of a model."""

    provider: str
    """`gen_ai.provider.name`."""
    operation: str
    """`gen_ai.operation.name`."""
    model: str | None


def recognise(host: str, path: str, body: bytes) -> Call | None:
    """The call that a request to that host and path makes, or None if the path is no known model API."""
    if path.endswith("/v1/messages"):
        return Call("anthropic", "chat", model_of(body))
    if path.endswith(("/chat/completions", "/responses")):
        provider = "azure.ai.openai" if host.endswith(".openai.azure.com") else "openai"
        return Call(provider, "chat", model_of(body))
    if path.endswith("enerateContent"):
        return _gemini(host, path)
    return None


def _gemini(host: str, path: str) -> Call | None:
    # Its body never names the model, so nothing is looked for there.
    found = _GEMINI.search(path)
    if found is None:
        return None
    vertex = host.endswith(("aiplatform.googleapis.com", ".rep.googleapis.com")) or _VERTEX.search(path)
    return Call("gcp.vertex_ai" if vertex else "gcp.gemini", "generate_content", found[1])


def model_of(body: bytes) -> str | None:
    """The value of the top-level `model` of a JSON object, or None where that cannot be told cheaply."""
    leading = _LEADING.match(body[:_HEAD])
    if leading is not None:
        return leading[1].decode("utf-8", "replace")
    tail = body[-_TAIL:]
    at = len(tail)
    for _ in range(_TRIES):
        # Finding the bytes and then looking round them is ten times as fast as one expression over the tail.
        at = tail.rfind(_KEY, 0, at)
        if at < 0:
            return None
        found = _VALUE.match(tail, at)
        # Inside a JSON string every quote is escaped, so what passes can only be a real key.
        if found and _BEFORE.search(tail[max(0, at - 64) : at]) and _closes_one_object(tail[found.end() :]):
            return found[1].decode("utf-8", "replace")
    return None


# The turns of a conversation end alike (tools, system): the second costs a hash where the first cost 200 µs.
@lru_cache(maxsize=16)
def _closes_one_object(rest: bytes) -> bool:
    bare = _STRINGS.sub(b"", rest)
    return bare.count(b"}") - bare.count(b"{") == 1 and bare.count(b"]") == bare.count(b"[")
