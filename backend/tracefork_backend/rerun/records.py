"""What the processes of a replay or a fork recorded, and what it says of how they were played to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.match import Cause, Explanation
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

REFUSED = "tracefork_otel.Drift"
"""The error type of a request that was refused here."""
_DRIFT = "tracefork.drift"
_ERROR = 400
"""The first status that means an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One way in which a replay differs from its tape."""

    step: int
    cause: Cause
    text: str
    """One line for a person."""
    path: str = ""
    recorded: str | None = None
    got: str | None = None
    nearest: int | None = None
    differences: int = 0

    @classmethod
    def of(cls, refused: Exchange | SpanRecord) -> DriftReport:
        """Return how a request, or a call of a tool, that was refused differs from its tape."""
        one = _explanation(refused)
        return cls(
            step=one.step,
            cause=one.cause,
            text=one.text(),
            path=one.path,
            recorded=one.recorded,
            got=one.got,
            nearest=one.nearest,
            differences=one.differences,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A connection that went round the seam."""

    host: str
    port: int | None
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Everything that the processes of one replay or fork recorded."""

    exchanges: Sequence[Exchange]
    """In order of their start."""
    spans: Sequence[SpanRecord]
    processes: Sequence[ProcessStarted]
    notes: Sequence[Note]

    @classmethod
    def read(cls, store: Path) -> Records:
        """Return what the WALs of this store hold."""
        exchanges, spans, processes, notes = exchanges_of([read_wal(path) for path in wal_files(store)])
        exchanges.sort(key=lambda one: (one.started_ns, one.span_id))
        return cls(exchanges=exchanges, spans=spans, processes=processes, notes=notes)

    def refused(self) -> list[Exchange | SpanRecord]:
        """Return the requests, and calls of tools, that were refused, the first one first."""
        found = (one for one in (*self.exchanges, *self.spans) if _DRIFT in one.attributes)
        return sorted(found, key=lambda one: one.started_ns)

    def drifts(self) -> tuple[DriftReport, ...]:
        """Return why requests and calls were refused, each reason once however often it was tried again."""
        found: dict[str, DriftReport] = {}
        for one in self.refused():
            found.setdefault(_explanation(one).fingerprint, DriftReport.of(one))
        return tuple(found.values())

    def leaks(self) -> tuple[Leak, ...]:
        """Return the connections that went round the seam, each once."""
        found: dict[Leak, None] = {}
        for note in self.notes:
            if note.kind == "leak":
                port = note.attributes.get("port")
                host, caller = (str(note.attributes.get(name, "?")) for name in ("host", "caller"))
                found.setdefault(Leak(host=host, port=port if isinstance(port, int) else None, caller=caller))
        return tuple(found)

    def losses(self) -> tuple[str, ...]:
        """Return why something is not recorded, once for each note of a loss."""
        return tuple(str(note.attributes.get("why", "unknown")) for note in self.notes if note.kind == "lost")

    def result(self) -> object:
        """Return what the agent function returned, from the first span of one that says so."""
        found = [span for span in self.spans if "tracefork.result" in span.attributes]
        first = min(found, key=lambda span: span.started_ns, default=None)
        return None if first is None else first.attributes["tracefork.result"]


def _explanation(refused: Exchange | SpanRecord) -> Explanation:
    return Explanation.from_json(str(refused.attributes[_DRIFT]))


def phase_of(one: Exchange | SpanRecord) -> Any:
    """Return the phase of a fork in which it was made, as the seam wrote it; None if it never ended."""
    return one.attributes.get("tracefork.phase")


def is_error(exchange: Exchange) -> bool:
    """Return whether the response is an error: of a model's call, the model did not answer."""
    return exchange.response is not None and exchange.response.status >= _ERROR


def went_live(exchange: Exchange) -> bool:
    """Return whether it went over the network."""
    return not exchange.replayed and exchange.error_type != REFUSED


def last_line(text: str) -> str:
    """Return the last line that says something: of a traceback, the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
