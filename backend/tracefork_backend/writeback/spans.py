"""The spans that the backend writes: roots of forks and replays, and notes in the trace of the original run.

Every span is first a record in the store, from its start on, and goes to a collector when it ends.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.recording.process import process_started
from tracefork_otel.store import sealing
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import Wal, process_of, wal_files
from tracefork_otel.tape.marks import marked

from .exchange_span import span_of
from .names import FORK, FORK_NOTE, REPLAY, SCOPE, SERVICE
from .sending import Outbox

_NOTE_US = 1
"""A longer note would take the critical path and the self time away from the model call that it stands on."""

Status: TypeAlias = Literal["UNSET", "OK", "ERROR"]
LinkKind: TypeAlias = Literal["parent", "forked_from", "fork"]
Attributes: TypeAlias = Mapping[str, object]
"""Those that are None are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRef:
    """A span that others link to."""

    trace_id: str
    span_id: str


def link(trace_id: str, span_id: str, kind: LinkKind) -> dict[str, object]:
    """Return a link as the store keeps it, saying what it leads to."""
    return {"trace_id": trace_id, "span_id": span_id, "attributes": {"tracefork.link": kind}}


class RootSpan:
    """The open root of a run that the backend starts; the agent's own spans become its children."""

    def __init__(self, record: SpanRecord, on_end: Callable[[SpanRecord], None]) -> None:
        self._record = record
        self._on_end = on_end
        self._lock = threading.Lock()
        self._ended = False

    @property
    def trace_id(self) -> str:
        """32 hex digits: the id of the run."""
        return self._record.trace_id

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self._record.span_id

    def end(
        self,
        *,
        outcome: bool | None = None,
        attributes: Attributes | None = None,
        status: Status = "UNSET",
        message: str | None = None,
    ) -> None:
        """End the span in the store and send it to the collector; only the first call counts.

        `outcome` is what an oracle said, None if none did or none could. A run that was lost is no error of
        its span: `status` is for agents that crashed, drifted or ran out of time.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        told = {**(attributes or {}), "tracefork.run.outcome": outcome}
        self._record = replace(
            self._record,
            ended_ns=time.time_ns(),
            status=status,
            status_message=message,
            attributes={**self._record.attributes, **_present(told)},
        )
        self._on_end(self._record)


Root: TypeAlias = RootSpan | SpanRef
"""A run's own span, open or as others know it."""


class WriteBack:
    """Writes spans of service `tracefork` for one operation; at the block's end they are sealed and sent.

    What writes a span raises StoreError if the store cannot be written.
    """

    def __init__(self, store: Path | str | None, *, warn: Callable[[str], None] | None = None) -> None:
        """`store` is where spans are kept; None if they are only sent."""
        self._store = None if store is None else Path(store)
        self._warn = warn or _to_stderr
        # Without argv: the director's command line may carry what the user means for the agent.
        self._process = process_started(mode="off", via="backend", service=SERVICE)
        self._wal = None if self._store is None else Wal(self._store, self._process)
        self._outbox = Outbox(warn=self._warn)
        self._open: dict[str, RootSpan] = {}
        self._written = False

    def __enter__(self) -> WriteBack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for root in list(self._open.values()):
            why = "ended without a result" if error is None else f"{type(error).__name__}: {error}"
            # What stopped the operation is the error to be seen, not that its store is full too.
            with contextlib.suppress(StoreError):
                root.end(status="ERROR", message=why)
        self.close()

    def close(self) -> None:
        """Seal the spans and wait until they were sent; warn if either could not be."""
        self._outbox.finish()
        if self._wal is not None:
            self._wal.close()
        if self._store is not None and self._written:
            ours = [path for path in wal_files(self._store) if process_of(path) == self._process.process_id]
            try:
                sealing.seal(self._store, ours)
            except StoreError as error:
                self._warn(f"{error} (whoever opens the store next seals them)")
        self._outbox.close()

    def open_fork(
        self,
        change: Intervention,
        *,
        name: str,
        parent_run_id: str,
        parent_root_span_id: str | None,
        forked: SpanRef,
        experiment_id: str | None = None,
        attributes: Attributes | None = None,
    ) -> RootSpan:
        """Open the root of a fork, which is a trial if of an experiment, linked to its parent's."""
        links = [link(forked.trace_id, forked.span_id, "forked_from")]
        # Jaeger shows one row for two links to one span.
        if parent_root_span_id is not None and parent_root_span_id != forked.span_id:
            links.insert(0, link(parent_run_id, parent_root_span_id, "parent"))
        told: dict[str, object] = {
            "tracefork.run.kind": "fork" if experiment_id is None else "trial",
            "tracefork.parent.run_id": parent_run_id,
            "tracefork.fork.step": change.step,
            "tracefork.fork.intervention": change.label,
            "tracefork.fork.tail": change.tail,
            "tracefork.fork.scope": change.scope,
            "tracefork.experiment.id": experiment_id,
        }
        return self._root(FORK.format(name=name, step=change.step), {**told, **(attributes or {})}, links)

    def open_replay(
        self,
        *,
        name: str,
        parent_run_id: str,
        parent_root_span_id: str | None,
        attributes: Attributes | None = None,
    ) -> RootSpan:
        """Open the root of a replay, linked to the root of the run that it plays."""
        links = [] if parent_root_span_id is None else [link(parent_run_id, parent_root_span_id, "parent")]
        told = {"tracefork.run.kind": "replay", "tracefork.parent.run_id": parent_run_id}
        return self._root(REPLAY.format(name=name), {**told, **(attributes or {})}, links)

    def _root(self, name: str, attributes: Attributes, links: Sequence[Mapping[str, object]]) -> RootSpan:
        record = _record(name, attributes, started_ns=time.time_ns(), links=links)
        record = replace(record, attributes=marked(record.trace_id, record.attributes))
        # In the store before the agent runs, so that a director that is killed leaves a readable fork.
        self._append(record)
        root = self._open[record.span_id] = RootSpan(record, self._end)
        return root

    def note_fork(
        self, *, exchange: Exchange, kind: str, fork: Root, attributes: Attributes | None = None
    ) -> SpanRef:
        """Say in the parent's trace, at the forked exchange, that it was forked there; link to the fork."""
        return self.note(
            exchange=exchange,
            name=FORK_NOTE.format(kind=kind),
            links=[link(fork.trace_id, fork.span_id, "fork")],
            attributes={"tracefork.fork.run_id": fork.trace_id, **(attributes or {})},
        )

    def note(
        self,
        *,
        exchange: Exchange,
        name: str,
        links: Sequence[Mapping[str, object]],
        attributes: Attributes,
        status: Status = "UNSET",
        message: str | None = None,
    ) -> SpanRef:
        """Write a span of 1 µs into the exchange's trace, its child, ending with it."""
        started_ns, ended_ns = end_of(exchange)
        return self.span(
            name=name,
            attributes={"tracefork.note": True, **attributes},
            started_ns=started_ns,
            ended_ns=ended_ns,
            parent=SpanRef(trace_id=exchange.told_in, span_id=exchange.span_id),
            links=links,
            status=status,
            message=message,
        )

    def span(
        self,
        *,
        name: str,
        attributes: Attributes,
        started_ns: int,
        ended_ns: int,
        parent: SpanRef | None = None,
        links: Sequence[Mapping[str, object]] = (),
        status: Status = "UNSET",
        message: str | None = None,
    ) -> SpanRef:
        """Write a span that is over and send it to the collector; without a parent it is a root."""
        record = replace(
            _record(name, attributes, started_ns=started_ns, parent=parent, links=links),
            ended_ns=ended_ns,
            status=status,
            status_message=message,
        )
        self._append(record)
        self._outbox.send(record)
        return SpanRef(trace_id=record.trace_id, span_id=record.span_id)

    def forward(self, spans: Iterable[SpanRecord], exchanges: Iterable[Exchange]) -> None:
        """Send what an agent recorded to the collector, as the agent's own exporter would have."""
        if self._outbox.wanted:
            for record in (*(one for one in spans if one.ended_ns), *map(span_of, exchanges)):
                self._outbox.send(record)

    def _end(self, record: SpanRecord) -> None:
        self._open.pop(record.span_id, None)
        self._outbox.send(record)
        self._append(record)

    def _append(self, record: SpanRecord) -> None:
        if self._wal is not None:
            self._wal.append(record)
            self._written = True


def end_of(exchange: Exchange) -> tuple[int, int]:
    """Return the exchange's last whole microsecond, for backends that keep start and length in µs."""
    ended_ns = exchange.ended_ns if exchange.ended_ns is not None else exchange.started_ns
    length_us = (ended_ns - exchange.started_ns) // 1000
    end = exchange.started_ns + max(0, length_us) * 1000
    return max(exchange.started_ns, end - _NOTE_US * 1000), max(exchange.started_ns, end)


def _record(
    name: str,
    attributes: Attributes,
    *,
    started_ns: int,
    parent: SpanRef | None = None,
    links: Sequence[Mapping[str, object]] = (),
) -> SpanRecord:
    """Return a span that has begun."""
    return SpanRecord(
        trace_id=parent.trace_id if parent else _new_id(16),
        span_id=_new_id(8),
        parent_span_id=parent.span_id if parent else None,
        name=name,
        kind="INTERNAL",
        started_ns=started_ns,
        service=SERVICE,
        scope=SCOPE,
        attributes=_present(attributes),
        links=links,
    )


def _present(attributes: Attributes) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if value is not None}


def _new_id(size: int) -> str:
    """Return random hex digits, not all of them 0: that is no id."""
    while True:
        digits = secrets.token_hex(size)
        if digits.strip("0"):
            return digits


def _to_stderr(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
