"""A run as it can be played again, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["Tape"]


def __getattr__(name: str) -> object:
    # When it is asked for: a process that only records needs what a tape leaves out, and no tape.
    if name == "Tape":
        from .tape import Tape

        return Tape
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
