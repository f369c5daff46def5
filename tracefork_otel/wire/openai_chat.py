"""The Chat Completions form: at OpenAI, on Azure, and at all who copy it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from . import openai
from .framing import SSE, Event, event, sse_if_asked
from .json_values import count, dumps, mapping, mappings, string
from .messages import Asked, Message, Reply, Turn, answering, flat, message
from .openai import SYSTEM_ROLES, error_type, part_message, part_text
from .placing import Placed, Tools, named, named_at, one_at, system_turns
from .writing import (
    FIXED_DATE,
    Call,
    ToolInput,
    ToolResult,
    as_messages,
    call_id_of,
    deltas,
    numbered,
    parts_or_text,
    shifted,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .writing import Cut, IdSource

FRAMINGS = (SSE,)
REQUEST_ID = openai.REQUEST_ID
TURNS = "messages"
error = openai.error
streams = sse_if_asked

_DONE = Event(None, b"[DONE]")
# Where servers put the model's reasoning: vLLM and DeepSeek in the first, OpenRouter in the second.
_REASONING = ("reasoning_content", "reasoning")
_TEXTS = ("content", "refusal", *_REASONING)
# The most choices that the API gives to one request; a request that asks for more got an error.
_MAX_CHOICES = 128

_TOOL_NAMES = ("function.name", "custom.name", "name")
"""Where a tool has its name."""


def read_request(request: dict[str, Any]) -> Asked:
    """Return the conversation; what is system is among its turns here."""
    return Asked((), answering(map(_turn, mappings(request.get("messages")))))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole completion (or error) says."""
    choices = mappings(whole.get("choices"))
    error = whole.get("error")
    return Reply(
        choices=tuple(_turn({"role": "assistant", **mapping(one.get("message"))}) for one in choices),
        finish_reasons=tuple(string(one.get("finish_reason")) for one in choices),
        model=string(whole.get("model")),
        response_id=string(whole.get("id")),
        error_type=None if error is None else error_type(error),
        usage=openai.read_usage(whole),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the completion that the chunks add up to."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for one in events:
        chunk = one.said()
        # Azure's first chunk carries empty strings, and all chunks but the last a null usage.
        whole |= {key: value for key, value in without(chunk, "choices", "obfuscation").items() if value}
        for choice in mappings(chunk.get("choices")):
            known = choices.setdefault(
                count(choice.get("index")) or 0, {"message": {}, "calls": {}, "begun": _Begun()}
            )
            known["finish_reason"] = string(choice.get("finish_reason")) or known.get("finish_reason")
            _extend(known["message"], known["calls"], known["begun"], mapping(choice.get("delta")))
    if choices or whole.get("id"):
        whole["choices"] = [_choice_of(index, known) for index, known in sorted(choices.items())]
    return whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a completion."""
    return isinstance(whole.get("choices"), list) and "message" in (mappings(whole["choices"]) or [{}])[0]


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the messages of the role `tool`."""
    return [
        ToolResult(
            name=string(turn.get("name")),
            call_id=string(turn.get("tool_call_id")),
            path=f"messages[{at}].content",
            saying=parts_or_text(turn.get("content"), ("text",)),
        )
        for at, turn in numbered(request.get("messages"))
        if turn.get("role") in ("tool", "function")
    ]


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit of the first system or developer message, or that puts one first."""
    given = request.get("messages")
    turns: list[Any] = given if isinstance(given, list) else []
    for index, turn in enumerate(turns):
        if mapping(turn).get("role") in SYSTEM_ROLES:
            return f"messages[{index}].content", system
    return "messages", [{"role": "system", "content": system}, *turns]


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the texts of the messages of the system and the developer."""
    return system_turns(request.get("messages"), "messages", SYSTEM_ROLES)


def tools(request: dict[str, Any]) -> Tools:
    """Return the tools, and the functions that older requests have in their place."""
    choice, called = request.get("tool_choice"), named(request.get("function_call"), "name")
    allowed = mapping(mapping(choice).get("allowed_tools")).get("tools")
    within = "tool_choice.allowed_tools.tools"
    return Tools(
        offered=(
            *named_at(request.get("tools"), "tools", *_TOOL_NAMES, "type"),
            *named_at(request.get("functions"), "functions", "name"),
        ),
        chosen=(
            *one_at(named(choice, *_TOOL_NAMES), "tool_choice"),
            *named_at(allowed, within, *_TOOL_NAMES, holders=("tool_choice",)),
            *one_at(called, "function_call"),
        ),
        beside=("tool_choice", "parallel_tool_calls", "function_call", "strict_tools"),
    )


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns, the results of tools each a message of its own."""
    return {"model": model, "messages": as_messages(asked, _said)}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a completion of these choices; of as many as were asked for where they are all alike."""
    answer_id = reply.response_id or ids.base58("chatcmpl-", 29)
    said = [_said("assistant", turn, ids) for turn in reply.choices]
    reasons = list(reply.finish_reasons) + [None] * len(said)
    wanted = min(count(request.get("n")) or 1, _MAX_CHOICES) if len(said) == 1 else len(said)
    return {
        "created": FIXED_DATE,
        "model": reply.model or request.get("model"),
        **frame,
        "id": answer_id,
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": dict(one),
                "logprobs": None,
                "finish_reason": reason or ("tool_calls" if one.get("tool_calls") else "stop"),
            }
            for index, (one, reason) in enumerate(zip(said * wanted, reasons * wanted, strict=False))
            if index < wanted
        ],
        "usage": openai.write_usage(
            mapping(frame.get("usage")), reply.usage, wanted if len(said) == 1 else 1
        ),
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the chunks of a completion, in the API's order, and the mark that ends them."""
    counts = mapping(request.get("stream_options")).get("include_usage") is True
    base = {**without(whole, "choices", "usage"), "object": "chat.completion.chunk"}
    # Where usage was asked for, every chunk has the field, and all but the last leave it null.
    more = {"usage": None} if counts else {}
    found: list[Event] = []
    for position, choice in enumerate(mappings(whole.get("choices"))):
        index = count(choice.get("index"))
        index = position if index is None else index
        for delta in _deltas(mapping(choice.get("message")), cut):
            found.append(event({**base, "choices": [_choice(index, delta)], **more}))
        end = _choice(index, {}, string(choice.get("finish_reason")) or "stop")
        found.append(event({**base, "choices": [end], **more}))
    if counts:
        found.append(event({**base, "choices": [], "usage": whole.get("usage")}))
    return [*found, _DONE]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the completion with a tool call's input replaced, its id new, the call's id kept."""
    places = [
        place
        for choice in mappings(whole.get("choices"))
        for place in _functions(mapping(choice.get("message")))
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


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the chunks with a tool call's input replaced; what does not speak of it stays."""
    recorded = [(one, one.said()) for one in events]
    calls = _streamed_calls([chunk for _, chunk in recorded])
    place = list(calls)[given.choose(list(calls.values()))]
    old, answer_id = calls[place].given, ids.base58("chatcmpl-", 29)
    spelled = given.spelled(old)
    found: list[Event] = []
    places: dict[int, _Begun] = {}
    begun = False
    for one, chunk in recorded:
        if not chunk:
            found.append(one)
            continue
        if chunk.get("id"):
            chunk["id"] = answer_id
        if usage := mapping(chunk.get("usage")):
            chunk["usage"] = _shifted(usage, old, spelled)
        mine = [call for call in _chunk_calls(chunk, places) if call[0] == place]
        later: list[Event] = []
        for _, choice, call in mine:
            if begun:
                _drop(choice, call)
            else:
                begun = True
                later = _restarted(chunk, choice, call, spelled)
        if not mine or not _says_nothing(chunk):
            found.append(event(chunk, one.name))
        found += later
    return found


class _Begun:
    """Which call each delta of a choice belongs to.

    A server may send whole calls without an index, or all with the index 0: another id that comes with a name
    is another call.
    """

    def __init__(self) -> None:
        self._ids: dict[int, list[str | None]] = {}

    def place(self, call: dict[str, Any]) -> tuple[int, int]:
        """Return the call's index, and its place among those that share it."""
        index = count(call.get("index"))
        ids = self._ids.setdefault(max(self._ids, default=-1) + 1 if index is None else index, [])
        index = max(self._ids) if index is None else index
        identity, name = string(call.get("id")), _called(call)[0]
        if not ids or (identity and name and ids[-1] and identity != ids[-1]):
            ids.append(identity)
        elif identity and ids[-1] is None:
            ids[-1] = identity
        return index, len(ids) - 1


def _extend(
    said: dict[str, Any], calls: dict[tuple[int, int], dict[str, Any]], begun: _Begun, delta: dict[str, Any]
) -> None:
    """Add one chunk's delta to what a choice says and calls."""
    said["role"] = string(delta.get("role")) or said.get("role") or "assistant"
    for key in _TEXTS:
        text = string(delta.get(key))
        if text:
            said.setdefault(key, []).append(text)
    more = mappings(delta.get("tool_calls"))
    if isinstance(delta.get("function_call"), dict):
        more = [*more, {"index": 0, "function": delta["function_call"]}]
    for call in more:
        known = calls.setdefault(begun.place(call), {"name": None, "given": []})
        name, given = _called(call)
        known["id"] = string(call.get("id")) or known.get("id")
        known["name"] = name or known["name"]
        known["given"].append(given)


def _choice_of(index: int, known: dict[str, Any]) -> dict[str, Any]:
    """Return a choice as a whole reply holds it."""
    said: dict[str, Any] = {key: "".join(value) for key, value in known["message"].items()}
    said["tool_calls"] = [
        {"id": call["id"], "function": {"name": call["name"], "arguments": "".join(call["given"])}}
        for _, call in sorted(known["calls"].items())
    ]
    return {"index": index, "message": said, "finish_reason": known["finish_reason"]}


def _shifted(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return the usage after one tool input became another."""
    output = shifted(usage.get("completion_tokens"), old=old, new=new)
    given = count(usage.get("prompt_tokens"))
    total = usage.get("total_tokens") if given is None else given + output
    return {**usage, "completion_tokens": output, "total_tokens": total}


def _called(call: dict[str, Any]) -> tuple[str | None, str]:
    """Return the name and the input of a function's or custom tool's call, as the wire has it."""
    function = mapping(call.get("function") or call.get("custom"))
    given = function.get("arguments", function.get("input"))
    told = given if isinstance(given, str) else "" if given is None else dumps(given)
    return string(function.get("name")), told


def _turn(turn: dict[str, Any]) -> Turn:
    """Return one turn as messages: thoughts, content, refusal, tool calls."""
    role = string(turn.get("role")) or "user"
    content = turn.get("content")
    if role in ("tool", "function"):
        called = string(turn.get("tool_call_id")) or string(turn.get("name"))
        return (message(role, "tool_result", flat(content, part_text), called, call_id=called),)
    found: list[Message] = []
    thought = next((t for key in _REASONING if (t := string(turn.get(key)))), None)
    if thought:
        found.append(message(role, "thinking", thought))
    if isinstance(content, str):
        # Beside tool calls or a refusal an empty content says nothing.
        if content or not (turn.get("tool_calls") or turn.get("refusal") or turn.get("function_call")):
            found.append(message(role, "text", content))
    else:
        found += [part_message(role, part) for part in mappings(content)]
    refusal = string(turn.get("refusal"))
    if refusal:
        found.append(message(role, "refusal", refusal))
    audio = string(mapping(turn.get("audio")).get("transcript"))
    if audio:
        found.append(message(role, "other", audio))
    calls = mappings(turn.get("tool_calls"))
    if isinstance(turn.get("function_call"), dict):
        calls = [*calls, {"function": turn["function_call"]}]
    for call in calls:
        name, given = _called(call)
        found.append(message(role, "tool_use", given, name, call_id=string(call.get("id"))))
    return tuple(found)


def _said(role: str, turn: Iterable[Message], ids: IdSource | None = None) -> dict[str, Any]:
    """Return a turn as a message; parts that are no text go as the wire had them."""
    texts = [one for one in turn if one.kind not in ("thinking", "tool_use", "refusal")]
    plain = all(one.wire is None for one in texts)
    parts = [one.wire or {"type": "text", "text": one.content} for one in texts]
    calls = [
        {
            "id": call_id_of(one, ids, "call_", 24),
            "type": "function",
            "function": {"name": one.name, "arguments": one.content},
        }
        for one in turn
        if one.kind == "tool_use"
    ]
    thoughts = [one.content for one in turn if one.kind == "thinking"]
    refusals = [one.content for one in turn if one.kind == "refusal"]
    content = "\n".join(one.content for one in texts) if texts or not (calls or refusals) else None
    said: dict[str, Any] = {"role": role, "content": content if plain else parts}
    if ids is not None:
        said |= {"refusal": "\n".join(refusals) if refusals else None, "annotations": []}
    if thoughts:
        said[_REASONING[0]] = "\n".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    return said


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """Return one choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _deltas(said: dict[str, Any], cut: Cut) -> Iterator[dict[str, Any]]:
    """Yield the deltas of a message: the role, what it thinks and says, its tool calls."""
    calls = mappings(said.get("tool_calls"))
    yield {"role": "assistant", "content": None if said.get("content") is None else "", "refusal": None}
    for key in (*_REASONING, "content", "refusal"):
        for piece in cut(string(said.get(key)) or ""):
            yield {key: piece}
    if isinstance(said.get("function_call"), dict):
        yield {"function_call": said["function_call"]}
    for index, call in enumerate(calls):
        for function, key, _ in _functions({"tool_calls": [call]}):
            member = "custom" if key == "input" else "function"
            yield {"tool_calls": [{"index": index, **call, member: {**function, key: ""}}]}
            for piece in cut(string(function.get(key)) or ""):
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


_Place: TypeAlias = tuple[int, int, int]
"""A choice's index, and the place of one of its calls."""


def _chunk_calls(
    chunk: dict[str, Any], begun: dict[int, _Begun]
) -> list[tuple[_Place, dict[str, Any], dict[str, Any]]]:
    """Return what a chunk adds to tool calls: (which, the choice, the call's delta).

    `begun` holds the calls that each choice has begun.
    """
    found: list[tuple[_Place, dict[str, Any], dict[str, Any]]] = []
    for choice in mappings(chunk.get("choices")):
        number, delta = count(choice.get("index")) or 0, mapping(choice.get("delta"))
        calls = mappings(delta.get("tool_calls"))
        if isinstance(delta.get("function_call"), dict):
            calls = [*calls, {"index": 0, "function_call": delta["function_call"]}]
        for call in calls:
            found.append(((number, *begun.setdefault(number, _Begun()).place(call)), choice, call))
    return found


def _streamed_calls(chunks: list[dict[str, Any]]) -> dict[_Place, Call]:
    """Return the tool calls that the chunks add up to, in order, by their places."""
    calls: dict[_Place, Call] = {}
    begun: dict[int, _Begun] = {}
    for chunk in chunks:
        for place, _, call in _chunk_calls(chunk, begun):
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
) -> list[Event]:
    """Make the call's first delta begin the new input, and return the chunks that go on with it.

    A server that sent the input whole with the call's name, or without an index, gets it whole again.
    """
    functions = _functions({"tool_calls": [call], "function_call": call.get("function_call")})
    function, key, free = next(functions, ({}, "arguments", False))
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
