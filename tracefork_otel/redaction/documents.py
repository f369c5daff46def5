"""JSON texts within a body, looked at by their shape: the events of a stream are many and of few shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain

from ..wire.json_places import Place, places
from ..wire.paths import PathTokens

_TOKENS = re.compile(
    r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|-?[0-9][0-9.eE+-]*|-?[a-zA-Z]+|-\Z)',
    re.S,
)
"""A string, number or word of a JSON text, whole or cut at its end."""
_NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*")
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_BLANKS = str.maketrans("", "", " \t\r\n")
_NEVER = re.compile(
    r'"[^,:\]}]|0[^,\]}]|\{[^"}]|\[[^"0\[{\]]|[:,][^"0\[{]|[\]}][^,\]}]',
)
"""What never stands side by side in JSON, where each string is written `"` and each number or word `0`."""
_SAID = (
    *("text", "thinking", "partial_json", "content", "arguments", "delta"),
    *("refusal", "reasoning", "reasoning_content", "tool_plan", "response"),
)
"""Members of events that hold a piece of a text."""
_LINES_SAY = frozenset({("message", "content"), ("message", "thinking"), ("response",), ("thinking",)})
"""Where Ollama's lines hold theirs."""
_LANE = ("index", "output_index", "content_index", "summary_index", "item_id")
"""Members that tell apart what is said at the same time in one stream."""
_DEEPEST = 16
"""Where no provider's event holds a piece of a text any more."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the tokens of a shape are, by their numbers among its parts."""

    said: tuple[tuple[int, Place], ...]
    """Strings, keys and numbers."""
    telling: tuple[tuple[int, PathTokens], ...]
    """Those that tell a stream's texts apart, and where in the JSON they stand."""
    lanes: dict[tuple[str, ...], tuple[tuple[int, object], ...]] = field(default_factory=dict)
    """By what the telling ones are: in which text each of the others is a piece, None by itself."""


class Shapes:
    """Finds the tokens of JSON texts in a text; what many of them have alike is worked out once."""

    def __init__(self, text: str, *, streamed: bool) -> None:
        self._text = text
        self._streamed = streamed
        self._plans: dict[tuple[str, ...], _Plan | None] = {}
        """By what stands between tokens, and the keys; None for no JSON."""

    def tokens(self, start: int, end: int) -> list[tuple[int, int, object]] | None:
        """Return where each string, key and number of the JSON text there stands; None where there is none.

        With each goes what is equal for the pieces of one text of a stream, None for what is no such piece.
        """
        text = self._text[start:end]
        if not _begins(text):
            return None
        parts = _TOKENS.split(text)
        tokens = parts[1::2]
        if not all(one[0] == '"' or one in WORDS or _NUMBER.fullmatch(one) for one in tokens):
            plan = self._plan(start, end, parts)  # a word that is cut, or none of JSON
        else:
            between = parts[2::2]
            keys = [one for one, after in zip(tokens, between, strict=True) if ":" in after]
            shape = "".join(
                chain.from_iterable(
                    zip(['"' if one[0] == '"' else "0" for one in tokens], between, strict=True)
                )
            )
            key = (parts[0], shape, *keys)
            if key not in self._plans:
                self._plans[key] = self._plan(start, end, parts)
            plan = self._plans[key]
        if plan is None:
            return None
        told = tuple([parts[number] for number, _ in plan.telling])
        lanes = plan.lanes.get(told)
        if lanes is None:
            lanes = plan.lanes[told] = self._lanes(plan, told)
        edges = list(accumulate(map(len, parts), initial=start))
        return [(edges[number], edges[number + 1], lane) for number, lane in lanes]

    def _plan(self, start: int, end: int, parts: Sequence[str]) -> _Plan | None:
        places = whole_places(self._text, start, end, exact=True)
        if places is None:
            return None
        number_at = {at: number for number, at in enumerate(accumulate(map(len, parts), initial=start))}
        at_tokens = [(number_at[place.start], place) for place in places if place.kind != "container"]
        telling = [
            (number, place.path)
            for number, place in at_tokens
            if (place.token == "type" or place.token in _LANE) and _shallow(place)
        ]
        said = [(number, place) for number, place in at_tokens if place.kind != "word"]
        return _Plan(tuple(said), tuple(telling) if self._streamed else ())

    def _lanes(self, plan: _Plan, told: Sequence[str]) -> tuple[tuple[int, object], ...]:
        tokens = {path: one for (_, path), one in zip(plan.telling, told, strict=True)}
        return tuple(
            (number, _lane(place, tokens) if self._streamed and place.kind == "string" else None)
            for number, place in plan.said
        )


def _begins(text: str) -> bool:
    return text[:64].lstrip().startswith(("{", "["))


def whole_places(text: str, start: int, end: int, *, exact: bool = False) -> list[Place] | None:
    """Return the values of the JSON text there, a cut one's too; None if there is none.

    What only resembles JSON counts, unless it is to be `exact`.
    """
    if not _begins(text[start : min(start + 64, end)]):
        return None
    if exact and parts_of(text[start:end]) is None:
        return None
    found = [*places(text, start, end)]
    whole = [place for place in found if place is not None]
    return whole if len(whole) == len(found) else None


def parts_of(text: str) -> list[str] | None:
    """Return a JSON text as what is between tokens and, in turn, strings, numbers and words, whole or cut.

    None if it is something else.
    """
    if not _begins(text):
        return None
    parts = _TOKENS.split(text)
    tokens, between = parts[1::2], parts[::2]
    if tokens and not between[-1] and any(word.startswith(tokens[-1]) for word in WORDS):
        known = {*WORDS, tokens[-1]}
    else:
        known = {*WORDS}
    if not all(one[0] == '"' or one in known or _NUMBER.fullmatch(one) for one in {*tokens}):
        return None
    kinds = ["", *('"' if one[0] == '"' else "0" for one in tokens), ""]
    beside = {*zip(kinds[:-1], between, kinds[1:], strict=True)}
    shapes = {a + marks.translate(_BLANKS) + b for a, marks, b in beside}
    return None if any(map(_NEVER.search, shapes)) else parts


def _shallow(place: Place) -> bool:
    return place.within is None or place.within.depth < _DEEPEST


def _lane(place: Place, tokens: dict[PathTokens, str]) -> object:
    """Return what is equal for the strings that make one text, None if the string is no piece of one."""
    if place.token not in _SAID or not _shallow(place):
        return None
    path = place.path
    if not ("delta" in path or "parts" in path or path[0] == "choices" or path in _LINES_SAY):
        return None
    above = (path[:length] for length in range(len(path)))
    return (tokens.get(("type",)), path, *(tokens.get((*one, name)) for one in above for name in _LANE))
