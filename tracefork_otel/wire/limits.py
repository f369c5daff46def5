"""The most that a request lets its answer take, in any wire form: tokens of output, and searches."""

from __future__ import annotations

from typing import Any, NamedTuple

from .json_values import count, loads, mapping, mappings, string

BYTES_PER_TOKEN = 4
"""A usual ratio for text, where the wire did not tell the tokens."""
_PLACES = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_gen_len",),
    ("generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
    ("options", "num_predict"),
)
_GOOGLE = ("google_search", "googleSearch", "google_search_retrieval", "googleSearchRetrieval")
_SEARCHING = (("web_search_options",), ("search_parameters",))
"""Where a chat completion says that it may search, and sets no limit to it: OpenAI's, Perplexity's, xAI's."""
_MAPS = ("google_maps", "googleMaps")
_CHOICES = (("n",), ("generationConfig", "candidateCount"))


class Most(NamedTuple):
    """What an answer can take at most; None where the request does not say."""

    output_tokens: int | None
    searches: int | None
    """Of the web, by the provider: 0 where it is offered none."""
    maps: bool
    """Whether the provider may search its maps, once for an answer."""


def most_of(body: bytes) -> Most:
    """Return the limits that a request sets."""
    request = mapping(loads(body))
    told = [found for place in _PLACES if (found := count(_at(request, place))) is not None]
    times = next((found for place in _CHOICES if (found := count(_at(request, place)))), 1)
    tools = mappings(request.get("tools"))
    uses = [count(one.get("max_uses")) for one in tools if _searches(one)]
    # OpenRouter searches once, for the request itself, whatever the model does.
    uses += [1 for one in mappings(request.get("plugins")) if _is_web_plugin(one)]
    uses += [1] if (string(request.get("model")) or "").endswith(":online") else []
    if any(_is_on(request, place) for place in _SEARCHING):
        uses.append(None)
    searches = None if None in uses else sum(one for one in uses if one is not None)
    if searches is None:
        searches = count(request.get("max_tool_calls"))
    maps = any(name in tool for tool in tools for name in _MAPS)
    return Most(max(told) * times if told else None, searches, maps)


def _searches(tool: dict[str, Any]) -> bool:
    """Return whether a tool is a search of the web that the provider runs."""
    kind = string(tool.get("type")) or ""
    if kind == "function":
        return False
    return "web_search" in kind or any(name in tool for name in _GOOGLE)


def _is_web_plugin(plugin: dict[str, Any]) -> bool:
    return plugin.get("id") == "web" and plugin.get("enabled") is not False


def _is_on(request: dict[str, Any], place: tuple[str, ...]) -> bool:
    told = _at(request, place)
    return isinstance(told, dict) and mapping(told).get("mode") != "off"


def _at(request: dict[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = request
    for key in place:
        value = mapping(value).get(key)
    return value
