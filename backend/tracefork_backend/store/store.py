"""An open store: its runs, and SQL over its views."""

from __future__ import annotations

import difflib
import json
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import duckdb

from tracefork_otel.errors import StoreError, UnknownRun, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.settings import DEFAULT_STORE
from tracefork_otel.store import manifest, sealing, segment, wal
from tracefork_otel.store.records import Note, SpanRecord
from tracefork_otel.store.rows import span_of

from . import compacting, facts, guard, live
from . import snapshot as snapshots
from .digests import Digests
from .run import MIN_PREFIX, Kind, Run, back_of, prefix_of
from .statements import statement

Params: TypeAlias = Mapping[str, object] | Sequence[object] | None
_FROM_FILES = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.InternalException,
    duckdb.FatalException,
)
"""What DuckDB raises on a damaged file; also plain duckdb.Error."""
RECORDED = ("exchanges", "chunks", "spans")
"""The files that a run is made from; facts can be read from them again."""
NEAR = 5
"""At most this many runs are named where one is not found."""


class Store:
    """The runs of a directory; every question sees what was written up to it, by whichever process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: live.Facts = {}
        self._snapshot: snapshots.Snapshot | None = None
        self._kept: tuple[str, ...] = ()
        self._spoiled: dict[str, str] = {}
        """Segments that turned out damaged as they were read, and why."""
        self._digests = Digests()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The database is let go; a later question opens it again."""
        with self._lock:
            self._snapshot = None

    @property
    def writable(self) -> bool:
        """Whether dead processes' WALs are sealed; else they are read as they are."""
        return _is_store(self.path) and os.access(self.path, os.W_OK | os.X_OK)

    @property
    def problems(self) -> tuple[str, ...]:
        """Files of the store that cannot be read, and why; everything else can be asked for."""
        snapshot = self._current()
        return tuple(dict.fromkeys((*self._kept, *snapshot.problems)))

    def sql(self, query: str, params: Params = None) -> duckdb.DuckDBPyRelation:
        """The query's answer; raises UsageError if it is anything but one SELECT over the views.

        Parameters are `$name` or `?`. The relation is evaluated when it is read.
        """
        cursor = self._current().cursor(query)
        guard.check(cursor, query)
        try:
            return cursor.sql(query, params=params)
        except duckdb.Error as error:
            raise UsageError(f"the query failed: {guard.first_line(error)}") from error

    def rows(self, query: str, params: Params = None) -> list[dict[str, Any]]:
        """The rows of the query's answer by column; raises UsageError as `sql` does, or if reading fails."""
        for attempt in (1, 2):
            try:
                relation = self.sql(query, params)
                return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
            except duckdb.Error as error:
                if attempt == 1 and self._left_out(error):
                    continue
                raise UsageError(f"the query failed: {guard.first_line(error)}") from error
        raise AssertionError("unreachable")

    def run(self, ref: str) -> Run:
        """The run that goes by that name: `last`, `last~2`, a unique prefix of its id; raises UnknownRun."""
        back, prefix = back_of(ref), prefix_of(ref)
        if back is not None:
            found = self.ask("run_back", back=back)
            if not found:
                raise UnknownRun(f"no run {ref!r} in {self.path}{self._near(ref)}")
            return Run.of_row(found[0], self)
        if prefix is None or len(prefix) < MIN_PREFIX:
            how = f"write last, last~2, or at least {MIN_PREFIX} digits of a run id"
            raise UnknownRun(f"{ref!r} names no run: {how}{self._near(ref)}")
        found = self.ask("run_by_prefix", prefix=prefix)
        if not found:
            changed = self._digests.first_changed(
                self.path, lambda entry: entry.lists(prefix), manifest.KINDS
            )
            if changed:
                raise StoreError(f"no run {ref!r} can be read: {changed}; see `tracefork-otel doctor`")
            raise UnknownRun(f"no run {ref!r} in {self.path}{self._near(prefix)}")
        if len(found) > 1:
            raise UnknownRun(f"{ref!r} is more than one run: {_listed(found)}; write more digits")
        return Run.of_row(found[0], self)

    def runs(self, kind: Kind | None = None, *, limit: int = 1000) -> list[Run]:
        """The newest runs, of one kind or of all, newest first."""
        found = self.ask("runs_of_kind", kind=kind, limit=limit) if kind else self.ask("runs", limit=limit)
        return [Run.of_row(row, self) for row in found]

    def has_run(self, run_id: str) -> bool:
        """Whether a run of exactly this id is in the store."""
        return self._value("has_run", run_id=run_id)

    def losses(self) -> int:
        """How many records processes could not write."""
        return self._value("losses")

    def exchanges(self, run_id: str) -> tuple[Exchange, ...]:
        """The exchanges of a run in step order, their digests checked."""
        try:
            return self._exchanges(self._current(), run_id)
        except StoreError:
            # A segment was merged into another one after the snapshot was taken: its rows are elsewhere now.
            return self._exchanges(self._current(anew=True), run_id)

    def _exchanges(self, snapshot: snapshots.Snapshot, run_id: str) -> tuple[Exchange, ...]:
        found = live.exchanges(snapshot.live.wals, run_id)
        for entry in snapshot.entries:
            if entry.may_hold(run_id):
                found += segment.read_exchanges(self.path, entry, trace_ids={run_id})
        return tuple(sorted(found, key=lambda exchange: (exchange.started_ns, exchange.span_id)))

    def why_changed(self, run_ids: Collection[str]) -> str | None:
        """Which file that holds these runs is not as it was written, and how it shows; None if none is."""
        holding = {row["segment"] for row in self.ask("segments_of_runs", run_ids=list(run_ids))}
        return self._digests.first_changed(
            self.path,
            lambda entry: entry.id in holding or any(entry.lists(run_id) for run_id in run_ids),
            RECORDED,
        )

    def notes(self, run_id: str) -> tuple[Note, ...]:
        """The notes on a run and on the processes that made it."""
        return tuple(_note(row) for row in self.ask("notes_of_run", run_id=run_id))

    def open_steps(self, run_id: str) -> tuple[int, ...]:
        """The steps of a run that have not ended, or never will as their process was killed."""
        return tuple(row["step"] for row in self.ask("open_steps_of_run", run_id=run_id))

    def draws_of_launch(self, launch_id: str) -> tuple[Note, ...]:
        """What all processes of one command drew from clocks and randomness."""
        return tuple(_note(row) for row in self.ask("draws_of_launch", launch_id=launch_id))

    def tools_of(self, run_ids: Collection[str], launch_id: str | None = None) -> tuple[SpanRecord, ...]:
        """The spans of local tools in these runs, and in all processes of a command if one is given."""
        found = self.ask("tools_of_runs", run_ids=list(run_ids), launch_id=launch_id or "-")
        return tuple(span_of(row) for row in found)

    def launch_of(self, run_id: str) -> str | None:
        """The trace id of the command that started the run's processes, None if nobody said."""
        return next((row["trace_id"] for row in self.ask("launch_of_run", run_id=run_id)), None)

    def runs_of_launch(self, launch_id: str) -> tuple[str, ...]:
        """The ids of all runs that one command's processes made, in order of their start."""
        return tuple(row["trace_id"] for row in self.ask("runs_of_launch", launch_id=launch_id))

    def runs_beside(self, run_id: str) -> tuple[str, ...]:
        """The ids of all runs that this run's processes made, in order of their start."""
        return tuple(row["trace_id"] for row in self.ask("runs_beside", run_id=run_id))

    def start_attributes(self, run_id: str, launch_id: str | None) -> dict[str, Any]:
        """The attributes that say how a run began; the run's own root goes before its launch's."""
        merged: dict[str, Any] = {}
        for trace_id in dict.fromkeys(filter(None, (run_id, launch_id))):
            for row in self.ask("heads_of_run", run_id=trace_id):
                for name, value in json.loads(row["attributes"]).items():
                    if value is not None:
                        merged.setdefault(name, value)
        return merged

    def root_of(self, run_id: str) -> str | None:
        """The id of the span above all others of a run, or None if none was recorded."""
        return next((row["span_id"] for row in self.ask("root_of_run", run_id=run_id)), None)

    @property
    def entries(self) -> tuple[manifest.SegmentEntry, ...]:
        """The segments that can be read."""
        return self._current().entries

    def compact(self) -> str | None:
        """All segments are one; its id, or None if there were not two, or another process is merging."""
        return compacting.compact(self.path)

    def _near(self, ref: str) -> str:
        runs = self.ask("runs", limit=1000)
        if not runs:
            return "; it has no runs yet: record one with `tracefork-otel run -- python agent.py`"
        ids = [row["run_id"] for row in runs]
        close = difflib.get_close_matches(ref, [run_id[: max(len(ref), 8)] for run_id in ids], NEAR, 0.5)
        near = [row for row in runs if any(row["run_id"].startswith(prefix) for prefix in close)]
        return f"; near it: {_listed((near or runs)[:NEAR])}"

    def _value(self, name: str, **params: object) -> Any:
        ((value,),) = (row.values() for row in self.ask(name, **params))
        return value

    def ask(self, name: str, **params: object) -> list[dict[str, Any]]:
        """The rows of one of the store's own queries (`statements.sql`)."""
        for attempt in (1, 2):
            try:
                cursor = self._current().cursor().execute(statement(name), params or None)
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            except duckdb.Error as error:
                if attempt == 1 and self._left_out(error):
                    continue
                why = guard.first_line(error)
                raise StoreError(f"{self.path}: the store cannot be read: {why}; see `doctor`") from error
        raise AssertionError("unreachable")

    def _left_out(self, error: duckdb.Error) -> bool:
        """Whether damaged segments were behind the error; if so they are left out from now on."""
        if type(error) is not duckdb.Error and not isinstance(error, _FROM_FILES):
            return False
        found = {
            entry.id: why
            for entry in self.entries
            if (why := snapshots.why_spoiled(self.path, entry)) is not None
        }
        self._spoiled |= found
        if found:
            self._current(anew=True)
        return bool(found)

    def _current(self, *, anew: bool = False) -> snapshots.Snapshot:
        with self._lock:
            state = snapshots.state_of(self.path)
            if self._snapshot is None or anew or self._snapshot.state != state:
                if self.writable:
                    self._kept = _settle(self.path)
                self._snapshot = snapshots.take(self.path, self._known, self._spoiled)
                if not self._snapshot.live.wals:
                    self._known.clear()
            return self._snapshot


def _is_store(path: Path) -> bool:
    return (path / manifest.FILE).exists() or (path / "wal").is_dir()


def _settle(path: Path) -> tuple[str, ...]:
    """What dead processes left is sealed, and segments have facts; says what could not be done, and why."""
    problems: list[str] = []
    try:
        if any(not wal.is_live(file) for file in wal.wal_files(path)):
            problems += sealing.seal_dead(path).problems
        problems += facts.ensure(path)
        if not (path / manifest.VIEWS).exists():
            manifest.commit(path)
        if len(manifest.load(path).segments) > compacting.LIMIT:
            compacting.compact(path, bound=compacting.BOUND)
    except StoreError as error:
        problems.append(str(error))
    return tuple(problems)


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{row['run_id'][:12]} ({row['name']})" for row in rows[:NEAR])


def open_store(path: str | Path = DEFAULT_STORE) -> Store:
    """The store in that directory; one that does not exist is a store without runs, and is not made.

    What dead processes left is sealed unless the directory is read-only. Raises StoreError if it is no store.
    """
    if str(path).startswith(("s3://", "gs://", "http://", "https://")):
        raise UsageError(f"{path}: only local directories can be opened as a store")
    directory = Path(path).absolute()
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: this is a file; a store is a directory")
    manifest.load(directory)
    store = Store(directory)
    if _is_store(directory):
        store._current()
    return store


def _note(row: Mapping[str, Any]) -> Note:
    return Note(
        kind=row["name"],
        time_ns=row["started_ns"],
        trace_id=row["trace_id"] or None,
        attributes=json.loads(row["attributes"]),
        process_id=row["process_id"],
    )
