"""Wire forms read into facts: which model, what it said, how many tokens.

Each form's file knows its form, and forms.py names them all. What no form owns stays plain HTTP. Every
function here is pure, and none raises on any body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codings import decode_body, plain_request
from .framing import framing_of
from .json_values import clean, loads, mapping, string
from .messages import Facts, Reply, Usage
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
    fetched = method.upper() != "POST"
    if model is None and not fetched and host_of(place(url)[0]) is None:
        return None
    read = unless_failed(call.form, lambda: read_response(load(call.form), response, content_type))
    if read is None:
        return None
    reply, streamed = read
    if fetched:
        model = model or reply.model
    stored_id, usage = _paid_for(reply, fetched=fetched)
    return Facts(
        form=call.form,
        provider=call.provider,
        operation=call.operation,
        model=_cleaned(model),
        response_model=_cleaned(reply.model),
        response_id=_cleaned(reply.response_id),
        finish_reason=_cleaned(reply.finish_reason),
        usage=usage,
        streamed=streamed,
        reply=reply.messages,
        text=reply.text,
        error_type=_cleaned(reply.error_type),
        stored_id=_cleaned(stored_id),
    )


def _paid_for(reply: Reply, *, fetched: bool) -> tuple[str | None, Usage]:
    """Return by what id other exchanges may tell what the reply takes, None for none, and what it takes here.

    A POST that brings its counts is paid for by itself: caches and gateways give one id to several.
    """
    if reply.stored_id is None or not reply.usage.is_counted:
        return reply.stored_id, reply.usage
    if fetched and reply.background is False:
        return None, Usage(told_usd=0.0)  # its POST brought its counts: to fetch it again costs nothing
    return reply.stored_id if fetched or reply.background else None, reply.usage


def facts_of(exchange: Exchange) -> Facts | None:
    """Return the facts of a recorded exchange, content encodings undone; None where it generated nothing."""
    asked, response = exchange.request, exchange.response
    return facts(
        asked.method,
        asked.url,
        request=plain_request(asked),
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
