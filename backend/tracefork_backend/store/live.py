"""What processes have written that is not sealed yet, read from their WALs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Body, Exchange
from tracefork_otel.store import segment, wal
from tracefork_otel.store.held import Held
from tracefork_otel.store.records import ExchangeStarted
from tracefork_otel.store.rows import Message, Rows, Storing
from tracefork_otel.store.wal_reading import WalContents, exchanges_of, joined, read_wal

from . import facts

if TYPE_CHECKING:
    import pyarrow as pa


class Known:
    """Facts of what is not sealed: what was read once is not read again."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let all facts go."""
        self.reader = facts.Reader()
        self.rows: dict[tuple[str, int | None], facts.Row | None] = {}
        """By span id and end."""

    def read(self, exchange: Exchange) -> None:
        """Read the facts of an exchange, if they are not known."""
        key = (exchange.span_id, exchange.ended_ns)
        if key not in self.rows:
            self.rows[key] = self.reader.row(exchange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The tails of some WALs as rows."""

    wals: tuple[Path, ...] = ()
    tables: Mapping[str, pa.Table]
    processes: tuple[str, ...] = ()
    """Processes that still write."""
    problems: tuple[str, ...] = ()
    """WALs that could not be read, and damage in others."""


def read(wals: Sequence[Path], known: Known) -> Live:
    """Return the rows of the WALs; facts that `known` lacks are read and added to it."""
    rows = Rows()
    found: list[facts.Row] = []
    problems: list[str] = []
    processes: list[str] = []
    for process_id, files in groupby(wals, wal.process_of):
        paths = list(files)
        if any(wal.is_live(path) for path in paths):
            processes.append(process_id)
        found += _facts_of(paths, rows, known, problems)
    if not wals:
        known.forget()
    return Live(
        wals=tuple(wals),
        tables={**segment.tables_of(rows), "facts": known.reader.table(found)} if wals else {},
        processes=tuple(processes),
        problems=tuple(problems),
    )


def exchanges(wals: Sequence[Path], trace_id: str, span_id: str | None = None) -> list[Exchange]:
    """Return the exchanges of a trace, or the one of a span, with their bodies; other bodies are not kept."""
    found: list[Exchange] = []
    held = Held()
    for _, files in groupby(wals, wal.process_of):
        others: set[str] = set()

        def keep(record: Message, side: str, body: bytes, others: set[str] = others) -> bytes | Body:
            if isinstance(record, ExchangeStarted):
                wanted = record.trace_id == trace_id and span_id in (None, record.span_id)
                (others.discard if wanted else others.add)(record.span_id)
            # An end can stand before its start.
            return b"" if record.span_id in others else held.keep(record, side, body)

        contents = _readable(list(files), partial(read_wal, keep=keep), [])
        found += [
            exchange
            for exchange in exchanges_of(contents)[0]
            if exchange.trace_id == trace_id and span_id in (None, exchange.span_id)
        ]
    return found


def _readable(
    paths: Sequence[Path], read: Callable[[Path], WalContents], problems: list[str]
) -> list[WalContents]:
    """Return the WALs that are still there and can be read."""
    found: list[WalContents] = []
    for path in paths:
        try:
            found.append(read(path))
        except StoreError as error:
            # One that is gone was sealed meanwhile.
            if path.exists():
                problems.append(str(error))
            continue
        problems += (f"{path.parent}: {damage}" for damage in found[-1].damage)
    return found


def _facts_of(paths: Sequence[Path], rows: Rows, known: Known, problems: list[str]) -> list[facts.Row]:
    """Put all that the WALs of one process tell into the rows; return the facts of its exchanges."""
    opened: dict[str, ExchangeStarted] = {}
    """Requests whose response has not come by."""

    def look(record: Message, side: str) -> None:
        if isinstance(record, ExchangeStarted):
            opened[record.span_id] = record
        elif record.span_id not in opened:
            # Its start comes later or never: what the two say together is read when they are sealed.
            known.rows[record.span_id, record.ended_ns] = None
        elif side == "request" or record.request_body is None:
            # The last body of the exchange: what both say can be read now, and both can go.
            known.read(joined(opened.pop(record.span_id), record, process_id=""))

    storing = Storing(rows, look)
    _readable(paths, storing.read, problems)
    found: list[facts.Row] = []
    for exchange in storing.settle():
        if exchange.span_id in opened:
            known.read(replace(exchange, request=opened[exchange.span_id].request))
        if row := known.rows.get((exchange.span_id, exchange.ended_ns)):
            found.append(row)
    return found
