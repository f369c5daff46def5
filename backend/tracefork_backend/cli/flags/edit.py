"""The flags that say what is changed at a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ..variants import variants
from . import Flags
from .common import repeated, valued

if TYPE_CHECKING:
    from ...rerun.edits import Edit

_Several: TypeAlias = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFlags(Flags):
    """What is changed."""

    text: Annotated[_Several, repeated("--text", "TEXT", "The model answers this.")] = field(
        default_factory=list
    )
    tool_input: Annotated[
        _Several, repeated("--tool-input", "JSON", "The model calls its tool with this.")
    ] = field(default_factory=list)
    tool: Annotated[str | None, valued("--tool", "NAME", "Which call --tool-input means.")] = None
    response: Annotated[_Several, repeated("--response", "FILE", "The response's whole body.")] = field(
        default_factory=list
    )
    set: Annotated[_Several, repeated("--set", "PATH=VALUE", "The request goes out with this value.")] = (
        field(default_factory=list)
    )
    system: Annotated[_Several, repeated("--system", "TEXT|@FILE", "… with this system prompt.")] = field(
        default_factory=list
    )
    model: Annotated[_Several, repeated("--model", "MODEL", "… for this model.")] = field(
        default_factory=list
    )
    fault: Annotated[_Several, repeated("--fault", "FAULT", "429, 500, 529, timeout or disconnect.")] = field(
        default_factory=list
    )
    resample: Annotated[bool, typer.Option("--resample", help="The model is asked the same anew.")] = False
    noop: Annotated[bool, typer.Option("--noop", help="Nothing is changed.")] = False
    tool_result: Annotated[
        _Several, repeated("--tool-result", "NAME=VALUE", "The tool that the answer calls gives this.")
    ] = field(default_factory=list)

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return any(asdict(self).values())

    def asked(self) -> list[Edit]:
        """Return one edit a variant; UsageError unless the flags ask for one kind of change."""
        return variants(**asdict(self))
