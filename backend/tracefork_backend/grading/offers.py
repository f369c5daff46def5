"""Oracles to begin with where nobody has said what a success is: short ones that fit what a run put out."""

from __future__ import annotations

import re
import shlex
from typing import cast

from .field import json_of
from .graded import Graded

_MOST = 3
_TROUBLE = re.compile(
    r"\b(error|failed|failure|fail|sorry|cannot|could not|unable|not found|refused|invalid|exception)\b", re.I
)
_MARK = re.compile(r"\b[A-Z][A-Z_]{2,}\b")
"""A word in capitals, as programs say how they ended."""
_NAMING = re.compile(r"\d[\d.,:-]*\d|\b[A-Z]\w{2,}\b|\b\w{4,}\b")
"""A number, a name, or else a word of some length: what another ending is not likely to have."""
_JUDGE = "The run succeeded if the user got what was asked for."


def offers(graded: Graded) -> tuple[str, ...]:
    """Return three ways to grade runs like this one, as flags to type, two where it put out nothing.

    Those that fit best come first; the last asks a model.
    """
    found = [*_fields(graded), *_troubles(graded)]
    trouble = _TROUBLE.search(graded.text)
    if not found and (mark := _MARK.search(graded.text)):
        found.append(f"--success-re {mark[0]}")
    # Of a run that says that it failed and ends with 0, the status says nothing.
    if graded.exit_status or (graded.exit_status == 0 and not trouble):
        found[1:1] = ["--exit-code"]
    flag = "--failure-re" if trouble or graded.exit_status else "--success-re"
    words = sorted(_NAMING.finditer(graded.text), key=_specific)
    found += [
        f"{flag} {shlex.quote(re.escape(word[0]))}" for word in words if not _TROUBLE.fullmatch(word[0])
    ]
    if not graded.text.strip():
        found.append("--success-re .")
    return (*list(dict.fromkeys(found))[: _MOST - 1], f"--judge {shlex.quote(_JUDGE)}")


def _fields(graded: Graded) -> list[str]:
    """Return the fields of JSON that say yes or no."""
    is_json, document = json_of(graded)
    if not is_json or not isinstance(document, dict):
        return []
    told = [name for name, value in cast("dict[str, object]", document).items() if isinstance(value, bool)]
    return [f"--field {shlex.quote(f'{name}=true')}" for name in told]


def _troubles(graded: Graded) -> list[str]:
    """Return the words by which it says that it failed."""
    words = dict.fromkeys(word[0] for word in _TROUBLE.finditer(graded.text))
    return [f"--failure-re {shlex.quote(word)}" for word in words]


def _specific(word: re.Match[str]) -> int:
    """Order numbers before names, and names before other words."""
    return 0 if word[0][0].isdigit() else 1 if word[0][0].isupper() and word.start() else 2
