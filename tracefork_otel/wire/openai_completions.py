"""OpenAI's legacy Completions form, a prompt without turns: there, and at llama.cpp, vLLM, Together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import openai
from .framing import SSE, Event, event, sse_if_asked
from .json_values import count, dumps, mapping, mappings, string
from .messages import Asked, Message, Reply, message
from .openai import error_type
from .placing import Placed, Tools
from .writing import FIXED_DATE, ToolInput, ToolResult, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .messages import Turn
    from .writing import Cut, IdSource

FRAMINGS = (SSE,)
REQUEST_ID = openai.REQUEST_ID
TURNS = None
error = openai.error
streams = sse_if_asked

_DONE = Event(None, b"[DONE]")
# The most choices that the API gives to one prompt, and the most prompts that it takes; more get an error.
_MAX_CHOICES = 128
_MAX_PROMPTS = 2048


def read_request(request: dict[str, Any]) -> Asked:
    """Return each prompt as a turn, and what is to follow the completion as a last one."""
    turns: list[Turn] = [(_prompt(one),) for one in _prompts(request)]
    suffix = string(request.get("suffix"))
    if suffix:
        turns.append((message("user", "other", suffix, wire={"suffix": suffix}),))
    return Asked((), tuple(turns))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a completion (or error) says; with `echo` its texts begin with the prompt."""
    choices = mappings(whole.get("choices"))
    error = whole.get("error")
    return Reply(
        choices=tuple((message("assistant", "text", string(one.get("text")) or ""),) for one in choices),
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
    texts: dict[int, list[str]] = {}
    for one in events:
        chunk = one.said()
        whole |= {key: value for key, value in without(chunk, "choices").items() if value}
        for choice in mappings(chunk.get("choices")):
            index = count(choice.get("index")) or 0
            known = choices.setdefault(index, {"text": "", "index": index, "finish_reason": None})
            known |= {k: v for k, v in without(choice, "text", "index", "logprobs").items() if v is not None}
            texts.setdefault(index, []).append(string(choice.get("text")) or "")
            _extend_logprobs(known, mapping(choice.get("logprobs")))
    if choices or whole.get("id"):
        whole["choices"] = [
            {**known, "text": "".join(texts[index])} for index, known in sorted(choices.items())
        ]
    return whole


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a completion."""
    return isinstance(whole.get("choices"), list) and "text" in (mappings(whole["choices"]) or [{}])[0]


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return none: the API has no tools."""
    return []


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Raise UsageError: the API has no system prompt."""
    raise UsageError("the Completions API has no system prompt: edit its prompt, with --set 'prompt=...'")


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return none: the API has no system prompt."""
    return []


def tools(request: dict[str, Any]) -> Tools:
    """Return none: the API has no tools."""
    return Tools()


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these prompts; raise UsageError for turns that no prompt can hold."""
    suffix, prompts = None, []
    for one in asked.messages:
        if isinstance(one.wire, dict) and "suffix" in one.wire:
            suffix = one.content
        elif one.role != "user" or (one.kind != "text" and one.wire is None):
            raise UsageError(f"the Completions API takes prompts, and no {one.kind} of the role {one.role}")
        else:
            prompts.append(one.content if one.wire is None else one.wire)
    asks = {"model": model, "prompt": prompts[0] if len(prompts) == 1 else prompts}
    return asks if suffix is None else {**asks, "suffix": suffix}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a completion of these choices; of as many as were asked for where they are all alike."""
    said = [_text(turn) for turn in reply.choices]
    prompts = [string(one) or "" for one in _prompts(request)] or [""]
    each = min(count(request.get("n")) or 1, _MAX_CHOICES)
    alike = len(said) == 1
    texts = said * (each * len(prompts)) if alike else said
    if alike and request.get("echo") is True:
        texts = [_echoed(prompts[at // each], text) for at, text in enumerate(texts)]
    reasons = [*reply.finish_reasons, *[None] * len(texts)]
    return {
        "created": FIXED_DATE,
        "model": reply.model or request.get("model"),
        **frame,
        "id": reply.response_id or ids.base58("cmpl-", 29),
        "object": "text_completion",
        "choices": [
            {
                "text": text,
                "index": index,
                "logprobs": None,
                "finish_reason": reasons[0 if alike else index] or "stop",
            }
            for index, text in enumerate(texts)
        ],
        "usage": openai.write_usage(mapping(frame.get("usage")), reply.usage, len(texts) if alike else 1),
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the chunks of a completion, and the mark that ends them."""
    counts = mapping(request.get("stream_options")).get("include_usage") is True
    base = {**without(whole, "choices", "usage"), "object": "text_completion"}
    more = {"usage": None} if counts else {}
    found: list[Event] = []
    for position, choice in enumerate(mappings(whole.get("choices"))):
        index = count(choice.get("index"))
        same = {**choice, "index": position if index is None else index, "logprobs": None}
        for piece in cut(string(choice.get("text")) or ""):
            found.append(event({**base, "choices": [{**same, "text": piece, "finish_reason": None}], **more}))
        # The log probabilities have no place of their own in a text that is cut anew: they come with its end.
        end = {
            **same,
            "text": "",
            "logprobs": choice.get("logprobs"),
            "finish_reason": string(choice.get("finish_reason")) or "stop",
        }
        found.append(event({**base, "choices": [end], **more}))
    if counts:
        found.append(event({**base, "choices": [], "usage": whole.get("usage")}))
    return [*found, _DONE]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Raise UsageError: the API calls no tools."""
    given.choose(())
    return whole


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Raise UsageError: the API calls no tools."""
    given.choose(())
    return list(events)


def _prompts(request: dict[str, Any]) -> list[Any]:
    """Return the prompts, each a text or tokens; an array that holds a number is one prompt of tokens."""
    given = request.get("prompt")
    if given is None:
        return []
    if not isinstance(given, list) or any(isinstance(one, int) for one in given):
        return [given]
    return given[:_MAX_PROMPTS]


def _prompt(given: Any) -> Message:
    """Return a prompt as a message."""
    if isinstance(given, str):
        return message("user", "text", given)
    told = f"[{len(given)} tokens]" if isinstance(given, list) else dumps(given)
    return message("user", "other", told, wire=given)


def _text(turn: Turn) -> str:
    """Return what a choice says; raise UsageError where that is no text."""
    calls = [one for one in turn if one.kind == "tool_use"]
    if calls:
        raise UsageError(f"the Completions API calls no tools, so not {calls[0].name!r} either")
    return "".join(one.content for one in turn if one.kind in ("text", "refusal"))


def _echoed(prompt: str, text: str) -> str:
    """Return the text behind the prompt, unless it has that already."""
    return text if text.startswith(prompt) else prompt + text


def _extend_logprobs(choice: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the log probabilities of one chunk to those of a choice, list by list."""
    if more:
        known = choice.setdefault("logprobs", {})
        for name, values in more.items():
            old = known.get(name)
            known[name] = (
                [*(old if isinstance(old, list) else ()), *values] if isinstance(values, list) else values
            )
