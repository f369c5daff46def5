"""Files of agents that a store keeps with its runs: which of them are needed, and what is wrong with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from tracefork_otel.errors import StoreError, TapeError
from tracefork_otel.state.giving import digests_of
from tracefork_otel.state.keeping import alone
from tracefork_otel.state.kept import FOLDER, Kept, kept_of, objects_of

from .leftovers import FileProblem
from .store import Store, open_store


def sweep(store: Store) -> int:
    """Remove what was kept for runs that are gone; return how many bytes of files that were.

    Nothing goes while a process that keeps state is at work, or a file of the store cannot be read, or what
    says which files a run needs.
    """
    objects, freed = objects_of(store.path), 0
    if not objects.is_dir():
        return 0
    with alone(objects) as is_alone:
        store.current(anew=True)
        if not is_alone or store.problems:
            return 0
        needed = _needed(store, objects)
        for file in _files(objects) if needed.all_known else ():
            if file.name not in needed.digests:
                with suppress(OSError):
                    size = file.stat().st_size
                    file.unlink()
                    freed += size
    return freed


def tidy(path: Path, *, there: bool) -> None:
    """Remove what was kept for no run; and of a store that was not `there` before, and holds none, all."""
    with suppress(StoreError, OSError):
        if not there and os.listdir(path) == [FOLDER]:
            shutil.rmtree(path)
            return
        with open_store(path) as store:
            sweep(store)
        objects = objects_of(path)
        if not _files(objects):
            with alone(objects) as is_alone:
                if is_alone:
                    shutil.rmtree(objects)


def problems(store: Store) -> Iterator[FileProblem]:
    """Yield what is kept in vain, what is no longer as it was kept, and what is missing."""
    objects = objects_of(store.path)
    needed = _needed(store, objects)
    wanted = needed.digests
    there = {file.name: file for file in _files(objects)} if objects.is_dir() else {}
    for name in sorted(wanted - there.keys()):
        path = str(objects / name)
        yield FileProblem(
            path=path,
            what="unreadable",
            why=f"{path}: missing, and with it the state of {_whose(store, objects, name)}; restore it",
        )
    for trace_id, error in needed.unread.items():
        why = f"run {trace_id}: {error}; no state is taken away while that run is here: see `rm`"
        yield FileProblem(path=str(objects), what="unreadable", why=f"{objects}: {why}")
    for name, file in there.items():
        if name not in wanted and needed.all_known:
            why = "no run needs this state any more, or its recording was broken off; `rm` takes it away"
            yield FileProblem(path=str(file), what="left", why=f"{file}: {why}")
        elif (why := _changed(file)) is not None:
            yield FileProblem(path=str(file), what="unreadable", why=f"{file}: {why}; restore it")


def _files(objects: Path) -> list[Path]:
    return [file for file in sorted(objects.iterdir()) if file.name != ".lock"]


def _changed(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            same = file_digest(opened, "sha256").hexdigest() == file.name
    except OSError as error:
        return f"the state in this file cannot be read ({error.strerror or error})"
    return None if same else "the state in this file is not what was kept: it was changed"


@dataclass(frozen=True, slots=True)
class _Needed:
    """What the recorded starts need."""

    digests: set[str]
    """The files, as far as they are known."""
    unread: dict[str, TapeError]
    """Why it cannot be read what a run needs."""
    all_known: bool
    """Whether there are no others."""


def _needed(store: Store, objects: Path) -> _Needed:
    kept, unread = _told(store)
    digests, all_known = set[str](), not unread
    for one in {one for starts in kept.values() for one in starts}:
        found, known = _digests(one, objects)
        digests |= found
        all_known &= known
    return _Needed(digests, unread, all_known)


def _told(store: Store) -> tuple[dict[str, list[Kept]], dict[str, TapeError]]:
    """Return for each run what was kept for its starts, or why that cannot be read."""
    told: dict[str, list[Kept]] = {}
    unread: dict[str, TapeError] = {}
    for row in store.ask("states"):
        try:
            told.setdefault(row["trace_id"], []).extend(kept_of(row["state"]))
        except TapeError as error:
            unread[row["trace_id"]] = error
    return told, unread


def _digests(kept: Kept, objects: Path) -> tuple[set[str], bool]:
    """Return the files of what was kept, and whether these are all; else at least what names the others."""
    try:
        return digests_of((kept,), objects), True
    except (StoreError, TapeError, OSError):
        return {kept.tree}, False


def _whose(store: Store, objects: Path, digest: str) -> str:
    told, _ = _told(store)
    every = {one for starts in told.values() for one in starts}
    return ", ".join(sorted({one.path for one in every if digest in _digests(one, objects)[0]}))
