"""Cohere's chat form, version 2; version 1 has other words for everything, and is not read."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import openai_chat
from .framing import SSE, Event, event, sse_if_asked
from .json_values import count, dumps, mapping, mappings, string
from .messages import Asked, Message, Reply, Turn, Usage, answering, billed, flat, message
from .openai import part_message
from .writing import Call, ToolInput, as_messages, call_id_of, deltas, shifted, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..exchange import Headers
    from .writing import Cut, IdSource

FRAMINGS = (SSE,)
REQUEST_ID = None
TURNS = "messages"
streams = sse_if_asked
# Messages with roles, results by `tool_call_id`: as in Chat Completions.
tool_results = openai_chat.tool_results
system_edit = openai_chat.system_edit
system_texts = openai_chat.system_texts
tools = openai_chat.tools

_DONE = Event(None, b"[DONE]")
_ERRORS = MappingProxyType(
    {
        401: (401, "invalid api token"),
        404: (
            404,
            "model not found, make sure the correct model ID was used and that you have access to it.",
        ),
        429: (429, "Please wait and try again later"),
        500: (500, "internal server error"),
        529: (503, "service unavailable, please try again later"),
    }
)
_TEXTS = ("text", "thinking")


def read_request(request: dict[str, Any]) -> Asked:
    """Return the documents, which stand apart, and the conversation; what is system is among its turns."""
    given = request.get("documents")
    documents = tuple(map(_document, given)) if isinstance(given, list) else ()
    return Asked(documents, answering(map(_turn, mappings(request.get("messages")))))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole reply (or error) says; the API does not tell the model."""
    said = mapping(whole.get("message"))
    # An error's message is a text, and a stream's error comes with its end.
    failed = isinstance(whole.get("message"), str) or whole.get("error") is not None
    return Reply(
        choices=(_turn({"role": "assistant", **said}),) if said else (),
        finish_reasons=(string(whole.get("finish_reason")),),
        response_id=string(whole.get("id")),
        error_type="error" if failed else None,
        usage=_usage(mapping(whole.get("usage"))),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the reply that the events add up to."""
    whole: dict[str, Any] = {}
    parts: dict[str, dict[int, dict[str, Any]]] = {"content": {}, "tool_calls": {}}
    plan: list[str] = []
    citations: list[dict[str, Any]] = []
    for one in events:
        said = one.said()
        kind, index = string(said.get("type")) or "", count(said.get("index")) or 0
        delta = mapping(mapping(said.get("delta")).get("message"))
        if kind == "message-start":
            whole |= {"id": said.get("id"), "message": {"role": string(delta.get("role")) or "assistant"}}
        elif kind == "message-end":
            whole |= mapping(said.get("delta"))
        elif kind == "tool-plan-delta":
            plan.append(string(delta.get("tool_plan")) or "")
        elif kind == "citation-start":
            citations.append(mapping(delta.get("citations")))
        elif not kind and said:
            # What went wrong comes as an error's body does.
            whole["error"] = said.get("message") or said
        for name, known in parts.items():
            if isinstance(delta.get(name), dict):
                _extend(known.setdefault(index, {}), delta[name])
    message = {name: [part for _, part in sorted(known.items())] for name, known in parts.items() if known}
    message |= {"tool_plan": "".join(plan)} if plan else {}
    message |= {"citations": citations} if citations else {}
    if message or "message" in whole:
        whole["message"] = {**mapping(whole.get("message")), **message}
    return whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a reply."""
    return isinstance(whole.get("message"), dict)


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns, the results of tools each a message of its own."""
    documents = [one.wire for one in asked.system if one.wire is not None]
    system = tuple(one for one in asked.system if one.wire is None)
    turns = as_messages(Asked(system, asked.turns), _said)
    return {"model": model, "messages": turns, **({"documents": documents} if documents else {})}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a reply that says this; the API has one choice."""
    said = _said("assistant", reply.messages, ids)
    usage, counted = mapping(frame.get("usage")), reply.usage
    if counted.cached_tokens is not None:
        usage = {"cached_tokens": counted.cached_tokens, **usage}
    billed = {"input_tokens": counted.input_tokens, **mapping(usage.get("billed_units"))}
    tokens = {"input_tokens": counted.input_tokens, **mapping(usage.get("tokens"))}
    return {
        **without(frame, "logprobs", "error"),
        "id": reply.response_id or _uuid(ids),
        "finish_reason": reply.finish_reason or ("TOOL_CALL" if "tool_calls" in said else "COMPLETE"),
        "message": said,
        "usage": {
            **usage,
            "billed_units": {**billed, "output_tokens": counted.output_tokens},
            "tokens": {**tokens, "output_tokens": counted.output_tokens},
        },
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the events of a reply, in the API's order."""
    said = mapping(whole.get("message"))
    begun = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    found = [_event("message-start", begun, id=whole.get("id"))]
    for piece in cut(string(said.get("tool_plan")) or ""):
        found.append(_event("tool-plan-delta", {"tool_plan": piece}))
    for index, part in enumerate(_parts(said)):
        key = "thinking" if part.get("type") == "thinking" else "text"
        found.append(_event("content-start", {"content": {**part, key: ""}}, index=index))
        for piece in cut(string(part.get(key)) or ""):
            found.append(_event("content-delta", {"content": {key: piece}}, index=index))
        found.append(_event("content-end", index=index))
    for index, citation in enumerate(mappings(said.get("citations"))):
        found.append(_event("citation-start", {"citations": citation}, index=index))
        found.append(_event("citation-end", index=index))
    for index, call in enumerate(mappings(said.get("tool_calls"))):
        function = mapping(call.get("function"))
        opened = {**call, "function": {**function, "arguments": ""}}
        found.append(_event("tool-call-start", {"tool_calls": opened}, index=index))
        found += _input(index, cut(string(function.get("arguments")) or ""))
        found.append(_event("tool-call-end", index=index))
    ended = {
        "type": "message-end",
        "id": whole.get("id"),
        "delta": without(whole, "id", "message", "logprobs"),
    }
    return [*found, event(ended, "message-end"), _DONE]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the reply with a tool call's input replaced, its id new, the call's id kept."""
    said = mapping(whole.get("message"))
    functions = [mapping(one.get("function")) for one in mappings(said.get("tool_calls"))]
    calls = [Call(name=string(f.get("name")), given=string(f.get("arguments")) or "") for f in functions]
    at = given.choose(calls)
    # The body was parsed for this call alone, so changing it in place changes nothing of the caller's.
    functions[at]["arguments"] = spelled = given.spelled(calls[at].given)
    usage = _shifted(mapping(whole.get("usage")), calls[at].given, spelled)
    return {**whole, "id": _uuid(ids), **({"usage": usage} if usage else {})}


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the events with a tool call's input replaced; what does not speak of it stays as it is."""
    recorded = [(one, one.said()) for one in events]
    calls = _streamed_calls(said for _, said in recorded)
    at = list(calls)[given.choose(list(calls.values()))]
    old, spelled = calls[at].given, given.spelled(calls[at].given)
    answer_id = _uuid(ids)
    found: list[Event] = []
    for one, said in recorded:
        kind, mine = said.get("type"), (count(said.get("index")) or 0) == at
        changed = {**said, "id": answer_id} if said.get("id") else said
        if kind == "tool-call-start" and mine:
            call = mapping(mapping(mapping(said.get("delta")).get("message")).get("tool_calls"))
            mapping(call.get("function"))["arguments"] = ""
            found += [event(changed, one.name), *_input(at, deltas(spelled))]
        elif kind == "message-end":
            delta = mapping(said.get("delta"))
            if "usage" in delta:
                delta["usage"] = _shifted(mapping(delta["usage"]), old, spelled)
            found.append(event(changed, one.name))
        elif not (kind == "tool-call-delta" and mine):
            found.append(one if changed is said else event(changed, one.name))
    return found


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return the API's own status for such an error, and its body; no headers go with it."""
    code, said = _ERRORS.get(status, (status, f"the request failed with status {status}"))
    return code, {"id": _uuid(ids), "message": text or said}, ()


def _uuid(ids: IdSource) -> str:
    """Return an id as the API spells it."""
    drawn = ids.hex("", 32)
    return "-".join((drawn[:8], drawn[8:12], drawn[12:16], drawn[16:20], drawn[20:]))


def _whole_number(value: Any) -> int | None:
    """Return a count, which some of the API's models spell as 12.0."""
    return count(int(value)) if isinstance(value, float) and value.is_integer() else count(value)


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts that are billed, else all: those hold what the API itself adds to a prompt."""
    billed_units, all_of_them = mapping(usage.get("billed_units")), mapping(usage.get("tokens"))

    def counted(name: str) -> int | None:
        found = _whole_number(billed_units.get(name))
        return _whole_number(all_of_them.get(name)) if found is None else found

    given, cached = counted("input_tokens"), _whole_number(usage.get("cached_tokens"))
    return Usage(
        input_tokens=given,
        output_tokens=counted("output_tokens"),
        # Of all tokens, so it can be more than the billed ones that it is told to be a part of.
        cached_tokens=cached if cached is None or given is None else min(cached, given),
        units=billed(rerank_searches=_whole_number(billed_units.get("search_units"))),
    )


def _shifted(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return the usage after one tool input became another."""
    return usage | {
        name: {**units, "output_tokens": shifted(_whole_number(units["output_tokens"]), old=old, new=new)}
        for name in ("billed_units", "tokens")
        if "output_tokens" in (units := mapping(usage.get(name)))
    }


def _document(given: Any) -> Message:
    """Return a document of a request or a tool's result: a text, or members of which one may be a title."""
    data = mapping(given).get("data", given)
    title = string(mapping(data).get("title")) or string(mapping(given).get("id"))
    return message("system", "document", data if isinstance(data, str) else dumps(data), title, wire=given)


def _part_text(part: dict[str, Any]) -> str:
    """Return one part of a tool's result as text."""
    if part.get("type") == "document":
        return _document(part.get("document")).content
    return string(part.get("text")) or dumps(part)


def _called(call: dict[str, Any]) -> tuple[str | None, str]:
    """Return the name and the input of a call, as the wire has it."""
    function = mapping(call.get("function"))
    return string(function.get("name")), string(function.get("arguments")) or ""


def _parts(said: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the content of a message as parts."""
    content = said.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else mappings(content)


def _turn(turn: dict[str, Any]) -> Turn:
    """Return a message's plan, content and tool calls; the plan is what the model thinks before it calls."""
    role = string(turn.get("role")) or "user"
    if role == "tool":
        called = string(turn.get("tool_call_id"))
        told = flat(turn.get("content"), _part_text)
        return (message(role, "tool_result", told, called, call_id=called),)
    found: list[Message] = []
    plan = string(turn.get("tool_plan"))
    if plan:
        found.append(message(role, "thinking", plan))
    for part in _parts(turn):
        if part.get("type") == "thinking":
            found.append(message(role, "thinking", string(part.get("thinking")) or "", wire=part))
        elif part.get("type") == "document":
            found.append(message(role, "document", _part_text(part), wire=part))
        else:
            found.append(part_message(role, part))
    for call in mappings(turn.get("tool_calls")):
        name, given = _called(call)
        found.append(message(role, "tool_use", given, name, call_id=string(call.get("id"))))
    return tuple(found)


def _said(role: str, turn: Iterable[Message], ids: IdSource | None = None) -> dict[str, Any]:
    """Return a turn as a message; a reply's content is parts, a thought beside calls is their plan."""
    calls = [one for one in turn if one.kind == "tool_use"]
    plans = [one for one in turn if calls and one.kind == "thinking" and one.wire is None]
    parts = [_part(one) for one in turn if one not in calls and one not in plans]
    said: dict[str, Any] = {"role": role}
    if plans:
        said["tool_plan"] = "\n".join(one.content for one in plans)
    if parts or not calls:
        plain = ids is None and len(parts) == 1 and parts[0].get("type") == "text"
        said["content"] = parts[0]["text"] if plain else parts
    if calls:
        said["tool_calls"] = [
            {
                "id": call_id_of(one, ids, f"{one.name}_", 12),
                "type": "function",
                "function": {"name": one.name, "arguments": one.content},
            }
            for one in calls
        ]
    return said


def _part(said: Message) -> dict[str, Any]:
    """Return a message as a part of the content."""
    if isinstance(said.wire, dict):
        return said.wire
    kind = "thinking" if said.kind == "thinking" else "text"
    return {"type": kind, kind: said.content}


def _extend(known: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add one delta to a part of the content or to a tool call: texts grow."""
    for key, value in delta.items():
        if key == "function":
            _extend(known.setdefault(key, {}), mapping(value))
        elif isinstance(value, str) and key in (*_TEXTS, "arguments"):
            known[key] = (string(known.get(key)) or "") + value
        elif value is not None:
            known[key] = value


def _streamed_calls(events: Iterable[dict[str, Any]]) -> dict[int, Call]:
    """Return the tool calls of a stream by their index, with their inputs as they came."""
    calls: dict[int, Call] = {}
    for said in events:
        call = mapping(mapping(mapping(said.get("delta")).get("message")).get("tool_calls"))
        index, (name, given) = count(said.get("index")) or 0, _called(call)
        if said.get("type") == "tool-call-start":
            calls[index] = Call(name=name, given=given)
        elif said.get("type") == "tool-call-delta" and index in calls:
            calls[index] = Call(name=calls[index].name, given=calls[index].given + given)
    return calls


def _event(kind: str, said: dict[str, Any] | None = None, **members: Any) -> Event:
    """Return one event of that type."""
    delta = {} if said is None else {"delta": {"message": said}}
    return event({"type": kind, **members, **delta}, kind)


def _input(index: int, pieces: Iterable[str]) -> Iterator[Event]:
    """Yield the deltas of a tool's input."""
    for piece in pieces:
        yield _event("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=index)
