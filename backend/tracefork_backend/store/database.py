"""The views of a store as they are now, for the store's own questions and for a user's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import duckdb

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.store import manifest, sealing, wal

from . import compacting, facts, guard, live, snapshot
from .statements import statement

Params: TypeAlias = Mapping[str, object] | Sequence[object] | None
Row: TypeAlias = dict[str, Any]
_T = TypeVar("_T")
_FROM_FILES = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.InternalException,
    duckdb.FatalException,
)
"""What DuckDB raises on a damaged file; also plain duckdb.Error."""


class Database:
    """The newest snapshot of a store: every question sees what was written up to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known = live.Known()
        self._snapshot: snapshot.Snapshot | None = None
        self._kept: tuple[str, ...] = ()
        self._spoiled: dict[str, str] = {}
        """Segments that turned out damaged as they were read, and why."""

    def close(self) -> None:
        """Let the database go; a later question opens it again."""
        with self._lock:
            self._snapshot = None

    @property
    def writable(self) -> bool:
        """Whether dead processes' WALs are sealed; else they are read as they are."""
        return is_store(self.path) and os.access(self.path, os.W_OK | os.X_OK)

    @property
    def problems(self) -> tuple[str, ...]:
        """Files that cannot be read, and why; everything else can be asked for."""
        current = self.current()
        return tuple(dict.fromkeys((*self._kept, *current.problems)))

    @property
    def met(self) -> tuple[str, ...]:
        """Files that could not be read for the questions so far, and why."""
        problems = () if self._snapshot is None else self._snapshot.problems
        return tuple(dict.fromkeys((*self._kept, *problems)))

    def sql(self, query: str, params: Params = None) -> duckdb.DuckDBPyRelation:
        """Return the query's answer; raises UsageError if it is anything but one SELECT over the views.

        Parameters are `$name` or `?`. The relation is evaluated when it is read.
        """
        cursor = self.current().cursor()
        guard.check(cursor, query)
        try:
            return cursor.sql(query, params=params)
        except duckdb.Error as error:
            raise UsageError(f"the query failed: {guard.first_line(error)}") from error

    def rows(self, query: str, params: Params = None) -> list[Row]:
        """Return the rows of a user's query; raises UsageError as `sql` does, or if reading fails."""

        def read() -> list[Row]:
            relation = self.sql(query, params)
            return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

        try:
            return self._without_spoiled(read)
        except duckdb.Error as error:
            raise UsageError(f"the query failed: {guard.first_line(error)}") from error

    def ask(self, name: str, **params: object) -> list[Row]:
        """Return the rows of a query of `statements.sql`, by its name there."""

        def read() -> list[Row]:
            cursor = self.current().cursor().execute(statement(name), params or None)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        try:
            return self._without_spoiled(read)
        except duckdb.Error as error:
            why = guard.first_line(error)
            raise StoreError(f"{self.path}: the store cannot be read: {why}; see `doctor`") from error

    def current(self, *, anew: bool = False) -> snapshot.Snapshot:
        """Return the store as it is now."""
        with self._lock:
            state = snapshot.state_of(self.path)
            if self._snapshot is None or anew or self._snapshot.state != state:
                if self.writable:
                    self._kept = _settle(self.path)
                self._snapshot = snapshot.take(self.path, self._known, self._spoiled)
            return self._snapshot

    def _without_spoiled(self, read: Callable[[], _T]) -> _T:
        """Return what is read, the second time without segments that made the first one fail."""
        try:
            return read()
        except duckdb.Error as error:
            if type(error) is not duckdb.Error and not isinstance(error, _FROM_FILES):
                raise
            found = {
                entry.id: why
                for entry in self.current().entries
                if (why := snapshot.why_spoiled(self.path, entry)) is not None
            }
            if not found:
                raise
            self._spoiled |= found
            self.current(anew=True)
        return read()


def is_store(path: Path) -> bool:
    """Return whether something was recorded into the directory."""
    return (path / manifest.FILE).exists() or (path / "wal").is_dir()


def _settle(path: Path) -> tuple[str, ...]:
    """Seal what dead processes left and give segments their facts; return what could not be done, and why."""
    problems: list[str] = []
    try:
        if any(not wal.is_live(file) for file in wal.wal_files(path)):
            problems += sealing.seal_dead(path)
        problems += facts.ensure(path)
        if not (path / manifest.VIEWS).exists():
            manifest.commit(path)
        if len(manifest.load(path).segments) > compacting.LIMIT:
            compacting.compact(path, bound=compacting.BOUND)
    except StoreError as error:
        problems.append(str(error))
    return tuple(problems)
