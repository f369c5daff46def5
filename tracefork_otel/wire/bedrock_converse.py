"""Amazon Bedrock's Converse form: one for the models of all vendors; the URL names the model."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .bedrock_blocks import (
    ArrivingBlock,
    block_deltas,
    block_of,
    block_start,
    content_turn,
    input_deltas,
    result_parts,
)
from .eventstream import AwsEventStream, is_exception
from .framing import Event, Framing, event
from .json_values import count, mapping, mappings, string
from .messages import Asked, Reply, Usage, answering, served_by
from .placing import Placed, Tools, named, named_at, one_at, texts_at
from .writing import Call, ToolInput, ToolResult, as_blocks, compact, deltas, numbered, shifted, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..exchange import Headers
    from .writing import Cut, IdSource

_STREAM = AwsEventStream()
FRAMINGS = (_STREAM,)
REQUEST_ID = "x-amzn-requestid"
TURNS = "messages"

_ERROR_TYPE = "x-amzn-errortype"
_OVERLOADED = (503, "ServiceUnavailableException", "Bedrock is unable to process your request.")
_ERRORS = MappingProxyType(
    {
        400: (400, "ValidationException", "The provided request is not valid."),
        401: (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
        403: (403, "AccessDeniedException", "You don't have access to this model."),
        404: (404, "ResourceNotFoundException", "Could not find the model with the specified model ID."),
        408: (408, "ModelTimeoutException", "The model took too long to answer. Try your request again."),
        424: (424, "ModelErrorException", "The request failed due to an error while processing the model."),
        429: (429, "ThrottlingException", "Too many requests, please wait before trying again."),
        500: (500, "InternalServerException", "An internal server error occurred. Retry your request."),
        503: _OVERLOADED,
        # No status of AWS's, and its SDKs would not try again.
        529: _OVERLOADED,
    }
)
# What a reply tells of how it came about, that another in its place did not do.
_UNDONE = ("trace", "additionalModelResponseFields")


def streams(url: str, request: dict[str, Any]) -> Framing | None:
    """Return the event stream where the URL asks for one."""
    return _STREAM if url.partition("?")[0].rstrip("/").endswith("/converse-stream") else None


def read_request(request: dict[str, Any]) -> Asked:
    """Return the system prompt and the conversation."""
    turns = mappings(request.get("messages"))
    return Asked(
        content_turn("system", request.get("system")),
        answering(content_turn(string(turn.get("role")) or "user", turn.get("content")) for turn in turns),
    )


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole reply (or error, or both) says."""
    said = mapping(mapping(whole.get("output")).get("message"))
    return Reply(
        choices=answering([content_turn(string(said.get("role")) or "assistant", said.get("content"))]),
        finish_reasons=(string(whole.get("stopReason")),),
        error_type=error_type(whole),
        usage=replace(
            _usage(mapping(whole.get("usage"))),
            served=served_by(
                service_tier=mapping(whole.get("serviceTier")).get("type"),
                latency=mapping(whole.get("performanceConfig")).get("latency"),
            ),
        ),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the reply with the blocks that had begun when its stream was cut."""
    whole: dict[str, Any] = {}
    said: dict[str, Any] = {}
    blocks: dict[int, ArrivingBlock] = {}
    for one in events:
        told = one.said()
        if one.name == "messageStart":
            said = {"role": told.get("role")}
        elif one.name in ("contentBlockStart", "contentBlockDelta"):
            block = blocks.setdefault(count(told.get("contentBlockIndex")) or 0, ArrivingBlock())
            block.start(mapping(told.get("start")))
            block.extend(mapping(told.get("delta")))
        elif one.name in ("messageStop", "metadata"):
            whole |= without(told, "p")
        elif is_exception(one):
            whole |= failure(one)
    if said or blocks:
        whole["output"] = {
            "message": {
                **(said or {"role": "assistant"}),
                "content": [found for _, block in sorted(blocks.items()) if (found := block.whole())],
            }
        }
    return whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a reply."""
    return isinstance(mapping(mapping(whole.get("output")).get("message")).get("content"), list)


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the `toolResult` blocks of the conversation."""
    found: list[ToolResult] = []
    for at, turn in numbered(request.get("messages")):
        for place, block in numbered(turn.get("content")):
            result = block.get("toolResult")
            if isinstance(result, dict):
                where = f"messages[{at}].content[{place}].toolResult"
                called = string(result.get("toolUseId"))
                undone = ((f"{where}.status", "success"),) if result.get("status") == "error" else ()
                found.append(
                    ToolResult(
                        call_id=called,
                        path=f"{where}.content",
                        undone=undone,
                        saying=result_parts,
                    )
                )
    return found


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that makes this the system prompt."""
    return "system", [{"text": system}]


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the texts of the system prompt's blocks."""
    return texts_at(request.get("system"), "system")


def tools(request: dict[str, Any]) -> Tools:
    """Return the tools of the request's settings of tools, which go with the last of them."""
    settings = mapping(request.get("toolConfig"))
    names = ("toolSpec.name", "systemTool.name")
    return Tools(
        offered=tuple(named_at(settings.get("tools"), "toolConfig.tools", *names, holders=("toolConfig",))),
        chosen=tuple(one_at(named(settings.get("toolChoice"), "tool.name"), "toolConfig.toolChoice")),
    )


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns; its URL names the model."""
    system = [{"text": one.content} for one in asked.system]
    return {**({"system": system} if system else {}), "messages": as_blocks(asked.turns, block_of)}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a reply of these blocks."""
    said = [one for one in reply.messages if one.content or one.kind != "text"]
    calls = any(one.kind == "tool_use" for one in said)
    return {
        "metrics": {"latencyMs": 1},
        **without(frame, *_UNDONE),
        "output": {"message": {"role": "assistant", "content": [block_of(one, ids) for one in said]}},
        "stopReason": reply.finish_reason or ("tool_use" if calls else "end_turn"),
        "usage": _counted(mapping(frame.get("usage")), reply.usage),
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the events of a reply, in the API's order."""
    said = mapping(mapping(whole.get("output")).get("message"))
    found = [event({"role": said.get("role") or "assistant"}, "messageStart")]
    for index, block in enumerate(mappings(said.get("content"))):
        start = block_start(block)
        if start:
            found.append(event({"contentBlockIndex": index, "start": start}, "contentBlockStart"))
        found += [_delta(index, delta) for delta in block_deltas(block, cut)]
        found.append(event({"contentBlockIndex": index}, "contentBlockStop"))
    ended = ("stopReason", "additionalModelResponseFields")
    stop = {key: whole[key] for key in ended if key in whole}
    return [*found, event(stop, "messageStop"), event(without(whole, "output", *ended), "metadata")]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the reply with a tool call's input replaced; only the response's headers have an id."""
    said = mapping(mapping(whole.get("output")).get("message"))
    content = said.get("content")
    blocks = [block for block in mappings(content) if isinstance(block.get("toolUse"), dict)]
    uses = [block["toolUse"] for block in blocks]
    calls = [Call(name=string(use.get("name")), given=compact(use.get("input"))) for use in uses]
    chosen = given.choose(calls)
    mended = {**blocks[chosen], "toolUse": {**uses[chosen], "input": given.value}}
    blocks_now = [mended if block is blocks[chosen] else block for block in content or []]
    return {
        **whole,
        "output": {**mapping(whole.get("output")), "message": {**said, "content": blocks_now}},
        "usage": _shifted(mapping(whole.get("usage")), calls[chosen].given, given.spelled()),
    }


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the events with a tool call's input replaced; what does not speak of it is as it was."""
    recorded = [(one, one.said()) for one in events]
    calls = _streamed_calls(recorded)
    at = list(calls)[given.choose(list(calls.values()))]
    old, spelled = calls[at].given, given.spelled(calls[at].given)
    found: list[Event] = []
    for one, said in recorded:
        mine = count(said.get("contentBlockIndex")) == at
        if mine and one.name == "contentBlockDelta":
            continue
        if one.name == "metadata":
            one = event({**said, "usage": _shifted(mapping(said.get("usage")), old, spelled)}, one.name)
        found.append(one)
        if mine and one.name == "contentBlockStart":
            found += [_delta(at, delta) for delta in input_deltas(spelled, deltas)]
    return found


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return AWS's own status for such an error, its body, and its headers: the type stands in one."""
    usual = (status, "InternalServerException" if status >= 500 else "ValidationException", None)
    code, kind, said = _ERRORS.get(status, usual)
    body = {"message": text or said or f"The request failed with status {status}."}
    drawn = ids.hex("", 32)
    request_id = "-".join((drawn[:8], drawn[8:12], drawn[12:16], drawn[16:20], drawn[20:]))
    return code, body, ((_ERROR_TYPE, kind), (REQUEST_ID, request_id))


def error_type(whole: dict[str, Any]) -> str | None:
    """Return an error's type, without the namespace before and the address behind it; None for no error.

    A body that comes beside a header which names the type has a message alone.
    """
    if "message" not in whole and "Message" not in whole and "__type" not in whole:
        return None
    kind = (string(whole.get("__type")) or "").rpartition("#")[2].partition(":")[0]
    return kind[:1].upper() + kind[1:] or "error"


def failure(exception: Event) -> dict[str, Any]:
    """Return a stream's exception as an error's whole spells it."""
    return {"__type": exception.name, "message": exception.said().get("message")}


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts; Nova's own form spells those of the cache with `Count` at the end."""
    read, written = (
        next((found for name in names if (found := count(usage.get(name))) is not None), None)
        for names in (
            ("cacheReadInputTokens", "cacheReadInputTokenCount"),
            ("cacheWriteInputTokens", "cacheWriteInputTokenCount"),
        )
    )
    hour = [
        count(one.get("inputTokens")) or 0
        for one in mappings(usage.get("cacheDetails"))
        if one.get("ttl") == "1h"
    ]
    return Usage.with_cache_beside(
        count(usage.get("inputTokens")),
        output=count(usage.get("outputTokens")),
        read=read,
        written=written,
        hour=sum(hour) if hour else None,
    )


def _counted(recorded: dict[str, Any], counted: Usage) -> dict[str, Any]:
    """Return the usage of a reply that counts this, to the recorded input where one is known."""
    read, written = counted.cached_tokens, counted.cache_write_tokens
    usage = dict(recorded)
    if not usage and counted.input_tokens is not None:
        usage["inputTokens"] = max(0, counted.input_tokens - (read or 0) - (written or 0))
        usage |= {"cacheReadInputTokens": read} if read else {}
        usage |= {"cacheWriteInputTokens": written} if written else {}
    return _totalled({**usage, "outputTokens": counted.output_tokens})


def _shifted(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a recorded usage after one text of the output became another."""
    return _totalled({**usage, "outputTokens": shifted(usage.get("outputTokens"), old=old, new=new)})


def _totalled(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the usage with the total that it adds up to."""
    counted = _usage(usage)
    return {**usage, "totalTokens": (counted.input_tokens or 0) + (counted.output_tokens or 0)}


def _delta(index: int, delta: dict[str, Any]) -> Event:
    """Return the event of one delta."""
    return event({"contentBlockIndex": index, "delta": delta}, "contentBlockDelta")


def _streamed_calls(recorded: Iterable[tuple[Event, dict[str, Any]]]) -> dict[Any, Call]:
    """Return the tool calls of a stream by the index of their block, with their inputs as they came."""
    calls: dict[Any, Call] = {}
    for one, said in recorded:
        index = count(said.get("contentBlockIndex"))
        use = mapping(said.get("start")).get("toolUse")
        piece = string(mapping(mapping(said.get("delta")).get("toolUse")).get("input"))
        if one.name == "contentBlockStart" and isinstance(use, dict):
            calls[index] = Call(name=string(use.get("name")), given="")
        elif piece is not None and index in calls:
            calls[index] = Call(name=calls[index].name, given=calls[index].given + piece)
    return calls
