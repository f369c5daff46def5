"""What an exchange is about, as far as a glance at path and body tells: nothing here parses a body."""

from __future__ import annotations

import re
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
# Inside a JSON string every quote is escaped, so these bytes can only be a real key of some object.
_CANDIDATE = re.compile(rb'[{,]\s*"model"\s*:\s*"([^"\\]{1,200})"')
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
    return None


def model_of(body: bytes) -> str | None:
    """The value of the top-level `model` of a JSON object, or None where that cannot be told cheaply."""
    leading = _LEADING.match(body[:_HEAD])
    if leading is not None:
        return leading[1].decode("utf-8", "replace")
    tail = body[-_TAIL:]
    for match in reversed(list(_CANDIDATE.finditer(tail))[-_TRIES:]):
        if _closes_one_object(tail[match.end() :]):
            return match[1].decode("utf-8", "replace")
    return None


def _closes_one_object(rest: bytes) -> bool:
    bare = _STRINGS.sub(b"", rest)
    return bare.count(b"}") - bare.count(b"{") == 1 and bare.count(b"]") == bare.count(b"[")
