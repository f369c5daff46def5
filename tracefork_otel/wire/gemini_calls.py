"""What Gemini's form has of its own about function calls: both spellings of members, arguments in pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, cast

from .json_values import count, mapping, mappings, string
from .writing import Call, compact, without

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


@dataclass(slots=True)
class RecordedCall:
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
            holder["parts"] = [one for one in mappings(holder.get("parts")) if one is not part]


def recorded_calls(recorded: list[dict[str, Any]]) -> list[RecordedCall]:
    """Return the function calls of these chunks, candidate by candidate as they come."""
    found: list[RecordedCall] = []
    open_calls: dict[int, RecordedCall] = {}
    for number, chunk in enumerate(recorded):
        for one in mappings(chunk.get("candidates")):
            index, content = count(one.get("index")) or 0, mapping(one.get("content"))
            for part in mappings(content.get("parts")):
                if not isinstance(member(part, "functionCall"), dict):
                    continue
                call = open_calls.pop(index, None)
                if call is None:
                    call = RecordedCall(number)
                    found.append(call)
                if call.add(part, content):
                    open_calls[index] = call
    return found
