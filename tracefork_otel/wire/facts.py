"""Wire forms read into facts: which model, what it said, how many tokens.

Each form's file knows its form, and forms.py names them all. What no form owns stays plain HTTP. Every
function here is pure, and none raises on any body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codings import decode_body
from .framing import framing_of
from .json_values import clean, loads, mapping, string
from .messages import Facts, Reply
from .registry import host_of, load, place, recognise, unless_failed

if TYPE_CHECKING:
    from ..exchange import Exchange, Response
    from .interface import WireForm


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
    model = call.model or string(mapping(loads(request)).get("model"))
    if model is None and host_of(place(url)[0]) is None:
        return None
    read = unless_failed(call.form, lambda: read_response(load(call.form), response, content_type))
    if read is None:
        return None
    reply, streamed = read
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


def recorded_body(response: Response) -> bytes | None:
    """Return the body with its content encoding undone, None where that cannot be done."""
    return decode_body(response.body, response.header("content-encoding"))


def read_response(form: WireForm, response: bytes | None, content_type: str | None) -> tuple[Reply, bool]:
    """Return the reply in a response, and whether it came as a stream."""
    if response is None:
        return Reply(), False
    framing = framing_of(form.FRAMINGS, response, content_type)
    if framing is not None:
        return form.read_reply(form.assemble(framing.read(response))), True
    return form.read_reply(mapping(loads(response))), False


def _cleaned(text: str | None) -> str | None:
    """Return the text such that it encodes as UTF-8."""
    return None if text is None else clean(text)
