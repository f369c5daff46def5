"""Runs written into a store as a recording process writes them: through a WAL."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracefork_otel.exchange import Headers, Outcome, Request, Response
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, Note, ProcessStarted, SpanRecord
from tracefork_otel.store.wal import Wal

ANTHROPIC = "https://api.anthropic.com/v1/messages"
JSON: Headers = (("content-type", "application/json"),)
START = 1_790_000_000_000_000_000
"""A moment in September 2026: times in the tests count from it."""


def asked(*said: str, model: str = "claude-sonnet-4-5") -> bytes:
    """The body of a request whose conversation is these texts, by turns of user and assistant."""
    roles = itertools.cycle(("user", "assistant"))
    return json.dumps(
        {"model": model, "messages": [{"role": next(roles), "content": text} for text in said]}
    ).encode()


def answered(text: str, *, input_tokens: int = 1000, output_tokens: int = 100) -> bytes:
    """The body of a response that says the text."""
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": input_tokens, "output_tokens": output_tokens},
        }
    ).encode()


class Recorder:
    """A process that records; its WAL is live until `close()`."""

    def __init__(self, store: Path, *, launch_id: str | None = None, **options: Any) -> None:
        self.process_id = f"{secrets.randbelow(99999)}-{secrets.token_hex(4)}"
        self.wal = Wal(
            store,
            ProcessStarted(
                process_id=self.process_id,
                pid=1,
                ppid=0,
                started_ns=START,
                executable="python",
                argv=("agent.py",),
                cwd="/",
                mode="record",
                via="test",
                launch_id=launch_id,
            ),
            **options,
        )
        self.seq = 0
        self.now = START

    def tick(self, milliseconds: float = 1) -> int:
        """The time, after it went on by so much."""
        self.now += int(milliseconds * 1e6)
        return self.now

    def root(self, trace_id: str, name: str = "agent", *, end: bool = True, **fields: Any) -> str:
        """A root span is recorded, as one that ended a minute later or as one that is still open."""
        span_id = secrets.token_hex(8)
        started = fields.pop("started_ns", self.tick())
        span = SpanRecord(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=fields.pop("parent_span_id", None),
            name=name,
            kind=fields.pop("kind", "INTERNAL"),
            started_ns=started,
            ended_ns=started + 60_000_000_000 if end else None,
            service=fields.pop("service", "tests"),
            scope="tests",
            **fields,
        )
        self.wal.append(span)
        return span_id

    def exchange(
        self,
        trace_id: str,
        request: bytes | None = None,
        response: bytes | None = None,
        *,
        url: str = ANTHROPIC,
        headers: Headers = JSON,
        outcome: Outcome = "complete",
        end: bool = True,
        replayed: bool = False,
        attributes: Mapping[str, object] | None = None,
        cuts: Sequence[int] = (),
        method: str = "POST",
    ) -> str:
        """An exchange is recorded; its span id."""
        sent = asked("hello") if request is None else request
        span_id = self.ask(trace_id, sent, url, replayed, method)
        if end:
            body = answered("hi") if response is None else response
            self.wal.append(
                ExchangeEnded(
                    span_id=span_id,
                    ended_ns=self.tick(250),
                    outcome=outcome,
                    response=Response(
                        status=200,
                        headers=headers,
                        body=body,
                        chunk_sizes=tuple(cuts) or (len(body),),
                        chunk_offsets_us=tuple(40_000 + at for at in range(len(cuts) or 1)),
                    ),
                    attributes=attributes or {},
                    replayed=replayed,
                )
            )
        return span_id

    def ask(
        self,
        trace_id: str,
        request: bytes,
        url: str = ANTHROPIC,
        replayed: bool = False,
        method: str = "POST",
    ) -> str:
        """A request is recorded and nothing else yet; its span id."""
        span_id = secrets.token_hex(8)
        self.wal.append(
            ExchangeStarted(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=None,
                seq=self.seq,
                started_ns=self.tick(),
                request=Request(method=method, url=url, headers=JSON, body=request),
                name="chat claude-sonnet-4-5",
                service="tests",
                replayed=replayed,
            )
        )
        self.seq += 1
        return span_id

    def note(self, kind: str, trace_id: str | None = None, **attributes: object) -> None:
        """A note is recorded."""
        self.wal.append(Note(kind=kind, time_ns=self.tick(), trace_id=trace_id, attributes=attributes))

    def close(self) -> None:
        """The process is gone, as far as its lock tells."""
        self.wal.close()


def trace() -> str:
    """A new run id."""
    return secrets.token_hex(16)


def record(store: Path, *, steps: int = 3, trace_id: str | None = None, **root: Any) -> str:
    """A process has recorded a run of so many steps and is gone; the run's id."""
    run_id = trace_id or trace()
    recorder = Recorder(store)
    recorder.now = root.pop("at", time.time_ns())
    recorder.root(run_id, **root)
    said: list[str] = ["hello"]
    for step in range(steps):
        recorder.exchange(run_id, asked(*said), answered(f"answer {step}"))
        said += [f"answer {step}", f"question {step}"]
    recorder.close()
    return run_id
