"""Guesses why two values of a request differ, from where they stand and how they look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

from ..wire.json_values import mapping, string

Cause: TypeAlias = Literal[
    "clock",
    "id",
    "random",
    "prompt",
    "tool_result",
    "model",
    "parameter",
    "missing",
    "extra",
    "order",
    "agent_error",
    "websocket",
]

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
_CLOCK = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:\s*(?:Z|UTC|[+-]\d\d:?\d\d))?"
    r"|\b\d{8}T\d{6}(?:\.\d+)?Z?"
    rf"|\b(?:{_DAY},?\s+)?\d{{1,2}}(?:st|nd|rd|th)?\s+{_MONTH}\.?,?\s+\d{{4}}\b"
    rf"|\b(?:{_DAY},?\s+)?{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d\d:\d\d(?::\d\d)?)?(?:,?\s+\d{{4}}\b)?"
    rf"|\b{_DAY}\b"
    r"|\b\d{1,2}/\d{1,2}/\d{2,4}\b"
    r"|\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s*[AaPp]\.?[Mm]\b\.?)?(?:\s*(?:Z|UTC|[+-]\d\d:?\d\d))?"
    # Epoch seconds to nanoseconds, of the years 2001 to 2033 (a 1, then up to 2 billion seconds).
    r"|(?<![\w.])(?:1\d{9}|20\d{8})(?:\d{3}|\d{6}|\d{9})?(?:\.\d+)?(?!\w)"
)
_ID = re.compile(
    r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"
    r"|\b(?=[a-fA-F]{0,64}\d)(?=\d{0,64}[a-fA-F])[0-9a-fA-F]{6,128}\b"
    # A prefix and a random part (toolu_01Ab…, call_x9…, req-7f…), or a long run of letters and digits.
    r"|\b[A-Za-z]{2,12}[_-](?=[A-Za-z]{0,64}\d)[A-Za-z0-9]{6,64}\b"
    r"|\b(?=[A-Za-z_-]{0,64}\d)(?=[0-9_-]{0,64}[A-Za-z])[A-Za-z0-9_-]{16,128}\b"
)
# A number of four digits or more, or with three decimals or more: the kind that a program puts in.
_RANDOM = re.compile(r"[-+]?\d+\.\d{3,}(?:[eE][-+]?\d+)?|(?<![\w.])[-+]?\d{4,}(?![\w.])")

_LOOKS: tuple[tuple[Cause, re.Pattern[str]], ...] = (("clock", _CLOCK), ("id", _ID), ("random", _RANDOM))

_TEMPORARY = re.compile(r"[/\\](?:tmp|temp|T)[/\\]", re.I)
# What `tempfile` puts between prefix and suffix of a name in a folder.
_MADE_UP = re.compile(
    r"([/\\](?:tmp|temp|T)[/\\](?:[\w.-]{1,64}[/\\]){0,3}[\w.-]{0,64}?)([a-z0-9_]{8})(?![a-z0-9_])",
    re.I,
)

_PROMPT_MEMBERS = frozenset(("system", "messages", "input", "instructions", "prompt", "contents"))
_FREE_MEMBERS = _PROMPT_MEMBERS | {"seed", "metadata", "user"}
_MODEL_MEMBERS = frozenset(("model", "deployment"))
_TOOL_ROLES = frozenset(("tool", "function"))
_TOOL_RESULT_TYPES = frozenset(("tool_result", "function_call_output", "custom_tool_call_output"))

_WIDTH = 80
_CONTEXT = 24

# What is looked at on both sides of the differing part, so that a date of which one digit differs is seen
# whole; and the size above which that part is no clock or id any more, whatever it holds.
_MARGIN = 64
_LONGEST = 32 * 1024


def cause_of(path: Sequence[str | int], recorded: Any, got: Any, recorded_body: Any, got_body: Any) -> Cause:
    """Return the likeliest cause of a difference, by the values' look and then by the place in the body."""
    top = path[0] if path else ""
    if top in _MODEL_MEMBERS:
        return "model"
    left, right = _text(recorded), _text(got)
    if left is not None and right is not None:
        look = _look(*_around(left, right))
        # A number that is a parameter (max_tokens, a budget) looks random but is somebody's choice.
        chosen = not isinstance(got, str) and top not in _FREE_MEMBERS
        if look and not (look == "random" and chosen):
            return look
    if any(_is_tool_result(body, path) for body in (recorded_body, got_body)):
        return "tool_result"
    return "prompt" if top in _PROMPT_MEMBERS else "parameter"


def are_moved_words(recorded: Any, got: Any) -> bool:
    """Return whether both are texts of the same words, or lines, in another order."""
    if not (isinstance(recorded, str) and isinstance(got, str)) or len(recorded) > _LONGEST:
        return False
    return recorded != got and sorted(recorded.split()) == sorted(got.split())


def of_tempfile(recorded: str, got: str) -> bool:
    """Return whether the texts differ in names of temporary files and folders alone."""
    if recorded == got or not (_TEMPORARY.search(recorded) and _TEMPORARY.search(got)):
        return False
    if max(len(recorded), len(got)) > _LONGEST:
        return False
    if _MADE_UP.sub(r"\1*", recorded) != _MADE_UP.sub(r"\1*", got):
        return False
    # Of 16 such names one has letters alone, as a word that somebody chose; of two, seldom both.
    return any(not found[2].isalpha() for text in (recorded, got) for found in _MADE_UP.finditer(text))


def shorten(recorded: str, got: str) -> tuple[str, str]:
    """Return both values, cut to about 80 characters around the place where they part."""
    if max(len(recorded), len(got)) <= _WIDTH:
        return recorded, got
    start = max(0, common_prefix(recorded, got) - _CONTEXT)
    return _window(recorded, start), _window(got, start)


def common_prefix(a: str | bytes, b: str | bytes) -> int:
    """Return the number of leading characters or bytes that both have in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _around(left: str, right: str) -> tuple[str, str]:
    """Return both texts without their common ends but for a margin; two words if the rest is long."""
    start = common_prefix(left, right)
    end = min(common_prefix(left[::-1], right[::-1]), min(len(left), len(right)) - start)
    if max(len(left), len(right)) - start - end > _LONGEST:
        return "left", "right"
    start, end = max(0, start - _MARGIN), max(0, end - _MARGIN)
    return left[start : len(left) - end], right[start : len(right) - end]


def _window(text: str, start: int) -> str:
    end = start + _WIDTH
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    return None


def _look(left: str, right: str) -> Cause | None:
    """Return how the first differing parts of the two texts look, or None if more differs than such parts."""
    sides: list[list[tuple[Cause, str]]] = []
    rests: list[str] = []
    for text in (left, right):
        taken: list[tuple[int, Cause, str]] = []
        for cause, pattern in _LOOKS:
            for match in pattern.finditer(text):
                taken.append((match.start(), cause, match[0]))
            # The same length keeps the positions of what the next pattern takes.
            text = pattern.sub(lambda match: "\0" * len(match[0]), text)
        sides.append([(cause, value) for _, cause, value in sorted(taken)])
        rests.append(re.sub("\0+", "\0", text))
    if rests[0] != rests[1]:
        return None
    return next((a[0] for a, b in zip(*sides, strict=False) if a != b), None)


def _is_tool_result(body: Any, path: Sequence[str | int]) -> bool:
    """Return whether the path goes through a tool's result, by a message's role or a block's type."""
    value: Any = body
    for token in path:
        try:
            value = value[token]
        except (LookupError, TypeError):  # the other body has no such place
            return False
        message = mapping(value)
        if string(message.get("role")) in _TOOL_ROLES or _is_result(message):
            return True
        content = message.get("content")
        blocks = cast("list[Any]", content) if isinstance(content, list) else []
        # Every block of the message is a tool's result.
        if blocks and all(map(_is_result, blocks)):
            return True
    return False


def _is_result(block: Any) -> bool:
    return string(mapping(block).get("type")) in _TOOL_RESULT_TYPES
