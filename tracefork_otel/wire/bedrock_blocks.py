"""What a turn of Converse's form is made of: content blocks, whole and in the deltas of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .json_values import dumps, loads, mapping, mappings, string
from .messages import Kind, Message, Turn, base64_note, flat, message
from .writing import call_id_of, compact, signature, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .writing import Cut, IdSource

_MIMES: tuple[tuple[str, Kind, str], ...] = (
    ("image", "image", "image/"),
    ("document", "document", ""),
    ("video", "other", "video/"),
    ("audio", "other", "audio/"),
)
"""Members that hold a file: what a person would call it, and what stands before its format."""


def content_turn(role: str, content: Any) -> Turn:
    """Return a turn's blocks as messages; a mark of the cache says nothing."""
    return tuple(_message(role, block) for block in mappings(content) if set(block) != {"cachePoint"})


def _message(role: str, block: dict[str, Any]) -> Message:
    """Return one content block as a message."""
    text = string(block.get("text"))
    if text is not None:
        return message(role, "text", text)
    use, result = block.get("toolUse"), block.get("toolResult")
    if isinstance(use, dict):
        given = use.get("input", {})
        told = given if isinstance(given, str) else dumps(given)
        return message(role, "tool_use", told, string(use.get("name")), call_id=string(use.get("toolUseId")))
    if isinstance(result, dict):
        called, content = string(result.get("toolUseId")), result.get("content")
        told = flat(content, _part_text)
        return message(role, "tool_result", told, called, call_id=called, wire=content)
    thought = block.get("reasoningContent")
    if isinstance(thought, dict):
        said = string(mapping(thought.get("reasoningText")).get("text"))
        if said is None:
            return message(role, "redacted_thinking", "", wire=block)
        return message(role, "thinking", said, wire=block)
    if "citationsContent" in block:
        return message(role, "text", _part_text(block), wire=block)
    for key, kind, _ in _MIMES:
        if key in block:
            name = string(mapping(block[key]).get("name")) if kind == "document" else None
            return message(role, kind, _part_text(block), name, wire=block)
    if "searchResult" in block:
        title = string(mapping(block["searchResult"]).get("title"))
        return message(role, "document", _part_text(block), title, wire=block)
    guarded = string(mapping(mapping(block.get("guardContent")).get("text")).get("text"))
    if guarded is not None:
        return message(role, "text", guarded, wire=block)
    return message(role, "other", dumps(block), wire=block)


def _part_text(part: dict[str, Any]) -> str:
    """Return one part as text, base64 data left out."""
    text = string(part.get("text"))
    if text is not None:
        return text
    if "json" in part:
        return dumps(part["json"])
    for key, _, start in _MIMES:
        if isinstance(part.get(key), dict):
            return _media(part[key], start)
    for key in ("citationsContent", "searchResult"):
        if key in part:
            return _texts(mapping(part[key]).get("content"), "" if key == "citationsContent" else "\n")
    return dumps(part)


def _media(file: dict[str, Any], start: str) -> str:
    """Return what a document says, where a file is, or how long its base64 data are."""
    source = mapping(file.get("source"))
    data, text = string(source.get("bytes")), string(source.get("text"))
    if data is not None:
        return base64_note(f"{start}{string(file.get('format')) or 'data'}", data)
    if isinstance(source.get("content"), list):
        text = _texts(source["content"], "\n")
    where = string(mapping(source.get("s3Location")).get("uri"))
    return text if text is not None else where or dumps(source)


def _texts(parts: Any, between: str) -> str:
    """Return the texts of parts, joined."""
    return between.join(string(part.get("text")) or "" for part in mappings(parts))


def result_parts(value: object, text: str) -> object:
    """Return what a tool gave as the parts of a result."""
    return [{"json": value} if isinstance(value, dict) else {"text": text}]


def block_of(said: Message, ids: IdSource | None = None) -> dict[str, Any]:
    """Return a message as a content block."""
    if said.kind == "tool_result":
        parts = said.wire if isinstance(said.wire, list) else [{"text": said.content}]
        return {"toolResult": {"toolUseId": said.call_id, "content": parts}}
    if isinstance(said.wire, dict) and len(said.wire) == 1:
        return said.wire
    if said.kind == "thinking":
        thought = {"text": said.content, "signature": signature(said.content)}
        return {"reasoningContent": {"reasoningText": thought}}
    if said.kind == "tool_use":
        given = loads(said.content) if said.content else {}
        identity = call_id_of(said, ids, "tooluse_", 22)
        value = said.content if given is None else given
        return {"toolUse": {"toolUseId": identity, "name": said.name, "input": value}}
    return {"text": said.content}


def block_start(block: dict[str, Any]) -> dict[str, Any]:
    """Return how a block begins in a stream, empty where its first delta begins it."""
    return {
        key: without(block[key], "input", "content", "source")
        for key in ("toolUse", "toolResult", "image")
        if isinstance(block.get(key), dict)
    }


def block_deltas(block: dict[str, Any], cut: Cut) -> Iterator[dict[str, Any]]:
    """Yield the deltas of a block."""
    text, thought = string(block.get("text")), mapping(block.get("reasoningContent"))
    cited = mapping(block.get("citationsContent"))
    if text is not None:
        yield from ({"text": piece} for piece in cut(text))
    elif thought:
        spoken = mapping(thought.get("reasoningText"))
        yield from ({"reasoningContent": {"text": piece}} for piece in cut(string(spoken.get("text")) or ""))
        for key, value in (*spoken.items(), *thought.items()):
            if key in ("signature", "redactedContent"):
                yield {"reasoningContent": {key: value}}
    elif cited:
        yield from ({"text": piece} for piece in cut(_texts(cited.get("content"), "")))
        yield from ({"citation": one} for one in mappings(cited.get("citations")))
    elif isinstance(block.get("toolUse"), dict):
        yield from input_deltas(compact(block["toolUse"].get("input") or {}), cut)
    elif isinstance(block.get("toolResult"), dict):
        yield {"toolResult": block["toolResult"].get("content")}
    elif isinstance(block.get("image"), dict):
        yield {"image": {"source": block["image"].get("source")}}


def input_deltas(spelled: str, cut: Cut) -> list[dict[str, Any]]:
    """Return the deltas of a tool's input: the API opens each with an empty one."""
    return [{"toolUse": {"input": piece}} for piece in ("", *cut(spelled))]


class ArrivingBlock:
    """A block that is still arriving."""

    __slots__ = ("_begun", "_rest", "_texts")

    def __init__(self) -> None:
        self._begun: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._rest: dict[str, list[Any]] = {}

    def start(self, start: dict[str, Any]) -> None:
        """Take how the block begins: a tool call, a tool's result, a picture."""
        self._begun |= start

    def extend(self, delta: dict[str, Any]) -> None:
        """Add one delta."""
        thought = mapping(delta.get("reasoningContent"))
        pieces = {
            "text": delta.get("text"),
            "input": mapping(delta.get("toolUse")).get("input"),
            "thought": thought.get("text"),
            "signature": thought.get("signature"),
            "redactedContent": thought.get("redactedContent"),
        }
        for key, piece in pieces.items():
            if isinstance(piece, str):
                self._texts.setdefault(key, []).append(piece)
        for key in ("citation", "toolResult", "image"):
            if key in delta:
                found = delta[key]
                self._rest.setdefault(key, []).extend(found if isinstance(found, list) else [found])

    def whole(self) -> dict[str, Any]:
        """Return the block as a whole reply holds it, empty where nothing of it came."""
        texts = {key: "".join(pieces) for key, pieces in self._texts.items()}
        if "toolUse" in self._begun:
            spelled = texts.get("input", "")
            given = loads(spelled) if spelled else {}
            value = spelled if given is None else given
            return {"toolUse": {**mapping(self._begun["toolUse"]), "input": value}}
        if "toolResult" in self._begun:
            result = mapping(self._begun["toolResult"])
            return {"toolResult": {**result, "content": self._rest.get("toolResult", [])}}
        if "image" in self._begun:
            return {"image": {**mapping(self._begun["image"]), **mapping(self._rest.get("image", [{}])[-1])}}
        if "redactedContent" in texts:
            return {"reasoningContent": {"redactedContent": texts["redactedContent"]}}
        if "thought" in texts or "signature" in texts:
            signed = {"signature": texts["signature"]} if "signature" in texts else {}
            return {"reasoningContent": {"reasoningText": {"text": texts.get("thought", ""), **signed}}}
        if "citation" in self._rest:
            said = [{"text": texts.get("text", "")}]
            return {"citationsContent": {"content": said, "citations": self._rest["citation"]}}
        return {"text": texts["text"]} if "text" in texts else {}
