"""Values as JSON text that UTF-8 can hold."""

from __future__ import annotations

import json


def is_utf8(text: str) -> bool:
    """Whether the text has no half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dumps(value: object) -> str:
    """The value as JSON; half of a surrogate pair, which UTF-8 cannot hold, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_utf8(text) else json.dumps(value)
