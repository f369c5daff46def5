"""Answers that an assistant reads: JSON of at most 4 KB, and where the rest of it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..spelling import json_line, plain

BYTES = 4_000
"""Of one answer."""
TEXT = 1_200
"""Characters of one text that an answer shows."""
_CUTS = (300, 60)
"""Characters of one, where it would not fit."""
_ITEMS = 20
"""Of a list within a row."""


def cut(text: str, most: int = TEXT) -> str:
    """Return the text's begin, and how much more there is of it."""
    return text if len(text) <= most else f"{text[:most]}… [{len(text) - most} more characters]"


def piece(text: str, offset: int, **told: object) -> str:
    """Return the answer that shows a text from there on, as much as fits, and where it goes on."""
    most = BYTES
    while True:
        shown = text[offset : offset + most]
        left = len(text) - offset - len(shown)
        answer = json_line(
            {**told, "text": shown, **({"next_offset": offset + len(shown)} if left > 0 else {})}
        )
        if len(answer.encode()) <= BYTES or most <= 1:
            return answer
        most = most * 3 // 4


def rows(
    title: str, found: Sequence[Mapping[str, Any] | str], offset: int, /, *, more: bool, **told: object
) -> str:
    """Return the answer with as many of these rows as fit, the first of them the one at `offset`.

    Where others follow, or are known to with `more`, it says which `next_offset` gives them.
    """
    given = {key: value for key, value in told.items() if value not in (None, "", [], ())}
    head = _mapping(_fitting(given, BYTES // 2))
    room = BYTES - _size({**head, title: [], "next_offset": offset + len(found)})
    kept: list[object] = []
    for row in found:
        shown = _short(row, TEXT)
        if _size(shown) > room:
            if kept:
                break
            shown = _fitting(row, room)
        kept.append(shown)
        room -= _size(shown)
    end = offset + len(kept)
    rest = {"next_offset": end} if more or len(kept) < len(found) else {}
    return json_line({**head, **rest, title: kept})


def _fitting(value: object, room: int) -> object:
    """Return the value with its texts cut until it fits; at last, the begin of it as text."""
    for most in _CUTS:
        if _size(shown := _short(value, most)) <= room:
            return shown
    text, most = json_line(value), room
    while _size(cut(text, most)) > room:
        most = most * 3 // 4
    return cut(text, most)


def _mapping(head: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", head) if isinstance(head, Mapping) else {"about": head}


def _short(value: object, most: int) -> object:
    if isinstance(value, str):
        return cut(value, most)
    if isinstance(value, Mapping):
        return {str(key): _short(one, most) for key, one in value.items()}
    if isinstance(value, list | tuple):
        shown = [_short(one, most) for one in value[:_ITEMS]]
        return [*shown, f"… [{len(value) - _ITEMS} more]"] if len(value) > _ITEMS else shown
    if value is None or isinstance(value, bool | int | float):
        return value
    return f"{len(value)} bytes" if isinstance(value, bytes) else cut(str(plain(value)), most)


def _size(value: object) -> int:
    return len(json_line(value).encode()) + 2
