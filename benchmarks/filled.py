"""Stores of a known content, made through the WAL and the sealer that agents use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from tracefork_otel.exchange import Request, Response
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, ProcessStarted, SpanRecord
from tracefork_otel.store.wal import Wal

URL = "https://api.anthropic.com/v1/messages"
SENT = (
    ("host", "api.anthropic.com"), ("accept-encoding", "gzip, deflate"), ("connection", "keep-alive"),
    ("accept", "application/json"), ("content-type", "application/json"), ("user-agent", "Anthropic/Python 2.13.0"),
    ("x-stainless-lang", "python"), ("x-stainless-package-version", "2.13.0"), ("x-api-key", "REDACTED"),
    ("anthropic-version", "2023-06-01"),
)  # fmt: skip


def process(store: Path, **settings: int) -> Wal:
    started = ProcessStarted(
        process_id=f"1-{secrets.token_hex(4)}", pid=1, ppid=0, started_ns=time.time_ns(), executable="python",
        argv=("python", "agent.py"), cwd=".", mode="record", via="instrument",
    )  # fmt: skip
    return Wal(store, started, **settings)


def root(trace_id: str, span_id: str, *, ended: bool, at: int) -> SpanRecord:
    return SpanRecord(
        trace_id=trace_id, span_id=span_id, parent_span_id=None, name="invoke_agent book", kind="INTERNAL",
        started_ns=at, ended_ns=at + 10**9 if ended else None, service="agent", scope="tracefork_otel",
    )  # fmt: skip


def records(
    trace_id: str, parent: str, at: int, seq: int, request: bytes, response: bytes
) -> tuple[ExchangeStarted, ExchangeEnded]:
    span_id = secrets.token_hex(8)
    received = (
        ("content-type", "application/json"), ("request-id", f"req_{secrets.token_hex(12)}"),
        ("anthropic-ratelimit-requests-remaining", str(4000 - seq % 50)), ("content-length", str(len(response))),
    )  # fmt: skip
    return (
        ExchangeStarted(
            trace_id=trace_id, span_id=span_id, parent_span_id=parent, seq=seq, started_ns=at, service="agent",
            name="chat claude-sonnet-4-6", request=Request(method="POST", url=URL, headers=SENT, body=request),
        ),
        ExchangeEnded(
            span_id=span_id, ended_ns=at + 900_000_000 + seq * 997, outcome="complete", name="chat claude-sonnet-4-6",
            response=Response(
                status=200, headers=received, body=response, chunk_sizes=(len(response),),
                chunk_offsets_us=(890_000 + seq * 13,),
            ),
        ),
    )  # fmt: skip


def fill(
    wal: Wal, bodies: Iterable[tuple[bytes, bytes]], *, seq: int = 0, at: int | None = None
) -> tuple[str, int]:
    """A run of these bodies, begun at that time, is in the WAL; its trace id and the next sequence number."""
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    at = time.time_ns() if at is None else at
    wal.append(root(trace_id, parent, ended=False, at=at))
    for request, response in bodies:
        for record in records(trace_id, parent, at + seq * 10**9, seq, request, response):
            wal.append(record)
        seq += 1
    wal.append(root(trace_id, parent, ended=True, at=at))
    return trace_id, seq


def stored_bytes(store: Path) -> int:
    return sum(
        path.stat().st_size for path in store.rglob("*") if path.is_file() and path.name != "views.sql"
    )
