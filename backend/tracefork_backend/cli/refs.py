"""What a person names: a run (`last`, `last~2`, a unique prefix) or a tape file, and a step of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError

from .opening import reading

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape

    from ..store import Run, Store


def named(opened: Store, ref: str) -> Run | Tape:
    """Return the run of that name, or the tape of the file at that path."""
    tape = _tape_file(ref)
    return opened.run(ref) if tape is None else tape


def named_step(opened: Store, ref: str) -> tuple[Run | Tape, int]:
    """Return what NAME@STEP names, and the step."""
    name, step = split(ref)
    return named(opened, name), step


def split(ref: str, *, flag: str = "") -> tuple[str, int]:
    """Return name and step of NAME@STEP; UsageError, beginning with the flag, where it names no step."""
    from ..store import parse_ref

    name, step = parse_ref(ref)
    if step is None:
        raise UsageError(f"{flag}{ref}: say at which step, such as {name}@0")
    return name, step


def tape_of(store: Path, ref: str, *, command: bool = False) -> Tape:
    """Return the tape of the run of that name, or of the file at that path, which needs no store.

    With `command` the tape holds all runs of the command that made the run.
    """
    from ..rerun.reconstruct import reconstruct

    tape = _tape_file(ref)
    if tape is not None:
        return tape
    with reading(store) as opened:
        return reconstruct(opened, opened.run(ref), command=command)


def _tape_file(ref: str) -> Tape | None:
    from tracefork_otel.tape.tape import Tape

    return Tape.load(ref) if Path(ref).is_file() else None
