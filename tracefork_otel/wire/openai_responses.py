"""The Responses form: at OpenAI, on Azure, and at those who copy it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import openai
from .framing import SSE, Event, event, sse_if_asked
from .json_values import count, dumps, mapping, mappings, string
from .messages import Asked, Kind, Message, Reply, Turn, Usage, answering, flat, joined, message
from .openai import SYSTEM_ROLES, error_type, part_message, part_text, short_url
from .placing import Placed, Tools, named, named_at, one_at, system_turns, texts_at
from .writing import (
    FIXED_DATE,
    Call,
    ToolInput,
    ToolResult,
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
TURNS = "input"
error = openai.error
streams = sse_if_asked

_TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
# Each kind of tool call whose input streams: the key of its input, and the name of the events that carry it.
_CALLS = MappingProxyType(
    {
        "function_call": ("arguments", "function_call_arguments"),
        "custom_tool_call": ("input", "custom_tool_call_input"),
        "mcp_call": ("arguments", "mcp_call_arguments"),
        "code_interpreter_call": ("code", "code_interpreter_call_code"),
    }
)
# Those that the agent answers: an intervention can change their input.
_AGENTS_CALLS = ("function_call", "custom_tool_call")
# Each kind of text part: where an item has it, its key, its events' name, and what those carry beside.
_PARTS = MappingProxyType(
    {
        "output_text": ("content", "text", "output_text", {"logprobs": []}),
        "refusal": ("content", "refusal", "refusal", {}),
        "reasoning_text": ("content", "text", "reasoning_text", {}),
        "summary_text": ("summary", "text", "reasoning_summary_text", {}),
    }
)
_CALL_DELTAS = MappingProxyType(
    {f"response.{stem}.delta": (kind, key) for kind, (key, stem) in _CALLS.items()}
)
_PART_DELTAS = MappingProxyType(
    {f"response.{stem}.delta": (kind, place, key) for kind, (place, key, stem, _) in _PARTS.items()}
)
# What each item says of a tool's input and of its output; other keys of a call are identity and state.
_INPUTS = ("arguments", "input", "action", "actions", "queries", "code", "operation")
_OUTPUTS = ("output", "outputs", "results", "result", "error", "tools")
# What a response repeats of its request, each with what stands there where the request says nothing.
_REPEATED = MappingProxyType(
    {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
    }
)


def read_request(request: dict[str, Any]) -> Asked:
    """Return the instructions and the input's items."""
    instructions, given = request.get("instructions"), request.get("input")
    if isinstance(instructions, str):
        system: Turn = (message("system", "text", instructions),)
    else:
        system = joined(_items(mappings(instructions), "system"))
    asked: tuple[Turn, ...] = ((message("user", "text", given),),) if isinstance(given, str) else ()
    return Asked(system, (*asked, *_items(mappings(given), "user")))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole response (or error) says."""
    error, status, background = whole.get("error"), string(whole.get("status")), whole.get("background")
    reason = string(mapping(whole.get("incomplete_details")).get("reason"))
    return Reply(
        choices=(joined(_items(mappings(whole.get("output")), "assistant")),),
        finish_reasons=(reason or (None if status in ("in_progress", "queued") else status),),
        model=string(whole.get("model")),
        response_id=string(whole.get("id")),
        stored_id=string(whole.get("id")),
        background=background if isinstance(background, bool) else None,
        error_type=None if error is None else error_type(error),
        usage=openai.read_response_usage(whole),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return what the last event says, which carries everything; without it, what the others add up to."""
    given = list(events)
    for one in reversed(given):
        # The end is one of the last events: parse nothing that cannot be it.
        if any(name.encode() in one.data for name in _TERMINAL):
            said = one.said()
            if said.get("type") in _TERMINAL and isinstance(said.get("response"), dict):
                return said["response"]
    begun: dict[str, Any] = {}
    items: dict[int, dict[str, Any]] = {}
    texts: dict[int, dict[tuple[str, int], list[str]]] = {}
    for one in given:
        said = one.said()
        kind, index = string(said.get("type")) or "", count(said.get("output_index")) or 0
        if kind in _CALL_DELTAS or kind in _PART_DELTAS:
            at = count(said.get("summary_index" if "summary" in kind else "content_index")) or 0
            pieces = texts.setdefault(index, {}).setdefault((kind, at), [])
            pieces.append(string(said.get("delta")) or "")
        elif kind in ("response.output_item.added", "response.output_item.done"):
            items[index] = mapping(said.get("item"))
            if kind.endswith("done"):
                # The finished item holds what its deltas said.
                texts.pop(index, None)
        elif isinstance(said.get("response"), dict):
            begun = said["response"]
        elif kind == "error":
            begun = {**begun, "error": {"type": said.get("code"), **mapping(said.get("error"))}}
    places = sorted({*items, *texts})
    output = [_with_texts(items.get(index, {}), texts.get(index, {})) for index in places]
    return {**begun, "output": output} if begun or output else {}


_RESULT_PARTS = ("input_text", "input_image", "input_file")


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a response."""
    return isinstance(whole.get("output"), list)


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the outputs of functions and custom tools."""
    outputs = [f"{one}_output" for one in _AGENTS_CALLS]
    return [
        ToolResult(
            call_id=string(item.get("call_id")),
            path=f"input[{at}].output",
            saying=parts_or_text(item.get("output"), _RESULT_PARTS),
        )
        for at, item in numbered(request.get("input"))
        if item.get("type") in outputs
    ]


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit of the instructions; of the first system item where the request has that instead."""
    given = request.get("input")
    if request.get("instructions") is None and isinstance(given, list):
        for index, item in enumerate(given):
            if mapping(item).get("role") in SYSTEM_ROLES:
                return f"input[{index}].content", system
    return "instructions", system


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the instructions, and the texts of the items of the system and the developer."""
    instructions = request.get("instructions")
    if isinstance(instructions, list):
        found = [
            one
            for index, item in enumerate(instructions)
            for one in texts_at(
                mapping(item).get("content"), f"instructions[{index}].content", f"instructions[{index}]"
            )
        ]
    else:
        found = texts_at(instructions, "instructions")
    return [*found, *system_turns(request.get("input"), "input", SYSTEM_ROLES)]


def tools(request: dict[str, Any]) -> Tools:
    """Return the tools, those that the provider runs by their kinds."""
    names = ("name", "server_label", "type")
    choice = request.get("tool_choice")
    allowed = mapping(choice).get("tools")
    return Tools(
        offered=tuple(named_at(request.get("tools"), "tools", *names)),
        chosen=(
            *(one_at(named(choice, *names), "tool_choice") if allowed is None else ()),
            *named_at(allowed, "tool_choice.tools", *names, holders=("tool_choice",)),
        ),
        beside=("tool_choice", "parallel_tool_calls", "max_tool_calls"),
    )


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns as items."""
    system = "\n".join(one.content for one in asked.system)
    items = [item for turn in asked.turns for item in _written(turn, None)]
    return {"model": model, **({"instructions": system} if system else {}), "input": items}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a completed response of these items."""
    repeated = {key: usual if request.get(key) is None else request[key] for key, usual in _REPEATED.items()}
    return {
        "object": "response",
        "created_at": FIXED_DATE,
        "model": reply.model or request.get("model"),
        **repeated,
        **frame,
        "id": reply.response_id or ids.hex("resp_", 48),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": _written(reply.messages, ids),
        "usage": _counted(mapping(frame.get("usage")), reply.usage),
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the events of a response, in the API's order, numbered."""
    begun = {**without(whole, "completed_at"), "status": "in_progress", "output": [], "usage": None}
    begun |= {"error": None, "incomplete_details": None}
    said: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
    ]
    for index, item in enumerate(mappings(whole.get("output"))):
        said.append(("output_item.added", {"output_index": index, "item": _opened(item)}))
        said += [(kind, {"output_index": index, **data}) for kind, data in _item_events(item, cut)]
        said.append(("output_item.done", {"output_index": index, "item": item}))
    status = whole.get("status")
    said.append((str(status) if f"response.{status}" in _TERMINAL else "completed", {"response": whole}))
    return [
        event({"type": f"response.{kind}", "sequence_number": number, **data}, f"response.{kind}")
        for number, (kind, data) in enumerate(said)
    ]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the response with a tool call's input replaced, its id new, the call's ids kept."""
    chosen, call = _chosen(whole, given)
    return _edited(whole, chosen, call, given.spelled(call.given), ids.hex("resp_", 48))


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the events with a tool call's input replaced; what does not speak of it stays."""
    recorded = [(one, one.said()) for one in events]
    ended = [mapping(said.get("response")) for _, said in recorded if said.get("type") in _TERMINAL]
    if not ended:
        raise UsageError("the recorded stream has no end, so its tool call may not be whole: use --text")
    chosen, call = _chosen(ended[-1], given)
    key, stem = _CALLS[ended[-1]["output"][chosen]["type"]]
    answer_id, spelled = ids.hex("resp_", 48), given.spelled(call.given)
    found: list[Event] = []
    numbers = 0
    begun = False
    for one, said in recorded:
        kind, mine = said.get("type"), count(said.get("output_index")) == chosen
        changed: list[dict[str, Any]] = [said] if said else []
        if isinstance(said.get("response"), dict):
            changed = [{**said, "response": _edited(said["response"], chosen, call, spelled, answer_id)}]
        elif mine and kind == f"response.{stem}.delta":
            pieces = [] if begun else deltas(spelled)
            changed = [{**without(said, "obfuscation"), "delta": piece} for piece in pieces]
            begun = True
        elif mine and kind == f"response.{stem}.done":
            changed = [{**said, key: spelled}]
        elif mine and kind in ("response.output_item.added", "response.output_item.done"):
            value = spelled if str(kind).endswith("done") else ""
            changed = [{**said, "item": {**mapping(said.get("item")), key: value}}]
        if not said:
            found.append(one)
        for data in changed:
            if "sequence_number" in data:
                data = {**data, "sequence_number": numbers}
                numbers += 1
            found.append(event(data, one.name))
    return found


def _with_texts(item: dict[str, Any], texts: dict[tuple[str, int], list[str]]) -> dict[str, Any]:
    """Return an item with the texts of its deltas in place, by their kind and place in it."""
    whole = dict(item)
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for (kind, at), pieces in texts.items():
        if kind in _CALL_DELTAS:
            item_type, key = _CALL_DELTAS[kind]
            whole.setdefault("type", item_type)
            whole[key] = "".join(pieces)
        else:
            part_type, place, key = _PART_DELTAS[kind]
            whole.setdefault("type", "message" if part_type in ("output_text", "refusal") else "reasoning")
            lists.setdefault(place, {})[at] = {"type": part_type, key: "".join(pieces)}
    return whole | {place: [part for _, part in sorted(found.items())] for place, found in lists.items()}


def _counted(recorded: dict[str, Any], counted: Usage) -> dict[str, Any]:
    """Return the usage of a reply that counts this, to the recorded input where one is known."""
    given = count(recorded.get("input_tokens"))
    given = counted.input_tokens if given is None else given
    output = counted.output_tokens
    details = {
        "cached_tokens": counted.cached_tokens or 0,
        "cache_write_tokens": counted.cache_write_tokens or 0,
    }
    return {
        **recorded,
        "input_tokens": given,
        "input_tokens_details": recorded.get("input_tokens_details") or details,
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": counted.thinking_tokens or 0},
        "total_tokens": None if given is None or output is None else given + output,
    }


def _items(items: list[dict[str, Any]], role: str) -> tuple[Turn, ...]:
    """Return input or output items as turns; `role` is for items that name none."""
    return answering(tuple(_item(item, role)) for item in items)


def _item(item: dict[str, Any], role: str) -> list[Message]:
    """Return one item as messages."""
    kind = string(item.get("type")) or ("message" if "content" in item else "item_reference")
    if kind == "message":
        role, content = string(item.get("role")) or role, item.get("content")
        if isinstance(content, str):
            return [message(role, "text", content)]
        return [part_message(role, part) for part in mappings(content)]
    if kind == "reasoning":
        return _reasoning(item)
    if kind.endswith("_output"):
        called = string(item.get("call_id"))
        told = _flat(item.get("output", item.get("tools")))
        return [message("tool", "tool_result", told, called, call_id=called)]
    if kind.endswith("_call"):
        return _call(item, kind)
    if kind == "compaction":
        return [message("assistant", "other", "", wire=item)]
    return [message(role, "other", dumps(item), wire=item)]


def _reasoning(item: dict[str, Any]) -> list[Message]:
    """Return a reasoning item's text, else its summary, else a mark that it was there."""
    for key in ("content", "summary"):
        texts = [text for part in mappings(item.get(key)) if (text := string(part.get("text")))]
        if texts:
            return [message("assistant", "thinking", "\n\n".join(texts))]
    kind: Kind = "redacted_thinking" if item.get("encrypted_content") else "thinking"
    return [message("assistant", kind, "", wire=item)]


def _call(item: dict[str, Any], kind: str) -> list[Message]:
    """Return a tool call, and for tools that the provider runs the result beside it."""
    name = string(item.get("name")) or kind.removesuffix("_call")
    given = next((item[key] for key in _INPUTS if item.get(key) is not None), None)
    told = "" if given is None else given if isinstance(given, str) else dumps(given)
    known = None if kind == "function_call" else item
    found = [message("assistant", "tool_use", told, name, call_id=string(item.get("call_id")), wire=known)]
    result = next((item[key] for key in _OUTPUTS if item.get(key) is not None), None)
    if result is not None:
        image = kind == "image_generation_call" and isinstance(result, str)
        found.append(message("tool", "tool_result", short_url(result) if image else _flat(result), name))
    return found


def _flat(output: Any) -> str:
    """Return a tool's output as text: content parts a line each, JSON where it is anything else."""
    if isinstance(output, dict) and output.get("type") == "computer_screenshot":
        return part_message("tool", output).content
    parts = mappings(output)
    known = parts and all(str(part.get("type")).startswith("input_") for part in parts)
    return dumps(output) if isinstance(output, list) and not known else flat(output, part_text)


def _written(turn: Turn, ids: IdSource | None) -> list[dict[str, Any]]:
    """Return messages as items; with ids, as those of a response."""
    items: list[dict[str, Any]] = []
    for one in turn:
        own = {} if ids is None else {"status": "completed"}
        if one.kind == "thinking":
            summary = [{"type": "summary_text", "text": one.content}]
            own = {} if ids is None else {"id": ids.hex("rs_", 48)}
            items.append({**own, "type": "reasoning", "summary": summary})
        elif one.kind == "tool_use":
            own = own if ids is None else {"id": ids.hex("fc_", 48), **own}
            called = call_id_of(one, ids, "call_", 24)
            call = {"arguments": one.content, "call_id": called, "name": one.name}
            items.append(one.wire or {**own, "type": "function_call", **call})
        elif one.kind == "tool_result":
            items.append({"type": "function_call_output", "call_id": one.call_id, "output": one.content})
        elif ids is None:
            content = one.content if one.wire is None else [one.wire]
            items.append({"type": "message", "role": one.role, "content": content})
        else:
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": one.content}
            if one.kind == "refusal":
                part = {"type": "refusal", "refusal": one.content}
            said = {"id": ids.hex("msg_", 48), "type": "message", **own}
            items.append({**said, "content": [part], "role": "assistant"})
    return items


def _chosen(whole: dict[str, Any], given: ToolInput) -> tuple[int, Call]:
    """Return the place in the output of the call that is meant, and that call."""
    calls: dict[int, Call] = {}
    for index, item in numbered(whole.get("output")):
        kind = string(item.get("type")) or ""
        if kind in _AGENTS_CALLS:
            name, old = string(item.get("name")), string(item.get(_CALLS[kind][0])) or ""
            calls[index] = Call(name=name, given=old, free=kind == "custom_tool_call")
    index = list(calls)[given.choose(list(calls.values()))]
    return index, calls[index]


def _edited(whole: dict[str, Any], chosen: int, call: Call, spelled: str, answer_id: str) -> dict[str, Any]:
    """Return a response under its new id, the input replaced where its output has come, usage adjusted."""
    output = list(whole.get("output") or [])
    if chosen < len(output):
        key = _CALLS[output[chosen]["type"]][0]
        output[chosen] = {**output[chosen], key: spelled}
    usage = mapping(whole.get("usage"))
    if usage:
        tokens_out = shifted(usage.get("output_tokens"), old=call.given, new=spelled)
        total = (count(usage.get("input_tokens")) or 0) + tokens_out
        usage = {**usage, "output_tokens": tokens_out, "total_tokens": total}
    return {**whole, "id": answer_id, "output": output, "usage": usage or whole.get("usage")}


def _opened(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as it begins: without what its events will say."""
    kind = string(item.get("type")) or ""
    state = {"status": "in_progress"} if "status" in item else {}
    if kind == "message":
        return {**item, **state, "content": []}
    if kind == "reasoning":
        return {**item, "summary": []}
    return {**item, **state, _CALLS[kind][0]: ""} if kind in _CALLS else {**item, **state}


def _item_events(item: dict[str, Any], cut: Cut) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what happens to an item between its beginning and its end."""
    kind = string(item.get("type")) or ""
    where = {"item_id": item.get("id")}
    if kind in _CALLS:
        key, stem = _CALLS[kind]
        text = string(item.get(key)) or ""
        for piece in cut(text):
            yield f"{stem}.delta", {**where, "delta": piece}
        yield f"{stem}.done", {**where, key: text}
    elif kind == "message":
        for index, part in enumerate(mappings(item.get("content"))):
            yield from _part_events(part, {**where, "content_index": index}, cut)
    elif kind == "reasoning":
        for index, part in enumerate(mappings(item.get("summary"))):
            at, text = {**where, "summary_index": index}, string(part.get("text")) or ""
            yield "reasoning_summary_part.added", {**at, "part": {**part, "text": ""}}
            for piece in cut(text):
                yield "reasoning_summary_text.delta", {**at, "delta": piece}
            yield "reasoning_summary_text.done", {**at, "text": text}
            yield "reasoning_summary_part.done", {**at, "part": part}


def _part_events(part: dict[str, Any], at: dict[str, Any], cut: Cut) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of one part of a message."""
    _, key, stem, more = _PARTS.get(string(part.get("type")) or "", ("", "", "", {}))
    opened = {**part, key: ""} if key else part
    yield (
        "content_part.added",
        {**at, "part": {**opened, "annotations": []} if stem == "output_text" else opened},
    )
    if key:
        text = string(part.get(key)) or ""
        for piece in cut(text):
            yield f"{stem}.delta", {**at, "delta": piece, **more}
        for number, annotation in enumerate(mappings(part.get("annotations"))):
            yield (
                "output_text.annotation.added",
                {**at, "annotation_index": number, "annotation": annotation},
            )
        yield f"{stem}.done", {**at, key: text, **more}
    yield "content_part.done", {**at, "part": part}
