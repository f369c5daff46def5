"""The flags that say what is changed at a step: those of every kind of intervention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...flag import Flag
from ...rerun.edits import KINDS, Edit, from_flags
from . import DeclaredFlags


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFlags(DeclaredFlags):
    """What is changed."""

    several = True

    @classmethod
    def declared(cls) -> Iterable[Flag]:
        """Return the flags of each kind, each once."""
        return dict.fromkeys(flag for kind in KINDS.values() for flag in kind.flags)

    def asked(self) -> list[Edit]:
        """Return one edit a variant; UsageError unless the flags ask for one kind of change."""
        return from_flags(self.values)
