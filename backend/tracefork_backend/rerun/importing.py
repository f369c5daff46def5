"""Tape files read into a store, where they are runs like any other."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange, held
from tracefork_otel.recording.exchange import Ids, OpenExchange
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction.glance import Looked
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.state.keeping import in_use
from tracefork_otel.state.kept import objects_of
from tracefork_otel.store.records import Record, SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.digest import chain
from tracefork_otel.tape.marks import is_from_here, marked
from tracefork_otel.tape.reads import ToolCall
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..spelling import run_name
from ..store import Store, open_store
from .extent import why_short
from .state import lacking, take_in
from .tool_spans import span_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    run_id: str
    steps: int
    """The exchanges of the tape."""
    added: int
    """Those that were not in the store."""
    start: HowStarted
    from_here: bool
    """Whether this user's recorder recorded it, so that it can be replayed without being asked."""
    already_there: bool
    """Whether the store had all that the tape holds."""
    ends: str | None = None
    """Where and why the tape ends before its agent had; None if it does not."""


def import_tape(store: Path | str, path: Path | str) -> Imported:
    """Write the tape's run into the store, but for keys byte for byte; of one that is there, what came since.

    Raises TapeError if the file is not a whole tape, UsageError where an exchange that both have differs, or
    where it would add to what was recorded here.
    """
    tape = Tape.load(Path(path))
    ours = is_from_here(tape)
    if lacks := lacking(tape):
        lost = f"its tape did not carry the state that it begins with, {lacks}"
        tape = replace(tape, start=replace(tape.start, state=None, state_lost=lost))
    with open_store(store) as opened:
        here = _here(opened, tape)
        kept = {span.span_id for span in opened.tools_of(_run_ids(tape))} if here else set[str]()
        parts = {run_id for run_id in _run_ids(tape) if _is_part(opened, run_id)}
        new = [exchange for exchange in tape.exchanges if exchange.span_id not in here]
        if new:
            _check_joins_nothing(opened, tape, ours=ours)
        recorded = not new and bool(opened.not_imported(_run_ids(tape)))
    # A run of which a part is here has its root; the root of the whole says how it ended.
    every = _roots(tape, ours=ours)
    roots = [root for root in every if not (root.trace_id in parts and tape.cut_short == "running")]
    known = {exchange.trace_id for exchange in here.values()}
    roots = [root for root in roots if root.trace_id in parts or root.trace_id not in known]
    imported = Imported(
        run_id=tape.run_id,
        steps=tape.steps,
        start=tape.start,
        from_here=ours,
        added=len(new),
        already_there=recorded or not (new or roots),
        ends=why_short(tape),
    )
    if imported.already_there:
        return imported
    # Until the records say who needs the state, others would take it away.
    with in_use(Path(store)) if tape.files else nullcontext():
        take_in(tape.files, objects_of(Path(store)))
        argv = ("tape", "import", Path(path).name)
        wal = Wal(Path(store), process_started(mode="record", via="import", launch_id=tape.run_id, argv=argv))
        try:
            for root in roots:
                wal.append(root)
            for call in tape.tools:
                if call.span_id not in kept:
                    wal.append(_tool(call, every))
            book = _Book(wal.append)
            for exchange in new:
                _write(exchange, book)
        except BaseException:
            wal.discard()
            raise
        wal.close()
    open_store(store).close()  # the next opener seals what is left
    return imported


def _check_joins_nothing(store: Store, tape: Tape, *, ours: bool) -> None:
    """Raise UsageError where calls would be added to a run that was recorded here, or is marked as one."""
    ids = {tape.run_id, *_run_ids(tape)}
    joined = [*store.not_imported(ids)]
    if not ours:
        joined += (one for one in sorted(ids) if store.has_run(one) and store.run(one).beginning[1])
    if joined:
        raise UsageError(
            f"what the tape of run {run_name(tape.run_id)} holds would be part of run {run_name(joined[0])}, "
            f"which was recorded here: nothing was imported into {store.path}; use another store"
        )


def _run_ids(tape: Tape) -> tuple[str, ...]:
    return tuple(dict.fromkeys(exchange.trace_id for exchange in tape.exchanges))


def _is_part(store: Store, run_id: str) -> bool:
    return store.has_run(run_id) and store.run(run_id).status == "part"


def _here(store: Store, tape: Tape) -> dict[str, Exchange]:
    """Return by span id what the store has of the tape's runs; UsageError where that is another thing."""
    here = {one.span_id: one for run_id in _run_ids(tape) for one in store.exchanges(run_id)}
    for step, exchange in enumerate(tape.exchanges):
        known = here.get(exchange.span_id)
        if known is not None and chain(b"", known) not in (chain(b"", one) for one in _ways(exchange)):
            why = f"its step {step} ({exchange.request.method} {exchange.request.url}) is not the one"
            raise UsageError(
                f"run {run_name(tape.run_id)} is in {store.path} already, and differs: {why} of the tape; "
                "nothing was imported: use another store"
            )
    return here


def _ways(exchange: Exchange) -> Iterator[Exchange]:
    """Yield the exchange as it is on the tape, and as it is written down here."""
    yield exchange
    redactor = Redactor()
    response = exchange.response
    yield replace(
        exchange,
        request=redactor.as_today(exchange.request),
        response=None if response is None else redactor.response(response, Counter())[0],
    )


@dataclass(frozen=True, slots=True)
class _Book:
    """A WAL that takes exchanges as they are, but for keys that earlier versions kept in bodies."""

    append: Callable[[Record], object]
    redactor: Redactor = field(default_factory=Redactor)
    looked: Looked = field(default_factory=Looked)


def _roots(tape: Tape, *, ours: bool) -> list[SpanRecord]:
    """Return a root span for each run on the tape, saying how to start the agent, up to the last exchange."""
    runs: dict[str, list[Exchange]] = {}
    for exchange in tape.exchanges:
        runs.setdefault(exchange.trace_id, []).append(exchange)
    attributes = {
        **tape.start.attributes(),
        "tracefork.imported": True,
        **({"tracefork.part": True} if tape.cut_short == "running" else {}),
    }
    return [
        SpanRecord(
            trace_id=run_id,
            span_id=secrets.token_hex(8),
            parent_span_id=None,
            name=tape.name,
            kind="INTERNAL",
            started_ns=min(exchange.started_ns for exchange in exchanges),
            ended_ns=tape.left_ns or max(one.ended_ns or one.started_ns for one in exchanges),
            service=exchanges[0].service,
            scope="tracefork_otel",
            attributes=marked(run_id, attributes) if ours else attributes,
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
        Ids(exchange.trace_id, exchange.span_id, exchange.parent_span_id, exchange.span_trace_id),
        book.redactor.as_today(held(exchange.request), book.looked),
        name=exchange.name,
        started_ns=exchange.started_ns,
        replayed=exchange.replayed,
        attributes=dict(exchange.attributes),
    )
    opened.was_redacted = False  # not of what has counted as secret since
    opened.begin(seq=exchange.seq, service=exchange.service)
    opened.got(exchange.response)
    opened.error_type, opened.error_message = exchange.error_type, exchange.error_message
    opened.served_span_id, opened.intervention = exchange.served_span_id, exchange.intervention
    opened.site = exchange.site
    opened.span_status, opened.links = exchange.span_status, exchange.links
    opened.finish(exchange.outcome, ended_ns=exchange.ended_ns or exchange.started_ns)
