"""The spans that the backend writes: roots of forks and replays, and notes in the trace of the original run.

Every span is first a record in the store, from its start on, and goes to a collector when it ends.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.store import sealing
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import Wal, process_of, wal_files

from .names import FORK, FORK_NOTE, REPLAY, SCOPE, SERVICE
from .records import SpanRef, Status, end_of, link, new_id, present, process
from .sending import Outbox


class RootSpan:
    """The open root of a run that the backend starts; the agent's own spans become its children."""

    def __init__(self, owner: WriteBack, record: SpanRecord) -> None:
        self._owner = owner
        self._record = record
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

    @property
    def ref(self) -> SpanRef:
        """This span as the target of a link."""
        return SpanRef(trace_id=self.trace_id, span_id=self.span_id)

    @property
    def traceparent(self) -> str:
        """The value of TRACEPARENT for the agent: sampled, so that the user's ratio does not drop the run."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def end(
        self,
        *,
        outcome: bool | None = None,
        attributes: Mapping[str, object] | None = None,
        status: Status = "UNSET",
        message: str | None = None,
        ended_ns: int | None = None,
    ) -> None:
        """The span is ended in the store and on its way to the collector; only the first call counts.

        `outcome` is what an oracle said, None if none did or none could. A run that was lost is no error of
        its span: `status` is for agents that crashed, drifted or ran out of time.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        graded = {} if outcome is None else {"tracefork.run.outcome": outcome}
        self._record = replace(
            self._record,
            ended_ns=ended_ns or time.time_ns(),
            status=status,
            status_message=message,
            attributes={**self._record.attributes, **present(attributes or {}), **graded},
        )
        self._owner._ended(self, self._record)


class WriteBack:
    """Writes spans of service `tracefork` for one operation; at the block's end they are sealed and sent."""

    def __init__(self, store: Path | str | None, *, warn: Callable[[str], None] | None = None) -> None:
        """`store` is where spans are kept; None if they are only sent."""
        self._store = None if store is None else Path(store)
        self._warn = warn or _to_stderr
        self._process = process()
        self._wal = None if self._store is None else Wal(self._store, self._process)
        self._outbox = Outbox(service=SERVICE, scope=SCOPE, warn=self._warn)
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
        """The spans are in a segment, and at the collector; a warning says if either could not be."""
        self._outbox.finish()
        if self._wal is not None:
            self._wal.close()
        if self._written and self._store is not None:
            self._seal(self._store)
        self._outbox.close()

    def open_fork(
        self,
        *,
        name: str,
        step: int,
        parent_run_id: str,
        parent_root_span_id: str | None,
        forked_span_id: str,
        intervention: str,
        tail: str,
        experiment_id: str | None = None,
        kind: Literal["fork", "trial"] = "fork",
        attributes: Mapping[str, object] | None = None,
        started_ns: int | None = None,
    ) -> RootSpan:
        """A fork's root is open and in the store, linked to the parent's root and to the forked exchange.

        Raises StoreError if the store cannot be written.
        """
        links = [link(parent_run_id, forked_span_id, "forked_from")]
        # Jaeger shows one row for two links to one span.
        if parent_root_span_id is not None and parent_root_span_id != forked_span_id:
            links.insert(0, link(parent_run_id, parent_root_span_id, "parent"))
        return self._root(
            FORK.format(name=name, step=step),
            {
                "tracefork.run.kind": kind,
                "tracefork.parent.run_id": parent_run_id,
                "tracefork.fork.step": step,
                "tracefork.fork.intervention": intervention,
                "tracefork.fork.tail": tail,
                "tracefork.experiment.id": experiment_id,
                **(attributes or {}),
            },
            links,
            started_ns,
        )

    def open_replay(
        self,
        *,
        name: str,
        parent_run_id: str,
        parent_root_span_id: str | None,
        attributes: Mapping[str, object] | None = None,
        started_ns: int | None = None,
    ) -> RootSpan:
        """The root of a replay is open and in the store, linked to the root of the run that it plays.

        Raises StoreError if the store cannot be written.
        """
        links = [] if parent_root_span_id is None else [link(parent_run_id, parent_root_span_id, "parent")]
        told = {
            "tracefork.run.kind": "replay",
            "tracefork.parent.run_id": parent_run_id,
            **(attributes or {}),
        }
        return self._root(REPLAY.format(name=name), told, links, started_ns)

    def note_fork(
        self,
        *,
        exchange: Exchange,
        kind: str,
        fork: RootSpan | SpanRef,
        attributes: Mapping[str, object] | None = None,
    ) -> SpanRef:
        """The parent's trace says, at the forked exchange, that it was forked there, and links to the fork.

        Raises StoreError if the store cannot be written.
        """
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
        attributes: Mapping[str, object],
        status: Status = "UNSET",
        message: str | None = None,
    ) -> SpanRef:
        """A span of 1 µs stands in the exchange's trace, its child, ending with it.

        Raises StoreError if the store cannot be written.
        """
        started_ns, ended_ns = end_of(exchange)
        record = SpanRecord(
            trace_id=exchange.trace_id,
            span_id=new_id(8),
            parent_span_id=exchange.span_id,
            name=name,
            kind="INTERNAL",
            started_ns=started_ns,
            ended_ns=ended_ns,
            status=status,
            status_message=message,
            service=SERVICE,
            scope=SCOPE,
            attributes={"tracefork.note": True, **present(attributes)},
            links=links,
        )
        self._append(record)
        self._outbox.send(record)
        return SpanRef(trace_id=record.trace_id, span_id=record.span_id)

    def span(
        self,
        *,
        name: str,
        attributes: Mapping[str, object],
        started_ns: int,
        ended_ns: int,
        parent: SpanRef | None = None,
        links: Sequence[Mapping[str, object]] = (),
        status: Status = "UNSET",
        message: str | None = None,
    ) -> SpanRef:
        """A span that is over stands in the store and goes to the collector; without a parent it is a root.

        Raises StoreError if the store cannot be written.
        """
        record = SpanRecord(
            trace_id=parent.trace_id if parent else new_id(16),
            span_id=new_id(8),
            parent_span_id=parent.span_id if parent else None,
            name=name,
            kind="INTERNAL",
            started_ns=started_ns,
            ended_ns=ended_ns,
            status=status,
            status_message=message,
            service=SERVICE,
            scope=SCOPE,
            attributes=present(attributes),
            links=links,
        )
        self._append(record)
        self._outbox.send(record)
        return SpanRef(trace_id=record.trace_id, span_id=record.span_id)

    def _root(
        self,
        name: str,
        attributes: Mapping[str, object],
        links: Sequence[Mapping[str, object]],
        started_ns: int | None,
    ) -> RootSpan:
        record = SpanRecord(
            trace_id=new_id(16),
            span_id=new_id(8),
            parent_span_id=None,
            name=name,
            kind="INTERNAL",
            started_ns=started_ns or time.time_ns(),
            service=SERVICE,
            scope=SCOPE,
            attributes=present(attributes),
            links=links,
        )
        # In the store before the agent runs, so that a director that is killed leaves a readable fork.
        self._append(record)
        root = RootSpan(self, record)
        self._open[record.span_id] = root
        return root

    def _ended(self, root: RootSpan, record: SpanRecord) -> None:
        self._open.pop(root.span_id, None)
        self._outbox.send(record)
        self._append(record)

    def _append(self, record: SpanRecord) -> None:
        if self._wal is not None:
            self._wal.append(record)
            self._written = True

    def _seal(self, store: Path) -> None:
        ours = [path for path in wal_files(store) if process_of(path) == self._process.process_id]
        try:
            sealing.seal(store, ours)
        except StoreError as error:
            self._warn(f"{error} (whoever opens the store next seals them)")


def _to_stderr(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
