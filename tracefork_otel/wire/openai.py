"""What OpenAI's forms share: errors, and the parts of a message."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .json_values import count, dumps, mapping, string
from .messages import Message, Usage, base64_note, message

if TYPE_CHECKING:
    from ..exchange import Headers
    from .writing import IdSource

REQUEST_ID = "x-request-id"
SYSTEM_ROLES = ("system", "developer")

_ERRORS = MappingProxyType(
    {
        401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again in 1s."),
        529: ("server_error", None, "The engine is currently overloaded, please try again later"),
    }
)
_FAILED = "The server had an error while processing your request. Sorry about that!"
# A bare id or link is never this long; base64 without a data: head is.
_LONGEST_LINK = 4096


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return the status, the API's error body of it, and its headers."""
    usual = (
        ("server_error", None, _FAILED)
        if status >= 500
        else ("invalid_request_error", None, f"Status {status}.")
    )
    kind, code, said = _ERRORS.get(status, usual)
    body = {"error": {"message": text or said, "type": kind, "param": None, "code": code}}
    return status, body, ((REQUEST_ID, ids.hex("req_", 32)),)


def error_type(told: Any) -> str:
    """Return an error's type or code, in OpenAI's and its copiers' shapes."""
    found = mapping(told)
    return string(found.get("type")) or string(found.get("code")) or "error"


def read_usage(usage: dict[str, Any]) -> Usage:
    """Return the counts; on this wire the input holds the cached parts already."""
    details = mapping(usage.get("prompt_tokens_details"))
    cached = count(details.get("cached_tokens"))
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        # DeepSeek's name for the same count.
        cached_tokens=count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )


def write_usage(recorded: dict[str, Any], counted: Usage, times: int) -> dict[str, Any]:
    """Return the usage of a reply that counts this, to the recorded input where one is known."""
    given = count(recorded.get("prompt_tokens"))
    given = counted.input_tokens if given is None else given
    output = None if counted.output_tokens is None else counted.output_tokens * times
    return {
        **recorded,
        "prompt_tokens": given,
        "completion_tokens": output,
        "total_tokens": None if given is None or output is None else given + output,
        "prompt_tokens_details": recorded.get("prompt_tokens_details")
        or {"cached_tokens": counted.cached_tokens or 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counted.thinking_tokens or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def part_message(role: str, part: dict[str, Any]) -> Message:
    """Return one content part, of Chat Completions or of Responses, as a message."""
    kind = string(part.get("type")) or ""
    if kind in ("text", "input_text", "output_text", "summary_text"):
        return message(role, "text", string(part.get("text")) or "")
    if kind == "reasoning_text":
        return message(role, "thinking", string(part.get("text")) or "")
    if kind == "refusal":
        return message(role, "refusal", string(part.get("refusal")) or "")
    if kind in ("image_url", "input_image", "computer_screenshot"):
        image = part.get("image_url")
        where = string(image) or string(mapping(image).get("url")) or string(part.get("file_id")) or ""
        return message(role, "image", short_url(where), wire=part)
    if kind in ("file", "input_file"):
        file = mapping(part.get("file")) or part
        data = string(file.get("file_data"))
        where = string(file.get("file_url")) or string(file.get("file_id")) or ""
        return message(role, "document", short_url(data or where), string(file.get("filename")), wire=part)
    if kind == "input_audio":
        audio = mapping(part.get("input_audio"))
        note = base64_note(f"audio/{string(audio.get('format'))}", string(audio.get("data")) or "")
        return message(role, "other", note, wire=part)
    return message(role, "other", dumps(part), wire=part)


def part_text(part: dict[str, Any]) -> str:
    """Return one content part of a tool's result as text."""
    return part_message("tool", part).content


def short_url(url: str) -> str:
    """Return a URL as it is, and base64 data as their kind and length."""
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:"):
        return base64_note(head[5:].partition(";")[0], data)
    return url if len(url) < _LONGEST_LINK else base64_note(None, url)
