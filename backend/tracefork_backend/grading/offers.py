"""Oracles to begin with where nobody has said what a success is: short ones that fit what a run put out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from tracefork_otel.errors import TraceforkError

from .field import json_of
from .graded import Graded, graded_run

if TYPE_CHECKING:
    from ..store import Run

_MOST = 3
_BESIDE = 5
"""Other runs that are looked at."""
_TROUBLE = re.compile(
    r"\b(error|failed|failure|fail|sorry|cannot|could not|unable|not found|not know|don't know|unknown|"
    r"refused|invalid|exception)\b",
    re.I,
)
_MARK = re.compile(r"\b[A-Z][A-Z_]{2,}\b")
"""A word in capitals, as programs say how they ended."""
_NAMING = re.compile(r"\d[\d.,:-]*\d|\b[A-Z]\w{2,}\b|\b\w{4,}\b")
"""A number, a name, or else a word of some length: what another ending is not likely to have."""
_JUDGE = "The run succeeded if the user got what was asked for."


def offers_for(run: Run) -> tuple[str, ...]:
    """Return ways to grade a recorded run, as `offers` does, beside the newest others of its agent."""
    others = [one for one in run.store.runs("record") if one.name == run.name and one.run_id != run.run_id]
    texts: list[str] = []
    for one in others[:_BESIDE]:
        with suppress(TraceforkError):  # what another lost is nothing to this one
            texts.append(graded_run(one).text)
    return offers(graded_run(run), texts)


def offers(graded: Graded, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Return three ways to grade runs like this one, as flags to type, two where it put out nothing.

    Those that fit best come first; the last asks a model. A word that every other run puts out as well tells
    nothing, unless it is one of trouble.
    """
    # One that put out the same does not tell which of its words are every run's.
    others = [text for text in others if text and text != graded.text]

    def tells(word: str) -> bool:
        return not others or any(word not in text for text in others)

    found = [*_fields(graded), *_troubles(graded)]
    trouble = _TROUBLE.search(graded.text)
    marks = (mark[0] for mark in _MARK.finditer(graded.text) if tells(mark[0]))
    if not found and (mark := next(marks, None)):
        found.append(f"--success-re {mark}")
    # Of a run that says that it failed and ends with 0, the status says nothing.
    if graded.exit_status or (graded.exit_status == 0 and not trouble):
        found[1:1] = ["--exit-code"]
    flag = "--failure-re" if trouble or graded.exit_status else "--success-re"
    words = sorted(_NAMING.finditer(graded.text), key=_specific)
    found += [
        f"{flag} {shlex.quote(re.escape(word[0]))}"
        for word in words
        if tells(word[0]) and not _TROUBLE.fullmatch(word[0])
    ]
    if not graded.text.strip():
        found.append("--success-re .")
    if not found:
        return offers(graded)
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
