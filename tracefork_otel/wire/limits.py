"""The most that a call can take by its request, in any wire form: tokens in and out, and searches."""

from __future__ import annotations

from typing import Any, NamedTuple

from .json_values import count, loads, mapping, mappings, string
from .registry import load, recognise, unless_failed

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
_AROUND = 300
"""Tokens that a provider may put round a conversation; of its turns, their JSON is longer."""
_AROUND_TOOLS = 3_000
"""Those that say how tools are called: Anthropic's for a computer, an editor and a shell are the most."""
_KEPT = ("previous_response_id", "conversation", "prompt", "cachedContent", "cached_content", "container")
"""Where a request names what the provider keeps and reads beside it."""
_OWN_KEYS = ("function", "functionDeclarations", "function_declarations", "toolSpec", "input_schema")
"""Where a tool is described that the agent runs itself."""
_OWN_KINDS = ("function", "custom", "bash_", "text_editor_", "computer", "memory_", "local_", "apply_patch")
"""Kinds of tools that a provider describes and the agent runs, by what they begin with."""
_MEDIA = frozenset(
    (
        *(
            "image",
            "image_url",
            "input_image",
            "document",
            "file",
            "input_file",
            "audio",
            "input_audio",
            "video",
        ),
        *("inlineData", "inline_data", "fileData", "file_data", "item_reference"),
    )
)
"""Kinds of parts, or where they stand, that are more than their text."""
_ROUNDS = 10
"""So often Anthropic's servers go on by themselves, by default, before they answer."""


class Most(NamedTuple):
    """What an answer can take at most; None where the request does not say."""

    output_tokens: int | None
    searches: int | None
    """Of the web, by the provider: 0 where it is offered none."""
    maps: bool
    """Whether the provider may search its maps, once for an answer."""
    choices: int = 1
    """How many answers are asked for."""
    rounds: int = 1
    """How often the provider reads the conversation before it has answered: more if it runs tools itself."""


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
    rounds = 1
    if request.get("mcp_servers") or any(not _is_agents(one) for one in tools):
        rounds += max(_ROUNDS, searches or 0)
    if "compact_" in str(request.get("context_management") or ""):
        rounds += 1
    return Most(max(told) * times if told else None, searches, maps, times, rounds)


def most_read(method: str, url: str, body: bytes) -> int | None:
    """Return how many tokens of input a request can be at most; None where its bytes do not tell.

    No token is less than a byte of text. A picture, a recording, a document, and what the request only names
    (a file, an earlier answer, a cache) may be any number of them.
    """
    call, request = recognise(method, url, body), mapping(loads(body))
    if any(request.get(name) for name in _KEPT if name != "prompt" or isinstance(request.get(name), dict)):
        return None
    if call is not None:
        asked = unless_failed(call.form, lambda: load(call.form).read_request(request))
        if asked is None or any(one.kind in ("image", "document", "other") for one in asked.messages):
            return None
    # The results of tools are read as text.
    if any(_has_media(request.get(name)) for name in ("messages", "contents", "input")):
        return None
    return len(body) + (_AROUND_TOOLS if request.get("tools") or request.get("toolConfig") else _AROUND)


def _has_media(value: Any) -> bool:
    """Return whether a conversation has a part, however deep, that is more than its text says."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            kind = string(one.get("type")) or ""
            if kind in _MEDIA or any(isinstance(one.get(name), dict) for name in _MEDIA):
                return True
            waiting += one.values()
    return False


def _is_agents(tool: dict[str, Any]) -> bool:
    """Return whether the agent runs the tool itself."""
    kind = string(tool.get("type")) or ""
    return kind.startswith(_OWN_KINDS) or any(name in tool for name in _OWN_KEYS)


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
