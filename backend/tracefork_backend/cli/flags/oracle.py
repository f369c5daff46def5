"""The flags that say what a success is: those of every oracle, the same for every command that grades."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ...grading.kinds import FLAGS, from_flags
from ...grading.oracle import Oracle
from . import Flags
from .options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleFlags(Flags):
    """What grades a run."""

    values: Mapping[str, Any]

    @classmethod
    def options(cls) -> Iterator[Parameter]:
        """Yield the flags of each oracle."""
        for flag in FLAGS:
            hint, default = option(flag)
            yield Parameter(flag.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    @classmethod
    def of(cls, **given: Any) -> OracleFlags:
        """Return the group with these values."""
        return cls(values={name: value for name, value in given.items() if value not in (None, False)})

    def asked(self) -> Oracle | None:
        """Return the one oracle that the flags ask for; UsageError for two, or for a malformed value."""
        return from_flags(self.values)
