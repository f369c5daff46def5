"""What reading and writing Gemini's format share: members in both spellings, chunks, arguments in pieces."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .json_values import loads, mapping, mappings, string
from .sse import sse_events

if TYPE_CHECKING:
    from collections.abc import Iterator

WRAPPERS = ("result", "output")
"""Members in which the SDKs wrap what a tool returned, because the wire wants an object."""

_CAPITAL = re.compile(r"[A-Z]")
# A step of the JSON path that says where a piece of an argument goes: `$.city`, `$['city']`, `$.days[0]`.
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
# More than any model's arguments nest or count: a path from a stranger must not build a huge list.
_LONGEST = 10_000
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


def member(found: dict[str, Any], name: str) -> Any:
    """Return the member of that name, which this API's JSON also lets clients spell with underscores."""
    if (value := found.get(name)) is not None:
        return value
    return found.get(_CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name))


def parts_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a content."""
    return mappings(content.get("parts"))


def chunks(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream: of server-sent events, or of an array as far as it goes."""
    text = body.lstrip()
    if not text.startswith(b"["):
        for _, data in sse_events(body):
            yield mapping(loads(data))
        return
    whole = loads(text)
    if isinstance(whole, list):
        yield from mappings(whole)
        return
    decoder, rest = json.JSONDecoder(), text[1:].decode("utf-8", "replace").lstrip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return
        yield mapping(value)
        rest = rest[end:].lstrip().removeprefix(",").lstrip()


@dataclass(slots=True)
class Arguments:
    """A function call whose arguments arrive in pieces, as Vertex AI sends them where it is asked to."""

    call: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def is_piece(call: dict[str, Any]) -> bool:
        """Return whether this is the begin of a call that goes on."""
        return member(call, "willContinue") is True or member(call, "partialArgs") is not None

    def extend(self, call: dict[str, Any]) -> bool:
        """Add one piece; return whether more are to come."""
        for name in ("name", "id"):
            if call.get(name) is not None:
                self.call[name] = call[name]
        arguments = self.call.setdefault("args", {})
        if isinstance(call.get("args"), dict):
            arguments.update(call["args"])
        for piece in mappings(member(call, "partialArgs")):
            path = string(member(piece, "jsonPath")) or ""
            value = next((piece[name] for name in _VALUES if name in piece), None)
            _put(arguments, _steps(path), None if "nullValue" in piece else value)
        return member(call, "willContinue") is True


def _steps(path: str) -> list[str | int]:
    """Return the steps of a JSON path."""
    found = _STEP.findall(path.removeprefix("$"))
    return [int(index) if index else name or quoted or double for name, index, quoted, double in found]


def _put(arguments: Any, steps: list[str | int], value: Any) -> None:
    """Put the value at that place; a text that is there already goes on with it."""
    held: Any = arguments
    for number, here in enumerate(steps):
        key: Any = here
        if isinstance(here, int):
            if not isinstance(held, list) or here > _LONGEST:
                return
            held.extend([None] * (here + 1 - len(cast("list[Any]", held))))
        elif isinstance(held, dict):
            cast("dict[str, Any]", held).setdefault(here)
        else:
            return
        held = cast("Any", held)
        known: Any = held[key]
        if number == len(steps) - 1:
            both = isinstance(known, str) and isinstance(value, str)
            held[key] = known + value if both else value
        elif not isinstance(known, dict | list):
            held[key] = [] if isinstance(steps[number + 1], int) else {}
        held = held[key]
