"""The views of a store as they are now, for the store's own questions and for a user's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import duckdb

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.store import manifest, sealing, wal
from tracefork_otel.store.spool import is_of_bucket

from ..spelling import counted, run_name
from . import compacting, facts, guard, limits, live, snapshot
from .statements import statement

if TYPE_CHECKING:
    import pyarrow as pa

Params: TypeAlias = Mapping[str, object] | Sequence[object] | None
Row: TypeAlias = dict[str, Any]
_T = TypeVar("_T")
_FROM_FILES = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.InternalException,
    duckdb.FatalException,
    duckdb.PermissionException,
)
"""What DuckDB raises on a damaged file, the last on one that is gone; also plain duckdb.Error."""
_BATCH = 10_000
"""Rows that are in memory at once where an answer is read by and by."""
_NAMED = 5
"""So many runs of a segment are named where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Database:
    """The newest snapshot of a store: every question sees what was written up to it."""

    def __init__(self, path: Path, *, memory: str = limits.MEMORY) -> None:
        self.path = path
        self._memory = limits.memory(memory)
        self._lock = threading.Lock()
        self._known = live.Known()
        self._snapshot: snapshot.Snapshot | None = None
        self.unsettled: tuple[str, ...] = ()
        """What could not be sealed or given its facts, and why."""
        self._spoiled: dict[str, dict[str, str]] = {}
        """Files of segments that turned out damaged as they were read, by segment and kind, and why."""
        self._unfit: set[str] = set()
        """Segments whose facts did."""
        self._checked: set[str] = set()
        """Segments whose facts were compared with their digests."""

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
        return tuple(dict.fromkeys((*self.unsettled, *current.problems)))

    @property
    def met(self) -> tuple[str, ...]:
        """Files that could not be read for the questions so far, why, and what is missing as far as known."""
        if self._snapshot is None:
            return self.unsettled
        lacking = {entry.id: _held(entry) for entry in self._snapshot.unread}
        found: list[str] = []
        for why in dict.fromkeys((*self.unsettled, *self._snapshot.problems)):
            rows = next((lacking.pop(one) for one in lacking if one in why), None)
            found.append(why if rows is None else f"{why}; missing: {rows}")
        # Opening a file and reading it may both have failed: it is named once, by the first.
        return tuple({one.partition(": ")[0]: one for one in reversed(found)}.values())[::-1]

    def sql(self, query: str, params: Params = None) -> duckdb.DuckDBPyRelation:
        """Return the query's answer; raises UsageError if it is anything but one SELECT over the views.

        Parameters are `$name` or `?`. The relation is evaluated when it is read.
        """
        try:
            return self._asked(query, limits.Clock(None), lambda cursor: cursor.sql(query, params=params))
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            raise self._failed(error) from error

    def answer(self, query: str, params: Params = None, *, seconds: float | None = None) -> Answer:
        """Return what a user's query gives; raises UsageError as `sql` does, or if reading fails.

        So it does where that takes longer than so many seconds, or more memory than there is for it.
        """

        def read() -> Answer:
            # Of a relation the query would be planned twice, which takes longer than reading one run.
            found = self._asked(query, clock, lambda cursor: cursor.execute(query, params))
            return Answer(tuple(column[0] for column in found.description or ()), found.fetchall())

        try:
            with limits.Clock(seconds) as clock:
                return self._without_spoiled(read)
        except (duckdb.Error, MemoryError) as error:
            raise self._failed(error) from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"a value of the answer cannot be shown ({guard.first_line(error)}): cast it to text"
            ) from error

    def batches(self, query: str, params: Params = None) -> Iterator[pa.RecordBatch]:
        """Give the rows of a user's query as Arrow has them, some at a time; raises as `answer` does."""
        try:
            yield from self.sql(query, params).to_arrow_reader(_BATCH)
        except (duckdb.Error, MemoryError) as error:
            raise self._failed(error) from error

    def rows(self, query: str, params: Params = None) -> list[Row]:
        """Return the rows of a user's query; raises UsageError as `answer` does."""
        answer = self.answer(query, params)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    def _asked(self, query: str, clock: limits.Clock, ask: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        """Return what comes of asking a user's query, once it is known to do nothing but read the views."""
        current = self.current()
        cursor = clock.watch(current.cursor(query))
        guard.check(cursor, query)
        try:
            return ask(cursor)
        except duckdb.CatalogException:
            # A name may be spelled in a way that only DuckDB reads.
            if not current.views.define_all():
                raise
            return ask(clock.watch(current.cursor(query)))

    def _failed(self, error: BaseException) -> UsageError:
        if limits.is_memory(error):
            return UsageError(limits.too_much(self._memory))
        return UsageError(f"the query failed: {guard.first_line(error)}")

    def ask(self, name: str, **params: object) -> list[Row]:
        """Return the rows of a query of `statements.sql`, by its name there."""

        def read() -> list[Row]:
            query = statement(name)
            cursor = self.current().cursor(query).execute(query, params or None)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        try:
            return self._without_spoiled(read)
        except duckdb.Error as error:
            why = "it needs more memory than there is" if limits.is_memory(error) else guard.first_line(error)
            raise StoreError(f"{self.path}: the store cannot be read: {why}; see `doctor`") from error

    def current(self, *, anew: bool = False) -> snapshot.Snapshot:
        """Return the store as it is now."""
        with self._lock:
            state = snapshot.state_of(self.path)
            if self._snapshot is None or anew or self._snapshot.state != state:
                # A bit that flipped may leave a file that can be read, and says less.
                unchecked = {one.id for one in manifest.load(self.path).segments} - self._checked
                self._unfit |= facts.changed(self.path, unchecked)
                self._checked |= unchecked
                if self.writable:
                    self.unsettled = _settle(self.path, self._unfit)
                    self._unfit &= facts.changed(self.path, self._unfit)
                try:
                    self._snapshot = self._taken()
                except (duckdb.Error, MemoryError) as error:
                    if limits.is_memory(error):
                        why = limits.too_much_to_open(self._memory)
                        raise StoreError(f"{self.path}: {why}") from error
                    raise
            return self._snapshot

    def _taken(self) -> snapshot.Snapshot:
        """Return the store as it is; files that go while it is looked at are not taken for damage."""
        attempts = snapshot.ATTEMPTS
        while True:
            attempts -= 1
            taken = snapshot.take(self.path, self._known, self._memory, self._spoiled, self._unfit)
            if not (attempts and taken.problems) or manifest.load(self.path).version == taken.version:
                return taken

    def _without_spoiled(self, read: Callable[[], _T]) -> _T:
        """Return what is read, the second time without segments that made the first one fail."""
        try:
            return read()
        except duckdb.Error as error:
            if type(error) is not duckdb.Error and not isinstance(error, _FROM_FILES):
                raise
            used, current = self._snapshot, self.current()
            entries = current.entries
            found = {
                entry.id: whys
                for entry in entries
                if (whys := snapshot.spoiled_files(self.path, entry)) != self._spoiled.get(entry.id, {})
            }
            unfit = facts.changed(self.path, [entry.id for entry in entries])
            # Files of the state that was read go where somebody replaced them meanwhile: see `pack`.
            if not found and not unfit and current is used:
                raise
            self._spoiled |= found
            self._unfit |= unfit
            self.current(anew=True)
        return read()


def _held(entry: manifest.SegmentEntry) -> str:
    """Return in words how many rows of which runs the segment holds."""
    listed = [run_name(trace_id) for trace_id in entry.traces or ()]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    whose = (
        f"run{'s' * (len(listed) > 1)} {', '.join(listed[:_NAMED])}{more}"
        if listed
        else f"more than {manifest.TRACES} runs"
    )
    return f"{counted(entry.exchanges, 'exchange')} and {counted(entry.spans, 'span')} of {whose}"


def is_store(path: Path) -> bool:
    """Return whether something was recorded into the directory."""
    return (path / manifest.FILE).exists() or any((path / name).is_dir() for name in ("wal", "segments"))


def _settle(path: Path, unfit: Collection[str]) -> tuple[str, ...]:
    """Seal what dead processes left and give segments their facts, those that are `unfit` new ones.

    Return what could not be done, and why.
    """
    problems: list[str] = []
    try:
        if any(not wal.is_live(file) for file in wal.wal_files(path)):
            problems += sealing.seal_dead(path)
        problems += facts.ensure(path, unfit)
        if not (path / manifest.VIEWS).exists():
            manifest.commit(path)
        if not is_of_bucket(path) and len(manifest.load(path).segments) > compacting.LIMIT:
            compacting.compact(path, bound=compacting.BOUND)
    except StoreError as error:
        problems.append(str(error))
    return tuple(problems)
