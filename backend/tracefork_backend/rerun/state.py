"""Files that an agent uses, as they were when its recording began: a copy of its own for each start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tracefork_otel.errors import TapeError, UsageError
from tracefork_otel.state.giving import carried, give, take_away, write_places
from tracefork_otel.state.keeping import add, in_use, is_database
from tracefork_otel.state.kept import Kept, kept_of, objects_of
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..spelling import counted, run_name, shown
from ..store import Run
from .touched import Originals
from .workspace import TrialSpace, Workspace

CARRIED = 8 * 2**20
"""Bytes of state that a tape's file carries at most: beyond that it says what it lacks."""


def with_state(tape: Tape, store: Path) -> Tape:
    """Return the tape with what was kept of its agent's files, unless that is too much for a text file.

    Raises StoreError where the store has lost some of it.
    """
    kept = kept_of(tape.start.state)
    if not kept or sum(one.bytes for one in kept) > CARRIED:
        return tape
    return replace(tape, files=carried(kept, objects_of(store)))


def recorded_state(start: HowStarted) -> str | None:
    """Say what was kept of the agent's files, or why nothing was; None where nothing was named."""
    try:
        kept = kept_of(start.state)
    except TapeError as error:
        return f"not known: {error}"
    found = [f"{shown(one.path)} ({counted(one.bytes, 'byte') if one.tree else 'not there'})" for one in kept]
    return ", ".join(found) or start.state_lost


def lacking(tape: Tape) -> str | None:
    """Return what state the tape's agent begins with that the tape does not carry."""
    kept = [] if tape.files else [one for one in kept_of(tape.start.state) if one.tree]
    if not kept:
        return None
    listed = ", ".join(shown(one.path) for one in kept)
    return f"{listed} ({counted(sum(one.bytes for one in kept), 'byte')})"


def take_in(files: Mapping[str, bytes], objects: Path) -> None:
    """Keep in the folder what a tape carries; TapeError where its bytes are others than it says."""
    for name, content in files.items():
        if add(objects, [content]) != name:
            raise TapeError(f"the tape carries a file of state that is not the one it names ({name})")


class GivenState:
    """What was kept of one tape's agent, given to each of its starts."""

    def __init__(
        self, source: Run | Tape, tape: Tape, folder: Path, workspace: Workspace, held: ExitStack
    ) -> None:
        """Create it for the tape of this source; what `held` closes is over once the runs are kept.

        Raises UsageError where it is not known what was there, StoreError where that is lost.
        """
        if tape.start.state_lost is not None:
            raise UsageError(f"run {run_name(tape.run_id)} cannot be run again: {tape.start.state_lost}")
        self.kept = kept_of(tape.start.state)
        self._recorded = tape.start.cwd
        self._folder = folder
        self._workspace = workspace
        if isinstance(source, Run):
            self._objects = objects_of(source.store.path)
        elif lacks := self.kept and lacking(tape):
            raise UsageError(
                f"the tape of run {run_name(tape.run_id)} does not carry the state that its agent begins "
                f"with, {lacks}: run it from the store in which it was recorded"
            )
        else:
            self._objects = objects_of(workspace.folder)
            take_in(tape.files, self._objects)
        kept_in = workspace.kept_in
        if self.kept and kept_in is not None:
            # What runs again is a run of that store, with the same beginning, once it is sealed.
            held.enter_context(in_use(kept_in))
            if objects_of(kept_in) != self._objects:
                take_in(carried(self.kept, self._objects), objects_of(kept_in))

    @contextmanager
    def given(self, space: TrialSpace) -> Iterator[Originals]:
        """Give the agent of this space its copies, gone after the block; yield what they stand for."""
        try:
            copies = give(self.kept, self._objects, space.private)
            places = [
                (path + end, copy.with_name(copy.name + end))
                for one, copy in zip(self.kept, copies, strict=True)
                for path in self._names(one)
                for end in one.ends
                if not (end and is_database(path + end))
            ]
            write_places(space.private, places)
            ours = filter(None, (self._objects.parent, self._workspace.folder, self._workspace.kept_in))
            yield Originals(dict.fromkeys(os.path.realpath(path) for path, _ in places), spared=ours)
        finally:
            take_away(space.private)

    def _names(self, kept: Kept) -> dict[str, None]:
        """Return the paths by which the agent may name it: in another folder than the recorded, there too."""
        names = dict.fromkeys((kept.path, kept.real))
        if self._recorded is not None:
            below = os.path.relpath(kept.path, self._recorded)
            if below.partition("/")[0] != "..":
                names[os.path.normpath(self._folder / below)] = None
        return names
