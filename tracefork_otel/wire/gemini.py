"""Gemini's generateContent form: at the Gemini API, on Vertex AI and behind gateways."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .framing import Event, Framing, JsonArray, ServerSentEvents, event
from .gemini_calls import Arguments, member, recorded_calls
from .gemini_usage import read_usage, shifted_usage, write_usage
from .json_values import count, dumps, loads, mapping, mappings, string
from .messages import (
    Asked,
    Kind,
    Message,
    Reply,
    Turn,
    answering,
    base64_note,
    message,
)
from .placing import Placed, Tools, named_at, texts_at
from .writing import ToolInput, ToolResult, as_blocks, call_id_of, numbered, signature, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..exchange import Headers
    from .writing import Cut, IdSource

_SSE, _ARRAY = ServerSentEvents(b"\r\n"), JsonArray()
FRAMINGS = (_SSE, _ARRAY)
# The API names a request only inside the reply.
REQUEST_ID = None
TURNS = "contents"

_WRAPPERS = ("result", "output")
"""Members in which the SDKs wrap what a tool returned, because the wire wants an object."""
# Overload is a status 503 here: 529 is none of Google's, and its SDKs would not retry it.
_OVERLOADED = (503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
_ERRORS = MappingProxyType(
    {
        400: (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
        401: (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        403: (403, "PERMISSION_DENIED", "The caller does not have permission."),
        404: (404, "NOT_FOUND", "The model is not found, or is not supported for generateContent."),
        429: (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        500: (500, "INTERNAL", "An internal error has occurred. Please retry."),
        503: _OVERLOADED,
        529: _OVERLOADED,
    }
)
_RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
# The most candidates that the API gives to one request; a request that asks for more got an error.
_MAX_CANDIDATES = 8


def streams(url: str, request: dict[str, Any]) -> Framing | None:
    """Return how the URL asks for a stream: by its method, and as events where its query says so."""
    path, _, query = url.partition("?")
    if not path.rstrip("/").endswith("streamGenerateContent"):
        return None
    return _SSE if ("alt", "sse") in parse_qsl(query) else _ARRAY


def read_request(request: dict[str, Any]) -> Asked:
    """Return the system instruction and the conversation."""
    system = member(request, "systemInstruction")
    if isinstance(system, str):
        system = {"parts": [{"text": system}]}
    turns = (
        _content(content, string(content.get("role")) or "user")
        for content in mappings(request.get("contents"))
    )
    return Asked(_content(mapping(system), "system"), answering(turns))


def read_reply(whole: dict[str, Any]) -> Reply:
    """Return what a whole response (or error) says."""
    candidates, error = mappings(whole.get("candidates")), whole.get("error")
    said = [mapping(one.get("content")) for one in candidates]
    blocked = string(mapping(whole.get("promptFeedback")).get("blockReason"))
    reasons = tuple(string(one.get("finishReason")) for one in candidates)
    return Reply(
        choices=tuple(_content(one, string(one.get("role")) or "model") for one in said),
        finish_reasons=reasons or (blocked,),
        model=string(whole.get("modelVersion")),
        response_id=string(whole.get("responseId")),
        error_type=None if error is None else _error_type(error),
        usage=read_usage(whole),
    )


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """Return the response that the chunks add up to."""
    whole: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    candidates: dict[int, _Candidate] = {}
    for one in events:
        chunk = one.said()
        whole |= {key: value for key, value in without(chunk, "candidates", "usageMetadata").items() if value}
        # Counts here are running totals; the ones that are not known yet are absent.
        usage.update(mapping(chunk.get("usageMetadata")))
        for candidate in mappings(chunk.get("candidates")):
            candidates.setdefault(count(candidate.get("index")) or 0, _Candidate()).extend(candidate)
    if not whole and not candidates and not usage:
        return {}
    said = [one.whole(index) for index, one in sorted(candidates.items())]
    return {**whole, "usageMetadata": usage, "candidates": said}


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a response."""
    return bool(mappings(whole.get("candidates")))


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the function responses of the conversation; those of its last turn need no id."""
    given = request.get("contents")
    last = len(given) - 1 if isinstance(given, list) else -1
    found: list[ToolResult] = []
    for at, turn in numbered(given):
        for place, part in numbered(turn.get("parts")):
            key = "functionResponse" if "functionResponse" in part else "function_response"
            answer = part.get(key)
            if isinstance(answer, dict):
                name = string(answer.get("name"))
                # Earlier turns of one tool have its name too, and only ids would tell which call they answer.
                called = string(answer.get("id")) or (name if at == last else None)
                where = f"contents[{at}].parts[{place}].{key}.response"
                found.append(_tool_result(name, called, where, answer.get("response")))
    return found


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that makes this the system instruction, in the spelling that the request uses."""
    name = "system_instruction" if "system_instruction" in request else "systemInstruction"
    return name, {**without(request.get(name), "parts"), "parts": [{"text": system}]}


def system_texts(request: dict[str, Any]) -> list[Placed]:
    """Return the texts of the system instruction, in the spelling that the request uses."""
    name = "system_instruction" if "system_instruction" in request else "systemInstruction"
    said = request.get(name)
    if isinstance(said, str):
        return texts_at(said, name)
    parts = mapping(said).get("parts")
    if isinstance(parts, dict):
        return texts_at(parts.get("text"), f"{name}.parts.text", name)
    return texts_at(parts, f"{name}.parts", name)


def tools(request: dict[str, Any]) -> Tools:
    """Return the declared functions, and the tools that the provider runs by their names."""
    offered: list[Placed] = []
    given = request.get("tools")
    for index, tool in enumerate(given if isinstance(given, list) else ()):
        for key, value in mapping(tool).items():
            at = f"tools[{index}].{key}"
            if key in ("functionDeclarations", "function_declarations"):
                offered += named_at(value, at, "name", holders=(at, f"tools[{index}]", "tools"))
            else:
                offered.append(Placed(key, at, (at, f"tools[{index}]", "tools"), len(dumps(value))))
    settings = "tool_config" if "tool_config" in request else "toolConfig"
    calling = mapping(member(mapping(request.get(settings)), "functionCallingConfig"))
    allowed = member(calling, "allowedFunctionNames")
    inner = (
        "function_calling_config"
        if "function_calling_config" in mapping(request.get(settings))
        else "functionCallingConfig"
    )
    names = "allowed_function_names" if "allowed_function_names" in calling else "allowedFunctionNames"
    within = f"{settings}.{inner}"
    chosen = texts_at(allowed, f"{within}.{names}", within)
    return Tools(
        offered=tuple(offered),
        chosen=tuple(one._replace(holders=(one.path, within)) for one in chosen),
        beside=(settings,),
    )


def write_request(asked: Asked, model: str) -> dict[str, Any]:
    """Return a request of these turns; its URL names the model."""
    system = "\n".join(one.content for one in asked.system)
    contents = as_blocks(asked.turns, _part, model="model", key="parts")
    return {**({"systemInstruction": {"parts": [{"text": system}]}} if system else {}), "contents": contents}


def write_reply(
    reply: Reply, *, request: dict[str, Any], frame: dict[str, Any], ids: IdSource
) -> dict[str, Any]:
    """Return a response of these candidates; of as many as were asked for where they are all alike."""
    settings = mapping(member(request, "generationConfig"))
    wanted = min(count(member(settings, "candidateCount")) or 1, _MAX_CANDIDATES)
    alike = len(reply.choices) == 1
    said = reply.choices * wanted if alike else reply.choices
    reasons = reply.finish_reasons * wanted if alike else reply.finish_reasons
    return {
        "candidates": [
            {
                "content": {"parts": _parts(turn, ids), "role": "model"},
                "finishReason": reasons[index] if index < len(reasons) and reasons[index] else "STOP",
                "index": index,
            }
            for index, turn in enumerate(said)
        ],
        "modelVersion": reply.model or request.get("model"),
        **without(frame, "candidates", "promptFeedback"),
        "usageMetadata": write_usage(
            mapping(frame.get("usageMetadata")), reply.usage, wanted if alike else 1
        ),
        "responseId": reply.response_id or ids.base58("", 22),
    }


def write_events(request: dict[str, Any], whole: dict[str, Any], cut: Cut) -> list[Event]:
    """Return the chunks of a response, in the API's order."""
    usage = mapping(whole.get("usageMetadata"))
    base = without(whole, "candidates", "usageMetadata", "promptFeedback")
    begun = {key: value for key, value in usage.items() if key.startswith(("prompt", "cache"))}
    if "promptTokenCount" in begun:
        begun["totalTokenCount"] = begun["promptTokenCount"]
    found: list[dict[str, Any]] = []
    for position, one in enumerate(mappings(whole.get("candidates"))):
        index = count(one.get("index"))
        content = mapping(one.get("content"))
        pieces = [piece for part in mappings(content.get("parts")) for piece in _pieces(part, cut)]
        for number, piece in enumerate(pieces or [{"text": ""}], 1):
            said = {"content": {"parts": [piece], "role": string(content.get("role")) or "model"}}
            # What tells of the candidate as a whole comes with its last chunk.
            end = without(one, "content", "index") if number >= len(pieces) else {}
            candidate = {**said, **end, "index": position if index is None else index}
            found.append({"candidates": [candidate], "usageMetadata": begun, **base})
    if found:
        found[-1]["usageMetadata"] = usage
        if "promptFeedback" in whole:
            found[0]["promptFeedback"] = whole["promptFeedback"]
    return [event(chunk) for chunk in found]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: IdSource) -> dict[str, Any]:
    """Return the response with a tool call's input replaced, its id new, the call's id kept."""
    calls = recorded_calls([whole])
    chosen = calls[given.choose([call.told for call in calls])]
    # The body was parsed for this call alone, so changing it in place changes nothing of the caller's.
    old = chosen.told.given
    chosen.replace(given.value)
    usage = mapping(whole.get("usageMetadata"))
    return {
        **whole,
        **({"usageMetadata": shifted_usage(usage, old, given.spelled())} if usage else {}),
        "responseId": ids.base58("", 22),
    }


def with_streamed_tool_input(events: Sequence[Event], given: ToolInput, ids: IdSource) -> list[Event]:
    """Return the chunks with a tool call's input replaced; what does not speak of it stays."""
    recorded = [one.said() for one in events]
    calls = recorded_calls(recorded)
    chosen = calls[given.choose([call.told for call in calls])]
    old = chosen.told.given
    chosen.replace(given.value)
    response_id = ids.base58("", 22)
    for number, chunk in enumerate(recorded):
        if "responseId" in chunk:
            chunk["responseId"] = response_id
        usage = mapping(chunk.get("usageMetadata"))
        # Counts are running totals, so those from the call on hold its input.
        if number >= chosen.chunk and "candidatesTokenCount" in usage:
            chunk["usageMetadata"] = shifted_usage(usage, old, given.spelled())
    return [event(chunk) for chunk in recorded]


def error(status: int, ids: IdSource, text: str | None = None) -> tuple[int, dict[str, Any], Headers]:
    """Return the API's own status for such an error, and its body; no headers go with it."""
    usual = (
        status,
        "UNKNOWN" if status >= 500 else "FAILED_PRECONDITION",
        f"The request failed with {status}.",
    )
    code, name, said = _ERRORS.get(status, usual)
    body: dict[str, Any] = {"code": code, "message": text or said, "status": name}
    if status == 429:
        body["details"] = [_RETRY_INFO]
    return code, {"error": body}, ()


def _error_type(error: Any) -> str:
    """Return an error's status, such as RESOURCE_EXHAUSTED, else its code."""
    found = mapping(error)
    code = count(found.get("code"))
    return string(found.get("status")) or (str(code) if code is not None else "error")


def _content(content: dict[str, Any], role: str) -> Turn:
    """Return one content's parts as messages."""
    parts = mappings(content.get("parts"))
    return tuple(said for part in parts if (said := _message(role, part)) is not None)


def _message(role: str, part: dict[str, Any]) -> Message | None:
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
        return message(role, "tool_use", told, string(call.get("name")), call_id=string(call.get("id")))
    if isinstance(answer, dict):
        name, identity = string(answer.get("name")), string(answer.get("id"))
        result = _returned(answer)
        told = result if isinstance(result, str) else "" if result is None else dumps(result)
        return message("tool", "tool_result", told, name or identity, call_id=identity, wire=result)
    data = member(part, "inlineData") or member(part, "fileData")
    if isinstance(data, dict):
        mime = string(member(data, "mimeType")) or ""
        kind = _media_kind(mime)
        name = string(member(data, "displayName")) if kind == "document" else None
        return message(role, kind, _media(data, mime), name, wire=part)
    return message(role, "other", dumps(part), wire=part)


def _returned(answer: dict[str, Any]) -> Any:
    """Return what a tool returned, without what an SDK wrapped it in."""
    response = answer.get("response")
    if isinstance(response, dict) and len(response) == 1:
        return next((response[name] for name in _WRAPPERS if name in response), response)
    return response


def _media_kind(mime: str) -> Kind:
    """Return what a person would call data of that type."""
    if mime.startswith("image/"):
        return "image"
    return "document" if mime.startswith(("application/", "text/")) else "other"


def _media(data: dict[str, Any], mime: str) -> str:
    """Return where a file is, or how long its base64 data are."""
    held = string(data.get("data"))
    return base64_note(mime, held) if held is not None else string(member(data, "fileUri")) or dumps(data)


def _tool_result(name: str | None, called: str | None, where: str, response: Any) -> ToolResult:
    """Return where a function's response says what the function returned."""
    wrapper = next((key for key in _WRAPPERS if key in mapping(response)), None)
    if wrapper is not None:
        path = f"{where}.{wrapper}"
        if isinstance(response[wrapper], str):
            return ToolResult(name=name, call_id=called, path=path)
        return ToolResult(name=name, call_id=called, path=path, saying=lambda value, text: value)
    if list(mapping(response)) == ["error"]:
        undone = ((f"{where}.error", None),)
        return ToolResult(name=name, call_id=called, path=f"{where}.{_WRAPPERS[0]}", undone=undone)
    return ToolResult(name=name, call_id=called, path=where, saying=_object)


def _object(value: object, text: str) -> object:
    """Return the value as a whole response, which has to be an object."""
    return value if isinstance(value, dict) else {_WRAPPERS[0]: value}


def _parts(turn: Turn, ids: IdSource) -> list[dict[str, Any]]:
    """Return the parts of a reply; of calls in parallel after a thought the first alone is signed."""
    found = [_part(one, ids) for one in turn]
    thought = next((one.content for one in turn if one.kind == "thinking"), None)
    call = next((part for part in found if "functionCall" in part), None)
    if thought and call is not None:
        call["thoughtSignature"] = signature(thought)
    return found


def _part(said: Message, ids: IdSource | None = None) -> dict[str, Any]:
    """Return a message as a part."""
    if said.kind == "thinking":
        return {"text": said.content, "thought": True}
    if said.kind == "tool_use":
        given = loads(said.content) if said.content else {}
        identity = call_id_of(said, ids, "", 8)
        named = {} if identity is None else {"id": identity}
        args = said.content if given is None else given
        return {"functionCall": {**named, "name": said.name, "args": args}}
    if said.kind == "tool_result":
        named = {} if said.call_id is None else {"id": said.call_id}
        result = said.content if said.wire is None else said.wire
        response = result if isinstance(result, dict) else {_WRAPPERS[0]: result}
        return {"functionResponse": {**named, "name": said.name, "response": response}}
    return said.wire if isinstance(said.wire, dict) else {"text": said.content}


def _pieces(part: dict[str, Any], cut: Cut) -> list[dict[str, Any]]:
    """Return a part as it is streamed: text in deltas, a signature with the last, anything else whole."""
    texts = cut(part["text"]) if isinstance(part.get("text"), str) else []
    signed = ("thoughtSignature", "thought_signature")
    shown = [{**without(part, *signed), "text": text} for text in texts]
    if not shown:
        return [part]
    shown[-1] |= {key: value for key, value in part.items() if key in signed}
    return shown


@dataclass(slots=True)
class _Candidate:
    """A candidate that is still arriving."""

    role: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    call: Arguments | None = None

    def extend(self, chunk: dict[str, Any]) -> None:
        """Add one chunk's parts."""
        content = mapping(chunk.get("content"))
        self.role = string(content.get("role")) or self.role
        self.rest |= {key: value for key, value in without(chunk, "content", "index").items() if value}
        for part in mappings(content.get("parts")):
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

    def whole(self, index: int) -> dict[str, Any]:
        """Return the candidate as a whole response holds it."""
        for part, texts in zip(self.parts, self.texts, strict=True):
            if texts:
                part["text"] = "".join(texts)
        return {"content": {"role": self.role or "model", "parts": self.parts}, **self.rest, "index": index}
