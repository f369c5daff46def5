"""What is whole in a store, what was lost, and why a run cannot be replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.settings import DEFAULT_STORE
from tracefork_otel.store import manifest, segment, wal
from tracefork_otel.store.wal_reading import read_wal

from ..spelling import counted
from . import compacting
from .repairing import KEPT
from .snapshot import why_spoiled
from .store import Store, open_store

OWN_FILES = frozenset({manifest.FILE, manifest.VIEWS, ".lock", compacting.LOCK})
OWN_FOLDERS = frozenset({"wal", "segments", "blame", KEPT})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblem:
    """A file that is not what it should be."""

    path: str
    what: str
    """`unreadable` or `foreign`."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalState:
    """One WAL as it was found, before the dead ones were sealed."""

    name: str
    state: str
    """`live`: its process writes; `dead`: it was sealed by this look at it, or could not be."""
    bytes: int
    torn_bytes: int
    """Of a last write that was never acknowledged."""
    damage: tuple[str, ...]
    """Records that were acknowledged and cannot be read any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedBody:
    """An exchange whose bytes are not those that were recorded."""

    run_id: str
    step: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReplayable:
    """A run that a replay would refuse, and why."""

    run_id: str
    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A Python process that was reached but could not record."""

    argv: tuple[str, ...]
    executable: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """Everything about a store that is not as it should be, and what was looked at to say so."""

    path: str
    writable: bool
    segments: int
    bytes: int
    runs: int
    exchanges: int
    files: tuple[FileProblem, ...] = ()
    wals: tuple[WalState, ...] = ()
    losses: tuple[str, ...] = ()
    """What processes noted that they could not record."""
    odd: tuple[str, ...] = ()
    """Values of somebody's spans that their columns cannot hold, and that were left out."""
    damaged: tuple[DamagedBody, ...] = ()
    not_replayable: tuple[NotReplayable, ...] = ()
    absent: tuple[Absent, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is damaged and nothing was lost; a run killed midway is no fault of the store."""
        torn = any(one.damage for one in self.wals)
        return not (self.files or self.losses or self.damaged or self.absent or torn)

    def lines(self) -> list[str]:
        """Return the report for people, the worst first."""
        found = [f"{problem.what}: {problem.why}" for problem in self.files]
        found += [f"damaged: run {one.run_id[:8]} step {one.step}: {one.why}" for one in self.damaged]
        for one in self.wals:
            found += [f"damaged: {why}" for why in one.damage]
            if one.torn_bytes:
                found.append(f"torn: {one.name}: {one.torn_bytes} bytes of a write that was never finished")
        found += [f"lost: {loss}" for loss in self.losses]
        found += [f"odd: {one}" for one in self.odd]
        found += [f"not recorded: {' '.join(one.argv) or one.executable}: {one.why}" for one in self.absent]
        for run in self.not_replayable:
            found.append(f"not replayable: run {run.run_id[:8]} {run.name}: {'; '.join(run.reasons)}")
        live = sum(one.state == "live" for one in self.wals)
        found.append(
            f"{self.path}: {self.runs} runs, {self.exchanges} exchanges, {self.segments} segments of "
            f"{self.bytes} bytes, {live} processes writing{'' if self.writable else ', read-only'}: "
            f"{'healthy' if self.healthy else 'see above'}"
        )
        return found


def doctor(store: Store | str | Path = DEFAULT_STORE) -> DoctorReport:
    """Read every file of a store and check every digest; return what is wrong."""
    path = store.path if isinstance(store, Store) else Path(store).absolute()
    wals = tuple(_wal_states(path))
    opened = store if isinstance(store, Store) else open_store(path)
    files = [_file_problem(why) for why in opened.problems]
    files += _foreign(path)
    damaged = _damaged(opened, files)
    totals = opened.ask("totals")[0]
    entries = manifest.load(path).segments
    return DoctorReport(
        path=str(path),
        writable=opened.writable,
        segments=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        runs=totals["runs"],
        exchanges=totals["exchanges"],
        files=tuple(files),
        wals=wals,
        losses=tuple(_losses(opened)),
        odd=tuple(_odd(opened)),
        damaged=tuple(damaged),
        not_replayable=tuple(_not_replayable(opened, damaged)),
        absent=tuple(_absent(path)),
    )


def _wal_states(path: Path) -> Iterator[WalState]:
    for file in wal.wal_files(path):
        live = wal.is_live(file)
        try:
            contents = read_wal(file, keep=lambda record, side, body: b"")
        except StoreError:
            # Named among the files.
            continue
        yield WalState(
            name=file.name,
            state="live" if live else "dead",
            bytes=file.stat().st_size,
            # The last write of a process that is alive may just be under way.
            torn_bytes=0 if live else contents.torn_bytes,
            damage=contents.damage,
        )


def _file_problem(why: str) -> FileProblem:
    return FileProblem(path=why.partition(": ")[0], what="unreadable", why=why)


def _foreign(path: Path) -> Iterator[FileProblem]:
    """Yield files that nobody of ours has put there, or that a crash left behind."""
    listed = manifest.load(path)
    unnamed = manifest.unnamed(path, listed)
    ids = {entry.id for entry in listed.segments} | {item.id for item in listed.retired}
    places = [(path, lambda file: file.name in OWN_FILES or file.match(".*.tmp"))]
    places.append((path / "wal", lambda file: file.name.endswith((".wal", ".wal.tmp", ".absent.json"))))
    places.append((path / "segments", lambda file: file.name.lstrip(".").partition(".")[0] in ids))
    for folder, known in places:
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if known(file) or (folder == path and file.is_dir() and file.name in OWN_FOLDERS):
                continue
            why = f"{file}: this is no file of the store; move it out if nobody needs it here"
            if folder.name == "segments" and file.name.endswith(".parquet"):
                why = f"{file}: no manifest names this segment"
                if file.name.partition(".")[0] in unnamed:
                    why += "; `doctor --repair` takes in what it holds"
            yield FileProblem(path=str(file), what="foreign", why=why)


def _damaged(opened: Store, files: list[FileProblem]) -> list[DamagedBody]:
    """Return exchanges whose bytes are not what was recorded; add files found unreadable to `files`."""
    found: dict[str, str] = {}
    for entry in opened.entries:
        spoiled = why_spoiled(opened.path, entry)
        if spoiled:
            files.append(_file_problem(spoiled))
        try:
            for exchange in segment.read_exchanges(opened.path, entry):
                if exchange.damage:
                    found[exchange.span_id] = exchange.damage
        except StoreError as error:
            if not spoiled:
                files.append(_file_problem(str(error)))
    for row in opened.ask("live_damage"):
        found[row["span_id"]] = row["damage"]
    return [
        DamagedBody(run_id=row["run_id"], step=row["step"], why=found[row["span_id"]])
        for row in opened.ask("steps_of_spans", spans=list(found))
    ]


def _losses(opened: Store) -> Iterator[str]:
    for row in opened.ask("loss_notes"):
        attributes = json.loads(row["attributes"])
        count = attributes.get("count", 1)
        what = f"{count} records of " if row["name"] == "lost" else ""
        yield f"{what}process {row['process_id']}: {attributes.get('why', 'no reason was noted')}"


def _odd(opened: Store) -> Iterator[str]:
    for row in opened.ask("odd_notes"):
        told = json.loads(row["attributes"])
        where = f"run {row['trace_id'][:8]}" if row["trace_id"] else f"process {row['process_id']}"
        count = counted(int(told["count"]), "value")
        yield f"{where}: {count} of {told['field']} left out, for its column cannot hold {told['first']}"


def _not_replayable(opened: Store, damaged: list[DamagedBody]) -> Iterator[NotReplayable]:
    broken: dict[str, list[str]] = {}
    for one in damaged:
        broken.setdefault(one.run_id, []).append(f"step {one.step} is damaged")
    for row in opened.ask("recorded_runs"):
        reasons = broken.get(row["run_id"], [])
        if row["status"] == "running":
            reasons.append("it still goes on")
        if row["entrypoint"] is None and row["command"] is None:
            reasons.append("how it was started was not recorded: give --agent")
        if reasons:
            yield NotReplayable(run_id=row["run_id"], name=row["name"] or "", reasons=tuple(reasons))


def _absent(path: Path) -> Iterator[Absent]:
    for file in sorted((path / "wal").glob("*.absent.json")):
        try:
            told = json.loads(file.read_bytes())
            yield Absent(
                argv=tuple(map(str, told.get("argv", ()))),
                executable=str(told.get("executable", "")),
                why=str(
                    told.get("attributes", {}).get("why") or told.get("why") or "tracefork_otel is missing"
                ),
            )
        except (OSError, ValueError, AttributeError):
            continue
