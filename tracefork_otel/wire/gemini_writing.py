"""The generateContent format written: replies, their chunks, errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .gemini_parts import WRAPPERS, Arguments, chunks, member, parts_of
from .json_values import count, loads, mapping, mappings, string
from .sse import sse_event
from .writing import Call, Ids, ToolInput, ToolResult, compact, deltas, shifted, tokens, without

if TYPE_CHECKING:
    from ..exchange import Headers

# The API names a request only inside the reply.
REQUEST_ID = None

# Overload is a status 503 here: 529 is none of Google's, and its SDKs would not retry it.
_ERRORS = MappingProxyType(
    {
        429: (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        529: (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    }
)
_USUAL_ERROR = (500, "INTERNAL", "An internal error has occurred. Please retry.")
_RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
# The most candidates that the API gives to one request; a request that asks for more got an error.
_MAX_CANDIDATES = 8
# What a reply counts, or tells of its prompt, that the text in its place did not do.
_UNDONE = (
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
    "toolUsePromptTokensDetails",
    "candidatesTokensDetails",
)


def frame(body: bytes, streamed: bool) -> dict[str, Any]:
    """Return a recorded response without its candidates, its usage as at the end."""
    if not streamed:
        whole = mapping(loads(body))
        return without(whole, "candidates") if is_reply(whole) else {}
    found: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    for chunk in chunks(body):
        if "error" not in chunk:
            found = found or without(chunk, "candidates")
            usage.update(mapping(chunk.get("usageMetadata")))
    return {**found, "usageMetadata": usage} if found else {}


def text_reply(
    request: dict[str, Any], frame: dict[str, Any], text: str, *, prompt: int, ids: Ids
) -> dict[str, Any]:
    """Return a response whose every candidate says the text."""
    settings = mapping(member(request, "generationConfig"))
    candidates = min(count(member(settings, "candidateCount")) or 1, _MAX_CANDIDATES)
    usage = without(frame.get("usageMetadata"), *_UNDONE)
    given = count(usage.get("promptTokenCount"))
    given = prompt if given is None else given
    output = tokens(text) * candidates
    return {
        "candidates": [
            {
                "content": {"parts": [{"text": text}], "role": "model"},
                "finishReason": "STOP",
                "index": index,
            }
            for index in range(candidates)
        ],
        "modelVersion": request.get("model"),
        **without(frame, "promptFeedback"),
        "usageMetadata": {
            **usage,
            "promptTokenCount": given,
            "candidatesTokenCount": output,
            "totalTokenCount": given + output,
        },
        "responseId": ids.base58("", 22),
    }


def is_reply(whole: dict[str, Any]) -> bool:
    """Return whether the JSON is a response."""
    return bool(mappings(whole.get("candidates")))


def events(request: dict[str, Any], whole: dict[str, Any]) -> list[bytes]:
    """Return the chunks of a response, in the API's order."""
    usage = mapping(whole.get("usageMetadata"))
    base = without(whole, "candidates", "usageMetadata", "promptFeedback")
    begun = {key: value for key, value in usage.items() if key.startswith(("prompt", "cache"))}
    if "promptTokenCount" in begun:
        begun["totalTokenCount"] = begun["promptTokenCount"]
    said = [
        (one, position if (index := count(one.get("index"))) is None else index)
        for position, one in enumerate(mappings(whole.get("candidates")))
    ]
    found: list[dict[str, Any]] = []
    for one, index in said:
        role = string(mapping(one.get("content")).get("role")) or "model"
        pieces = [piece for part in parts_of(mapping(one.get("content"))) for piece in _pieces(part)]
        for number, piece in enumerate(pieces or [{"text": ""}], 1):
            content = {"content": {"parts": [piece], "role": role}}
            # What tells of the candidate as a whole comes with its last chunk.
            end = without(one, "content", "index") if number >= len(pieces) else {}
            chunk = {"candidates": [{**content, **end, "index": index}], "usageMetadata": begun, **base}
            found.append(chunk)
    if found:
        found[-1]["usageMetadata"] = usage
        if "promptFeedback" in whole:
            found[0]["promptFeedback"] = whole["promptFeedback"]
    return [_event(chunk) for chunk in found]


def with_tool_input(whole: dict[str, Any], given: ToolInput, ids: Ids) -> dict[str, Any]:
    """Return the response with a tool call's input replaced, its id new, the call's id kept."""
    calls = _calls([whole])
    chosen = calls[given.choose([call.told for call in calls])]
    # The body was parsed for this call alone, so changing it in place changes nothing of the caller's.
    chosen.replace(given.value)
    usage = mapping(whole.get("usageMetadata"))
    return {
        **whole,
        **({"usageMetadata": _shifted(usage, chosen.told.given, given.spelled())} if usage else {}),
        "responseId": ids.base58("", 22),
    }


def with_streamed_tool_input(body: bytes, given: ToolInput, ids: Ids) -> list[bytes]:
    """Return the chunks with a tool call's input replaced; what does not speak of it stays."""
    recorded = list(chunks(body))
    calls = _calls(recorded)
    chosen = calls[given.choose([call.told for call in calls])]
    chosen.replace(given.value)
    response_id = ids.base58("", 22)
    for number, chunk in enumerate(recorded):
        if "responseId" in chunk:
            chunk["responseId"] = response_id
        usage = mapping(chunk.get("usageMetadata"))
        # Counts are running totals, so those from the call on hold its input.
        if number >= chosen.chunk and "candidatesTokenCount" in usage:
            chunk["usageMetadata"] = _shifted(usage, chosen.told.given, given.spelled())
    return [_event(chunk) for chunk in recorded]


def error(status: int, ids: Ids) -> tuple[int, dict[str, Any], Headers]:
    """Return the API's own status for such an error, and its body; no headers go with it."""
    code, name, text = _ERRORS.get(status, _USUAL_ERROR)
    body: dict[str, Any] = {"code": code, "message": text, "status": name}
    if status == 429:
        body["details"] = [_RETRY_INFO]
    return code, {"error": body}, ()


def system_edit(request: dict[str, Any], system: str) -> tuple[str, Any]:
    """Return the edit that makes this the system instruction, in the spelling that the request uses."""
    name = "system_instruction" if "system_instruction" in request else "systemInstruction"
    return name, {**without(request.get(name), "parts"), "parts": [{"text": system}]}


def tool_results(request: dict[str, Any]) -> list[ToolResult]:
    """Return the function responses of the conversation; those of its last turn need no id."""
    given = request.get("contents")
    turns = [(at, turn) for at, turn in enumerate(given if isinstance(given, list) else [])]
    found: list[ToolResult] = []
    for at, turn in turns:
        parts = mapping(turn).get("parts")
        for place, part in enumerate(parts if isinstance(parts, list) else []):
            key = "functionResponse" if "functionResponse" in mapping(part) else "function_response"
            answer = mapping(part).get(key)
            if isinstance(answer, dict):
                name = string(answer.get("name"))
                # Earlier turns of one tool have its name too, and only ids would tell which call they answer.
                called = string(answer.get("id")) or (name if at == len(turns) - 1 else None)
                where = f"contents[{at}].parts[{place}].{key}.response"
                found.append(_tool_result(name, called, where, answer.get("response")))
    return found


def _tool_result(name: str | None, called: str | None, where: str, response: Any) -> ToolResult:
    """Return where a function's response says what the function returned."""
    wrapper = next((key for key in WRAPPERS if key in mapping(response)), None)
    if wrapper is not None:
        text = isinstance(response[wrapper], str)
        return ToolResult(name=name, call_id=called, path=f"{where}.{wrapper}", text=text)
    if list(mapping(response)) == ["error"]:
        undone = ((f"{where}.error", None),)
        return ToolResult(name=name, call_id=called, path=f"{where}.{WRAPPERS[0]}", undone=undone)
    return ToolResult(name=name, call_id=called, path=where, text=False)


@dataclass(slots=True)
class _Recorded:
    """A function call in recorded chunks: where it begins, and every part that speaks of it."""

    chunk: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    holders: list[dict[str, Any]] = field(default_factory=list)
    whole: Arguments = field(default_factory=Arguments)

    @property
    def told(self) -> Call:
        """The call by name and input."""
        return Call(
            name=string(self.whole.call.get("name")), given=compact(self.whole.call.get("args") or {})
        )

    def add(self, part: dict[str, Any], holder: dict[str, Any]) -> bool:
        """Take a part of the call; return whether more are to come."""
        self.parts.append(part)
        self.holders.append(holder)
        return self.whole.extend(mapping(member(part, "functionCall")))

    def replace(self, value: object) -> None:
        """Give the call this input, in the first of its parts; the others are gone."""
        first = self.parts[0]
        key = "functionCall" if "functionCall" in first else "function_call"
        kept = without(first[key], "args", "partialArgs", "partial_args", "willContinue", "will_continue")
        first[key] = {**kept, "args": value}
        for part, holder in zip(self.parts[1:], self.holders[1:], strict=True):
            holder["parts"] = [one for one in parts_of(holder) if one is not part]


def _calls(recorded: list[dict[str, Any]]) -> list[_Recorded]:
    """Return the function calls of these chunks, candidate by candidate as they come."""
    found: list[_Recorded] = []
    open_calls: dict[int, _Recorded] = {}
    for number, chunk in enumerate(recorded):
        for one in mappings(chunk.get("candidates")):
            index, content = count(one.get("index")) or 0, mapping(one.get("content"))
            for part in parts_of(content):
                if not isinstance(member(part, "functionCall"), dict):
                    continue
                call = open_calls.pop(index, None)
                if call is None:
                    call = _Recorded(number)
                    found.append(call)
                if call.add(part, content):
                    open_calls[index] = call
    return found


def _shifted(usage: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a recorded usage after one text of the output became another."""
    before = count(usage.get("candidatesTokenCount"))
    output = shifted(before, old=old, new=new)
    total = count(usage.get("totalTokenCount"))
    moved = {} if total is None else {"totalTokenCount": max(0, total - (before or 0) + output)}
    return {**without(usage, "candidatesTokensDetails"), "candidatesTokenCount": output, **moved}


def _pieces(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a part as it is streamed: text in deltas, a signature with the last, anything else whole."""
    texts = deltas(part["text"]) if isinstance(part.get("text"), str) else []
    if not texts:
        return [part]
    signed = ("thoughtSignature", "thought_signature")
    shown = without(part, *signed)
    last = {key: value for key, value in part.items() if key in signed}
    return [
        {**shown, "text": text, **(last if number == len(texts) else {})}
        for number, text in enumerate(texts, 1)
    ]


def _event(chunk: dict[str, Any]) -> bytes:
    """Return one server-sent event as Google ends it."""
    return sse_event(compact(chunk).encode(), end=b"\r\n")
