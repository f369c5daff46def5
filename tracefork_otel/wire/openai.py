"""What OpenAI's forms share: errors, and the parts of a message."""

from __future__ import annotations

import re
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .json_values import count, dumps, mapping, mappings, string
from .messages import Message, Usage, base64_note, billed, message, served_by

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
_TICKS = 1e10
"""xAI's of a dollar."""
_SEARCHING = re.compile(r"-search-(preview|api)\b")


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


def read_usage(whole: dict[str, Any]) -> Usage:
    """Return what a completion counts; on this wire the input holds the cached parts already."""
    usage = mapping(whole.get("usage"))
    given, said = (mapping(usage.get(f"{one}_tokens_details")) for one in ("prompt", "completion"))
    cached, thought = count(given.get("cached_tokens")), count(said.get("reasoning_tokens"))
    output = count(usage.get("completion_tokens"))
    asked, total = count(usage.get("prompt_tokens")), count(usage.get("total_tokens"))
    beside = 0
    if thought and None not in (output, asked, total) and total == (asked or 0) + (output or 0) + thought:
        beside = thought  # xAI counts thoughts beside the output
    cited, thinking = count(usage.get("citation_tokens")), count(usage.get("reasoning_tokens"))
    if cited is not None or "num_search_queries" in usage:
        # Perplexity has them beside it too, in places of its own.
        beside, thought = (cited or 0) + (thinking or 0), thinking
    return Usage(
        input_tokens=asked,
        output_tokens=None if output is None else count(output + beside),
        # DeepSeek's name for the same count.
        cached_tokens=count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=count(given.get("cache_write_tokens")),
        thinking_tokens=thought,
        units=billed(
            input_audio_tokens=count(given.get("audio_tokens")),
            output_audio_tokens=count(said.get("audio_tokens")),
            input_image_tokens=count(given.get("image_tokens")),
            output_image_tokens=count(said.get("image_tokens")),
            input_audio_seconds=count(usage.get("prompt_audio_seconds")),
            output_citation_tokens=cited,
            web_searches=_searches(whole, usage),
        ),
        served=served_by(service_tier=whole.get("service_tier")),
        told_usd=told_usd(usage),
    )


def read_response_usage(whole: dict[str, Any]) -> Usage:
    """Return what a response counts, with the searches and programs that the provider ran for it."""
    usage = mapping(whole.get("usage"))
    given, said = (mapping(usage.get(f"{one}_tokens_details")) for one in ("input", "output"))
    items = mappings(whole.get("output"))
    ran = Counter(string(one.get("type")) for one in items)
    # A page that is opened, or looked through, is no search.
    opened = sum(
        mapping(one.get("action")).get("type", "search") != "search"
        for one in items
        if one.get("type") == "web_search_call"
    )
    xai = mapping(usage.get("server_side_tool_usage_details"))
    searches = count(xai.get("web_search_calls"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=count(given.get("cached_tokens")),
        cache_write_tokens=count(given.get("cache_write_tokens")),
        thinking_tokens=count(said.get("reasoning_tokens")),
        units=billed(
            web_searches=ran["web_search_call"] - opened if searches is None else searches,
            social_searches=count(xai.get("x_search_calls")),
            storage_searches=ran["file_search_call"],
            code_executions=ran["code_interpreter_call"],
            images=ran["image_generation_call"],
        ),
        served=served_by(service_tier=whole.get("service_tier")),
        told_usd=told_usd(usage),
        pending=whole.get("background") is True and whole.get("status") in ("queued", "in_progress"),
    )


_NO_PRICE = 1e9
"""Dollars that no call costs."""


def told_usd(usage: dict[str, Any]) -> float | None:
    """Return what OpenRouter, Perplexity or xAI says that the call costs, None where none of them does."""
    cost, ticks = usage.get("cost"), count(usage.get("cost_in_usd_ticks"))
    found = mapping(cost).get("total_cost") if isinstance(cost, dict) else cost
    if ticks is not None:
        return ticks / _TICKS
    if usage.get("is_byok") is True or not isinstance(found, int | float) or isinstance(found, bool):
        return None  # with a key of one's own at the model's provider, most is paid there
    return float(found) if 0 <= found < _NO_PRICE else None


def _searches(whole: dict[str, Any], usage: dict[str, Any]) -> int | None:
    """Return how often the web was searched: by models made for it once a call, which they do not count."""
    told = count(usage.get("num_search_queries"))
    return told or int(_SEARCHING.search(string(whole.get("model")) or "") is not None)


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
