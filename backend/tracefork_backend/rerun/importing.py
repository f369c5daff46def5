"""Tape files read into a store, where they are runs like any other."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracefork_otel.exchange import Exchange
from tracefork_otel.recording.exchange import Ids, OpenExchange
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.records import Record, SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.reads import ToolCall
from tracefork_otel.tape.tape import Tape

from ..store import open_store
from .tool_spans import span_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    run_id: str
    steps: int
    already_there: bool


def import_tape(store: Path | str, path: Path | str) -> Imported:
    """Write the tape's run into the store, byte for byte; leave a run alone that is there already.

    Raises TapeError if the file is not a whole tape.
    """
    tape = Tape.load(Path(path))
    with open_store(store) as opened:
        if opened.has_run(tape.run_id):
            return Imported(run_id=tape.run_id, steps=len(tape.exchanges), already_there=True)
    argv = ("tape", "import", Path(path).name)
    wal = Wal(Path(store), process_started(mode="record", via="import", launch_id=tape.run_id, argv=argv))
    try:
        roots = _roots(tape)
        for root in roots:
            wal.append(root)
        for call in tape.tools:
            wal.append(_tool(call, roots))
        for exchange in tape.exchanges:
            _write(exchange, _Book(wal.append))
    finally:
        wal.close()
    open_store(store).close()  # the next opener seals what is left
    return Imported(run_id=tape.run_id, steps=len(tape.exchanges), already_there=False)


@dataclass(frozen=True, slots=True)
class _Book:
    """A WAL that takes exchanges as they are: they were redacted when they were recorded."""

    append: Callable[[Record], object]
    redactor: Redactor = field(default_factory=Redactor)


def _roots(tape: Tape) -> list[SpanRecord]:
    """Return a root span for each run on the tape, saying how to start the agent, up to the last exchange."""
    runs: dict[str, list[Exchange]] = {}
    for exchange in tape.exchanges:
        runs.setdefault(exchange.trace_id, []).append(exchange)
    return [
        SpanRecord(
            trace_id=run_id,
            span_id=secrets.token_hex(8),
            parent_span_id=None,
            name=tape.name,
            kind="INTERNAL",
            started_ns=min(exchange.started_ns for exchange in exchanges),
            ended_ns=max(exchange.ended_ns or exchange.started_ns for exchange in exchanges),
            service=exchanges[0].service,
            scope="tracefork_otel",
            attributes={**tape.start.attributes(), "tracefork.imported": True},
        )
        for run_id, exchanges in runs.items()
    ]


def _tool(call: ToolCall, roots: Sequence[SpanRecord]) -> SpanRecord:
    """Return the call's span, in the run during which it began."""
    root = next((one for one in roots if one.started_ns <= call.started_ns <= (one.ended_ns or 0)), roots[0])
    return span_of(call, root.trace_id, root.span_id, root.service)


def _write(exchange: Exchange, book: _Book) -> None:
    """Write the exchange down as the tape has it."""
    opened = OpenExchange(
        book,
        Ids(exchange.trace_id, exchange.span_id, exchange.parent_span_id),
        exchange.request,
        name=exchange.name,
        started_ns=exchange.started_ns,
        replayed=exchange.replayed,
        attributes=dict(exchange.attributes),
    )
    opened.begin(seq=exchange.seq, service=exchange.service)
    opened.got(exchange.response)
    opened.error_type, opened.error_message = exchange.error_type, exchange.error_message
    opened.served_span_id, opened.intervention = exchange.served_span_id, exchange.intervention
    opened.span_status, opened.links = exchange.span_status, exchange.links
    opened.finish(exchange.outcome, ended_ns=exchange.ended_ns or exchange.started_ns)
