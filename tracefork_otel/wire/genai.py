"""Conversations in the words of OTel's GenAI convention: what spans tell of a call, and a call made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .facts import read_response
from .json_values import count, loads, string
from .messages import Asked, Message, Reply, Turn, Usage, joined, message
from .registry import host_named, load, place, placed
from .writing import Ids

if TYPE_CHECKING:
    from collections.abc import Iterable

USAGE = "gen_ai.usage."
"""What the names of attributes of tokens begin with."""
INPUT = "gen_ai.input.messages"
OUTPUT = "gen_ai.output.messages"
SYSTEM = "gen_ai.system_instructions"

_REASONS = MappingProxyType(
    {
        "stop": ("end_turn", "stop_sequence", "pause_turn", "completed", "STOP"),
        "length": ("max_tokens", "max_output_tokens", "model_context_window_exceeded", "MAX_TOKENS"),
        "tool_call": ("tool_use", "tool_calls", "function_call"),
        "content_filter": (*("refusal", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),),
        "error": ("failed", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"),
    }
)
_CALLED = MappingProxyType({name: reason for reason, names in _REASONS.items() for name in names})
"""The convention's words for the ends that it has words for; others stay as they are."""
_ROLES = MappingProxyType({"model": "assistant", "function": "tool"})
_LONG = 1024
"""A string of a picture, a file or an unknown part that is longer is data, not something to read."""
_DEEPEST = 64
"""Levels of an unknown part that are told: no provider has ten, and Python's stack ends at some 300."""
_TEXTS = MappingProxyType({"text": "text", "thinking": "reasoning", "refusal": "refusal"})

_OPERATIONS = ("chat", "text_completion", "generate_content")
"""Of these a span is one call of a model; an `invoke_agent` span repeats the messages of those below it."""

Json = dict[str, Any]


class Told(NamedTuple):
    """A call as the convention tells it: lists of messages, and attributes of the response."""

    system: list[Json]
    inputs: list[Json]
    outputs: list[Json]
    facts: Mapping[str, str | int | list[str]]


def told_of(url: str, request: bytes, response: bytes | None, content_type: str | None) -> Told | None:
    """Return what a call with these bodies, content encodings undone, is in the convention's words."""
    found, asked = placed(place(url)[1]), loads(request)
    if found is None or not isinstance(asked, dict) or not asked:
        return None
    form = load(found[0].name)
    system, turns = form.read_request(asked)
    reply, _ = read_response(form, response, content_type)
    reasons = [reason for reason in reply.finish_reasons if reason is not None]
    usage = reply.usage
    facts: dict[str, Any] = {
        "gen_ai.response.id": reply.response_id,
        "gen_ai.response.model": reply.model,
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
    }
    return Told(
        _parts(system),
        [{"role": _ROLES.get(turn[0].role, turn[0].role), "parts": _parts(turn)} for turn in turns if turn],
        _outputs(reply),
        {name: value for name, value in facts.items() if value is not None},
    )


def _outputs(reply: Reply) -> list[Json]:
    """Return the choices of a reply as messages; a choice that neither says anything nor ended is none."""
    found: list[Json] = []
    for number, turn in enumerate(reply.choices):
        parts = _parts(turn)
        reason = reply.finish_reasons[number] if number < len(reply.finish_reasons) else None
        told = _CALLED.get(reason or "", reason)
        # Some APIs end a call of a tool like any other answer.
        if told == "stop" and any(part["type"] == "tool_call" for part in parts):
            told = "tool_call"
        if parts or reason:
            found.append({"role": "assistant", "parts": parts, "finish_reason": told})
    return found


def _parts(turn: Turn) -> list[Json]:
    """Return messages as parts of one, empty texts left out."""
    return [_part(one) for one in turn if one.content or one.kind not in _TEXTS]


def _part(said: Message) -> Json:
    """Return one message as a part."""
    if said.kind == "tool_use":
        return {"type": "tool_call", "id": said.call_id, "name": said.name, "arguments": _value(said.content)}
    if said.kind == "tool_result":
        response = said.content if said.wire is None else said.wire
        # The wire tells calls by id only where the model gave them one.
        named = {"name": said.name} if said.call_id is None else {}
        return {"type": "tool_call_response", "id": said.call_id, "response": response, **named}
    if said.kind in _TEXTS or not isinstance(said.wire, dict):
        return {"type": _TEXTS.get(said.kind, "text"), "content": said.content}
    return {"type": said.kind, **_shortened(said.wire)}


def _shortened(value: Any, levels: int = _DEEPEST) -> Any:
    """Return the value without what is data: pictures and files are told by kind and length."""
    if isinstance(value, dict | list) and not levels:
        return f"[more than {_DEEPEST} levels]"
    if isinstance(value, dict):
        return {name: _shortened(item, levels - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item, levels - 1) for item in value]
    if isinstance(value, str) and len(value) > _LONG:
        return f"[{len(value)} characters]"
    return value


class Conversation(NamedTuple):
    """A model call in its provider's wire form, made from messages: the same words, not the same bytes."""

    url: str
    request: bytes
    response: bytes


def conversation(told: Mapping[str, Any], seed: str) -> Conversation | None:
    """Return the call that a span's attributes tell of, None where they tell no messages.

    Ids that the span does not tell follow from the seed.
    """
    if told.get("gen_ai.operation.name", "chat") not in _OPERATIONS:
        return None
    asked, said = _items(told.get(INPUT)), _items(told.get(OUTPUT))
    if not asked and not said:
        return None
    provider = str(told.get("gen_ai.provider.name") or told.get("gen_ai.system") or "unknown")
    model = told.get("gen_ai.request.model")
    name, path = "openai_chat", "/v1/chat/completions"
    if provider == "anthropic":
        name, path = "anthropic", "/v1/messages"
    elif provider.startswith("gcp."):
        named = str(model or "unknown").removeprefix("models/")
        name, path = "gemini", f"/v1beta/models/{named}:generateContent"
    form = load(name)
    request = form.write_request(
        Asked(_turn(told.get(SYSTEM), "system", {}), tuple(_turns(asked, "user"))), cast("str", model)
    )
    if told.get("gen_ai.request.max_tokens") and name != "gemini":
        request["max_tokens"] = told["gen_ai.request.max_tokens"]
    response = form.write_reply(_reply(told, said), request=request, frame={}, ids=Ids(seed.encode()))
    host = told.get("server.address") or host_named(provider)
    return Conversation(f"https://{host}{path}", _dumped(request), _dumped(response))


def _reply(told: Mapping[str, Any], said: list[Json]) -> Reply:
    """Return the reply that attributes tell of."""
    reasons = told.get("gen_ai.response.finish_reasons")
    own = [one.get("finish_reason") for one in said]
    given: Sequence[Any] = reasons if isinstance(reasons, Sequence) and not isinstance(reasons, str) else own
    return Reply(
        choices=tuple(_turns(said, "assistant")),
        finish_reasons=tuple(string(reason) for reason in given),
        model=string(told.get("gen_ai.response.model")) or string(told.get("gen_ai.request.model")),
        response_id=string(told.get("gen_ai.response.id")),
        usage=Usage(
            input_tokens=count(told.get("gen_ai.usage.input_tokens")),
            output_tokens=count(told.get("gen_ai.usage.output_tokens")),
            cached_tokens=count(told.get("gen_ai.usage.cache_read.input_tokens")),
            cache_write_tokens=count(told.get("gen_ai.usage.cache_creation.input_tokens")),
        ),
    )


def _turns(messages: list[Json], role: str) -> Iterable[Turn]:
    """Yield messages of the convention as turns, results under the names of the calls that they answer."""
    names: dict[Any, Any] = {}
    for one in messages:
        parts = one.get("parts")
        if not _items(parts) and isinstance(one.get("content"), str):
            parts = [{"type": "text", "content": one["content"]}]
        turn = _turn(parts, str(one.get("role") or role), names)
        names |= {said.call_id: said.name for said in turn if said.kind == "tool_use"}
        yield turn


def _turn(parts: Any, role: str, names: Mapping[Any, Any]) -> Turn:
    """Return the parts of a message as one turn."""
    return joined((_message(role, part, names),) for part in _items(parts))


def _message(role: str, part: Json, names: Mapping[Any, Any]) -> Message:
    """Return a part of a message."""
    kind = part.get("type", "text")
    identity, name = string(part.get("id")), string(part.get("name"))
    if kind == "tool_call":
        return message(role, "tool_use", _text(part.get("arguments")), name, call_id=identity)
    if kind == "tool_call_response":
        result = part.get("response", part.get("result"))
        value = _value(result)
        told = name or names.get(identity) or identity
        wire = value if isinstance(value, dict) else None
        return message(role, "tool_result", _text(result), told, call_id=identity, wire=wire)
    if kind in ("reasoning", "thinking"):
        return message(role, "thinking", _text(part.get("content")))
    return message(role, "text", _text(part.get("content") if kind == "text" else part))


def _items(value: Any) -> list[Json]:
    """Return the objects of a list, which comes as JSON text or as a structured attribute."""
    found = _value(value)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    return [dict(one) for one in found if isinstance(one, Mapping)]


def _value(value: Any) -> Any:
    """Return the value that a text is JSON of, else the value: a call that was cut is no JSON yet."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _text(value: Any) -> str:
    """Return the value as text, as JSON where it is none."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
