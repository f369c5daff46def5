"""What an agent's function gave back, as text: its ends on a span, all of it for who grades it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from .events import ends

RESULT_LIMIT = 64 * 1024
"""Bytes of a result that are kept: enough to grade it, not a second copy of the run."""
WHOLE_LIMIT = 64 * 1024 * 1024
"""Bytes of it that whoever replays or forks the run gets beside."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a result."""

    text: str
    """Its beginning and end."""
    left_out: int
    """Bytes of its middle that are not in that."""
    whole: str | None
    """All of it, where somebody wants it and the text is not."""


def as_text(result: Any) -> str:
    """Return the result as it is graded: text, else JSON, else its repr."""
    return result if isinstance(result, str) else as_json(result)


def as_json(value: Any) -> str:
    """Return the value as JSON, dataclasses and pydantic's models by their fields, else its repr."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_members)
    except Exception:  # whatever a class of the agent's raises
        return repr(value)


def _members(value: Any) -> Any:
    """Return what `json` writes in the place of an object that it does not know; TypeError for most."""
    if isinstance(value, type):
        raise TypeError("a class has no members of a result")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    dump = getattr(value, "model_dump", None)
    if not callable(dump):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return dump(mode="json")


def kept(text: str, redact: Callable[[str], str], *, whole: bool) -> Kept:
    """Return what is kept of the text, secrets replaced: they are looked for before it is cut, not in halves.

    Where not the `whole` is wanted it is looked for them near its ends alone: a long text holds up the agent.
    """
    limit = WHOLE_LIMIT if whole else 4 * RESULT_LIMIT
    near = text if len(text) <= limit else text[: limit // 2] + text[-(limit // 2) :]
    seen = redact(near)
    shown, left_out = ends(seen, RESULT_LIMIT)
    left_out = left_out and left_out + len(text) - len(near)
    return Kept(shown, left_out, seen if whole and left_out and near is text else None)


class Items:
    """What a generator gave so far: the first and the last, as many as a result may take."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._room = self._tail = self._half
        self.lost = 0
        """How much is not kept."""

    def add(self, item: Any) -> None:
        """Keep the item as text, at once as it may change."""
        text = as_json(item)
        size = len(text) + 2
        if self._room > 0 and not self._last:
            self._first.append(text)
            self._room -= size
            return
        self._last.append(text)
        self._tail -= size
        while self._tail < 0 and len(self._last) > 1:
            gone = len(self._last.popleft()) + 2
            self._tail += gone
            self.lost += gone

    def text(self) -> str:
        """Return a JSON list of them."""
        return f"[{', '.join((*self._first, *self._last))}]"
