"""The oracle that looks for patterns in what a run said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tracefork_otel.errors import UsageError

from ..flag import Flag
from .graded import Graded


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

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Regex:
        """Return what the flags ask for."""
        return regex(given.get("success_re"), given.get("failure_re"))

    def __call__(self, graded: Graded) -> bool | None:
        """Grade a run."""
        won = None if self.success is None else self.success.search(graded.text) is not None
        lost = None if self.failure is None else self.failure.search(graded.text) is not None
        if won is None or lost is None:
            return won if lost is None else not lost
        return won if won != lost else None


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
