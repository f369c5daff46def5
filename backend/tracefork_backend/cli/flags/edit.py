"""The flags that say what is changed at a step: those of every kind of intervention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ...rerun.edits import KINDS, Edit, from_flags
from . import Flags
from .options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFlags(Flags):
    """What is changed."""

    values: Mapping[str, Any]

    @classmethod
    def options(cls) -> Iterator[Parameter]:
        """Yield the flags of each kind."""
        for kind in KINDS.values():
            for flag in kind.flags:
                hint, default = option(flag, several=flag.alone is None)
                yield Parameter(flag.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    @classmethod
    def of(cls, **given: Any) -> EditFlags:
        """Return the group with these values."""
        return cls(values=given)

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return any(self.values.values())

    def asked(self) -> list[Edit]:
        """Return one edit a variant; UsageError unless the flags ask for one kind of change."""
        return from_flags(self.values)
