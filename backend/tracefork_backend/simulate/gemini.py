"""The generateContent API on the wire: requests read; answers, chunks, errors and headers written."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tracefork_otel.wire.sse import sse_event

from .model import Conversation, Counted, Ids, Reply, ToolUse, cut

# As at the Gemini API and, after a project or a publisher, on Vertex AI.
_CALL = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):(generateContent|streamGenerateContent)\Z")
_STATUSES = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "The model is not found, or is not supported for generateContent."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
}
_OVERLOADED = 503
"""What this provider answers where others answer 529."""


def called(path: str) -> tuple[str, bool] | None:
    """The model that a path names, and whether it asks for a stream; None where it is no such call."""
    found = _CALL.search(path)
    return None if found is None else (found[1], found[2] == "streamGenerateContent")


def _member(found: Mapping[str, Any], name: str) -> Any:
    # The API takes both spellings.
    snake = re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    return found.get(name, found.get(snake))


def _parts(content: object) -> list[Mapping[str, Any]]:
    parts = content.get("parts") if isinstance(content, Mapping) else None
    return [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []


def _returned(part: Mapping[str, Any]) -> str | None:
    answer = _member(part, "functionResponse")
    if not isinstance(answer, Mapping):
        return None
    response = answer.get("response")
    if isinstance(response, Mapping) and len(response) == 1 and not {"result", "output"}.isdisjoint(response):
        response = next(iter(response.values()))
    return response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)


def _text(content: object) -> str:
    texts: list[str] = []
    for part in _parts(content):
        returned = _returned(part)
        if isinstance(part.get("text"), str) and part.get("thought") is not True:
            texts.append(part["text"])
        elif returned is not None:
            texts.append(returned)
    return "\n".join(texts)


def read(body: Mapping[str, Any]) -> Conversation:
    """The request's conversation."""
    uses: list[ToolUse] = []
    results: list[tuple[str, str]] = []
    for content in body["contents"]:
        for part in _parts(content):
            call, returned = _member(part, "functionCall"), _returned(part)
            if isinstance(call, Mapping):
                uses.append(ToolUse(str(call.get("name")), call.get("args") or {}, call.get("id")))
            elif returned is not None:
                results.append((str(_member(part, "functionResponse").get("name")), returned))
    declared = [
        one
        for tool in body.get("tools") or ()
        if isinstance(tool, Mapping)
        for one in _member(tool, "functionDeclarations") or ()
    ]
    return Conversation(
        system=_text(_member(body, "systemInstruction")),
        messages=tuple((str(one.get("role") or "user"), _text(one)) for one in body["contents"]),
        tool_uses=tuple(uses),
        tool_results=tuple(results),
        tools=tuple(str(one.get("name")) for one in declared),
    )


def check(body: Mapping[str, Any]) -> str | None:
    """What the provider would reject the request for, or None."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        return "* GenerateContentRequest.contents: contents is not specified\n"
    asked = 0
    for at, content in enumerate(contents):
        if not isinstance(content, Mapping) or content.get("role") not in (None, "user", "model", "function"):
            return "Please use a valid role: user, model."
        if not _parts(content):
            return f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n"
        calls = sum(_member(part, "functionCall") is not None for part in _parts(content))
        answers = sum(_member(part, "functionResponse") is not None for part in _parts(content))
        if answers != asked:
            return (
                "Please ensure that the number of function response parts is equal to the number of function "
                "call parts of the function call turn."
            )
        asked = calls
    return None


def _usage(counted: Counted, *, whole: bool) -> dict[str, Any]:
    said = counted.output - counted.thinking
    usage: dict[str, Any] = {"promptTokenCount": counted.input}
    if whole:
        usage["candidatesTokenCount"] = said
    usage["totalTokenCount"] = counted.input + (counted.output if whole else 0)
    if counted.cached:
        usage["cachedContentTokenCount"] = counted.cached
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": counted.input}]
    if counted.thinking and whole:
        usage["thoughtsTokenCount"] = counted.thinking
    return usage


def _signature(seed: str) -> str:
    # A signature depends on what it signs, and is opaque: so do and are these bytes.
    return base64.b64encode(random.Random(seed).randbytes(96)).decode()


def _calls(reply: Reply, ids: Ids) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for tool in reply.tools:
        call = {"id": tool.id or ids.base58("", 8), "name": tool.name, "args": dict(tool.input)}
        # Of calls in parallel the first alone is signed.
        signed = {"thoughtSignature": _signature(reply.thinking)} if reply.thinking and not parts else {}
        parts.append({"functionCall": call, **signed})
    return parts


def _content(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"parts": parts, "role": "model"}


def whole(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> dict[str, Any]:
    """The answer to a request that asked for no stream."""
    parts: list[dict[str, Any]] = []
    if reply.thinking is not None:
        parts.append({"text": reply.thinking, "thought": True})
    if reply.content:
        parts.append({"text": reply.content})
    parts += _calls(reply, ids)
    candidate = {"content": _content(parts), "finishReason": reply.stop or "STOP", "index": 0}
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(counted, whole=True),
        "modelVersion": body["model"],
        "responseId": ids.base58("", 22),
    }


def stream(body: Mapping[str, Any], reply: Reply, counted: Counted, ids: Ids) -> Iterator[bytes]:
    """The answer's chunks, in the provider's order; the last one says why it is the last."""
    thoughts = cut(reply.thinking or "", reply.chunk_chars)
    parts: list[dict[str, Any]] = [{"text": piece, "thought": True} for piece in thoughts]
    parts += [{"text": piece} for piece in reply.deltas()] if reply.content else []
    parts += _calls(reply, ids)
    response_id = ids.base58("", 22)
    for number, part in enumerate(parts or [{"text": ""}], 1):
        last = number >= len(parts)
        end = {"finishReason": reply.stop or "STOP"} if last else {}
        yield _event(
            {
                "candidates": [{"content": _content([part]), **end, "index": 0}],
                "usageMetadata": _usage(counted, whole=last),
                "modelVersion": body["model"],
                "responseId": response_id,
            }
        )


def _event(chunk: Mapping[str, Any]) -> bytes:
    return sse_event(json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode(), end=b"\r\n")


def status_of(status: int) -> int:
    """The status that this provider has for such an error."""
    return _OVERLOADED if status == 529 else status


def error(status: int, message: str | None, ids: Ids) -> dict[str, Any]:
    """The body of an error answer."""
    status = status_of(status)
    usual = ("UNKNOWN" if status >= 500 else "FAILED_PRECONDITION", f"The request failed with {status}.")
    name, text = _STATUSES.get(status, usual)
    told: dict[str, Any] = {"code": status, "message": message or text, "status": name}
    if status == 429:
        told["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]
    return {"error": told}


def error_event(body: Mapping[str, Any]) -> bytes:
    """The chunk that breaks a stream off with an error."""
    return _event(body)


def headers(body: Mapping[str, Any], ids: Ids) -> tuple[tuple[str, str], ...]:
    """The headers that come with every answer."""
    return (
        ("vary", "Origin, X-Origin, Referer"),
        ("x-xss-protection", "0"),
        ("x-frame-options", "SAMEORIGIN"),
        ("x-content-type-options", "nosniff"),
        ("server-timing", f"gfet4t7; dur={ids.number(180, 900)}"),
    )
