"""Bodies of models that complete a prompt, as Amazon Bedrock's invoke has them: read, not written."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from .json_values import count, mapping, mappings, string
from .messages import Asked, Reply, Usage, message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .framing import Event
    from .writing import ToolResult

# By whom a member is sent: Llama, Titan's stream, Cohere, Anthropic's old completions.
_TEXTS = ("generation", "outputText", "text", "completion")
# Where the object stands that says it: Mistral, Titan, Cohere.
_LISTS = ("outputs", "results", "generations")
_PROMPTS = ("prompt", "inputText", "message")
_REASONS = ("stop_reason", "completionReason", "finish_reason")
_INPUT = ("prompt_token_count", "inputTextTokenCount")
_OUTPUT = ("generation_token_count", "tokenCount", "totalOutputTextTokenCount")


def is_request(request: dict[str, Any]) -> bool:
    """Return whether a request is a prompt."""
    return any(isinstance(request.get(key), str) for key in _PROMPTS)


def read_request(request: dict[str, Any]) -> Asked:
    """Return the prompt as the one turn of the user."""
    prompts = (text for key in _PROMPTS if (text := string(request.get(key))) is not None)
    return Asked((), tuple((message("user", "text", prompt),) for prompt in islice(prompts, 1)))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole reply says."""
    said = _said(whole)
    spoken = _text(said)
    return Reply(
        choices=((message("assistant", "text", spoken),) if spoken is not None else (),),
        finish_reasons=(next((one for key in _REASONS if (one := string(said.get(key)))), None),),
        response_id=string(whole.get("id")),
        usage=Usage(input_tokens=_count(whole, said, _INPUT), output_tokens=_count(whole, said, _OUTPUT)),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the whole that the chunks add up to; one says of the rest what the last of them tells."""
    whole: dict[str, Any] = {}
    texts: list[str] = []
    for one in events:
        chunk = one.said()
        told = _said(chunk)
        texts.append(_text(told) or "")
        whole |= {key: value for key, value in {**chunk, **told}.items() if value is not None}
    kept = {key: value for key, value in whole.items() if key not in (*_TEXTS, *_LISTS)}
    return {**kept, "text": "".join(texts)} if texts else {}


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON holds a completion."""
    return "type" not in whole and _text(_said(whole)) is not None


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return none: prompts have no place for them."""
    return []


def _said(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the object that holds the text."""
    return next((found[0] for key in _LISTS if (found := mappings(whole.get(key)))), whole)


def _text(said: dict[str, Any]) -> str | None:
    """Return the completion, None where there is none."""
    return next((text for key in _TEXTS if (text := string(said.get(key))) is not None), None)


def _count(whole: dict[str, Any], said: dict[str, Any], names: Iterable[str]) -> int | None:
    """Return the first of these counts."""
    told = {**mapping(said), **whole}
    return next((found for name in names if (found := count(told.get(name))) is not None), None)
