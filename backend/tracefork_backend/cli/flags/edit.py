"""The flags that say what is changed at a step: those of every kind of intervention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any

import typer

from ...rerun.edits import KINDS, Edit, Flag, from_flags
from . import Flags
from .common import repeated, valued


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFlags(Flags):
    """What is changed."""

    values: Mapping[str, Any]

    @classmethod
    def options(cls) -> Iterator[Parameter]:
        """Yield the flags of each kind."""
        for kind in KINDS.values():
            for flag in kind.flags:
                hint, default = _option(flag)
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


def _option(flag: Flag) -> tuple[Any, object]:
    """Return the option as typer takes it, and its default."""
    if flag.metavar is None:
        return Annotated[bool, typer.Option(str(flag), help=flag.help)], False
    if flag.alone is not None:
        return Annotated[str | None, valued(str(flag), flag.metavar, flag.help)], None
    return Annotated[list[str], repeated(str(flag), flag.metavar, flag.help)], []
