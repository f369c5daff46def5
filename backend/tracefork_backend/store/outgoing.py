"""Stored runs sent by OTLP, with their own ids and times: sent again, they are the same spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.rows import span_of as stored_span

from ..writeback.exchange_span import span_of
from ..writeback.sending import Outbox
from .store import Run, Store

_CLOSE_S = 60.0
"""Whoever sends waits for nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of sending."""

    spans: int
    """Those that arrived."""
    of: int
    """Those that were to."""
    runs: tuple[str, ...]
    """Ids of runs of which something arrived."""
    problems: tuple[str, ...]
    """Which did not arrive, and why."""


def send(runs: Sequence[Run], *, close_s: float = _CLOSE_S) -> Sent:
    """Send the runs where the environment's OTLP variables point; one that goes on as far as it went."""
    problems: list[str] = []
    outbox = Outbox(warn=problems.append, close_s=close_s)
    count = 0
    for run in runs:
        for record in spans_of(run):
            outbox.send(record)
            count += 1
    outbox.close()
    arrived = tuple(run.run_id for run in runs if outbox.has_taken(run.run_id))
    return Sent(spans=outbox.arrived, of=count, runs=arrived, problems=tuple(problems))


def spans_of(run: Run) -> Iterator[SpanRecord]:
    """Yield the spans of the run's trace that have ended, its exchanges among them, each once.

    What never ended ends with the run, once that has.
    """
    # With those that are no step: the view `spans` has them, and other spans have them as their parents.
    exchanges = run.store.all_exchanges(run.run_id)
    traces = sorted({run.run_id, *(one.told_in for one in exchanges)})
    spans = [stored_span(row) for row in run.store.ask("spans_of_traces", traces=traces)]
    ends = (one.ended_ns or one.started_ns for one in (*spans, *exchanges))
    last_ns = max(ends, default=0)
    told: set[str] = set()
    # What the recorder of the run said comes first, and somebody else may have said it too.
    for exchange in exchanges:
        if exchange.span_id not in told and (exchange.ended_ns is not None or run.status != "running"):
            yield span_of(exchange)
        told.add(exchange.span_id)
    for span in spans:
        if span.span_id in told:
            continue
        told.add(span.span_id)
        if span.ended_ns is not None:
            yield span
        elif run.status == "killed":
            yield replace(span, ended_ns=last_ns, status="ERROR", status_message="its process was killed")
        elif run.status != "running":
            yield replace(span, ended_ns=last_ns)


def has_provider(store: Store, launch_id: str) -> bool:
    """Return whether a process of that command sends its spans itself, by a tracer provider of its own."""
    return bool(store.ask("providers_of_launch", launch_id=launch_id)[0]["there"])
