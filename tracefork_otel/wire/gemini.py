"""Gemini's generateContent format: at the Gemini API, on Vertex AI and behind gateways."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from . import gemini_writing
from .gemini_parts import WRAPPERS, Arguments, chunks, member, parts_of
from .json_values import count, dumps, mapping, mappings, string
from .messages import Kind, Message, Reply, Stream, Usage, message, plain_text

if TYPE_CHECKING:
    from .writing import WireForm

# Some clients escape the colon before the method.
_CALL = re.compile(
    r"/(?:models|tunedModels|endpoints)/([^/:]+?)(?::|%3[Aa])(generateContent|streamGenerateContent)$"
)
_VERTEX = re.compile(r"/publishers/|/projects/")


def streams(url: str, request: dict[str, Any]) -> Stream | None:
    """Return how the URL asks for a stream: by its method, and as events where its query says so."""
    path, _, query = url.partition("?")
    found = _CALL.search(path.rstrip("/"))
    if found is None or found[2] != "streamGenerateContent":
        return None
    return "events" if ("alt", "sse") in parse_qsl(query) else "array"


def form(path: str) -> WireForm:
    """Return what writes replies for this path."""
    return gemini_writing


def request_messages(request: dict[str, Any]) -> tuple[Message, ...]:
    """Return the system instruction and the conversation as messages."""
    system = member(request, "systemInstruction")
    said = _content_messages(mapping(system), "system", own=False)
    if isinstance(system, str):
        said = [message("system", "text", system)]
    for content in mappings(request.get("contents")):
        said += _content_messages(content, "user")
    return tuple(said)


def reply(path: str, response: dict[str, Any]) -> Reply:
    """Return what a whole response (or error) says."""
    if "candidates" not in response and "error" in response:
        return Reply(error_type=error_type(response.get("error")))
    candidates = mappings(response.get("candidates"))
    said = [_content_messages(mapping(one.get("content")), "model") for one in candidates]
    blocked = string(mapping(response.get("promptFeedback")).get("blockReason"))
    return Reply(
        messages=tuple(one for messages in said for one in messages),
        text=plain_text(said[0]) if said else "",
        model=string(response.get("modelVersion")),
        response_id=string(response.get("responseId")),
        finish_reason=string(candidates[0].get("finishReason")) if candidates else blocked,
        usage=_usage(mapping(response.get("usageMetadata"))),
    )


def streamed_reply(path: str, body: bytes) -> Reply:
    """Return what the chunks say, put together to one response."""
    whole: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    candidates: dict[int, _Candidate] = {}
    error: str | None = None
    for chunk in chunks(body):
        if chunk.get("error") is not None:
            error = error_type(chunk.get("error"))
        for key in ("modelVersion", "responseId", "promptFeedback"):
            if chunk.get(key):
                whole[key] = chunk[key]
        # Counts here are running totals; the ones that are not known yet are absent.
        usage.update(mapping(chunk.get("usageMetadata")))
        for one in mappings(chunk.get("candidates")):
            candidates.setdefault(count(one.get("index")) or 0, _Candidate()).extend(one)
    parts = [candidate.whole() for _, candidate in sorted(candidates.items())]
    read = reply(path, {**whole, "usageMetadata": usage, "candidates": parts})
    return read if error is None else replace(read, error_type=error)


def error_type(error: Any) -> str:
    """Return an error's status, such as RESOURCE_EXHAUSTED, else its code."""
    found = mapping(error)
    code = count(found.get("code"))
    return string(found.get("status")) or (str(code) if code is not None else "error")


@dataclass(slots=True)
class _Candidate:
    """A candidate that is still arriving."""

    role: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    finish_reason: str | None = None
    call: Arguments | None = None

    def extend(self, chunk: dict[str, Any]) -> None:
        """Add one chunk's parts."""
        content = mapping(chunk.get("content"))
        self.role = string(content.get("role")) or self.role
        self.finish_reason = string(chunk.get("finishReason")) or self.finish_reason
        for part in parts_of(content):
            self._add(part)

    def _add(self, part: dict[str, Any]) -> None:
        text, call = string(part.get("text")), member(part, "functionCall")
        if isinstance(call, dict) and (Arguments.is_piece(call) or self.call is not None):
            if self.call is None:
                self.call = Arguments()
                self.parts.append({"functionCall": self.call.call})
                self.texts.append([])
            if not self.call.extend(call):
                self.call = None
            return
        last = self.parts[-1] if self.parts else {}
        if text is not None and "text" in last and bool(last.get("thought")) == bool(part.get("thought")):
            self.texts[-1].append(text)
            return
        self.parts.append(dict(part))
        self.texts.append([] if text is None else [text])

    def whole(self) -> dict[str, Any]:
        """Return the candidate as a whole response would hold it."""
        for part, texts in zip(self.parts, self.texts, strict=True):
            if texts:
                part["text"] = "".join(texts)
        return {
            "content": {"role": self.role or "model", "parts": self.parts},
            "finishReason": self.finish_reason,
        }


def _usage(usage: dict[str, Any]) -> Usage:
    """Return the counts: thoughts are output, and what a tool of the provider's read is input."""
    given, read = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    said, thought = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    told = given is not None
    return Usage(
        input_tokens=_sum(given, read),
        # A reply that says nothing leaves the count out.
        output_tokens=_sum(said, thought) if said is not None or thought is not None or not told else 0,
        cached_tokens=count(usage.get("cachedContentTokenCount")),
    )


def _sum(*counts: int | None) -> int | None:
    """Return the sum of what is known, None where nothing is."""
    known = [one for one in counts if one is not None]
    return count(sum(known)) if known else None


def _content_messages(content: dict[str, Any], role: str, *, own: bool = True) -> list[Message]:
    """Return one content's parts as messages; `own` takes the role that it names itself."""
    role = (string(content.get("role")) or role) if own else role
    return [said for part in parts_of(content) if (said := _part_message(role, part)) is not None]


def _part_message(role: str, part: dict[str, Any]) -> Message | None:
    """Return one part as a message, None where it carries a signature alone."""
    text = string(part.get("text"))
    if text is not None:
        if not text and member(part, "thoughtSignature") is not None:
            return None
        return message(role, "thinking" if part.get("thought") is True else "text", text)
    call, answer = member(part, "functionCall"), member(part, "functionResponse")
    if isinstance(call, dict):
        given = call.get("args")
        told = given if isinstance(given, str) else dumps({} if given is None else given)
        return message(role, "tool_use", told, string(call.get("name")))
    if isinstance(answer, dict):
        name = string(answer.get("name")) or string(answer.get("id"))
        return message("tool", "tool_result", _result(answer), name)
    data = member(part, "inlineData") or member(part, "fileData")
    if isinstance(data, dict):
        mime = string(member(data, "mimeType")) or ""
        kind = _media_kind(mime)
        name = string(member(data, "displayName")) if kind == "document" else None
        return message(role, kind, _media(data, mime), name)
    return message(role, "other", dumps(part))


def _result(answer: dict[str, Any]) -> str:
    """Return a tool's result as text: what the SDK wrapped, as it is where it is text, else as JSON."""
    response = answer.get("response")
    if isinstance(response, dict) and len(response) == 1:
        response = next((response[name] for name in WRAPPERS if name in response), response)
    return response if isinstance(response, str) else "" if response is None else dumps(response)


def _media_kind(mime: str) -> Kind:
    """Return what a person would call data of that type."""
    if mime.startswith("image/"):
        return "image"
    return "document" if mime.startswith(("application/", "text/")) else "other"


def _media(data: dict[str, Any], mime: str) -> str:
    """Return where a file is, or how long its base64 data are."""
    held = string(data.get("data"))
    if held is not None:
        return f"[{mime or 'data'}, {len(held)} base64 characters]"
    return string(member(data, "fileUri")) or dumps(data)
