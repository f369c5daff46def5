"""Wire formats read into facts (which model, what it said, how many tokens), and interventions written.

One file per provider knows its format; adding a provider is adding a file and naming it in `MODULES`.
What no module recognises stays plain HTTP. Every function here is pure; those that read raise on no body, and
those that write raise UsageError where the format has no place for what they were given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codings import decode_body
from .json_values import clean, loads, mapping, string
from .messages import Facts, Kind, Message, ProviderModule, Reply
from .registry import host_of, load, place, recognise
from .replies import encode_body, encode_error, encode_reply, recorded_body, system_edit, tool_results
from .sse import is_sse, sse_events

if TYPE_CHECKING:
    from ..exchange import Exchange

__all__ = [
    "Facts",
    "Kind",
    "Message",
    "ProviderModule",
    "decode_body",
    "encode_body",
    "encode_error",
    "encode_reply",
    "facts",
    "facts_of",
    "recorded_body",
    "request_messages",
    "sse_events",
    "system_edit",
    "tool_results",
]


def request_messages(form: str | None, body: bytes) -> tuple[Message, ...]:
    """Return a request of the form of this name as messages, system first; empty if it is not understood."""
    request = loads(body) if form is not None else None
    return load(form).request_messages(request) if form is not None and isinstance(request, dict) else ()


def facts(
    method: str, url: str, *, request: bytes, response: bytes | None, content_type: str | None
) -> Facts | None:
    """Return what a generation exchange asked for and got, None for any other exchange.

    `response` is the body with its content encoding undone, None where none came. A path of a known shape on
    an unknown host counts only if the request names a model: other services have such paths too.
    """
    call = recognise(method, url, request)
    if call is None:
        return None
    host, path = place(url)
    model = call.model or string(mapping(loads(request)).get("model"))
    if model is None and host_of(host) is None:
        return None
    reply, streamed = _read(load(call.form), path, response, content_type)
    return Facts(
        form=call.form,
        provider=call.provider,
        operation=call.operation,
        model=_cleaned(model),
        response_model=_cleaned(reply.model),
        response_id=_cleaned(reply.response_id),
        finish_reason=_cleaned(reply.finish_reason),
        input_tokens=reply.usage.input_tokens,
        output_tokens=reply.usage.output_tokens,
        cached_tokens=reply.usage.cached_tokens,
        cache_write_tokens=reply.usage.cache_write_tokens,
        cache_write_1h_tokens=reply.usage.cache_write_1h_tokens,
        streamed=streamed,
        reply=reply.messages,
        text=reply.text,
        error_type=_cleaned(reply.error_type),
    )


def facts_of(exchange: Exchange) -> Facts | None:
    """Return the facts of a recorded exchange, content encodings undone; None where it generated nothing."""
    asked, response = exchange.request, exchange.response
    return facts(
        asked.method,
        asked.url,
        request=asked.body,
        response=None if response is None else recorded_body(response),
        content_type=None if response is None else response.header("content-type"),
    )


def _read(
    module: ProviderModule, path: str, response: bytes | None, content_type: str | None
) -> tuple[Reply, bool]:
    """Return the reply in a response, and whether it came as a stream."""
    if response is None:
        return Reply(), False
    # A stream that is no events is an array: no API answers one call with an array else.
    if is_sse(response, content_type) or response.lstrip()[:1] == b"[":
        return module.streamed_reply(path, response), True
    whole = loads(response)
    return (module.reply(path, whole) if isinstance(whole, dict) else Reply()), False


def _cleaned(text: str | None) -> str | None:
    """Return the text such that it encodes as UTF-8."""
    return None if text is None else clean(text)
