"""Records as an agent's process writes them: conversations that grow."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, ProcessStarted
from tracefork_otel.store.wal import Wal

TRACE = "0af7651916cd43dd8448eb211c80319c"
_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]


def process(process_id: str = "4711-0badcafe", **fields: object) -> ProcessStarted:
    """A process of that id."""
    known = {
        "pid": 4711,
        "ppid": 1,
        "started_ns": 10**18,
        "executable": "/usr/bin/python3",
        "argv": ("agent.py", "--fast"),
        "cwd": "/home/somebody",
        "mode": "record",
        "via": "instrument",
        "launch_id": TRACE,
        "attributes": {"python": "3.11"},
    }
    return ProcessStarted(process_id=process_id, **{**known, **fields})  # type: ignore[arg-type]


def prose(rng: random.Random, size: int) -> str:
    """Text that compresses about as prose does."""
    words: list[str] = []
    length = 0
    while length < size:
        syllable = int(len(_SYLLABLES) * rng.random() ** 2.2)
        word = _SYLLABLES[syllable] + rng.choice(_SYLLABLES) * rng.randrange(3)
        word += rng.choice(["", "", "", ".", "\n", ' "so"', "é"])
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:size]


def bodies(
    turns: int, *, seed: int = 0, turn: int = 1500, tools: int = 20_000
) -> Iterator[tuple[bytes, bytes]]:
    """Request and response of each turn of a conversation in which every request repeats all before it."""
    shared, rng = random.Random(11), random.Random(seed)
    schema = [{"name": f"tool_{n}", "description": prose(shared, 400)} for n in range(max(1, tools // 450))]
    messages: list[dict[str, object]] = [{"role": "user", "content": prose(rng, 600)}]
    for number in range(turns):
        request = {
            "max_tokens": 4096,
            "messages": messages,
            "model": "m",
            "system": prose(shared, 0),
            "tools": schema,
        }
        call = {
            "type": "tool_use",
            "id": f"toolu_{rng.getrandbits(96):024x}",
            "name": "tool_1",
            "input": {"n": number},
        }
        content = [{"type": "text", "text": prose(rng, turn // 3)}, call]
        response = {"id": f"msg_{rng.getrandbits(96):024x}", "role": "assistant", "content": content}
        yield _json(request), _json(response)
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": prose(rng, turn * 2 // 3)}
        messages = [
            *messages,
            {"role": "assistant", "content": content},
            {"role": "user", "content": [result]},
        ]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def exchange_records(
    number: int, request: bytes, response: bytes, *, trace_id: str = TRACE, span_id: str | None = None
) -> tuple[ExchangeStarted, ExchangeEnded]:
    """The two records of one exchange, headers and attributes as a model provider's client makes them."""
    rng = random.Random(f"{trace_id}{number}")
    started = 10**18 + number * 3 * 10**9 + rng.randrange(10**9)
    ended = started + rng.randrange(10**8, 10**9)
    span_id = span_id or f"{rng.getrandbits(64):016x}"
    request_headers = (
        ("host", "api.anthropic.com"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("user-agent", "Anthropic/Python 2.13.0"),
        ("x-api-key", "REDACTED"),
        ("anthropic-version", "2023-06-01"),
        ("content-length", str(len(request))),
    )
    response_headers = (
        ("content-type", "application/json"),
        ("request-id", f"req_{rng.getrandbits(64):016x}"),
        ("content-length", str(len(response))),
    )
    start = ExchangeStarted(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id="b7ad6b7169203331",
        seq=number,
        started_ns=started,
        request=Request(
            method="POST", url="https://api.anthropic.com/v1/messages", headers=request_headers, body=request
        ),
        name="chat m",
        service="agent",
    )
    end = ExchangeEnded(
        span_id=span_id,
        ended_ns=ended,
        outcome="complete",
        response=Response(
            status=200,
            headers=response_headers,
            body=response,
            chunk_sizes=(len(response),) if response else (),
            chunk_offsets_us=((ended - started) // 1000,) if response else (),
        ),
        name="chat m",
        span_status="OK",
        attributes={"tracefork.exchange": True, "tracefork.seq": number, "gen_ai.request.model": "m"},
    )
    return start, end


def joined(start: ExchangeStarted, end: ExchangeEnded | None, process_id: str = "4711-0badcafe") -> Exchange:
    """The exchange that the two records tell."""
    values = {} if end is None else {
        "ended_ns": end.ended_ns,
        "response": end.response,
        "outcome": end.outcome,
        "span_status": end.span_status,
        "attributes": end.attributes,
    }  # fmt: skip
    return Exchange(
        trace_id=start.trace_id,
        span_id=start.span_id,
        parent_span_id=start.parent_span_id,
        process_id=process_id,
        seq=start.seq,
        started_ns=start.started_ns,
        request=start.request,
        name=start.name,
        service=start.service,
        **{"ended_ns": None, **values},  # type: ignore[arg-type]
    )


def write_conversation(
    store: Path, turns: int, *, process_id: str = "4711-0badcafe", seed: int = 0
) -> list[Exchange]:
    """A WAL of a process that is gone, with that many exchanges in it; returns them."""
    wal = Wal(store, process(process_id))
    trace_id = f"{random.Random(seed).getrandbits(128):032x}"
    exchanges: list[Exchange] = []
    for number, (request, response) in enumerate(bodies(turns, seed=seed)):
        start, end = exchange_records(number, request, response, trace_id=trace_id)
        wal.append(start)
        wal.append(end)
        exchanges.append(joined(start, end, process_id))
    wal.close()
    return exchanges


def records_of(exchange: Exchange) -> tuple[ExchangeStarted, ExchangeEnded]:
    """The records that a process writes for an exchange."""
    start = ExchangeStarted(
        trace_id=exchange.trace_id,
        span_id=exchange.span_id,
        parent_span_id=exchange.parent_span_id,
        seq=exchange.seq,
        started_ns=exchange.started_ns,
        request=exchange.request,
        name=exchange.name,
        service=exchange.service,
    )
    end = ExchangeEnded(
        span_id=exchange.span_id,
        ended_ns=exchange.ended_ns or 0,
        outcome=exchange.outcome,
        response=exchange.response,
        error_type=exchange.error_type,
        error_message=exchange.error_message,
        replayed=exchange.replayed,
        served_span_id=exchange.served_span_id,
        intervention=exchange.intervention,
        name=exchange.name,
        span_status=exchange.span_status,
        attributes=exchange.attributes,
        links=exchange.links,
    )
    return start, end
