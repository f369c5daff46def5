"""What a process writes into its WAL, one record per `write()`; the store's rows are made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..exchange import Ending, Outcome, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted:
    """A process began to record: the first record of every WAL (`hello`), or could not (`absent`)."""

    process_id: str
    """`{pid}-{8 hex digits}`; also the name of its WAL files."""
    pid: int
    ppid: int
    started_ns: int
    executable: str
    argv: tuple[str, ...]
    cwd: str
    mode: str
    via: str
    """How it was reached: `sitecustomize`, `instrument`, `entry_point`, `exporter`, `backend`, `absent`."""
    launch_id: str | None = None
    """Trace id of the command that started it (from TRACEPARENT): its processes are found together by it."""
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    """JSON-able: versions, host name, what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """A span, OTel's data in JSON-able form; `ended_ns` is None in a start record."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    """`INTERNAL`, `CLIENT`, …"""
    started_ns: int
    ended_ns: int | None = None
    status: str = "UNSET"
    status_message: str | None = None
    service: str = ""
    scope: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    events: Sequence[Mapping[str, object]] = ()
    """Each `{"name", "time_ns", "attributes"}`."""
    links: Sequence[Mapping[str, object]] = ()
    """Each `{"trace_id", "span_id", "attributes"}`."""
    process_id: str = ""
    """The process that recorded it; filled in by whoever reads the WAL or the segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeStarted:
    """A request is about to be sent. Written before it is."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    seq: int
    started_ns: int
    request: Request
    name: str
    service: str = ""
    span_trace_id: str | None = None
    """The trace of its span where that is not the run's own."""
    request_complete: bool = True
    """False while a streaming request body is still unknown; `ExchangeEnded.request_body` brings it."""
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeEnded(Ending):
    """A response came to its end, or never came."""

    span_id: str
    ended_ns: int
    outcome: Outcome
    request_body: bytes | None = None
    """The body of a request whose start did not know it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a reader of the run must know: a loss, a drift, a connection round the seam."""

    kind: str
    """`lost` (count, why), `leak` (host, port, caller), `telemetry` (host, port, client), `drift` (reason),
    `unseen` (client, host, port, caller, count: connections of clients that are not captured),
    `incomplete` (why), `named` (session and conversation of a run), `provider` (class), `draws`, `odd`
    (field, first, count: values left out because their field cannot hold them)."""
    time_ns: int
    trace_id: str | None = None
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    process_id: str = ""
    """The process that recorded it; filled in by whoever reads the WAL or the segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """The process goes on in another WAL; what is named here was carried over to it while open."""

    to: str
    carried: tuple[str, ...] = ()


Record: TypeAlias = ProcessStarted | SpanRecord | ExchangeStarted | ExchangeEnded | Note | Rotated
