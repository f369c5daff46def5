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
_JUDGE = "The run succeeded if the user got what was asked for."


def offers(graded: Graded) -> tuple[str, ...]:
    """Return at most three ways to grade runs like this one, as flags to type; the last asks a model."""
    found: list[str] = []
    is_json, document = json_of(graded)
    if is_json and isinstance(document, dict):
        told = [
            name for name, value in cast("dict[str, object]", document).items() if isinstance(value, bool)
        ]
        found += [f"--field {shlex.quote(f'{name}=true')}" for name in told]
    trouble = _TROUBLE.search(graded.text)
    if trouble and not found:
        found.append(f"--failure-re {shlex.quote(trouble[0])}")
    elif not found and (mark := _MARK.search(graded.text)):
        found.append(f"--success-re {mark[0]}")
    # Of a run that says that it failed and ends with 0, the status says nothing.
    if graded.exit_status or (graded.exit_status == 0 and not trouble):
        found.append("--exit-code")
    return (*found[: _MOST - 1], f"--judge {shlex.quote(_JUDGE)}")
