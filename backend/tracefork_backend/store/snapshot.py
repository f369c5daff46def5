"""A DuckDB connection to one state of the store: sealed segments and live tails behind the same views."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, wal
from tracefork_otel.store.columns import needed
from tracefork_otel.store.manifest import SegmentEntry

from . import facts
from . import live as live_tables
from .guard import first_line
from .live import Live
from .statements import statement, views

PARQUET = b"PAR1"
"""How every Parquet file begins and ends."""
ATTEMPTS = 20
"""Readings of a store whose WALs are sealed at that very moment, before giving up."""
State: TypeAlias = tuple[Any, ...]
"""Equal for two moments between which nothing was written, sealed or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One state of the store, and a database with its views."""

    state: State
    entries: tuple[SegmentEntry, ...]
    """The segments that can be read."""
    unread: tuple[SegmentEntry, ...]
    """Those that cannot."""
    live: Live
    problems: tuple[str, ...]
    """Files that cannot be read, named, and why."""
    database: duckdb.DuckDBPyConnection
    scans: Mapping[str, str]

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the views, in a read-only transaction."""
        # A result owns its connection until it is read to the end, so each query gets its own. The views read
        # the names of the files from variables, which belong to a connection.
        cursor = self.database.cursor()
        cursor.execute(statement("set_scans"), {"scans": self.scans})
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


def take(store: Path, known: live_tables.Known, spoiled: Mapping[str, str]) -> Snapshot:
    """Return the store as it is now, without the segments that are `spoiled` (why, by id)."""
    state = state_of(store)
    listed, live = _consistent(store, known)
    database = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            # Nothing is spilled: the default would write into the current directory.
            "temp_directory": "",
        }
    )
    database.execute(statement("settings"))
    sound = [entry for entry in listed.segments if entry.id not in spoiled]
    entries, problems = _readable(database, store, sound)
    problems += (spoiled[entry.id] for entry in listed.segments if entry.id in spoiled)
    if left := manifest.unnamed(store, listed):
        lacks = "the manifest is lost or older than they are" if listed.version else "the manifest is lost"
        problems.append(
            f"{store / 'segments'}: {', '.join(left)}: {lacks}, so their runs are not shown; "
            "`tracefork-otel doctor --repair` takes them in"
        )
    database.execute(statement("set_store"), {"store": str(store)})
    database.execute(
        statement("set_segments"), {"segments": [{"id": e.id, "facts": e.facts} for e in entries]}
    )
    database.execute(views())
    _fill(database, store, entries, live)
    ((scans,),) = database.execute(statement("get_scans")).fetchall()
    _fence(database, store, entries)
    return Snapshot(
        state=state,
        entries=tuple(entries),
        unread=tuple(entry for entry in listed.segments if entry not in entries),
        live=live,
        problems=(*live.problems, *problems),
        database=database,
        scans=scans,
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


def _fence(database: duckdb.DuckDBPyConnection, store: Path, entries: Sequence[SegmentEntry]) -> None:
    """Let the database open no file but those of the segments, and no setting be changed."""
    # DuckDB takes no parameters in SET, so the list is quoted here.
    files = [str(entry.file(store, kind)).replace("'", "''") for entry in entries for kind in _kinds(entry)]
    database.execute("SET allowed_paths = [" + ", ".join(f"'{file}'" for file in files) + "]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _readable(
    database: duckdb.DuckDBPyConnection, store: Path, entries: Sequence[SegmentEntry]
) -> tuple[list[SegmentEntry], list[str]]:
    """Return the segments whose files are there and have our columns, and what is wrong with the others."""
    problems: list[str] = []
    whole: list[SegmentEntry] = []
    for entry in entries:
        newer = entry.why_newer(store)
        found = [newer] if newer else [_not_parquet(entry.file(store, kind)) for kind in _kinds(entry)]
        wrong = list(filter(None, found))
        problems += wrong
        if not wrong:
            whole.append(entry)
    bad = _unlike(database, [(kind, entry.file(store, kind)) for entry in whole for kind in _kinds(entry)])
    problems += bad.values()
    return [e for e in whole if not any(e.file(store, kind) in bad for kind in _kinds(e))], problems


def _kinds(entry: SegmentEntry) -> tuple[str, ...]:
    return manifest.KINDS if facts.are_known(entry) else manifest.RECORDED


def _not_parquet(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(len(PARQUET))
            file.seek(-len(PARQUET), os.SEEK_END)
            if head == PARQUET and file.read() == PARQUET:
                return None
    except OSError as error:
        return f"{path}: the file of a segment cannot be read: {error.strerror or error}"
    return f"{path}: the file of a segment is truncated or is not Parquet"


def _unlike(database: duckdb.DuckDBPyConnection, files: Sequence[tuple[str, Path]]) -> dict[Path, str]:
    """Return files without the columns that their kind has, and why."""
    if not files:
        return {}
    query = statement("columns_of_files")
    try:
        found = database.execute(query, {"files": [str(path) for _, path in files]}).fetchall()
    except duckdb.Error as error:
        if len(files) == 1:
            return {files[0][1]: f"{files[0][1]}: the file of a segment cannot be read: {first_line(error)}"}
        half = len(files) // 2
        return _unlike(database, files[:half]) | _unlike(database, files[half:])
    columns = {name: set(names) for name, names in found}
    bad: dict[Path, str] = {}
    for kind, path in files:
        lacking = needed(kind) - columns.get(str(path), set())
        if lacking:
            bad[path] = f"{path}: this is no {kind} file of a segment, it lacks {', '.join(sorted(lacking))}"
    return bad


def why_spoiled(store: Path, entry: SegmentEntry) -> str | None:
    """Return which file of the segment is not as it was written, and how it shows; None if none is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if newer := entry.why_newer(store):
        return newer
    for kind in _kinds(entry):
        path = entry.file(store, kind)
        if kind in entry.sha256:
            if changed := entry.why_changed(store, kind):
                return changed
            continue
        try:
            # Each reader sees what the other overlooks: pyarrow the checksums of pages, DuckDB their headers.
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
            duckdb.connect().execute(statement("read_all"), {"file": str(path)}).fetchall()
        except (OSError, ValueError, pa.ArrowException, duckdb.Error) as error:
            return f"{path}: the file of a segment is damaged: {first_line(error)}"
    return None
