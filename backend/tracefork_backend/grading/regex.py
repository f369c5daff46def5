"""The oracle that looks for patterns in what a run said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.session.events import LEFT_OUT

from ..flag import Flag
from .bounded import Endless, bounded, can_interrupt
from .graded import Graded, How

PATTERN_S = 30.0
"""Seconds that the patterns may take of one output: one that repeats what repeats may take for ever."""
_SEARCH = (
    "import json, re, sys; at = json.load(sys.stdin); first, last = at['gap'] or (len(at['text']) + 1, -1); "
    "print(json.dumps([any(m.end() < first or m.start() > last for m in re.finditer(one, at['text'])) "
    "for one in at['patterns']]))"
)
_ABSENCE = re.compile(r"\(\?<?!")
_ENDS = re.compile(r"[\^$]|\\[AZ]")
_MAY_BACKTRACK = re.compile(r"[*+?{(]")
"""What a pattern has that can take for ever; without it, a search goes over the text once."""
Gap: TypeAlias = tuple[int, int]
"""Where in a text something was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """Success and failure by what the graded text holds."""

    flags: ClassVar = (
        Flag("success_re", "Output that means success.", "REGEX"),
        Flag("failure_re", "Output that means failure.", "REGEX"),
    )

    success: re.Pattern[str] | None
    failure: re.Pattern[str] | None
    name: str
    limit_s: float = PATTERN_S
    how: ClassVar = How(parts=True, limited=True)

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Regex:
        """Return what the flags ask for."""
        return regex(given.get("success_re"), given.get("failure_re"))

    def __call__(self, graded: Graded) -> bool | None:
        """Grade a run."""
        asked = [one for one in (self.success, self.failure) if one is not None]
        gap = _gap(graded.text) if graded.partial else None
        told: list[bool | None] = [*_found(asked, graded.text, self.limit_s, gap)]
        if graded.partial:
            # What is in a part of an output is in the whole of it; what is not may be.
            pairs = zip(asked, told, strict=True)
            told = [True if there and _shows(one, gap) else None for one, there in pairs]
        found = iter(told)
        won = None if self.success is None else next(found)
        lost = None if self.failure is None else next(found)
        if self.failure is None:
            return won
        if self.success is None:
            return None if lost is None else not lost
        return won if None not in (won, lost) and won != lost else None

    def remarks(self, graded: Graded) -> tuple[str, ...]:
        """Return what to tell a person whose pattern the output has in other capitals."""
        said: list[str] = []
        for pattern in (self.success, self.failure):
            # What looks like prose in small letters ("nothing was booked") is no other spelling of BOOKED.
            if pattern is None or not _plain(pattern) or pattern.search(graded.text):
                continue
            found = re.compile(pattern.pattern, pattern.flags | re.IGNORECASE).finditer(graded.text)
            if (near := next((one[0] for one in found if one[0] != one[0].lower()), None)) is not None:
                said.append(
                    f"an output has {near!r} where the pattern is {pattern.pattern!r}: capitals count; "
                    f"{'(?i)' + pattern.pattern!r} takes both"
                )
        return tuple(said)


def _plain(pattern: re.Pattern[str]) -> bool:
    """Return whether searching for it is sure to end soon."""
    return _MAY_BACKTRACK.search(pattern.pattern) is None


def _shows(pattern: re.Pattern[str], gap: Gap | None) -> bool:
    """Return whether what is found in a part of an output is in the whole of it too.

    What must not be there may be in what was left out; so may what a match goes over, wherever that was.
    """
    return not (_ABSENCE.search(pattern.pattern) or (gap is None and _ENDS.search(pattern.pattern)))


def _gap(text: str) -> Gap | None:
    """Return where it says that something was left out, None where it does not say so."""
    notes = list(LEFT_OUT.finditer(text))
    return (notes[0].start(), notes[-1].end()) if notes else None


def _found(patterns: list[re.Pattern[str]], text: str, limit_s: float, gap: Gap | None) -> list[bool]:
    """Return which are in the text beside the gap; raise Endless where that takes longer than it may."""
    first, last = gap or (len(text) + 1, -1)

    def search() -> list[bool]:
        return [
            any(one.end() < first or one.start() > last for one in pattern.finditer(text))
            for pattern in patterns
        ]

    if all(map(_plain, patterns)):
        return search()
    if can_interrupt(limit_s):
        return bounded(search, limit_s)
    # Nothing else runs while `re` searches, not even who would end it: it does so elsewhere.
    asked = json.dumps({"patterns": [one.pattern for one in patterns], "text": text, "gap": gap})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=asked,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit_s,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise Endless from None
    found: list[bool] = json.loads(done.stdout)
    return found


def regex(success: str | None = None, failure: str | None = None) -> Regex:
    """Return the oracle by which text that holds the one pattern is a success, the other a failure.

    With one pattern its absence is the opposite; with two, text that holds both or none cannot be graded.
    """
    if success is None and failure is None:
        raise UsageError("a regex oracle needs a pattern: success, failure or both")
    patterns = {"success": success, "failure": failure}
    name = " ".join(f"{key}=/{pattern}/" for key, pattern in patterns.items() if pattern is not None)
    return Regex(success=_pattern(success), failure=_pattern(failure), name=f"regex {name}")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from None
