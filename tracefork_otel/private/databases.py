"""SQLite's databases that are not kept: who runs again has a copy of each that it opens to write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..files import make_new, own_folder
from ..session.session import Session
from ..state.giving import give_one, read_places, write_places
from ..state.keeping import is_database, keep
from ..state.kept import BESIDE, SHARED, objects_of
from ..state.reading import open_here
from .places import Places, is_below, temporary_folder

_DATABASES = "databases"
_MEASURING = ".coverage"
"""Begins the names of files that tell a user how the agent ran; they are no state of its own."""


class Databases:
    """The databases of one replay or fork, for one of its processes: all of them share the copies."""

    def __init__(
        self,
        session: Session,
        folder: Path,
        places: Places,
        *,
        use: Callable[[str, str], object],
        spared: Iterable[Path],
    ) -> None:
        """`use` has a path stand for another one; what is in the `spared` folders is used as it is."""
        self._session = session
        self._folder = folder / _DATABASES
        self._places = places
        self._use = use
        self._spared = [os.path.realpath(one) for one in spared]
        self._as_they_are: set[str] = set()

    def meet(self) -> None:
        """Use the copies that other processes made before."""
        for path, copy in self._made_before():
            self._use(path, copy)

    def opens(self, database: Any, uri: bool) -> None:
        """Have a copy stand for the database, if one must: it is about to be opened."""
        path = file_of(database, uri=uri)
        if path is None:
            return
        named = os.path.abspath(path)
        real = os.path.realpath(named)
        if self._places.has(named) or real in self._as_they_are or self._is_spared(real):
            return
        copy = self._found(real)
        if copy is None and database_of(database, uri=uri) is not None:
            copy = self._made(real, named)
        if copy is not None:
            self._use(real, copy)

    def removes(self, path: Any) -> None:
        """Have a copy stand for the database, if it is one: it is about to be removed, to begin anew."""
        if isinstance(path, str | bytes | os.PathLike):
            text, ends = os.fsdecode(path), (*BESIDE, SHARED)
            for end in ends:
                text = text.removesuffix(end)
            if os.path.islink(text) or not is_database(text):
                return
            self.opens(text, uri=False)
            copy = self._places.copy_of(text)
            for end in ends:
                if copy is not None and os.path.exists(text + end):
                    # It was seen there, and is to be removed too: a copy has none that it does not need.
                    with suppress(FileExistsError):
                        os.close(make_new(Path(copy + end)))

    def overwrites(self, path: Any) -> None:
        """Have a copy stand for the database, if it is one: it is about to be written as any file is."""
        if isinstance(path, str | bytes | os.PathLike):
            text = os.fsdecode(path)
            if is_database(text):
                self.opens(text, uri=False)

    def _is_spared(self, real: str) -> bool:
        folder, name = os.path.split(real)
        # Where there is no folder no database is made.
        return (
            name.startswith(_MEASURING)
            or not os.path.isdir(folder)
            or any(is_below(real, one) for one in self._spared)
        )

    def _home(self, real: str) -> Path:
        return self._folder / sha256(os.fsencode(real)).hexdigest()[:16]

    def _made_before(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder)):
                if name[0] != ".":  # such a one is being made
                    found += read_places(self._folder / name)
        return found

    def _found(self, real: str) -> str | None:
        """Return the copy of this file, also if it was opened by another of its names."""
        made = self._made_before()
        for path, copy in made:
            if path == real:
                return copy
        for path, copy in made:
            with suppress(OSError):
                if os.path.samefile(path, real):
                    return copy
        return None

    def _made(self, real: str, named: str) -> str | None:
        """Return the copy of what the database is now, once it is made; None where it cannot be."""
        home, made = self._home(real), self._folder / f".{os.urandom(8).hex()}"
        try:
            own_folder(self._folder)
            own_folder(made)
            copy = self._copied(real, made)
            there = copy.is_file() and copy.stat().st_size > 0
            below = copy.relative_to(made)
            write_places(made, [(real, home / below)])
            try:
                os.rename(made, home)
            except OSError:
                if not home.is_dir():  # else another process was faster
                    raise
                return self._found(real)
        except Exception as error:
            self._as_they_are.add(real)
            self._session.note("as it is", {"path": named, "why": str(error)})
            return None
        finally:
            shutil.rmtree(made, ignore_errors=True)
        # A temporary one that nobody made before is nothing that a user has.
        if there or not is_below(real, temporary_folder()):
            self._session.note("database", {"path": named})
        return str(home / below)

    def _copied(self, real: str, made: Path) -> Path:
        limit = self._session.settings.state_limit
        if os.path.exists(real) and open_here(real) is not None and os.path.getsize(real) <= limit:
            # To close the file as any other would take away the locks that this process has on it.
            own_folder(made / "0")
            return _backed_up(real, made / "0" / os.path.basename(real))
        (kept,) = keep((real,), made / "store", limit=limit)
        copy = give_one(kept, objects_of(made / "store"), made / "0")
        shutil.rmtree(made / "store", ignore_errors=True)
        return copy


def _backed_up(real: str, copy: Path) -> Path:
    """Return the copy, once SQLite itself has made it."""
    import sqlite3

    os.close(make_new(copy))
    with (
        closing(sqlite3.connect(f"file:{quote(real)}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def file_of(database: Any, *, uri: bool) -> str | None:
    """Return the file that SQLite opens; None where it has none."""
    text = os.fsdecode(database) if isinstance(database, str | bytes | os.PathLike) else ""
    if uri and text.startswith("file:"):
        if "mode=memory" in text.partition("?")[2]:
            return None
        text = path_in(text)
    return None if text in ("", ":memory:") or "\0" in text else text


def database_of(database: Any, *, uri: bool = True) -> str | None:
    """Return the file that SQLite opens to read and write; None where it has none, or only reads it."""
    path = file_of(database, uri=uri)
    if path is not None and uri:
        text = os.fsdecode(database)
        query = text.partition("?")[2] if text.startswith("file:") else ""
        if "mode=ro" in query or "immutable=1" in query:
            return None
    return path


def path_in(uri: str) -> str:
    """Return the path in a URI of SQLite."""
    path = uri[len("file:") :].partition("?")[0].partition("#")[0]
    host = "//localhost" if path.startswith("//localhost/") else "//" if path.startswith("///") else ""
    return unquote(path[len(host) :])
