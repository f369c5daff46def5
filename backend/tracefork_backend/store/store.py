"""An open store and its runs."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import filterfalse
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from tracefork_otel.errors import StoreError, UnknownRun, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.settings import DEFAULT_STORE
from tracefork_otel.store import manifest, segment, wal
from tracefork_otel.store.records import Note, SpanRecord
from tracefork_otel.store.rows import note_of, span_of
from tracefork_otel.store.spool import url_of
from tracefork_otel.tape import marks
from tracefork_otel.tape.start import HowStarted, argv_of, how_started

from ..displayed import Displayed
from ..spelling import counted, digits_of, no_step, run_name, short, use_digits
from . import compacting, limits, live, mirror
from .database import Database, is_store
from .digests import Digests
from .forked import Forked
from .lost import losses
from .refs import MIN_PREFIX, back_of, prefix_of
from .snapshot import Snapshot
from .unseen import unseen

Kind: TypeAlias = Literal["record", "replay", "fork", "trial"]
NEAR = 5
"""At most this many runs are named where one is not found."""


@dataclass(frozen=True, kw_only=True)
class Step(Displayed):
    """One step of a run, as `run.step(2)` gives it."""

    run: Run
    number: int
    """0-based."""
    span_id: str
    """16 hex digits: its exchange's span."""

    @cached_property
    def exchange(self) -> Exchange:
        """Its request and its answer with their bodies; no other body is read."""
        return self.run.store.exchange(self.run.run_id, self.span_id)


@dataclass(frozen=True, kw_only=True)
class Run(Displayed):
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
    """`running`, `killed`, `part`, `error` or `ok`."""
    outcome: bool | None
    parent_run_id: str | None
    fork_step: int | None
    experiment_id: str | None
    entrypoint: str | None
    command: tuple[str, ...] | None
    session_id: str | None
    """`session.id`, of a span or its resource."""
    conversation_id: str | None
    """`gen_ai.conversation.id`, likewise."""
    unpriced: int
    """So many calls have no price that is known: the cost is without them."""
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

    def step(self, number: int) -> Step:
        """Return the step of that number, -1 the last; raise UsageError where there is none."""
        spans = [row["span_id"] for row in self.store.ask("steps_of_run", run_id=self.run_id)]
        at = number + len(spans) if number < 0 else number
        if not 0 <= at < len(spans):
            raise UsageError(no_step(self.run_id, number, len(spans)))
        return Step(run=self, number=at, span_id=spans[at])

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the run's processes noted: losses, drifts, connections round the seam."""
        return self.store.notes(self.run_id)

    @property
    def unseen(self) -> tuple[str, ...]:
        """What its processes said by clients that are not captured, a line each."""
        return unseen(self.notes)

    @cached_property
    def launch_id(self) -> str | None:
        """The trace id of the command that started the run's processes, which may be the run's own."""
        return self.store.launch_of(self.run_id)

    @cached_property
    def start(self) -> HowStarted:
        """How to start the agent again, as far as the recording says."""
        return self.beginning[0]

    @cached_property
    def beginning(self) -> tuple[HowStarted, bool]:
        """The start, and whether this machine's own recorder vouches for it."""
        return self.store.beginning(self.run_id, self.launch_id)

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
        return (*reasons, *self.noted_reasons)

    @property
    def noted_reasons(self) -> tuple[str, ...]:
        """Those of them that its processes noted, for which no body is read."""
        return (
            *(f"{counted(loss.records, 'record')} lost: {loss.why}" for loss in losses(self.notes)),
            *(
                str(note.attributes.get("why", "the recording says so"))
                for note in self.notes
                if note.kind == "incomplete"
            ),
        )

    @property
    def complete(self) -> bool:
        """Whether everything that the run sent and got is here, byte for byte."""
        return not self.incomplete_reasons


class Store(Database):
    """The runs of a directory; every question sees what was written up to it, by whichever process."""

    def __init__(self, path: Path, *, memory: str = limits.MEMORY) -> None:
        super().__init__(path, memory=memory)
        self._digests = Digests()
        self._told_apart: tuple[Snapshot, int] | None = None
        """A snapshot, and how many digits tell its runs apart."""

    def close(self) -> None:
        """Let the database go; a later question opens it again."""
        super().close()
        self._told_apart = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tell_apart(self) -> None:
        """Have the runs of this store printed with as many digits of their ids as tell them apart."""
        current = self.current()
        if self._told_apart is None or self._told_apart[0] is not current:
            self._told_apart = current, digits_of(row["trace_id"] for row in self.ask("run_ids"))
        use_digits(self._told_apart[1])

    def run(self, ref: str) -> Run:
        """Return the run of that name: `last`, `last~2`, a unique prefix of its id; raise UnknownRun."""
        self.tell_apart()
        back, prefix = back_of(ref), prefix_of(ref)
        if back is not None:
            found = self.ask("run_back", back=back)
            if not found:
                raise UnknownRun(f"no run {ref!r} in {self.path}{self._near(ref)}")
            self._refuse_if_newer_is_hidden(ref, found[0])
            return Run.of_row(found[0], self)
        if prefix is None or len(prefix) < MIN_PREFIX:
            how = f"write last, last~2, or at least {MIN_PREFIX} digits of a run id"
            if os.path.isfile(ref):  # also of a name that no file can have
                how = f"it is a file; a tape is read into the store by `tracefork-otel tape import {ref}`"
            elif Path(ref).name != ref or Path(ref).suffix:
                how = f"there is no such file; of a run in the store {how}"
            raise UnknownRun(f"{ref!r} names no run: {how}{self._near(ref)}")
        found = self.ask("run_by_prefix", prefix=prefix) or self.ask("run_by_further_trace", prefix=prefix)
        if not found:
            changed = self._digests.first_changed(
                self.path, lambda entry: entry.lists(prefix), manifest.KINDS
            )
            if changed:
                raise StoreError(f"no run {ref!r} can be read: {changed}; see `tracefork-otel doctor`")
            for idle in self.ask("forks_without_calls", prefix=prefix):
                if forked := Forked.of(json.loads(idle["attributes"])):
                    raise UnknownRun(f"{ref!r} {forked.without_calls}")
            raise UnknownRun(f"no run {ref!r} in {self.path}{self._near(prefix)}")
        if len(found) > 1:
            raise UnknownRun(f"{ref!r} is more than one run: {_listed(found)}; write more digits")
        return Run.of_row(found[0], self)

    def _refuse_if_newer_is_hidden(self, ref: str, found: Mapping[str, Any]) -> None:
        """Raise StoreError where a segment that cannot be read may hold a run later than the one found."""
        current = self.current()
        started_ns = int(found["started_at"].replace(tzinfo=UTC).timestamp() * 1e9)
        problems = (*self.unsettled, *current.problems)
        hidden = [entry.id for entry in current.unread if entry.ended_ns > started_ns]
        # An id begins with the moment at which the segment was made, in milliseconds.
        hidden += [one for one in current.unnamed if _made_ns(one) > started_ns]
        hidden += [
            path.name
            for path in (*wal.wal_files(self.path), *wal.not_files(self.path))
            if path.lstat().st_mtime_ns > started_ns and any(str(path) in one for one in problems)
        ]
        if hidden:
            why = next((one for one in problems if hidden[0] in one), hidden[0])
            raise StoreError(
                f"{ref!r} may be a run that cannot be read ({why}): name the run that you mean, such as "
                f"{run_name(found['run_id'])}, or see `tracefork-otel doctor`"
            )

    def runs(self, kind: Kind | None = None, *, limit: int = 1000) -> list[Run]:
        """Return the newest runs, of one kind or of all, newest first."""
        self.tell_apart()
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
        return self._exchanges(run_id, None)

    def all_exchanges(self, run_id: str) -> tuple[Exchange, ...]:
        """Return the exchanges of a run, and behind them those of its trace that are no step of it."""
        return self._exchanges(run_id, None, steps_alone=False)

    def exchange(self, run_id: str, span_id: str) -> Exchange:
        """Return the exchange of that span, its digests checked; no other body is read."""
        found = self._exchanges(run_id, span_id)
        if not found:
            raise UnknownRun(f"no exchange {span_id} of run {run_id} in {self.path}")
        return found[0]

    def _exchanges(
        self, run_id: str, span_id: str | None, *, steps_alone: bool = True
    ) -> tuple[Exchange, ...]:
        used = self.current()
        try:
            found = _read(used, self.path, run_id, span_id, steps_alone=steps_alone)
            if not any(exchange.damage for exchange in found) or self.current() is used:
                return found
        except StoreError:
            pass
        # A segment was merged into another one after the snapshot was taken: its rows are elsewhere now.
        return _read(self.current(anew=True), self.path, run_id, span_id, steps_alone=steps_alone)

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

    def beside(self, run_id: str) -> tuple[int, int]:
        """Return how many calls and spans of a run's trace others sent, which are no part of the run."""
        ((calls, spans),) = (row.values() for row in self.ask("beside_run", run_id=run_id))
        return calls, spans

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

    def not_imported(self, ids: Collection[str]) -> tuple[str, ...]:
        """Return those of the trace ids of which the store has something that no import brought."""
        return tuple(row["trace_id"] for row in self.ask("not_imported", ids=list(ids)))

    def came_in(self, run_ids: Collection[str]) -> bool:
        """Return whether a call of these runs came by OTLP: nobody here knows whether a model said so."""
        return self._value("came_in", run_ids=list(run_ids))

    def start_attributes(self, run_id: str, launch_id: str | None) -> dict[str, Any]:
        """Return the attributes that say how a run began; the run's own root goes before its launch's."""
        return self._told(run_id, launch_id)[0]

    def beginning(self, run_id: str, launch_id: str | None) -> tuple[HowStarted, bool]:
        """Return how a run began, and whether this machine's own recorder vouches for what would be run."""
        told, marked = self._told(run_id, launch_id)
        return how_started(told), marked

    def _told(self, run_id: str, launch_id: str | None) -> tuple[dict[str, Any], bool]:
        return marks.beginning(
            (trace_id, json.loads(row["attributes"]))
            for trace_id in dict.fromkeys(filter(None, (run_id, launch_id)))
            for row in self.ask("heads_of_run", run_id=trace_id)
        )

    def forked(self, run_id: str) -> Forked | None:
        """Return what the root of a fork or a trial says of it, None of any other run."""
        told = (Forked.of(json.loads(row["attributes"])) for row in self.ask("heads_of_run", run_id=run_id))
        return next(filter(None, told), None)

    def root_of(self, run_id: str) -> str | None:
        """Return the id of the span above all others of a run, or None if none was recorded."""
        return next((row["span_id"] for row in self.ask("root_of_run", run_id=run_id)), None)

    @property
    def entries(self) -> tuple[manifest.SegmentEntry, ...]:
        """The segments that can be read."""
        return self.current().entries

    def compact(self) -> str | None:
        """Make all segments one; return its id, None if there were not two or another process is merging.

        Files of segments that were replaced before are gone ten minutes after that.
        """
        merged = compacting.compact(self.path)
        if manifest.load(self.path).retired:
            manifest.commit(self.path)
        return merged

    def _near(self, ref: str) -> str:
        runs = self.ask("runs", limit=1000)
        if not runs and self.problems:
            return f": {self.problems[0]}; see `tracefork-otel doctor`"
        if not runs:
            return "; it has no runs yet: record one with `tracefork-otel run -- python agent.py`"
        ids = [row["run_id"] for row in runs]
        close = difflib.get_close_matches(ref, [run_id[: max(len(ref), 8)] for run_id in ids], NEAR, 0.5)
        near = [row for row in runs if any(row["run_id"].startswith(prefix) for prefix in close)]
        return f"; near it: {_listed((near or runs)[:NEAR])}"

    def _value(self, name: str, **params: object) -> Any:
        ((value,),) = (row.values() for row in self.ask(name, **params))
        return value


def _read(
    snapshot: Snapshot, path: Path, run_id: str, span_id: str | None, *, steps_alone: bool
) -> tuple[Exchange, ...]:
    found = live.exchanges(snapshot.live.wals, run_id, span_id)
    span_ids = None if span_id is None else {span_id}
    for entry in snapshot.entries:
        if entry.may_hold(run_id):
            found += segment.read_exchanges(path, entry, trace_ids={run_id}, span_ids=span_ids)

    def is_step(one: Exchange) -> bool:
        return (
            f"{one.process_id} {one.trace_id}" not in snapshot.beside
            and f"{one.trace_id} {one.span_id}" not in snapshot.twice
        )

    steps = sorted(filter(is_step, found), key=_in_order)
    return (*steps, *(() if steps_alone else sorted(filterfalse(is_step, found), key=_in_order)))


def _in_order(exchange: Exchange) -> tuple[int, str]:
    return exchange.started_ns, exchange.span_id


def _made_ns(segment_id: str) -> int:
    made_ms = segment_id.partition("-")[0]
    return int(made_ms) * 1_000_000 if made_ms.isdecimal() else 0


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{run_name(row['run_id'])} ({short(row['name'] or '')})" for row in rows[:NEAR])


def open_store(path: str | Path = DEFAULT_STORE, *, memory: str = limits.MEMORY) -> Store:
    """Return the store in that directory or bucket (`s3://bucket/prefix`), which is fetched.

    One that does not exist is a store without runs, and is not made.

    What dead processes left is sealed unless the directory is read-only. Queries hold no more than that much
    `memory` at once (`4GB`, `25%`). Raise StoreError if it is no store.
    """
    url = url_of(path)
    if url is None and "://" in str(path):
        raise UsageError(f"{path}: a store is a directory, or a bucket: s3://bucket/prefix")
    directory = Path(path).absolute() if url is None else mirror.pull(url)
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: this is a file; a store is a directory")
    manifest.load(directory)
    store = Store(directory, memory=memory)
    if is_store(directory):
        store.current()
    return store
