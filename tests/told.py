"""Spans and calls as others send them, received by OTLP."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

from stored import START, answered, asked
from tracefork_backend.network.received import records_of

from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import Wal

RUN = "ab" * 16


def span(number: int, parent: int | None, attributes: dict[str, object], **more: object) -> SpanRecord:
    """A span as somebody sends it."""
    told = {
        "trace_id": RUN,
        "span_id": f"{number:016x}",
        "parent_span_id": None if parent is None else f"{parent:016x}",
        "name": "span",
        "kind": "INTERNAL",
        "started_ns": START + number * 1000,
        "ended_ns": START + number * 1000 + 100,
        "attributes": attributes,
        **more,
    }
    return SpanRecord(**told)  # pyright: ignore[reportArgumentType]


def chat(number: int, parent: int | None, tokens: int = 100, **more: object) -> SpanRecord:
    """A call told by its messages."""
    said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
    told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.input.messages": said}
    return span(
        number, parent, {**told, "gen_ai.usage.input_tokens": tokens, "gen_ai.output.messages": said}, **more
    )


def plain(number: int, parent: int | None, **more: object) -> SpanRecord:
    """A span that tells of no call."""
    return span(number, parent, {"a": 1}, **more)


def ours(number: int, parent: int) -> SpanRecord:
    """An exchange of our own recorder's, with both bodies."""
    bodies = {"request": asked("hi"), "response": answered("yes", input_tokens=7)}
    events = [
        {
            "name": f"tracefork.{side}.body",
            "time_ns": START,
            "attributes": {
                "tracefork.body": body.decode(),
                "tracefork.body.length": len(body),
                "tracefork.body.sha256": hashlib.sha256(body).hexdigest(),
                "tracefork.body.content_type": "application/json",
            },
        }
        for side, body in bodies.items()
    ]
    told = {"tracefork.exchange": True, "url.full": "https://api.anthropic.com/v1/messages"}
    told |= {"http.request.method": "POST", "http.response.status_code": 200}
    return span(number, parent, told, events=events)


def received(store: Path, *batches: list[SpanRecord]) -> None:
    """The spans came by OTLP, batch by batch."""
    wal = Wal(store, process_started(mode="record", via="otlp", service="tracefork"))
    for one in itertools.chain(*batches):
        for record in records_of(one, Redactor()):
            wal.append(record)
    wal.close()
