"""A DuckDB connection to one state of the store: sealed segments and live tails behind the same views."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, segment, wal
from tracefork_otel.store.columns import unlike
from tracefork_otel.store.manifest import SegmentEntry

from . import facts, limits
from . import live as live_tables
from .defining import Views
from .digests import not_parquet
from .guard import first_line
from .live import Live
from .statements import before_views, statement

ATTEMPTS = 20
"""Readings of a store whose WALs are sealed at that very moment, before giving up."""
_LACKS = (
    "its exchanges are shown without the names, starts, tools and notes of their runs; put the file back, or "
    "go on without it: tracefork-otel doctor --repair"
)
_SMALL_BYTES = 1_000_000
"""Of files of a kind that are read once and not by each question: one about runs reads the files' columns
twenty times while it is planned, and takes 120 ms of a processor so, 35 ms where they are tables."""
State: TypeAlias = tuple[Any, ...]
"""Equal for two moments between which nothing was written, sealed or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One state of the store, and a database with its views."""

    state: State
    version: int
    """Of the manifest."""
    entries: tuple[SegmentEntry, ...]
    """The segments that can be read."""
    unread: tuple[SegmentEntry, ...]
    """Those that cannot."""
    unnamed: tuple[str, ...]
    """Segments that the manifest does not name."""
    live: Live
    problems: tuple[str, ...]
    """Files that cannot be read, named, and why."""
    database: duckdb.DuckDBPyConnection
    views: Views
    scans: Mapping[str, str]
    twice: frozenset[str]
    """Trace and span of calls that are told by another span too (view `_told_below`)."""
    beside: frozenset[str]
    """Process and trace of what is kept beside a run: somebody else said it (view `_beside`)."""

    def cursor(self, query: str) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the views that the query names, in a read-only transaction."""
        self.views.define(query)
        # A result owns its connection until it is read to the end, so each query gets its own. The views read
        # the names of the files from variables, which belong to a connection.
        cursor = self.database.cursor()
        cursor.execute(statement("set_scans"), {"scans": self.scans})
        cursor.execute(statement("set_beside"), {"beside": sorted(self.beside)})
        cursor.execute(statement("read_only"))
        return cursor


def state_of(store: Path) -> State:
    """Return what changes whenever the store does."""
    files: list[tuple[str, int, bool]] = []
    for path in wal.wal_files(store):
        try:
            files.append((path.name, path.stat().st_size, wal.is_live(path)))
        except FileNotFoundError:
            continue
    try:
        status = os.stat(store / manifest.FILE)
    except FileNotFoundError:
        return (tuple(files),)
    return (tuple(files), status.st_mtime_ns, status.st_ino, status.st_size)


def take(
    store: Path,
    known: live_tables.Known,
    memory: str,
    spoiled: Mapping[str, Mapping[str, str]],
    unfit: Collection[str],
) -> Snapshot:
    """Return the store as it is now, without the files that are `spoiled` (why, by segment and kind).

    A segment of which only the spans are spoiled shows its exchanges.

    The facts of those that are `unfit` are computed anew. Queries hold no more than that much `memory`.
    """
    state = state_of(store)
    listed, live = _consistent(store, known)
    database = limits.connect(
        memory,
        autoinstall_known_extensions="false",
        autoload_known_extensions="false",
        python_enable_replacements="false",
        allow_community_extensions="false",
        allow_persistent_secrets="false",
        # Nothing is spilled: the default would write into the current directory.
        temp_directory="",
    )
    database.execute(statement("settings"))
    fit = [replace(entry, facts=None) if entry.id in unfit else entry for entry in listed.segments]
    entries, spanless, problems = _readable(database, store, fit, spoiled)
    if left := manifest.unnamed(store, listed):
        lacks = "the manifest is lost or older than they are" if listed.version else "the manifest is lost"
        problems.append(
            f"{store / 'segments'}: {', '.join(left)}: {lacks}, so their runs are not shown; "
            "`tracefork-otel doctor --repair` takes them in"
        )
    problems += [
        f"{path}: a log has this name, and this is {'a link' if path.is_symlink() else 'no file'}, which is "
        "not followed; put the log itself here, or move this out"
        for path in wal.not_files(store)
        if path.name not in listed.wals
    ]
    database.execute(statement("set_store"), {"store": str(store)})
    shown = [{"id": e.id, "facts": e.facts, "spanless": e.id in spanless} for e in entries]
    database.execute(statement("set_segments"), {"segments": shown})
    database.execute(before_views())
    _fill(database, store, entries, live)
    ((scans,),) = database.execute(statement("get_scans")).fetchall()
    views = Views(database, held=_small(store, entries) | {"_paid_elsewhere"})
    beside, twice = _from_others(database, views)
    if beside:
        database.execute(statement("set_beside"), {"beside": sorted(beside)})
        _read_anew(database, store, entries, live, beside)
    _fence(database, store, entries)
    return Snapshot(
        state=state,
        version=listed.version,
        entries=tuple(entries),
        unread=tuple(entry for entry in listed.segments if entry.id not in {one.id for one in entries}),
        unnamed=tuple(left),
        live=live,
        problems=(*live.problems, *problems),
        database=database,
        views=views,
        scans=scans,
        beside=beside,
        twice=twice,
    )


def _consistent(store: Path, known: live_tables.Known) -> tuple[manifest.Manifest, Live]:
    """Return the segments and the tails of one moment: nothing is seen twice, and nothing is missing."""
    for _ in range(ATTEMPTS):
        # WALs before the manifest: one that is sealed in between is found in the manifest.
        live = live_tables.read(wal.wal_files(store), known)
        listed = manifest.load(store)
        if listed.wals.isdisjoint(path.name for path in live.wals):
            return listed, live
        left = [path for path in live.wals if path.name not in listed.wals]
        live = live_tables.read(left, known)
        if manifest.load(store).version == listed.version:
            return listed, live
    raise StoreError(f"{store}: the store changes faster than it can be read; try again")


def _fill(
    database: duckdb.DuckDBPyConnection, store: Path, entries: Sequence[SegmentEntry], live: Live
) -> None:
    """Fill the live tables with the tails, and with the facts of segments that could not be given any."""
    tables = [("live", name, table) for name, table in live.tables.items()]
    for entry in entries:
        if not facts.are_known(entry):
            try:
                tables.append((entry.id, "facts", facts.compute(store, entry)))
            except StoreError:
                continue
    for origin, name, table in tables:
        if table.num_rows:
            database.register("arriving", table)
            database.execute(statement("fill").replace("{table}", name), {"origin": origin})
            database.unregister("arriving")
    if live.processes:
        database.execute(statement("fill_processes"), {"processes": list(live.processes)})


def _small(store: Path, entries: Sequence[SegmentEntry]) -> frozenset[str]:
    """Return the views over files that are so small that they are better read once."""
    views = {"_all_exchanges": "exchanges", "_spans": "spans", "_facts": "facts"}
    sizes = dict.fromkeys(views, 0)
    for view, kind in views.items():
        for entry in entries:
            if kind in _kinds(entry):
                with contextlib.suppress(OSError):  # the question that needs the file says so
                    sizes[view] += entry.file(store, kind).stat().st_size
    return frozenset(view for view, size in sizes.items() if size <= _SMALL_BYTES)


def _from_others(database: duckdb.DuckDBPyConnection, views: Views) -> tuple[frozenset[str], frozenset[str]]:
    """Return the process and trace of what is kept beside a run, and trace and span of what is told twice."""

    def asked(name: str) -> frozenset[str]:
        views.define(statement(name))
        return frozenset(found for (found,) in database.execute(statement(name)).fetchall())

    try:
        # Most stores have no senders, and this is a quarter of the work.
        if not asked("has_senders"):
            return frozenset(), frozenset()
        views.define(statement("fill_twice"))
        database.execute(statement("fill_twice"))
        return asked("get_beside"), asked("get_twice")
    except duckdb.Error as error:
        if limits.is_memory(error):
            raise
        return frozenset(), frozenset()  # a damaged segment is named by the question that needs it


def _read_anew(
    database: duckdb.DuckDBPyConnection,
    store: Path,
    entries: Sequence[SegmentEntry],
    live: Live,
    beside: frozenset[str],
) -> None:
    """Read the facts of runs from their own exchanges, where others said something of the same traces."""
    shared = {writer.partition(" ")[2] for writer in beside}
    found = [one for trace_id in shared for one in live_tables.exchanges(live.wals, trace_id)]
    for entry in entries:
        if any(entry.may_hold(trace_id) for trace_id in shared):
            with contextlib.suppress(StoreError):  # it is named when the run is read
                found += segment.read_exchanges(store, entry, trace_ids=shared)
    own = [one for one in found if f"{one.process_id} {one.trace_id}" not in beside]
    database.register("arriving", facts.of_exchanges(own))
    database.execute(statement("forget_facts"), {"trace_ids": sorted(shared)})
    database.execute(statement("fill").replace("{table}", "facts"), {"origin": "shared"})
    database.unregister("arriving")


def _fence(database: duckdb.DuckDBPyConnection, store: Path, entries: Sequence[SegmentEntry]) -> None:
    """Let the database open no file but those of the segments, and no setting be changed."""
    # DuckDB takes no parameters in SET, so the list is quoted here.
    files = [str(entry.file(store, kind)).replace("'", "''") for entry in entries for kind in _kinds(entry)]
    database.execute("SET allowed_paths = [" + ", ".join(f"'{file}'" for file in files) + "]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _readable(
    database: duckdb.DuckDBPyConnection,
    store: Path,
    entries: Sequence[SegmentEntry],
    spoiled: Mapping[str, Mapping[str, str]],
) -> tuple[list[SegmentEntry], set[str], list[str]]:
    """Return the segments that are shown, those of them without their spans, and what is wrong with any.

    What is shown is there and has our columns. One whose facts cannot be read is as one that has none: they
    are computed anew.
    """
    wrong: dict[str, dict[str, str]] = {}
    for entry in entries:
        if newer := entry.why_newer(store):
            wrong[entry.id] = {"format": newer}
            continue
        found = {kind: not_parquet(entry.file(store, kind)) for kind in manifest.RECORDED}
        wrong[entry.id] = {kind: why for kind, why in found.items() if why} | dict(spoiled.get(entry.id, {}))
    whole = [
        entry if facts.are_whole(store, entry) else replace(entry, facts=None)
        for entry in entries
        if wrong[entry.id].keys() <= {"spans"}
    ]
    files = [(kind, entry) for entry in whole for kind in _kinds(entry) if kind not in wrong[entry.id]]
    bad = _unlike(database, [(kind, entry.file(store, kind)) for kind, entry in files])
    without = {entry.id for entry in whole if bad.pop(entry.file(store, "facts"), None)}
    for kind, entry in files:
        if (why := bad.get(entry.file(store, kind))) is not None:
            wrong[entry.id][kind] = why
    shown = [entry for entry in whole if wrong[entry.id].keys() <= {"spans"}]
    spanless = {entry.id for entry in shown if wrong[entry.id]}
    problems = [
        f"{why}; {_LACKS}" if segment_id in spanless else why
        for segment_id, whys in wrong.items()
        for why in whys.values()
    ]
    return [replace(e, facts=None) if e.id in without else e for e in shown], spanless, problems


def _kinds(entry: SegmentEntry) -> tuple[str, ...]:
    return manifest.KINDS if facts.are_known(entry) else manifest.RECORDED


def _unlike(database: duckdb.DuckDBPyConnection, files: Sequence[tuple[str, Path]]) -> dict[Path, str]:
    """Return files whose columns are not those of their kind, and why."""
    if not files:
        return {}
    query = statement("columns_of_files")
    try:
        found = database.execute(query, {"files": [str(path) for _, path in files]}).fetchall()
    except duckdb.Error as error:
        if limits.is_memory(error):
            raise
        if len(files) == 1:
            return {files[0][1]: f"{files[0][1]}: the file of a segment cannot be read: {first_line(error)}"}
        half = len(files) // 2
        return _unlike(database, files[:half]) | _unlike(database, files[half:])
    columns = {name: dict(zip(names, types, strict=True)) for name, names, types in found}
    whys = {path: unlike(kind, columns.get(str(path), {}), lambda type: type.sql) for kind, path in files}
    return {path: f"{path}: {why}" for path, why in whys.items() if why is not None}


def why_spoiled(store: Path, entry: SegmentEntry) -> str | None:
    """Return which recorded file of the segment is not as it was written, and how; None if none is."""
    return next(_spoiled(store, entry), (None, None))[1]


def spoiled_files(store: Path, entry: SegmentEntry) -> dict[str, str]:
    """Return which recorded files of the segment are not as they were written, by kind, and how."""
    return dict(_spoiled(store, entry))


def _spoiled(store: Path, entry: SegmentEntry) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if newer := entry.why_newer(store):
        yield "format", newer
        return
    for kind in manifest.RECORDED:
        path = entry.file(store, kind)
        if kind in entry.sha256:
            if changed := entry.why_changed(store, kind):
                yield kind, changed
            continue
        try:
            # Each reader sees what the other overlooks: pyarrow the checksums of pages, DuckDB their headers.
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
            duckdb.connect().execute(statement("read_all"), {"file": str(path)}).fetchall()
        except (OSError, ValueError, pa.ArrowException, duckdb.Error) as error:
            if limits.is_memory(error):
                raise
            yield kind, f"{path}: the file of a segment is damaged: {first_line(error)}"
