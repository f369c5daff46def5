"""Values as JSON text that UTF-8 can hold."""

from __future__ import annotations

import json

_PLAIN = json.JSONEncoder(ensure_ascii=False)
"""Made once: `json.dumps` makes one for each value, which takes longer than a short text does."""


class NotJson(ValueError):
    """A value that JSON has no way to write: NaN, an infinite number, or more levels than can be written."""


def is_utf8(text: str) -> bool:
    """Return whether the text has no half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dumps(
    value: object,
    *,
    separators: tuple[str, str] | None = None,
    escaped: bool = False,
    finite: bool = False,
    indent: int | None = None,
) -> str:
    """Return the value as JSON; half of a surrogate pair, which UTF-8 cannot hold, is escaped.

    `escaped` does so with all beyond ASCII; where it must be `finite`, NaN raises NotJson. An `indent` lays
    it out over lines.
    """
    if isinstance(value, str) and not escaped:
        text = _PLAIN.encode(value)
        return text if is_utf8(text) else json.dumps(value)
    try:
        text = json.dumps(
            value, separators=separators, ensure_ascii=escaped, allow_nan=not finite, indent=indent
        )
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
    if is_utf8(text):
        return text
    return dumps(value, separators=separators, escaped=True, finite=finite, indent=indent)
