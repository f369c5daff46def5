"""Values as JSON text that UTF-8 can hold."""

from __future__ import annotations

import json


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
) -> str:
    """Return the value as JSON; half of a surrogate pair, which UTF-8 cannot hold, is escaped.

    `escaped` does so with all beyond ASCII; where it must be `finite`, NaN raises ValueError.
    """
    text = json.dumps(value, separators=separators, ensure_ascii=escaped, allow_nan=not finite)
    return text if is_utf8(text) else dumps(value, separators=separators, escaped=True, finite=finite)
