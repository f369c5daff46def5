"""The flags of `blame` alone: what is tried at each step, and how the steps are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ...blaming.changes import FAULT_CLASSES
from ...blaming.plan import Coupling, ModeName
from ...rerun.edits import FAULTS
from . import Flags
from .options import choice, valued

if TYPE_CHECKING:
    from ...blaming.changes import Change

MaxTrialsOption: TypeAlias = Annotated[
    int | None, typer.Option("--max-trials", min=1, help="Forks at most, over all of the experiment.")
]
SameOracleOption: TypeAlias = Annotated[
    bool, typer.Option("--same-oracle", help="The oracle's file or rubric changed, and it grades alike.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFlags(Flags):
    """What is tried at each step."""

    ablate: Annotated[str | None, valued("--ablate", "TEXT", "Each step answers this.")] = None
    resample: Annotated[bool, typer.Option("--resample", help="Each step is drawn anew (default).")] = False
    noop: Annotated[bool, typer.Option("--noop", help="Nothing is changed: nobody must be blamed.")] = False
    repair: Annotated[Path | None, valued("--repair", "FILE", "JSON with better answers by step.")] = None
    fault: Annotated[
        str | None, valued("--fault", "|".join((*FAULT_CLASSES, *FAULTS)), "What goes wrong at each step.")
    ] = None
    edit: Annotated[str | None, valued("--edit", "PKG.MOD:FN", "A function of (tape, step).")] = None

    @property
    def given(self) -> dict[str, Any]:
        """What was given, by flag, such that it means the same in another folder."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return given | ({"repair": str(self.repair.resolve())} if self.repair else {})

    def asked(self) -> Change:
        """Return the one change that the flags ask for; UsageError for two, or for a malformed value."""
        from ...blaming.changes import from_flags

        return from_flags(self.given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFlags(Flags):
    """How the steps are compared, and how sure the answer is to be."""

    mode: Annotated[ModeName, choice("--mode", ModeName, "How the steps are compared.")] = "auto"
    coupling: Annotated[
        Coupling, choice("--coupling", Coupling, "`recorded`: requests that the run made get its answers.")
    ] = "fresh"
    k: Annotated[int, typer.Option("--k", min=1, help="Forks a step in fixed mode.")] = 10
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of blaming an innocent.")] = 0.05
    max_trials: MaxTrialsOption = None
    every: Annotated[bool, typer.Option("--all", help="Go on for further steps after a large one.")] = False
