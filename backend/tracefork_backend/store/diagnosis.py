"""What is whole in a store, what was lost, and why a run cannot be replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.settings import DEFAULT_STORE
from tracefork_otel.store import manifest, segment, wal
from tracefork_otel.store.rows import note_of, span_of
from tracefork_otel.store.wal_reading import read_wal
from tracefork_otel.wire.json_values import count

from ..spelling import counted, named, run_name
from . import facts, states
from .absent import Absent, absent_of
from .database import is_store
from .leftovers import FileProblem, leftovers
from .lost import losses
from .snapshot import spoiled_files
from .store import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class WalState:
    """One WAL as it was found, before the dead ones were sealed."""

    name: str
    state: str
    """`live`: its process writes; `dead`: it was sealed by this look at it, or could not be."""
    bytes: int
    torn_bytes: int
    """Of a last write that was never acknowledged."""
    sealed: bool = False
    """Whether what it held is in a segment since this look at it."""
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
class DoctorReport:
    """Everything about a store that is not as it should be, and what was looked at to say so."""

    path: str
    writable: bool
    exists: bool
    """Whether anything was recorded there, and is there still."""
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
    killed: tuple[str, ...] = ()
    """Runs whose process was killed, and what was open then."""
    not_replayable: tuple[NotReplayable, ...] = ()
    absent: tuple[Absent, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is damaged and nothing was lost; a run killed midway is no fault of the store."""
        torn = any(one.damage for one in self.wals)
        files = any(one.what != "left" for one in self.files)
        return not (files or self.losses or self.damaged or self.absent or torn)

    def lines(self) -> list[str]:
        """Return the report for people, the worst first."""
        found = [f"{problem.what}: {problem.why}" for problem in self.files]
        if any(one.what == "unreadable" and Path(one.path).parent.name == "segments" for one in self.files):
            found.append(
                "to have it back: put the file where it was, or a copy of the segment's files from a backup "
                "into segments/, then `tracefork-otel doctor --repair`"
            )
        found += [f"damaged: run {run_name(one.run_id)} step {one.step}: {one.why}" for one in self.damaged]
        for one in self.wals:
            found += [f"damaged: {why}" for why in one.damage]
            if one.torn_bytes:
                found.append(
                    f"torn: {one.name}: {one.torn_bytes} bytes of a write that was never finished: its "
                    "process was killed, or the file was cut; what was written before it is whole"
                )
            if one.sealed:
                found.append(
                    f"sealed: {one.name}: its process has ended; all that it recorded is in a segment now"
                )
        found += [f"lost: {loss}" for loss in self.losses]
        found += [f"odd: {one}" for one in self.odd]
        found += [f"not recorded: {' '.join(one.argv) or one.executable}: {one.why}" for one in self.absent]
        found += [f"killed: {one}" for one in self.killed]
        for run in self.not_replayable:
            found.append(
                f"not replayable: run {run_name(run.run_id)} {named(run.name)}: {'; '.join(run.reasons)}"
            )
        if not self.exists:
            return [*found, f"{self.path}: there is no store here; the first run that is recorded makes it"]
        live = sum(one.state == "live" for one in self.wals)
        found.append(
            f"{self.path}: {counted(self.runs, 'run')}, {counted(self.exchanges, 'exchange')}, "
            f"{counted(self.segments, 'segment')} of {self.bytes} bytes, "
            f"{live or 'no'} process{'' if live == 1 else 'es'} writing"
            f"{'' if self.writable else ', read-only'}: {'healthy' if self.healthy else 'see above'}"
        )
        return found


def doctor(store: Store | str | Path = DEFAULT_STORE) -> DoctorReport:
    """Read every file of a store and check every digest; return what is wrong."""
    path = store.path if isinstance(store, Store) else Path(store).absolute()
    wals = tuple(_wal_states(path))
    opened = store if isinstance(store, Store) else open_store(path)
    unnamed = f"{path / 'segments'}: "
    files = [
        _file_problem(why)
        for why in opened.problems and opened.met
        if why in opened.unsettled or not why.startswith(unnamed)  # these `leftovers` tells
    ]
    files += leftovers(path)
    files += states.problems(opened)
    damaged = _damaged(opened, files)
    totals = opened.ask("totals")[0]
    entries = manifest.load(path).segments
    return DoctorReport(
        path=str(path),
        writable=opened.writable,
        exists=is_store(path),
        segments=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        runs=totals["runs"],
        exchanges=totals["exchanges"],
        files=tuple(dict.fromkeys(files)),
        wals=tuple(replace(one, sealed=not (path / "wal" / one.name).exists()) for one in wals),
        losses=tuple(_losses(opened)),
        odd=tuple(_odd(opened)),
        damaged=tuple(damaged),
        killed=tuple(_killed(opened)),
        not_replayable=tuple(_not_replayable(opened, damaged)),
        absent=tuple(absent_of(path)),
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
    # What could not be sealed for want of room is read where it is.
    what = "left" if "could not be written" in why else "unreadable"
    return FileProblem(path=why.partition(": ")[0], what=what, why=why)


def _killed(opened: Store) -> Iterator[str]:
    for row in opened.ask("recorded_runs"):
        if row["status"] == "killed":
            steps = ", ".join(map(str, opened.open_steps(row["run_id"])))
            what = "its process was killed" + (f" while step {steps} was open" if steps else "")
            who = f"run {run_name(row['run_id'])} {named(row['name'])}".rstrip()
            yield f"{who}: {what}; what had ended is whole, and is replayed as far as it goes"


def _damaged(opened: Store, files: list[FileProblem]) -> list[DamagedBody]:
    """Return exchanges whose bytes are not what was recorded; add files found unreadable to `files`."""
    found: dict[str, str] = {}
    for entry in opened.entries:
        spoiled = spoiled_files(opened.path, entry)
        if spoiled:
            named = {one.path for one in files}
            files += (one for one in map(_file_problem, spoiled.values()) if one.path not in named)
        elif facts.changed(opened.path, [entry.id]):
            files += map(_file_problem, facts.ensure(opened.path, [entry.id]))
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
    notes = [note_of(span_of(row)) for row in opened.ask("loss_notes")]
    for loss in losses(notes):
        yield f"{counted(loss.records, 'record')} of process {loss.process_id}: {loss.why}"
    for note in notes:
        if note.kind == "incomplete":
            yield f"process {note.process_id}: {note.attributes.get('why', 'no reason was noted')}"


def _odd(opened: Store) -> Iterator[str]:
    for row in opened.ask("odd_notes"):
        told = json.loads(row["attributes"])
        where = f"run {run_name(row['trace_id'])}" if row["trace_id"] else f"process {row['process_id']}"
        values = counted(count(told.get("count")) or 1, "value")
        what = f"its column cannot hold {told.get('first')}"
        yield f"{where}: {values} of {told.get('field')} left out, for {what}"


def _not_replayable(opened: Store, damaged: list[DamagedBody]) -> Iterator[NotReplayable]:
    broken: dict[str, list[str]] = {}
    for one in damaged:
        broken.setdefault(one.run_id, []).append(f"step {one.step} is damaged")
    for row in opened.ask("recorded_runs"):
        reasons = broken.get(row["run_id"], [])
        if row["entrypoint"] is None and row["command"] is None:
            reasons.append("how it was started was not recorded: give --agent")
        if reasons:
            yield NotReplayable(run_id=row["run_id"], name=row["name"] or "", reasons=tuple(reasons))
