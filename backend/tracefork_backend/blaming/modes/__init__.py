"""The ways to search, each one object in one file; `auto` chooses among the others."""

from __future__ import annotations

from tracefork_otel.errors import UsageError

from .auto import AUTO
from .fixed import FIXED
from .intervene import INTERVENE
from .mode import Mode, Words
from .parts import PARTS
from .value import VALUE

__all__ = ["MODES", "Mode", "Words", "mode_found", "mode_named"]

MODES: tuple[Mode, ...] = (AUTO, INTERVENE, VALUE, FIXED, PARTS)


def mode_named(name: str) -> Mode:
    """Return the mode that is asked for by that name; raises UsageError if there is none."""
    for mode in MODES:
        if mode.name == name:
            return mode
    *names, last = (mode.name for mode in MODES)
    raise UsageError(f"mode {name}: use {', '.join(names)} or {last}")


def mode_found(name: str) -> Mode:
    """Return the mode that findings call so."""
    return next(mode for mode in MODES if mode.found == name)
