"""The ways to name a run."""

from __future__ import annotations

import re

from tracefork_otel.errors import UsageError

MIN_PREFIX = 6
"""Fewer digits than this name no run: they would name another one tomorrow."""
_LAST = re.compile(r"last(?:~(\d{1,9}))?")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")


def parse_ref(ref: str) -> tuple[str, int | None]:
    """Return the run's name and the step in `NAME` or `NAME@STEP`; UsageError if the step is no number."""
    name, at, step = ref.rpartition("@")
    if not at:
        return ref, None
    if not name or not step.isdecimal() or len(step) > 9:
        raise UsageError(f"{ref!r} names no step: write RUN@STEP with a number, such as last@3")
    return name, int(step)


def back_of(name: str) -> int | None:
    """Return how many runs before the last one `last` or `last~N` means, None for other names."""
    found = _LAST.fullmatch(name)
    return int(found[1] or 0) if found else None


def prefix_of(name: str) -> str | None:
    """Return the name as the beginning of a run's id, None if it cannot be one."""
    text = name.lower()
    return text if _PREFIX.fullmatch(text) else None
