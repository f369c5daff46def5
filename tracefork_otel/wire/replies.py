"""Replies and errors in the wire form that a recorded request asked for.

Nothing here knows a form: each form's file writes its own. What is encoded depends on the
arguments alone, so the same intervention gives the same bytes, ids included.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..exchange import Response
from .codings import plain_request
from .counted_paths import no_conversation
from .dumps import NotJson
from .facts import recorded_body
from .framing import SSE, framing_of
from .json_values import loads, mapping
from .messages import Reply, Usage, call_names, joined, message
from .registry import host_of, load, place, placed
from .writing import Ids, ToolInput, compact, deltas, laid_out, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from ..exchange import Headers, Request
    from .framing import Event, Framing
    from .interface import WireForm
    from .messages import Turn
    from .writing import ToolResult

    _ModelCall: TypeAlias = tuple[WireForm, dict[str, Any], Framing | None]

_JSON = "application/json"
# Headers that speak of the recorded body's bytes, of the connection, or of an error that is no more.
_STALE = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-md5",
        "content-type",
        "etag",
        "keep-alive",
        "repr-digest",
        "retry-after",
        "retry-after-ms",
        "trailer",
        "transfer-encoding",
        "x-amzn-errortype",
        "x-should-retry",
    }
)
# The seconds that an encoded 429 asks its client to wait: what a fork's user waits, too.
_RETRY_AFTER_S = "1"


def encode_reply(
    request: Request,
    recorded: Response | None,
    *,
    text: str | None = None,
    tool_input: object = None,
    tool: str | None = None,
    nth: int = 0,
) -> Response:
    """Return the reply that says `text`, or the recorded one with a tool call's input replaced.

    It is a stream where the request asked for one; `tool_input` keeps the form of the recorded reply.
    `tool` names the tool of whose calls the `nth` is meant, counted from 0, else it is that of all. Raises
    UsageError where the request is no model call, or the recorded reply holds no such tool call.
    """
    if (text is None) == (tool_input is None):
        raise UsageError("give either a text or a tool input")
    form, asked, streams = _model_call(request)
    with _written():
        if text is not None:
            return _text(form, request, asked, recorded, text, streams)
        return _tool_input(form, request, recorded, ToolInput(value=tool_input, tool=tool, nth=nth))


def encode_body(request: Request, recorded: Response | None, body: bytes) -> Response:
    """Return the response of status 200 with exactly this body, for a model call checked to be readable.

    A reply given as JSON is streamed where the request asked for a stream. Raises UsageError for a body that
    the provider's SDK could not read.
    """
    found = _form(request)
    if found is None:
        usual = recorded.header("content-type") if recorded is not None else None
        events = SSE.content_type if SSE.holds(body, None) else None
        kind = events or (_JSON if loads(body) is not None else "application/octet-stream")
        return _response([body] if body else [], recorded, usual or kind)
    form, asked, streams = found
    given = framing_of(form.FRAMINGS, body, None)
    if given is not None:
        if streams is not given:
            wanted = "JSON" if streams is None else streams.name
            raise UsageError(f"the response holds {given.name}, and the agent asked for {wanted}")
        if not form.is_reply(form.assemble(given.read(body))):
            raise UsageError(f"the response holds {given.name}, but none that begin this provider's reply")
        return _response(given.cut(body), recorded, given.content_type)
    whole = loads(body)
    if whole is None:
        raise UsageError("the response is not valid JSON, and no stream of server-sent events either")
    if not isinstance(whole, dict) or not form.is_reply(whole):
        raise UsageError("the response is no reply in this provider's format (for an error use --fault)")
    if streams is not None:
        with _written():
            return _streamed(form.write_events(asked, whole, deltas), streams, recorded)
    return _response([body], recorded, _JSON)


@contextmanager
def _written() -> Iterator[None]:
    """Refuse to write what was recorded, or given, and is no JSON."""
    try:
        yield
    except NotJson as error:
        raise UsageError(
            f"the reply cannot be written as JSON ({error}): give it whole, --response"
        ) from None


def whole_reply(request: Request, response: Response) -> dict[str, Any] | None:
    """Return a reply as JSON, as it comes where no stream was asked for; None where it is no reply."""
    found = _form(request)
    body = recorded_body(response)
    if found is None or body is None:
        return None
    form = found[0]
    framing = _framing(form, body, response)
    whole = mapping(loads(body)) if framing is None else form.assemble(framing.read(body))
    return whole if form.is_reply(whole) else None


def said_by(request: Request, whole: dict[str, Any]) -> Turn:
    """Return what such a reply to the request says."""
    form, _, _ = _model_call(request)
    return form.read_reply(whole).messages


def encode_error(request: Request, status: int) -> Response:
    """Return the error response of that status, as the provider that the request goes to sends it."""
    found = _form(request)
    headers: Headers = ()
    if found is None:
        body = {"error": {"message": HTTPStatus(status).phrase if status != 529 else "Overloaded"}}
    else:
        status, body, headers = found[0].error(status, Ids(_seed(request), str(status).encode()))
    again = (("retry-after", _RETRY_AFTER_S),) if status == 429 else ()
    spelled = compact(body).encode()
    return Response(
        status=status,
        headers=(("content-type", _JSON), *headers, *again),
        body=spelled,
        chunk_sizes=(len(spelled),),
        chunk_offsets_us=(0,),
    )


def system_edit(request: Request, system: str) -> tuple[str, Any]:
    """Return the JSON path and value that give the request this system prompt, in its provider's place."""
    form, asked, _ = _model_call(request)
    return form.system_edit(asked, system)


def system_of(request: Request) -> str | None:
    """Return the system prompt of a request, None where it has none, or is no model call."""
    found = _form(request)
    if found is None:
        return None
    said = [one.content for one in found[0].read_request(found[1]).messages if one.role in _SYSTEM]
    return "\n".join(said) if said else None


_SYSTEM = ("system", "developer")


def read_form(request: Request) -> tuple[WireForm, dict[str, Any]] | None:
    """Return the form of a request and its JSON; None where it is no model call."""
    found = _form(request)
    return None if found is None else found[:2]


def turns_of(request: Request) -> str | None:
    """Return the member in which a request has its turns, None where it has none, or is no model call."""
    found = _form(request)
    return None if found is None else getattr(found[0], "TURNS", None)  # a package's form may say nothing


def tool_results(request: Request) -> list[ToolResult]:
    """Return the results of tools that a request carries; none where it is no model call."""
    found = _form(request)
    if found is None:
        return []
    form, asked, _ = found
    turns = form.read_request(asked).turns
    said = [one for one in joined(turns) if one.kind == "tool_result"]
    found = form.tool_results(asked)
    if [one.call_id for one in said] == [one.call_id for one in found]:
        # In order, for servers repeat ids: each goes by the name of the call before it.
        named = [None if one.name == one.call_id else one.name for one in said]
    else:
        names = call_names(turns)
        named = [None if one.call_id is None else names.get(one.call_id) for one in found]
    texts = [one.content for one in said] if len(said) == len(found) else [""] * len(found)
    return [
        replace(one, name=one.name or name, text=text)
        for one, name, text in zip(found, named, texts, strict=True)
    ]


def _form(request: Request) -> _ModelCall | None:
    """Return what writes this request's replies, its JSON, how it streams; None where it is no model call."""
    host, path = place(request.url)
    found = placed(path) if request.method.upper() == "POST" else None
    if found is None:
        return None
    known, _, named, stand_in = found
    form = load(known.name)
    asked = loads(plain_request(request))
    if not isinstance(asked, dict):
        return None
    model = asked.get("model") or named or stand_in
    if not model and host_of(host) is None:
        return None
    return form, {**asked, "model": model} if model else asked, form.streams(request.url, asked)


def _model_call(request: Request) -> _ModelCall:
    """Return the same; raise UsageError where the request is no model call."""
    found = _form(request)
    if found is None:
        raise UsageError(no_conversation(request.method, request.url, plain_request(request)))
    return found


def _text(
    form: WireForm,
    request: Request,
    asked: dict[str, Any],
    recorded: Response | None,
    text: str,
    streams: Framing | None,
) -> Response:
    """Return the reply that says the text."""
    try:
        said = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not valid Unicode at character {error.start}") from None
    body = (recorded_body(recorded) if recorded is not None else None) or b""
    framing = _framing(form, body, recorded)
    frame = mapping(loads(body)) if framing is None else form.assemble(framing.read(body))
    ids = Ids(_seed(request), b"text", said)
    prompt = tokens(plain_request(request).decode("utf-8", "replace"))
    reply = Reply(
        choices=((message("assistant", "text", text),),),
        usage=Usage(input_tokens=prompt, output_tokens=tokens(text)),
    )
    whole = form.write_reply(reply, request=asked, frame=frame if form.is_reply(frame) else {}, ids=ids)
    named = None if form.REQUEST_ID is None else (form.REQUEST_ID, ids.hex("req_", 24))
    if streams is not None:
        return _streamed(form.write_events(asked, whole, deltas), streams, recorded, named)
    return _response([laid_out(whole, body if framing is None else None)], recorded, _JSON, named)


def _tool_input(form: WireForm, request: Request, recorded: Response | None, given: ToolInput) -> Response:
    """Return the recorded reply with a tool call's input replaced."""
    body = recorded_body(recorded) if recorded is not None else None
    if recorded is None or body is None:
        raise UsageError("there is no recorded reply that can be read, so no tool call in it: use --text")
    try:
        ids = Ids(_seed(request), b"tool_input", compact(given.value).encode())
    except (TypeError, ValueError) as error:
        raise UsageError(f"the tool input is no JSON value: {error}") from None
    framing = _framing(form, body, recorded)
    if framing is not None:
        events = form.with_streamed_tool_input(list(framing.read(body)), given, ids)
        return _streamed(events, framing, recorded)
    whole = loads(body)
    if not isinstance(whole, dict) or not form.is_reply(whole):
        raise UsageError("the recorded response is no reply of the model, so it calls no tool: use --text")
    return _response([laid_out(form.with_tool_input(whole, given, ids), body)], recorded, _JSON)


def _framing(form: WireForm, body: bytes, recorded: Response | None) -> Framing | None:
    """Return how the recorded body was streamed, None where it came whole."""
    return framing_of(form.FRAMINGS, body, recorded.header("content-type") if recorded is not None else None)


def _streamed(
    events: Sequence[Event],
    framing: Framing,
    recorded: Response | None,
    named: tuple[str, str] | None = None,
) -> Response:
    """Return the response that streams these events."""
    return _response(framing.write(events), recorded, framing.content_type, named)


_OK = 200


def _response(
    cuts: Sequence[bytes], recorded: Response | None, content_type: str, named: tuple[str, str] | None = None
) -> Response:
    """Return the response of these chunks with the recorded headers, as far as they still hold."""
    recorded_type = recorded.header("content-type") if recorded is not None else None
    # The recorded spelling is kept where it says the same: `text/event-stream` with or without a charset.
    same = recorded_type and recorded_type.partition(";")[0].strip() == content_type.partition(";")[0]
    kept = recorded.headers if recorded is not None else (named,) if named is not None else ()
    headers = tuple((name, value) for name, value in kept if name.lower() not in _STALE)
    return Response(
        status=_OK,
        headers=(("content-type", recorded_type if same and recorded_type else content_type), *headers),
        body=b"".join(cuts),
        chunk_sizes=tuple(map(len, cuts)),
        chunk_offsets_us=(0,) * len(cuts),
        http_version=recorded.http_version if recorded is not None else "HTTP/1.1",
        reason_phrase=recorded.reason_phrase if recorded is not None and recorded.status == _OK else None,
        stream_id=recorded.stream_id if recorded is not None else None,
    )


def _seed(request: Request) -> bytes:
    """Return what an answer's ids follow from: everything that tells this request from another."""
    return b"\0".join([request.method.encode(), request.url.encode("utf-8", "surrogatepass"), request.body])
