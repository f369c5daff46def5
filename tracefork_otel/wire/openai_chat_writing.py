"""The Chat Completions format written: replies, their chunks, errors."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .json_values import count, loads, mapping, mappings, string
from .sse import sse_events
from .writing import FIXED_DATE, Call, Ids, ToolInput, ToolResult, deltas, event, shifted, tokens, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..exchange import Headers

REQUEST_ID = "x-request-id"
DONE = b"[DONE]"

_ERRORS = MappingProxyType(
    {
        429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again in 1s."),
        529: ("server_error", None, "The engine is currently overloaded, please try again later"),
    }
)
_USUAL_ERROR = (
    "server_error",
    None,
    "The server had an error while processing your request. Sorry about that!",
)
_SYSTEM_ROLES = ("system", "developer")
# The most choices that the API gives to one request; a request that asks for more got an error.
_MAX_CHOICES = 128


def frame(body: bytes, streamed: bool) -> dict[str, Any]:
    """Return a recorded completion without its choices, its usage where the wire told it."""
    if not streamed:
        whole = mapping(loads(body))
        return without(whole, "choices") if is_reply(whole) else {}
    found: dict[str, Any] = {}
    for _, data in sse_events(body):
        chunk = mapping(loads(data))
        # Azure's first chunk is empty but for the filter's findings.
        if not found and chunk.get("id"):
            found = without(chunk, "choices", "usage", "obfuscation")
        if isinstance(chunk.get("usage"), dict):
            found["usage"] = chunk["usage"]
    return found


def text_reply(
    request: dict[str, Any], frame: dict[str, Any], text: str, *, prompt: int, ids: Ids
) -> dict[str, Any]:
    """Return a completion whose every choice says the text."""
    choices = min(count(request.get("n")) or 1, _MAX_CHOICES)
    said = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return {
        "created": FIXED_DATE,
        "model": request.get("model"),
        **frame,
        "id": ids.base58("chatcmpl-", 29),
        "object": "chat.completion",
        "choices": [
            {"index": index, "message": dict(said), "logprobs": None, "finish_reason": "stop"}
            for index in range(choices)
        ],
        "usage": _usage(mapping(frame.get("usage")), prompt, tokens(text) * choices),
    }


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a completion."""
    return isinstance(whole.get("choices"), list) and "message" in (mappings(whole["choices"]) or [{}])[0]


def events(request: dict[str, Any], whole: dict[str, Any]) -> list[bytes]:
    """Return the chunks of a completion, in the API's order, and the mark that ends them."""
    counts = mapping(request.get("stream_options")).get("include_usage") is True
    base = {**without(whole, "choices", "usage"), "object": "chat.completion.chunk"}
    # Where usage was asked for, every chunk has the field, and all but the last leave it null.
    more = {"usage": None} if counts else {}
    found: list[bytes] = []
    for position, choice in enumerate(mappings(whole.get("choices"))):
        index = count(choice.get("index"))
        index = position if index is None else index
        for delta in _deltas(mapping(choice.get("message"))):
            found.append(event({**base, "choices": [_choice(index, delta)], **more}))
        end = _choice(index, {}, string(choice.get("finish_reason")) or "stop")
        found.append(event({**base, "choices": [end], **more}))
    if counts:
        found.append(event({**base, "choices": [], "usage": whole.get("usage")}))
    return [*found, event(DONE)]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: Ids) -> dict[str, Any]:
    """Return the completion with a tool call's input replaced, its id new, the call's id kept."""
    places = [
        (function, key, free)
        for choice in mappings(whole.get("choices"))
        for function, key, free in _functions(mapping(choice.get("message")))
    ]
    chosen = given.choose(
        [Call(name=string(f.get("name")), given=string(f.get(k)) or "", free=free) for f, k, free in places]
    )
    function, key, _ = places[chosen]
    old = string(function.get(key)) or ""
    # The body was parsed for this call alone, so changing it in place changes nothing of the caller's.
    function[key] = spelled = given.spelled(old)
    usage = mapping(whole.get("usage"))
    return {
        **whole,
        "id": ids.base58("chatcmpl-", 29),
        **({"usage": _shifted(usage, old, spelled)} if usage else {}),
    }


def with_streamed_tool_input(body: bytes, given: ToolInput, ids: Ids) -> list[bytes]:
    """Return the chunks with a tool call's input replaced; what does not speak of it stays."""
    recorded = [(name, data, mapping(loads(data))) for name, data in sse_events(body)]
    calls = _streamed_calls([chunk for _, _, chunk in recorded])
    place = list(calls)[given.choose(list(calls.values()))]
    old, answer_id = calls[place].given, ids.base58("chatcmpl-", 29)
    spelled = given.spelled(old)
    found: list[bytes] = []
    counted: dict[Any, int] = {}
    begun = False
    for name, data, chunk in recorded:
        if not chunk:
            found.append(event(data, name))
            continue
        if chunk.get("id"):
            chunk["id"] = answer_id
        if usage := mapping(chunk.get("usage")):
            chunk["usage"] = _shifted(usage, old, spelled)
        mine = [one for one in _chunk_calls(chunk, counted) if one[0] == place]
        later: list[bytes] = []
        for _, choice, call in mine:
            if begun:
                _drop(choice, call)
            else:
                begun = True
                later = _restarted(chunk, choice, call, spelled)
        if not mine or not _says_nothing(chunk):
            found.append(event(chunk, name))
        found += later
    return found


def error(status: int, ids: Ids) -> tuple[int, dict[str, Any], Headers]:
    """Return the status, the API's error body of it, and its headers."""
    kind, code, text = _ERRORS.get(status, _USUAL_ERROR)
    body = {"error": {"message": text, "type": kind, "param": None, "code": code}}
    return status, body, ((REQUEST_ID, ids.hex("req_", 32)),)


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit of the first system or developer message, or that puts one first."""
    given = request.get("messages")
    turns: list[Any] = given if isinstance(given, list) else []
    for index, turn in enumerate(turns):
        if mapping(turn).get("role") in _SYSTEM_ROLES:
            return f"messages[{index}].content", system
    return "messages", [{"role": "system", "content": system}, *turns]


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the messages of the role `tool`, each under the name of the call that it answers."""
    names: dict[Any, str | None] = {}
    found: list[ToolResult] = []
    given = request.get("messages")
    for at, turn in enumerate(given if isinstance(given, list) else []):
        for call in mappings(mapping(turn).get("tool_calls")):
            function = mapping(call.get("function") or call.get("custom"))
            names[call.get("id")] = string(function.get("name"))
        if mapping(turn).get("role") in ("tool", "function"):
            called = string(turn.get("tool_call_id"))
            name = names.get(called) or string(turn.get("name"))
            found.append(ToolResult(name=name, call_id=called, path=f"messages[{at}].content"))
    return found


def _usage(recorded: dict[str, Any], prompt: int, output: int) -> dict[str, Any]:
    """Return the usage of a reply of so many tokens to the recorded input."""
    given = count(recorded.get("prompt_tokens"))
    given = prompt if given is None else given
    return {
        **recorded,
        "prompt_tokens": given,
        "completion_tokens": output,
        "total_tokens": given + output,
        "prompt_tokens_details": recorded.get("prompt_tokens_details")
        or {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _shifted(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return the usage after one tool input became another."""
    output = shifted(usage.get("completion_tokens"), old=old, new=new)
    given = count(usage.get("prompt_tokens"))
    total = usage.get("total_tokens") if given is None else given + output
    return {**usage, "completion_tokens": output, "total_tokens": total}


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """Return one choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _deltas(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the deltas of a message: the role, what it says, its tool calls."""
    calls = mappings(said.get("tool_calls"))
    content, refusal = string(said.get("content")), string(said.get("refusal"))
    yield {"role": "assistant", "content": None if content is None else "", "refusal": None}
    for key, text in (("content", content), ("refusal", refusal)):
        for piece in deltas(text or ""):
            yield {key: piece}
    if isinstance(said.get("function_call"), dict):
        yield {"function_call": said["function_call"]}
    for index, call in enumerate(calls):
        for function, key, _ in _functions({"tool_calls": [call]}):
            member = "custom" if key == "input" else "function"
            yield {"tool_calls": [{"index": index, **call, member: {**function, key: ""}}]}
            for piece in deltas(string(function.get(key)) or ""):
                yield {"tool_calls": [{"index": index, member: {key: piece}}]}


def _functions(said: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Yield each tool call of a message or a delta: its function, the input's key, whether that is free."""
    for call in mappings(said.get("tool_calls")):
        if isinstance(call.get("custom"), dict):
            yield call["custom"], "input", True
        elif isinstance(call.get("function"), dict):
            yield call["function"], "arguments", False
    if isinstance(said.get("function_call"), dict):
        yield said["function_call"], "arguments", False


def _chunk_calls(
    chunk: dict[str, Any], counted: dict[Any, int]
) -> list[tuple[tuple[int, int], dict[str, Any], dict[str, Any]]]:
    """Return what a chunk adds to tool calls: (choice's and call's index, the choice, the call's delta).

    `counted` holds how many calls each choice has begun, because some servers send whole calls without an
    index, each a call of its own.
    """
    found: list[tuple[tuple[int, int], dict[str, Any], dict[str, Any]]] = []
    for choice in mappings(chunk.get("choices")):
        number, delta = count(choice.get("index")) or 0, mapping(choice.get("delta"))
        calls = mappings(delta.get("tool_calls"))
        if isinstance(delta.get("function_call"), dict):
            calls = [*calls, {"index": 0, "function_call": delta["function_call"]}]
        for call in calls:
            index = count(call.get("index"))
            index = counted.get(number, 0) if index is None else index
            counted[number] = max(counted.get(number, 0), index + 1)
            found.append(((number, index), choice, call))
    return found


def _streamed_calls(chunks: list[dict[str, Any]]) -> dict[tuple[int, int], Call]:
    """Return the tool calls that the chunks add up to, in order, by choice and index."""
    calls: dict[tuple[int, int], Call] = {}
    counted: dict[Any, int] = {}
    for chunk in chunks:
        for place, _, call in _chunk_calls(chunk, counted):
            known = calls.get(place, Call(name=None, given=""))
            for function, key, free in _functions({"tool_calls": [call], **call}):
                known = Call(
                    name=string(function.get("name")) or known.name,
                    given=known.given + (string(function.get(key)) or ""),
                    free=free or known.free,
                )
            calls[place] = known
    return dict(sorted(calls.items()))


def _restarted(
    chunk: dict[str, Any], choice: dict[str, Any], call: dict[str, Any], spelled: str
) -> list[bytes]:
    """Make the call's first delta begin the new input, and return the chunks that go on with it.

    A server that sent the input whole with the call's name, or without an index, gets it whole again.
    """
    function, key, free = next(_functions({"tool_calls": [call], **call}))
    index = count(call.get("index"))
    at_once = bool(function.get(key)) or index is None or choice.get("finish_reason") is not None
    function[key] = spelled if at_once else ""
    if at_once:
        return []

    def going_on(piece: str) -> dict[str, Any]:
        if "function_call" in call:
            return {"function_call": {key: piece}}
        return {"tool_calls": [{"index": index, "custom" if free else "function": {key: piece}}]}

    number = count(choice.get("index")) or 0
    base = without(chunk, "obfuscation")
    return [event({**base, "choices": [_choice(number, going_on(piece))]}) for piece in deltas(spelled)]


def _drop(choice: dict[str, Any], call: dict[str, Any]) -> None:
    """Leave the call's delta out of the choice."""
    delta = mapping(choice.get("delta"))
    if "function_call" in call:
        delta.pop("function_call", None)
        return
    rest = [one for one in delta.get("tool_calls") or [] if one is not call]
    if rest:
        delta["tool_calls"] = rest
    else:
        delta.pop("tool_calls", None)


def _says_nothing(chunk: dict[str, Any]) -> bool:
    """Return whether a chunk's choices neither add to anything nor end, so that it can be left out."""
    return not mapping(chunk.get("usage")) and all(
        not mapping(choice.get("delta")) and choice.get("finish_reason") is None
        for choice in mappings(chunk.get("choices"))
    )
