"""The flags that say what a success is: those of every oracle, the same for every command that grades."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...flag import Flag
from ...grading.kinds import FLAGS, from_flags
from ...grading.oracle import Oracle
from . import DeclaredFlags


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleFlags(DeclaredFlags):
    """What grades a run."""

    @classmethod
    def declared(cls) -> Iterable[Flag]:
        """Return the flags of each oracle."""
        return FLAGS

    def asked(self) -> Oracle | None:
        """Return the one oracle that the flags ask for; UsageError for two, or for a malformed value."""
        return from_flags(self.values)
