"""The APIs that the server has: what each refuses, the headers and the frame of its answers.

How requests are read and answers written is in the wire forms, which this shares with what reads recordings.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from tracefork_otel.wire.framing import Event, event
from tracefork_otel.wire.json_values import loads, mapping, mappings
from tracefork_otel.wire.registry import load, placed

from .model import Call, Ids, Operation, Provider, ToolUse

_SYSTEM_ROLES = ("system", "developer")
_TELLING = ("text", "tool_result")

Body = Mapping[str, Any]
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One API of a provider."""

    form: str
    provider: Provider
    operation: Operation
    check: Callable[[Body], str | None]
    """What the provider would reject a request for, or None."""
    headers: Callable[[Body, Ids], Headers]
    """The headers that come with every answer."""
    frame: Callable[[Ids], dict[str, Any]] = lambda ids: {}
    """What an answer tells beside what it says."""
    broken: Callable[[Body], Event] = event
    """The event that breaks a stream off with the error of this body."""
    indent: int | None = 2
    """How the provider lays JSON out."""


def _check_anthropic(body: Body) -> str | None:
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if name not in body:
            return f"{name}: Field required"
        if not isinstance(body[name], kind):
            return f"{name}: Input should be a valid {kind.__name__}"
    messages = body["messages"]
    if not messages:
        return "messages: at least one message is required"
    used: set[Any] = set()
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            return f"messages.{at}.role: Input should be 'user' or 'assistant'"
        blocks = mappings(message.get("content"))
        given = {block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"}
        if given - used:
            found = ", ".join(sorted(map(str, given - used)))
            return (
                f"messages.{at}.content: unexpected `tool_use_id` found in `tool_result` blocks: {found}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if used - given:
            missing = ", ".join(sorted(map(str, used - given)))
            return (
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {missing}. Each `tool_use` block must have a corresponding `tool_result` block "
                "in the next message."
            )
        used = {block.get("id") for block in blocks if block.get("type") == "tool_use"}
    return None


def _check_chat(body: Body) -> str | None:
    if not isinstance(body.get("model"), str):
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list):
        return "Missing required parameter: 'messages'."
    if not messages:
        return "Invalid 'messages': empty array. Expected an array with minimum length 1."
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            return f"Invalid type for 'messages[{at}]': expected an object."
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                return (
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                )
            open_calls.discard(str(message["tool_call_id"]))
            continue
        if open_calls:
            break
        open_calls = {str(call.get("id")) for call in message.get("tool_calls") or ()}
    if open_calls:
        missing = ", ".join(sorted(open_calls))
        return (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {missing}"
        )
    return None


def _check_responses(body: Body) -> str | None:
    if not isinstance(body.get("model"), str):
        return "Missing required parameter: 'model'."
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        return "Missing required parameter: 'input'."
    called: set[str] = set()
    for at, item in enumerate([] if isinstance(given, str) else given):
        if not isinstance(item, Mapping):
            return f"Invalid type for 'input[{at}]': expected an object."
        if item.get("type") == "function_call":
            called.add(str(item.get("call_id")))
        if item.get("type") == "function_call_output":
            # Items of an earlier response that the provider keeps are out of this server's sight.
            if item.get("call_id") not in called and not body.get("previous_response_id"):
                return f"No tool call found for function call output with call_id {item.get('call_id')}."
            called.discard(str(item.get("call_id")))
    if called:
        return f"No tool output found for function call {', '.join(sorted(called))}."
    return None


def _check_gemini(body: Body) -> str | None:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        return "* GenerateContentRequest.contents: contents is not specified\n"
    asked = 0
    for at, content in enumerate(contents):
        if not isinstance(content, Mapping) or content.get("role") not in (None, "user", "model", "function"):
            return "Please use a valid role: user, model."
        parts = mappings(content.get("parts"))
        if not parts:
            return f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n"
        calls = sum("functionCall" in part or "function_call" in part for part in parts)
        answers = sum("functionResponse" in part or "function_response" in part for part in parts)
        if answers != asked:
            return (
                "Please ensure that the number of function response parts is equal to the number of function "
                "call parts of the function call turn."
            )
        asked = calls
    return None


def _anthropic_headers(body: Body, ids: Ids) -> Headers:
    reset = (datetime.fromtimestamp(ids.now, UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    limits = {"requests": 50, "input-tokens": 40_000, "output-tokens": 8_000, "tokens": 48_000}
    pairs: list[tuple[str, str]] = []
    for name, limit in limits.items():
        pairs.append((f"anthropic-ratelimit-{name}-limit", str(limit)))
        pairs.append((f"anthropic-ratelimit-{name}-remaining", str(limit - 1)))
        pairs.append((f"anthropic-ratelimit-{name}-reset", reset))
    pairs.append(("request-id", body.get("request_id") or ids.base58("req_011", 21)))
    pairs.append(("anthropic-organization-id", "a3f0c1d2-0000-4000-8000-5f2b7c9e1d40"))
    return tuple(pairs)


def _openai_headers(body: Body, ids: Ids) -> Headers:
    return (
        ("x-request-id", ids.hex("req_", 32)),
        ("openai-organization", "user-simulated"),
        ("openai-processing-ms", str(ids.number(180, 900))),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-remaining-tokens", "199968"),
        ("x-ratelimit-reset-requests", "120ms"),
        ("x-ratelimit-reset-tokens", "9ms"),
    )


def _gemini_headers(body: Body, ids: Ids) -> Headers:
    return (
        ("vary", "Origin, X-Origin, Referer"),
        ("x-xss-protection", "0"),
        ("x-frame-options", "SAMEORIGIN"),
        ("x-content-type-options", "nosniff"),
        ("server-timing", f"gfet4t7; dur={ids.number(180, 900)}"),
    )


_APIS = (
    Api(
        form="anthropic",
        provider="anthropic",
        operation="messages",
        check=_check_anthropic,
        headers=_anthropic_headers,
        broken=lambda body: event({"type": "error", "error": {**body["error"], "details": None}}, "error"),
        indent=None,
    ),
    Api(
        form="openai_chat",
        provider="openai",
        operation="chat",
        check=_check_chat,
        headers=_openai_headers,
        frame=lambda ids: {
            "created": ids.now,
            "service_tier": "default",
            "system_fingerprint": "fp_50cad350e4",
        },
    ),
    Api(
        form="openai_responses",
        provider="openai",
        operation="responses",
        check=_check_responses,
        headers=_openai_headers,
        frame=lambda ids: {
            "created_at": ids.now,
            "background": False,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "user": None,
        },
        broken=lambda body: event({"type": "error", "sequence_number": 0, **body}, "error"),
    ),
    Api(
        form="gemini",
        provider="gemini",
        operation="generate_content",
        check=_check_gemini,
        headers=_gemini_headers,
    ),
)

APIS: Mapping[str, Api] = MappingProxyType({api.form: api for api in _APIS})
"""The APIs by their wire forms."""


def api_at(path: str) -> tuple[Api, Mapping[str, Any]] | None:
    """Return the API at a path, and what of the request the path tells; None where no API is there."""
    found = placed(path)
    if found is None or found[0].name not in APIS:
        return None
    api = APIS[found[0].name]
    told = {"model": found[2], "stream": ":stream" in path} if api.provider == "gemini" else {}
    return api, told


def read(api: Api, body: Body, *, index: int, headers: Mapping[str, str], rng: random.Random) -> Call:
    """Return the request as a behaviour sees it."""
    system, turns = load(api.form).read_request(dict(body))
    told = [one.content for one in system]
    messages: list[tuple[str, str]] = []
    uses: list[ToolUse] = []
    results: list[tuple[str, str]] = []
    for turn in turns:
        texts = [one.content for one in turn if one.kind in _TELLING]
        role = next((one.role for one in turn), "user")
        if role in _SYSTEM_ROLES:
            told += texts
        elif texts or api.operation != "responses":
            # A result is the user's there, as on the wire.
            spoken = "user" if role == "tool" and api.provider == "gemini" else role
            messages.append((spoken, "\n".join(texts)))
        for one in turn:
            if one.kind == "tool_use":
                uses.append(ToolUse(str(one.name), _arguments(one.content), one.call_id))
            elif one.kind == "tool_result":
                results.append((str(one.name), one.content))
    return Call(
        provider=api.provider,
        operation=api.operation,
        index=index,
        body=body,
        system="\n".join(told),
        messages=tuple(messages),
        tool_uses=tuple(uses),
        tool_results=tuple(results),
        tools=tuple(_tools(body.get("tools"))),
        headers=headers,
        rng=rng,
    )


def _arguments(text: str) -> Mapping[str, Any]:
    # What is no JSON object is kept under `_raw`.
    parsed = loads(text)
    return mapping(parsed) if isinstance(parsed, dict) else {"_raw": text}


def _tools(given: object) -> list[str]:
    names: list[str] = []
    for tool in mappings(given):
        declared = tool.get("functionDeclarations", tool.get("function_declarations"))
        each: Sequence[Body] = mappings(declared) or [tool.get("function") or tool]
        names += [str(one.get("name") or one.get("type")) for one in each]
    return names


def spelled(body: Body, indent: int | None) -> bytes:
    """Return the JSON as the provider lays it out."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(body, indent=indent, separators=separators, ensure_ascii=False).encode()
