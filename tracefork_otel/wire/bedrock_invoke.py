"""Amazon Bedrock's invoke form: the body, and each chunk of a stream, is in the form of the model's vendor.

Anthropic's, Nova's and OpenAI's are read and written; of models that complete a prompt (Llama, Mistral,
Titan, Cohere) the replies are read alone.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError
from . import anthropic, bedrock_converse, bedrock_prompts, openai_chat
from .eventstream import AwsEventStream, is_exception
from .framing import Event, Framing, event
from .json_values import count, loads, mapping, mappings, string
from .messages import Asked, Reply, Usage
from .placing import Placed, Tools
from .writing import ToolInput, ToolResult, compact, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .interface import WireForm
    from .writing import Cut, IdSource

_METRICS = "amazon-bedrock-invocationMetrics"
_CHUNK = "chunk"
# Nova's chunks are Converse's events, each in an object that names it.
_NOVA = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
)
_ANTHROPIC = re.compile(r"anthropic\.(claude-.+?)(?:-v\d+)?(?::.*)?\Z")


class VendorEvents(AwsEventStream):
    """An AWS event stream whose chunks carry the vendor's events in base64."""

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield the vendor's events, Nova's by their names; an exception comes as it is."""
        for one in super().read(body):
            spelled = one.said().get("bytes") if one.name == _CHUNK else None
            if not isinstance(spelled, str):
                yield one
                continue
            data = _unpacked(spelled)
            said = mapping(loads(data))
            name = next((key for key in said if key in _NOVA and isinstance(said[key], dict)), None)
            yield Event(None, data) if name is None else event({**said[name], **without(said, name)}, name)

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return a chunk for each event, an exception as it is."""
        return super().write(one if is_exception(one) else _packed(one) for one in events)


_STREAM = VendorEvents()
FRAMINGS = (_STREAM,)
REQUEST_ID = bedrock_converse.REQUEST_ID
TURNS = None
error = bedrock_converse.error


def streams(url: str, request: dict[str, Any]) -> Framing | None:
    """Return the event stream where the URL asks for one."""
    path = url.partition("?")[0].rstrip("/")
    return _STREAM if path.endswith("/invoke-with-response-stream") else None


def read_request(request: dict[str, Any]) -> Asked:
    """Return the system prompt and the conversation."""
    return _asked(request).read_request(request)


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole reply (or error, or both) says; where it counts nothing, Bedrock does."""
    found = _replied(whole).read_reply(whole)
    failed = found.error_type or bedrock_converse.error_type(whole)
    usage = found.usage if found.usage.output_tokens is not None else _usage(mapping(whole.get(_METRICS)))
    return replace(found, error_type=failed, usage=usage)


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the whole in the vendor's form, with Bedrock's own counts where those came."""
    told = list(events)
    said = [one for one in told if not is_exception(one)]
    whole = _streamed(said).assemble(said)
    for one in told:
        if is_exception(one):
            whole |= bedrock_converse.failure(one)
        elif _METRICS in (metrics := one.said()):
            whole[_METRICS] = metrics[_METRICS]
    return whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a reply of a known vendor."""
    return _replied(whole).is_reply(whole)


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the results of tools that a request carries, in their order."""
    return _asked(request).tool_results(request)


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that gives a request this system prompt."""
    return _writer(_asked(request)).system_edit(request, system)


def system_texts(request: dict[str, Any]) -> Sequence[Placed]:
    """Return the texts of the system prompt; of a model that completes a prompt there are none."""
    form = _asked(request)
    return [] if form is cast("WireForm", bedrock_prompts) else form.system_texts(request)


def tools(request: dict[str, Any]) -> Tools:
    """Return the tools; a model that completes a prompt has none."""
    form = _asked(request)
    return Tools() if form is cast("WireForm", bedrock_prompts) else form.tools(request)


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request that asks this of a model, in its vendor's form; its URL names the model."""
    if "anthropic." in model:
        begun: dict[str, Any] = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 4096}
        return {**begun, **without(anthropic.write_request(asked, model), "model")}
    if "amazon.nova" in model:
        return {"schemaVersion": "messages-v1", **bedrock_converse.write_request(asked, model)}
    return without(openai_chat.write_request(asked, model), "model")


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return the whole that says this, in the form of the request's vendor."""
    form = _writer(_asked(request))
    vendors = _ANTHROPIC.search(string(request.get("model")) or "")
    named = request if vendors is None else {**request, "model": vendors[1]}
    return form.write_reply(reply, request=named, frame=without(frame, _METRICS), ids=ids)


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the events in which a whole is streamed; the last one counts what Bedrock does."""
    form = _writer(_replied(whole))
    # Bedrock holds no stream open by a ping, and ends none by a mark that is no JSON.
    written = ((one, one.said()) for one in form.write_events(request, whole, cut))
    *before, last = [one for one, said in written if said and said.get("type") != "ping"]
    usage = form.read_reply(whole).usage
    read, stored = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    metrics = {
        "inputTokenCount": (usage.input_tokens or 0) - read - stored,
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": 1,
        "firstByteLatency": 1,
        **({"cacheReadInputTokenCount": read} if read else {}),
        **({"cacheWriteInputTokenCount": stored} if stored else {}),
    }
    return [*before, event({**last.said(), _METRICS: metrics}, last.name)]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return a whole with a tool call's input replaced and a new id."""
    return _writer(_replied(whole)).with_tool_input(whole, given, ids)


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the events with a tool call's input replaced; Bedrock's own counts are shifted alike."""
    form = _writer(_streamed(events))
    found = form.with_streamed_tool_input(events, given, ids)
    output = form.read_reply(form.assemble(found)).usage.output_tokens
    return [_counting(one, output) for one in found]


def _asked(request: dict[str, Any]) -> WireForm:
    """Return the form that a request is in."""
    turns = mappings(request.get("messages"))
    if "anthropic_version" not in request and bedrock_prompts.is_request(request):
        return cast("WireForm", bedrock_prompts)
    if "anthropic_version" in request or not turns:
        return cast("WireForm", anthropic)
    parts = [part for turn in turns for part in mappings(turn.get("content"))]
    nova = "schemaVersion" in request or any("type" not in part for part in parts)
    return cast("WireForm", bedrock_converse if nova else openai_chat)


def _replied(whole: dict[str, Any]) -> WireForm:
    """Return the form that a whole is in."""
    if isinstance(whole.get("output"), dict):
        return cast("WireForm", bedrock_converse)
    if "choices" in whole:
        return cast("WireForm", openai_chat)
    return cast("WireForm", bedrock_prompts if bedrock_prompts.is_reply(whole) else anthropic)


def _streamed(events: Sequence[Event]) -> WireForm:
    """Return the form that a stream is in."""
    if not events:
        return cast("WireForm", anthropic)
    if events[0].name in _NOVA:
        return cast("WireForm", bedrock_converse)
    first = events[0].said()
    if "choices" in first:
        return cast("WireForm", openai_chat)
    return cast("WireForm", anthropic if "type" in first else bedrock_prompts)


def _writer(form: WireForm) -> WireForm:
    """Return the form; raise UsageError where it is only read."""
    if form is cast("WireForm", bedrock_prompts):
        raise UsageError("replies of models that complete a prompt are only read: use --response")
    return form


def _usage(metrics: dict[str, Any]) -> Usage:
    """Return the counts of a stream's last chunk."""
    return Usage.with_cache_beside(
        count(metrics.get("inputTokenCount")),
        output=count(metrics.get("outputTokenCount")),
        read=count(metrics.get("cacheReadInputTokenCount")),
        written=count(metrics.get("cacheWriteInputTokenCount")),
    )


def _counting(one: Event, output: int | None) -> Event:
    """Return the event with this as what Bedrock counted of the output, where it tells that."""
    said = one.said()
    metrics = said.get(_METRICS)
    if not isinstance(metrics, dict) or output is None:
        return one
    return event({**said, _METRICS: {**metrics, "outputTokenCount": output}}, one.name)


def _unpacked(spelled: str) -> bytes:
    """Return what a chunk carries, empty where it is not base64."""
    try:
        return b64decode(spelled)
    except ValueError:
        return b""


def _packed(one: Event) -> Event:
    """Return the chunk that carries a vendor's event."""
    data = one.data
    if one.name in _NOVA:
        said = one.said()
        counted = {_METRICS: said.pop(_METRICS)} if _METRICS in said else {}
        data = compact({one.name: said, **counted}).encode()
    return event({"bytes": b64encode(data).decode()}, _CHUNK)
