"""An open store and its runs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from tracefork_otel.errors import StoreError, UnknownRun, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.settings import DEFAULT_STORE
from tracefork_otel.store import manifest, segment
from tracefork_otel.store.records import Note, SpanRecord
from tracefork_otel.store.rows import note_of, span_of
from tracefork_otel.tape.start import HowStarted, argv_of, how_started

from . import compacting, live
from .database import Database, is_store
from .digests import Digests
from .refs import MIN_PREFIX, back_of, prefix_of
from .snapshot import Snapshot

Kind: TypeAlias = Literal["record", "replay", "fork", "trial"]
NEAR = 5
"""At most this many runs are named where one is not found."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what the `runs` view says of it, and its exchanges, read when they are first asked for."""

    run_id: str
    name: str
    service: str
    kind: Kind
    started_at: datetime
    """UTC, without a zone."""
    duration_ms: float | None
    steps: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    status: str
    """`running`, `killed`, `error` or `ok`."""
    outcome: bool | None
    parent_run_id: str | None
    fork_step: int | None
    experiment_id: str | None
    entrypoint: str | None
    command: tuple[str, ...] | None
    store: Store

    @classmethod
    def of_row(cls, row: Mapping[str, Any], store: Store) -> Run:
        """Return the run of a row of the `runs` view."""
        fields = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        return cls(**{**fields, "command": argv_of(row["command"])}, store=store)

    @cached_property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges in step order with their bodies; one whose digest does not match has `damage`."""
        return self.store.exchanges(self.run_id)

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the run's processes noted: losses, drifts, connections round the seam."""
        return self.store.notes(self.run_id)

    @cached_property
    def launch_id(self) -> str | None:
        """The trace id of the command that started the run's processes, which may be the run's own."""
        return self.store.launch_of(self.run_id)

    @cached_property
    def start(self) -> HowStarted:
        """How to start the agent again, as far as the recording says."""
        return how_started(self.store.start_attributes(self.run_id, self.launch_id))

    @cached_property
    def incomplete_reasons(self) -> tuple[str, ...]:
        """Why the run is not whole, one reason each; empty if it is."""
        reasons: list[str] = []
        for step, exchange in enumerate(self.exchanges):
            if exchange.outcome == "in_flight":
                ended = "is still open" if self.status == "running" else "was open when its process ended"
                reasons.append(f"step {step} {ended}")
            if exchange.damage:
                reasons.append(f"step {step} is damaged: {exchange.damage}")
        for note in self.notes:
            if note.kind == "lost":
                count = note.attributes.get("count", 1)
                reasons.append(
                    f"{count} record{'s' if count != 1 else ''} lost: {note.attributes.get('why', 'unknown')}"
                )
            elif note.kind == "incomplete":
                reasons.append(str(note.attributes.get("why", "the recording says so")))
        return tuple(reasons)

    @property
    def complete(self) -> bool:
        """Whether everything that the run sent and got is here, byte for byte."""
        return not self.incomplete_reasons


class Store(Database):
    """The runs of a directory; every question sees what was written up to it, by whichever process."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._digests = Digests()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, ref: str) -> Run:
        """Return the run of that name: `last`, `last~2`, a unique prefix of its id; raise UnknownRun."""
        back, prefix = back_of(ref), prefix_of(ref)
        if back is not None:
            found = self.ask("run_back", back=back)
            if not found:
                raise UnknownRun(f"no run {ref!r} in {self.path}{self._near(ref)}")
            self._refuse_if_newer_is_hidden(ref, found[0])
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

    def _refuse_if_newer_is_hidden(self, ref: str, found: Mapping[str, Any]) -> None:
        """Raise StoreError where a segment that cannot be read may hold a run later than the one found."""
        current = self.current()
        started_ns = int(found["started_at"].replace(tzinfo=UTC).timestamp() * 1e9)
        for entry in current.unread:
            if entry.ended_ns > started_ns:
                why = next((one for one in current.problems if entry.id in one), f"segment {entry.id}")
                raise StoreError(
                    f"{ref!r} may be a run that cannot be read ({why}): name the run that you mean, such as "
                    f"{found['run_id'][:8]}, or see `tracefork-otel doctor`"
                )

    def runs(self, kind: Kind | None = None, *, limit: int = 1000) -> list[Run]:
        """Return the newest runs, of one kind or of all, newest first."""
        found = self.ask("runs_of_kind", kind=kind, limit=limit) if kind else self.ask("runs", limit=limit)
        return [Run.of_row(row, self) for row in found]

    def has_run(self, run_id: str) -> bool:
        """Return whether a run of exactly this id is in the store."""
        return self._value("has_run", run_id=run_id)

    def losses(self) -> int:
        """Return how many records processes could not write."""
        return self._value("losses")

    def exchanges(self, run_id: str) -> tuple[Exchange, ...]:
        """Return the exchanges of a run in step order, their digests checked."""
        try:
            return self._exchanges(self.current(), run_id)
        except StoreError:
            # A segment was merged into another one after the snapshot was taken: its rows are elsewhere now.
            return self._exchanges(self.current(anew=True), run_id)

    def _exchanges(self, snapshot: Snapshot, run_id: str) -> tuple[Exchange, ...]:
        found = live.exchanges(snapshot.live.wals, run_id)
        for entry in snapshot.entries:
            if entry.may_hold(run_id):
                found += segment.read_exchanges(self.path, entry, trace_ids={run_id})
        return tuple(sorted(found, key=lambda exchange: (exchange.started_ns, exchange.span_id)))

    def why_changed(self, run_ids: Collection[str]) -> str | None:
        """Return which file of these runs is not as it was written, and how it shows; None if none is."""
        holding = {row["segment"] for row in self.ask("segments_of_runs", run_ids=list(run_ids))}
        return self._digests.first_changed(
            self.path,
            lambda entry: entry.id in holding or any(entry.lists(run_id) for run_id in run_ids),
            manifest.RECORDED,
        )

    def notes(self, run_id: str) -> tuple[Note, ...]:
        """Return the notes on a run and on the processes that made it."""
        return tuple(note_of(span_of(row)) for row in self.ask("notes_of_run", run_id=run_id))

    def open_steps(self, run_id: str) -> tuple[int, ...]:
        """Return the steps of a run that have not ended, or never will as their process was killed."""
        return tuple(row["step"] for row in self.ask("open_steps_of_run", run_id=run_id))

    def draws_of_launch(self, launch_id: str) -> tuple[Note, ...]:
        """Return what all processes of one command drew from clocks and randomness."""
        return tuple(note_of(span_of(row)) for row in self.ask("draws_of_launch", launch_id=launch_id))

    def tools_of(self, run_ids: Collection[str], launch_id: str | None = None) -> tuple[SpanRecord, ...]:
        """Return the spans of local tools in these runs, and in all processes of a command that is given."""
        found = self.ask("tools_of_runs", run_ids=list(run_ids), launch_id=launch_id or "-")
        return tuple(span_of(row) for row in found)

    def launch_of(self, run_id: str) -> str | None:
        """Return the trace id of the command that started the run's processes, None if nobody said."""
        return next((row["trace_id"] for row in self.ask("launch_of_run", run_id=run_id)), None)

    def runs_of_launch(self, launch_id: str) -> tuple[str, ...]:
        """Return the ids of all runs that one command's processes made, in order of their start."""
        return tuple(row["trace_id"] for row in self.ask("runs_of_launch", launch_id=launch_id))

    def runs_beside(self, run_id: str) -> tuple[str, ...]:
        """Return the ids of all runs that this run's processes made, in order of their start."""
        return tuple(row["trace_id"] for row in self.ask("runs_beside", run_id=run_id))

    def start_attributes(self, run_id: str, launch_id: str | None) -> dict[str, Any]:
        """Return the attributes that say how a run began; the run's own root goes before its launch's."""
        merged: dict[str, Any] = {}
        for trace_id in dict.fromkeys(filter(None, (run_id, launch_id))):
            for row in self.ask("heads_of_run", run_id=trace_id):
                for name, value in json.loads(row["attributes"]).items():
                    if value is not None:
                        merged.setdefault(name, value)
        return merged

    def root_of(self, run_id: str) -> str | None:
        """Return the id of the span above all others of a run, or None if none was recorded."""
        return next((row["span_id"] for row in self.ask("root_of_run", run_id=run_id)), None)

    @property
    def entries(self) -> tuple[manifest.SegmentEntry, ...]:
        """The segments that can be read."""
        return self.current().entries

    def compact(self) -> str | None:
        """Make all segments one; return its id, None if there were not two or another process is merging."""
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


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{row['run_id'][:12]} ({row['name']})" for row in rows[:NEAR])


def open_store(path: str | Path = DEFAULT_STORE) -> Store:
    """Return the store in that directory; one that does not exist is a store without runs, and is not made.

    What dead processes left is sealed unless the directory is read-only. Raise StoreError if it is no store.
    """
    if str(path).startswith(("s3://", "gs://", "http://", "https://")):
        raise UsageError(f"{path}: only local directories can be opened as a store")
    directory = Path(path).absolute()
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: this is a file; a store is a directory")
    manifest.load(directory)
    store = Store(directory)
    if is_store(directory):
        store.current()
    return store
