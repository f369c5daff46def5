"""What Gemini's replies count: tokens by kind, searches, and the tier in which they were served."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from .json_values import count, mapping, mappings, string
from .messages import Usage, billed, served_by
from .writing import shifted, without

# What a reply counts, or tells of its prompt, that another in its place did not do.
_UNDONE = (
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
    "toolUsePromptTokensDetails",
    "candidatesTokensDetails",
)
_MODALITIES = MappingProxyType({"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"})
_DETAILS = MappingProxyType(
    {
        "promptTokensDetails": "input_{}_tokens",
        "toolUsePromptTokensDetails": "input_{}_tokens",
        "cacheTokensDetails": "cache_{}_read_tokens",
        "candidatesTokensDetails": "output_{}_tokens",
    }
)
_TIERS = MappingProxyType(
    {
        "ON_DEMAND_FLEX": "flex",
        "ON_DEMAND_PRIORITY": "priority",
        "PROVISIONED_THROUGHPUT": "provisioned_throughput",
    }
)
"""Vertex AI's words for them."""


def read_usage(whole: dict[str, Any]) -> Usage:
    """Return the counts: thoughts are output, and what a tool of the provider's read is input."""
    usage = mapping(whole.get("usageMetadata"))
    given, read = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    said, thought = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    told = given is not None
    units = {"input_tool_tokens": read or 0}
    for key, name in _DETAILS.items():
        for one in mappings(usage.get(key)):
            kind = _MODALITIES.get(string(one.get("modality")) or "")
            if kind is not None:
                unit = name.format(kind)
                units[unit] = units.get(unit, 0) + (count(one.get("tokenCount")) or 0)
    if "cacheTokensDetails" in usage:
        # What is not among them is none of the cached: the price list would rather not guess.
        known = dict.fromkeys(map(_DETAILS["cacheTokensDetails"].format, _MODALITIES.values()), 0)
        units = known | units
    return Usage(
        input_tokens=_sum(given, read),
        # A reply that says nothing leaves the count out.
        output_tokens=_sum(said, thought) if said is not None or thought is not None or not told else 0,
        cached_tokens=count(usage.get("cachedContentTokenCount")),
        thinking_tokens=thought,
        units=tuple(units.items() if any(units.values()) else ()) + _looked_up(whole),
        served=served_by(
            service_tier=usage.get("serviceTier") or _TIERS.get(string(usage.get("trafficType")) or "")
        ),
    )


def _looked_up(whole: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return what was searched: older models bill a prompt that was, those from the third on each query."""
    found = [mapping(one.get("groundingMetadata")) for one in mappings(whole.get("candidates"))]
    queries = [one.get("webSearchQueries") for one in found]
    searches = sum(len(one) for one in queries if isinstance(one, list))
    if re.match(r"(models/)?gemini-[12]\b", string(whole.get("modelVersion")) or ""):
        searches = min(1, searches)
    chunks = [chunk for one in found for chunk in mappings(one.get("groundingChunks"))]
    return billed(web_searches=searches, maps_searches=int(any("maps" in chunk for chunk in chunks)))


def _sum(*counts: int | None) -> int | None:
    """Return the sum of what is known, None where nothing is."""
    known = [one for one in counts if one is not None]
    return count(sum(known)) if known else None


def write_usage(recorded: dict[str, Any], counted: Usage, times: int) -> dict[str, Any]:
    """Return the usage of a reply that counts this, to the recorded input where one is known."""
    usage = without(recorded, *_UNDONE)
    given = count(usage.get("promptTokenCount"))
    if given is None and (given := counted.input_tokens) is not None:
        usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": given}]
    output = None if counted.output_tokens is None else counted.output_tokens * times
    thoughts = counted.thinking_tokens
    return {
        **usage,
        **({"cachedContentTokenCount": counted.cached_tokens} if counted.cached_tokens else {}),
        "promptTokenCount": given,
        "candidatesTokenCount": None if output is None else output - (thoughts or 0),
        **({"thoughtsTokenCount": thoughts} if thoughts else {}),
        "totalTokenCount": None if given is None or output is None else given + output,
    }


def shifted_usage(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a recorded usage after one text of the output became another."""
    before = count(usage.get("candidatesTokenCount"))
    output = shifted(before, old=old, new=new)
    total = count(usage.get("totalTokenCount"))
    moved = {} if total is None else {"totalTokenCount": max(0, total - (before or 0) + output)}
    return {**without(usage, "candidatesTokensDetails"), "candidatesTokenCount": output, **moved}
