"""What processes have written that is not sealed yet, read from their WALs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.store import segment, wal
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted
from tracefork_otel.store.rows import Rows, StoredBody
from tracefork_otel.store.wal_reading import Keep, WalContents, exchanges_of, joined, read_wal

from . import facts as known_facts

if TYPE_CHECKING:
    import pyarrow as pa

Message: TypeAlias = ExchangeStarted | ExchangeEnded
Facts: TypeAlias = dict[tuple[str, int | None], dict[str, Any] | None]
"""Rows of facts by span id and end: what was read once is not read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The tails of some WALs as rows."""

    wals: tuple[Path, ...] = ()
    tables: Mapping[str, pa.Table] | None = None
    facts: tuple[dict[str, Any], ...] = ()
    processes: tuple[str, ...] = ()
    """Processes that still write."""
    problems: tuple[str, ...] = ()
    """WALs that could not be read, and damage in others."""


def read(wals: Sequence[Path], known: Facts) -> Live:
    """The rows of the WALs; facts that `known` lacks are read and added to it."""
    rows = Rows()
    facts: list[dict[str, Any]] = []
    problems: list[str] = []
    processes: list[str] = []
    for process_id, files in groupby(wals, wal.process_of):
        paths = list(files)
        if any(wal.is_live(path) for path in paths):
            processes.append(process_id)
        facts += _Tail(rows, known).read(paths, problems)
    return Live(
        wals=tuple(wals),
        tables=segment.tables_of(rows) if wals else None,
        facts=tuple(facts),
        processes=tuple(processes),
        problems=tuple(problems),
    )


def exchanges(wals: Sequence[Path], trace_id: str) -> list[Exchange]:
    """The exchanges of a trace with their bodies; other bodies are not kept."""
    found: list[Exchange] = []
    for _, files in groupby(wals, wal.process_of):
        others: set[str] = set()

        def keep(record: Message, side: str, body: bytes, others: set[str] = others) -> bytes:
            if isinstance(record, ExchangeStarted):
                (others.discard if record.trace_id == trace_id else others.add)(record.span_id)
            # An end can stand before its start.
            return b"" if record.span_id in others else body

        contents = _contents(list(files), keep, [])
        found += [exchange for exchange in exchanges_of(contents)[0] if exchange.trace_id == trace_id]
    return found


def _contents(paths: Sequence[Path], keep: Keep, problems: list[str]) -> list[WalContents]:
    """The WALs that are still there and can be read."""
    found: list[WalContents] = []
    for path in paths:
        try:
            found.append(read_wal(path, keep=keep))
        except StoreError as error:
            # One that is gone was sealed meanwhile.
            if path.exists():
                problems.append(str(error))
            continue
        problems += (f"{path.parent}: {damage}" for damage in found[-1].damage)
    return found


class _Tail:
    """Reads the WALs of one process; bodies go into rows one by one, for together they can be gigabytes."""

    def __init__(self, rows: Rows, known: Facts) -> None:
        self._rows = rows
        self._known = known
        self._open: dict[str, ExchangeStarted] = {}
        """Requests whose response has not come by."""
        self._stored: dict[tuple[str, str], StoredBody] = {}

    def read(self, paths: Sequence[Path], problems: list[str]) -> list[dict[str, Any]]:
        """Everything is in the rows; the facts of the exchanges come back."""
        contents = _contents(paths, self._keep, problems)
        exchanges, spans, processes, notes = exchanges_of(contents)
        facts: list[dict[str, Any]] = []
        for exchange in exchanges:
            asked = self._stored.get((exchange.span_id, "request"))
            self._rows.exchange(exchange, asked, self._stored.get((exchange.span_id, "response")))
            key = (exchange.span_id, exchange.ended_ns)
            started = self._open.get(exchange.span_id)
            if key not in self._known and started is not None:
                self._known[key] = known_facts.row_of(replace(exchange, request=started.request))
            row = self._known.get(key)
            if row is not None:
                facts.append(row)
        self._rows.others(spans, processes, notes)
        return facts

    def _keep(self, record: Message, side: str, body: bytes) -> bytes:
        if isinstance(record, ExchangeStarted):
            self._open[record.span_id] = record
        started = self._open.get(record.span_id)
        store = self._rows.request if side == "request" else self._rows.response
        self._stored[record.span_id, side] = store(body, started.trace_id if started else "")
        if started is None and isinstance(record, ExchangeEnded):
            # Its start comes later or never: what the two say together is read when they are sealed.
            self._known[record.span_id, record.ended_ns] = None
        elif (
            started is not None
            and isinstance(record, ExchangeEnded)
            and (side == "request" or record.request_body is None)
        ):
            # The last body of the exchange: what both say can be read now, and both can go.
            del self._open[record.span_id]
            key = (record.span_id, record.ended_ns)
            if key not in self._known:
                self._known[key] = known_facts.row_of(joined(started, record, process_id=""))
        return b""
