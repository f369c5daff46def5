"""Ollama's own form: `/api/chat` with turns, `/api/generate` with a prompt; streamed unless told not to."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import openai_chat
from .framing import NDJSON, Event, Framing, event
from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import Asked, Message, Reply, Turn, Usage, answering, base64_note, flat, message
from .placing import Placed, texts_at
from .writing import Call, ToolInput, ToolResult, as_messages, compact, numbered, shifted, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..exchange import Headers
    from .writing import Cut, IdSource

FRAMINGS = (NDJSON,)
REQUEST_ID = None
TURNS = "messages"

_ERRORS = MappingProxyType(
    {
        401: (401, "unauthorized"),
        404: (404, "model not found"),
        429: (429, "you have reached your usage limit, please try again later"),
        500: (500, "llama runner process has terminated: exit status 2"),
        529: (503, "server busy, please try again.  maximum pending requests exceeded"),
    }
)
# A reply's date where no recorded one has one, as in the other forms.
_DATE = "2025-10-09T08:53:20Z"
# How long an encoded token took: agents divide by these.
_TOKEN_NS = 10_000_000
_TEXTS = ("content", "thinking", "response")


def streams(url: str, request: dict[str, Any]) -> Framing | None:
    """Return how the reply is streamed, which it is by default."""
    return None if request.get("stream") is False else NDJSON


def read_request(request: dict[str, Any]) -> Asked:
    """Return the conversation, or the prompt with what stands beside it."""
    if "messages" in request:
        return Asked((), answering(map(_turn, mappings(request["messages"]))))
    system = string(request.get("system"))
    said = list(_images("user", request))
    prompt, suffix, context = (
        string(request.get("prompt")),
        string(request.get("suffix")),
        request.get("context"),
    )
    if prompt:
        said.insert(0, message("user", "text", prompt))
    if suffix:
        said.append(message("user", "other", suffix, wire={"suffix": suffix}))
    if isinstance(context, list) and context:
        # What was said before, in tokens.
        said.insert(0, message("user", "other", f"[{len(context)} tokens]", wire={"context": context}))
    return Asked((message("system", "text", system),) if system else (), (tuple(said),) if said else ())


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole reply (or error) says."""
    turn = mapping(whole.get("message"))
    if not turn and "response" in whole:
        turn = {"thinking": whole.get("thinking"), "content": whole["response"]}
    error = whole.get("error")
    said = _turn({"role": "assistant", **turn}) if turn else ()
    image = string(whole.get("image"))
    if image:
        said = (*said, message("assistant", "image", base64_note("image", image)))
    return Reply(
        choices=(said,),
        finish_reasons=(string(whole.get("done_reason")),),
        model=string(whole.get("model")),
        error_type=None if error is None else string(mapping(error).get("type")) or "error",
        usage=Usage(
            input_tokens=count(whole.get("prompt_eval_count")),
            output_tokens=count(whole.get("eval_count")),
        ),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the reply that the lines add up to."""
    whole: dict[str, Any] = {}
    turn: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    calls: list[dict[str, Any]] = []
    probabilities: list[Any] = []
    for one in events:
        said = one.said()
        delta = mapping(said.get("message"))
        turn |= without(delta, "tool_calls", *_TEXTS)
        calls += mappings(delta.get("tool_calls"))
        whole |= without(said, "message", "logprobs", *_TEXTS)
        probabilities += mappings(said.get("logprobs"))
        for key in _TEXTS:
            text = string(delta.get(key) if delta else said.get(key))
            if text is not None:
                texts.setdefault(key, []).append(text)
    added = {key: "".join(pieces) for key, pieces in texts.items()}
    if turn or calls:
        whole["message"] = {**turn, "content": "", **added, **({"tool_calls": calls} if calls else {})}
    else:
        whole |= added
    return {**whole, "logprobs": probabilities} if probabilities else whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a reply of either path."""
    return isinstance(whole.get("message"), dict) or isinstance(whole.get("response"), str)


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the messages of the role `tool`, which name the tool; those of the last turn need no id."""
    found: list[ToolResult] = []
    given = numbered(request.get("messages"))
    last = max((at for at, turn in given if turn.get("role") != "tool"), default=-1)
    for at, turn in given:
        if turn.get("role") == "tool":
            called = string(turn.get("tool_call_id"))
            name = string(turn.get("tool_name")) or string(turn.get("name"))
            # Clients give no ids; of earlier turns of one tool a name would not tell which call they answer.
            call_id = called or (name if at > last else None)
            found.append(ToolResult(name=name, call_id=call_id, path=f"messages[{at}].content"))
    return found


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit of the first system message, or of the member that a prompt has beside it."""
    return openai_chat.system_edit(request, system) if "messages" in request else ("system", system)


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the member that a prompt has beside it, and the texts of the system's messages."""
    return [*texts_at(request.get("system"), "system"), *openai_chat.system_texts(request)]


tools = openai_chat.tools


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a chat of these turns."""
    return {"model": model, "messages": as_messages(asked, _said, _of_call)}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a reply that says this, of the path that the request goes to."""
    said = _said("assistant", reply.messages)
    given, output = count(frame.get("prompt_eval_count")), reply.usage.output_tokens
    told = {
        "model": reply.model or request.get("model"),
        "created_at": _DATE,
        **without(frame, "message", "logprobs", "context", "image", "error", *_TEXTS),
    }
    if "prompt" not in request and "response" not in frame:
        told["message"] = said
    elif "tool_calls" in said:
        raise UsageError("/api/generate calls no tools")
    else:
        told |= {"response": said["content"], **without(said, "role", "content", "images")}
    return {
        **told,
        "done": True,
        "done_reason": reply.finish_reason or "stop",
        "total_duration": count(frame.get("total_duration")) or (output or 1) * _TOKEN_NS,
        "load_duration": count(frame.get("load_duration")) or _TOKEN_NS,
        "prompt_eval_count": reply.usage.input_tokens if given is None else given,
        "prompt_eval_duration": count(frame.get("prompt_eval_duration")) or _TOKEN_NS,
        "eval_count": output,
        "eval_duration": (output or 1) * _TOKEN_NS,
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the lines of a reply: what it thinks, what it says, its tool calls, the end with its counts."""
    base = {key: whole.get(key) for key in ("model", "created_at")}
    turn = mapping(whole.get("message"))
    end = without(whole, "message", "done", *_TEXTS)
    found: list[dict[str, Any]] = []
    if not turn:
        for key in ("thinking", "response"):
            for piece in cut(string(whole.get(key)) or ""):
                found.append({**base, "response": "", key: piece, "done": False})
        return [*map(event, found), event({**base, "response": "", "done": True, **end})]
    role = {"role": string(turn.get("role")) or "assistant", "content": ""}
    for key in ("thinking", "content"):
        for piece in cut(string(turn.get(key)) or ""):
            found.append({**base, "message": {**role, key: piece}, "done": False})
    calls = mappings(turn.get("tool_calls"))
    if calls:
        found.append({**base, "message": {**role, "tool_calls": calls}, "done": False})
    return [*map(event, found), event({**base, "message": role, "done": True, **end})]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the reply with a tool call's input replaced."""
    old = _replace([mapping(whole.get("message"))], given)
    return _shifted(whole, old, given)


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the lines with a tool call's input replaced; what does not speak of it stays as it is."""
    recorded = [one.said() for one in events]
    before = [compact(said) for said in recorded]
    old = _replace([mapping(said.get("message")) for said in recorded], given)
    later = [_shifted(said, old, given) for said in recorded]
    return [
        one if compact(said) == same else event(said)
        for one, said, same in zip(events, later, before, strict=True)
    ]


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return the API's own status for such an error, and its body; no headers go with it."""
    code, said = _ERRORS.get(status, (status, f"the request failed with status {status}"))
    return code, {"error": text or said}, ()


def _calls(turn: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str | None, dict[str, Any]]]:
    """Yield the tool calls of a message: the call, the function's name, the function."""
    for call in mappings(turn.get("tool_calls")):
        function = mapping(call.get("function"))
        yield call, string(function.get("name")), function


def _id(call: dict[str, Any]) -> str | None:
    """Return a call's id: servers before 0.12 give none."""
    return string(call.get("id"))


def _arguments(function: dict[str, Any]) -> str:
    """Return a call's input as JSON."""
    given = function.get("arguments", {})
    return given if isinstance(given, str) else dumps(given)


def _turn(turn: dict[str, Any]) -> Turn:
    """Return a message's thoughts, text, pictures and tool calls."""
    role, content = string(turn.get("role")) or "user", turn.get("content")
    if role == "tool":
        called = string(turn.get("tool_call_id"))
        name = string(turn.get("tool_name")) or string(turn.get("name")) or called
        return (message(role, "tool_result", flat(content, dumps), name, call_id=called),)
    found: list[Message] = []
    thought = string(turn.get("thinking"))
    if thought:
        found.append(message(role, "thinking", thought))
    # Beside tool calls an empty content says nothing.
    if isinstance(content, str) and (content or not (turn.get("tool_calls") or thought)):
        found.append(message(role, "text", content))
    found += _images(role, turn)
    for call, name, function in _calls(turn):
        found.append(message(role, "tool_use", _arguments(function), name, call_id=_id(call)))
    return tuple(found)


def _images(role: str, turn: dict[str, Any]) -> Iterator[Message]:
    """Yield the pictures of a message or a prompt."""
    given = turn.get("images")
    for image in given if isinstance(given, list) else []:
        if isinstance(image, str):
            yield message(role, "image", base64_note("image", image), wire=image)


def _said(role: str, turn: Iterable[Message]) -> dict[str, Any]:
    """Return a turn as a message."""
    kinds = {kind: [one for one in turn if one.kind == kind] for kind in ("thinking", "image", "tool_use")}
    texts = [one.content for one in turn if one.kind not in kinds]
    said: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if kinds["thinking"]:
        said["thinking"] = "\n".join(one.content for one in kinds["thinking"])
    images = [one.wire for one in kinds["image"] if isinstance(one.wire, str)]
    if images:
        said["images"] = images
    if kinds["tool_use"]:
        said["tool_calls"] = [_call(one) for one in kinds["tool_use"]]
    return said


def _call(said: Message) -> dict[str, Any]:
    """Return a message as a tool call, whose input is an object on this wire."""
    given = loads(said.content) if said.content else {}
    function = {"name": said.name, "arguments": given if isinstance(given, dict) else {}}
    return {"function": function} if said.call_id is None else {"id": said.call_id, "function": function}


def _of_call(result: Message) -> dict[str, Any]:
    """Return what tells which call a result answers."""
    named = {} if result.name is None else {"tool_name": result.name}
    return named if result.call_id is None else {**named, "tool_call_id": result.call_id}


def _replace(turns: list[dict[str, Any]], given: ToolInput) -> str:
    """Replace the input of the call that is meant in what was parsed for this alone; return the old one."""
    functions = [(name, function) for turn in turns for _, name, function in _calls(turn)]
    calls = [Call(name=name, given=_arguments(function)) for name, function in functions]
    at = given.choose(calls)
    functions[at][1]["arguments"] = given.value
    return calls[at].given


def _shifted(said: dict[str, Any], old: str, given: ToolInput) -> dict[str, Any]:
    """Return a reply or a line with its output counted anew."""
    if count(said.get("eval_count")) is None:
        return said
    return {**said, "eval_count": shifted(said["eval_count"], old=old, new=given.spelled(old))}
