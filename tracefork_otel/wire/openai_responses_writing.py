"""The Responses format written: replies, their events, errors."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import openai_chat_writing as _chat
from .json_values import count, loads, mapping, mappings, string
from .sse import sse_events
from .writing import FIXED_DATE, Call, Ids, ToolInput, ToolResult, deltas, event, shifted, tokens, without

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_ID = _chat.REQUEST_ID
error = _chat.error  # errors are those of every OpenAI API

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
# Each kind of tool call: the key of its input, and the name of the events that carry it.
_CALLS = MappingProxyType(
    {
        "function_call": ("arguments", "function_call_arguments"),
        "custom_tool_call": ("input", "custom_tool_call_input"),
    }
)
# Each kind of text part: its key, the events' name, and what those carry beside.
_PARTS = MappingProxyType(
    {"output_text": ("text", "output_text", {"logprobs": []}), "refusal": ("refusal", "refusal", {})}
)
_SYSTEM_ROLES = ("system", "developer")
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


def frame(body: bytes, streamed: bool) -> dict[str, Any]:
    """Return a recorded response without its output, in its latest state on the wire."""
    if not streamed:
        whole = mapping(loads(body))
        return without(whole, "output") if is_reply(whole) else {}
    found: dict[str, Any] = {}
    for _, data in sse_events(body):
        said = mapping(loads(data)).get("response")
        if isinstance(said, dict):
            found = without(said, "output")
    return found


def text_reply(
    request: dict[str, Any], frame: dict[str, Any], text: str, *, prompt: int, ids: Ids
) -> dict[str, Any]:
    """Return a completed response whose output is one message that says the text."""
    repeated = {key: usual if request.get(key) is None else request[key] for key, usual in _REPEATED.items()}
    return {
        "object": "response",
        "created_at": FIXED_DATE,
        "model": request.get("model"),
        **repeated,
        **frame,
        "id": ids.hex("resp_", 48),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [
            {
                "id": ids.hex("msg_", 48),
                "type": "message",
                "status": "completed",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
                "role": "assistant",
            }
        ],
        "usage": _usage(mapping(frame.get("usage")), prompt, tokens(text)),
    }


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a response."""
    return isinstance(whole.get("output"), list)


def events(request: dict[str, Any], whole: dict[str, Any]) -> list[bytes]:
    """Return the events of a response, in the API's order, numbered."""
    begun = {**without(whole, "completed_at"), "status": "in_progress", "output": [], "usage": None}
    begun |= {"error": None, "incomplete_details": None}
    said: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
    ]
    for index, item in enumerate(mappings(whole.get("output"))):
        said.append(("output_item.added", {"output_index": index, "item": _opened(item)}))
        said += [(kind, {"output_index": index, **data}) for kind, data in _item_events(item)]
        said.append(("output_item.done", {"output_index": index, "item": item}))
    status = whole.get("status")
    said.append((str(status) if f"response.{status}" in _TERMINAL else "completed", {"response": whole}))
    return [
        event({"type": f"response.{kind}", "sequence_number": number, **data}, f"response.{kind}")
        for number, (kind, data) in enumerate(said)
    ]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: Ids) -> dict[str, Any]:
    """Return the response with a tool call's input replaced, its id new, the call's ids kept."""
    chosen, call = _chosen(whole, given)
    return _edited(whole, chosen, call, given.spelled(call.given), ids.hex("resp_", 48))


def with_streamed_tool_input(body: bytes, given: ToolInput, ids: Ids) -> list[bytes]:
    """Return the events with a tool call's input replaced; what does not speak of it stays."""
    recorded = [(name, data, mapping(loads(data))) for name, data in sse_events(body)]
    ended = [mapping(said.get("response")) for _, _, said in recorded if said.get("type") in _TERMINAL]
    if not ended:
        raise UsageError("the recorded stream has no end, so its tool call may not be whole: use --text")
    chosen, call = _chosen(ended[-1], given)
    item = ended[-1]["output"][chosen]
    key, stem = _CALLS[item["type"]]
    answer_id, spelled = ids.hex("resp_", 48), given.spelled(call.given)
    said: list[tuple[str | None, bytes | dict[str, Any]]] = []
    begun = False
    for name, data, one in recorded:
        kind = one.get("type")
        mine = one.get("output_index") == chosen
        if not one:
            said.append((name, data))
        elif isinstance(one.get("response"), dict):
            response = _edited(one["response"], chosen, call, spelled, answer_id)
            said.append((name, {**one, "response": response}))
        elif mine and kind == f"response.{stem}.delta":
            pieces = [] if begun else deltas(spelled)
            said += [(name, {**without(one, "obfuscation"), "delta": piece}) for piece in pieces]
            begun = True
        elif mine and kind == f"response.{stem}.done":
            said.append((name, {**one, key: spelled}))
        elif mine and kind in ("response.output_item.added", "response.output_item.done"):
            value = spelled if kind.endswith("done") else ""
            said.append((name, {**one, "item": {**mapping(one.get("item")), key: value}}))
        else:
            said.append((name, one))
    return list(_numbered(said))


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit of the instructions; of the first system item where the request has that instead."""
    given = request.get("input")
    if request.get("instructions") is None and isinstance(given, list):
        for index, item in enumerate(given):
            if mapping(item).get("role") in _SYSTEM_ROLES:
                return f"input[{index}].content", system
    return "instructions", system


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the outputs of functions and custom tools, named where the input holds their calls too."""
    names: dict[Any, str | None] = {}
    found: list[ToolResult] = []
    given = request.get("input")
    for at, item in enumerate(given if isinstance(given, list) else []):
        kind, called = mapping(item).get("type"), string(mapping(item).get("call_id"))
        if kind in ("function_call", "custom_tool_call"):
            names[called] = string(item.get("name"))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            found.append(ToolResult(name=names.get(called), call_id=called, path=f"input[{at}].output"))
    return found


def _usage(recorded: dict[str, Any], prompt: int, output: int) -> dict[str, Any]:
    """Return the usage of a reply of so many tokens to the recorded input."""
    given = count(recorded.get("input_tokens"))
    given = prompt if given is None else given
    return {
        **recorded,
        "input_tokens": given,
        "input_tokens_details": recorded.get("input_tokens_details")
        or {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + output,
    }


def _chosen(whole: dict[str, Any], given: ToolInput) -> tuple[int, Call]:
    """Return the place in the output of the call that is meant, and that call."""
    calls: dict[int, Call] = {}
    output = whole.get("output")
    for index, item in enumerate(output if isinstance(output, list) else []):
        kind = string(mapping(item).get("type")) or ""
        if kind in _CALLS:
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


def _numbered(said: list[tuple[str | None, bytes | dict[str, Any]]]) -> Iterator[bytes]:
    """Yield the events, their sequence numbers counted anew."""
    number = 0
    for name, data in said:
        if isinstance(data, dict) and "sequence_number" in data:
            data = {**data, "sequence_number": number}
            number += 1
        yield event(data, name)


def _opened(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as it begins: without what its events will say."""
    kind = string(item.get("type")) or ""
    state = {"status": "in_progress"} if "status" in item else {}
    if kind == "message":
        return {**item, **state, "content": []}
    if kind == "reasoning":
        return {**item, "summary": []}
    return {**item, **state, _CALLS[kind][0]: ""} if kind in _CALLS else {**item, **state}


def _item_events(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what happens to an item between its beginning and its end."""
    kind = string(item.get("type")) or ""
    where = {"item_id": item.get("id")}
    if kind in _CALLS:
        key, stem = _CALLS[kind]
        text = string(item.get(key)) or ""
        for piece in deltas(text):
            yield f"{stem}.delta", {**where, "delta": piece}
        yield f"{stem}.done", {**where, key: text}
    elif kind == "message":
        for index, part in enumerate(mappings(item.get("content"))):
            yield from _part_events(part, {**where, "content_index": index})
    elif kind == "reasoning":
        for index, part in enumerate(mappings(item.get("summary"))):
            at, text = {**where, "summary_index": index}, string(part.get("text")) or ""
            yield "reasoning_summary_part.added", {**at, "part": {**part, "text": ""}}
            for piece in deltas(text):
                yield "reasoning_summary_text.delta", {**at, "delta": piece}
            yield "reasoning_summary_text.done", {**at, "text": text}
            yield "reasoning_summary_part.done", {**at, "part": part}


def _part_events(part: dict[str, Any], at: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of one part of a message."""
    key, stem, more = _PARTS.get(string(part.get("type")) or "", ("", "", {}))
    opened = {**part, key: ""} if key else part
    yield (
        "content_part.added",
        {**at, "part": {**opened, "annotations": []} if stem == "output_text" else opened},
    )
    if key:
        text = string(part.get(key)) or ""
        for piece in deltas(text):
            yield f"{stem}.delta", {**at, "delta": piece, **more}
        for number, annotation in enumerate(mappings(part.get("annotations"))):
            yield (
                "output_text.annotation.added",
                {**at, "annotation_index": number, "annotation": annotation},
            )
        yield f"{stem}.done", {**at, key: text, **more}
    yield "content_part.done", {**at, "part": part}
