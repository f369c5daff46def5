"""One exchange is told in the same words by all who may see it: seam, proxy, OTLP receiver and import."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from proxied import proxying
from recorded import read_store
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.receiver import Receiver
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.exchange import Exchange
from tracefork_otel.settings import UNLIMITED


class Told(NamedTuple):
    """What a reader learns of how an exchange ended."""

    outcome: str
    span_status: str
    error_type: str | None
    status: int | None


async def read(url: str) -> None:
    """Read an answer whole, whatever comes."""
    async with httpx2.AsyncClient(timeout=30) as client:
        try:
            await client.get(url)
        except httpx2.RequestError:
            pass


async def close_early(url: str) -> None:
    """Leave a stream after its first chunk."""
    async with httpx2.AsyncClient(timeout=30) as client, client.stream("GET", url) as response:
        async for _ in response.aiter_raw():
            break


async def time_out(url: str) -> None:
    """Wait for less time than the answer takes."""
    async with httpx2.AsyncClient(timeout=0.5) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(url)


async def cancel(url: str) -> None:
    """Give the call up while nothing came yet."""
    task = asyncio.create_task(read(url))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


CANCELLED = "asyncio.exceptions.CancelledError"
CASES: dict[str, tuple[str, Callable[[str], Awaitable[None]], Told]] = {
    "ok": ("/status/200", read, Told("complete", "UNSET", None, 200)),
    "4xx": ("/status/404", read, Told("complete", "ERROR", None, 404)),
    "5xx": ("/status/503", read, Told("complete", "ERROR", None, 503)),
    "cut": ("/cut?after=3", read, Told("cut", "ERROR", "httpx2.RemoteProtocolError", 200)),
    "refused": ("refused", read, Told("no_response", "ERROR", "httpx2.ConnectError", None)),
    "timeout": ("/slow?ms=20000", time_out, Told("no_response", "ERROR", "httpx2.ReadTimeout", None)),
    "cancelled": ("/slow?ms=20000", cancel, Told("cancelled", "UNSET", CANCELLED, None)),
    "closed": ("/sse?events=200&delay_ms=20", close_early, Told("closed", "UNSET", None, 200)),
}
PROXIED = {"timeout": CASES["cancelled"][2]}
"""A proxy sees that its client left, not what for."""


def told(exchange: Exchange) -> Told:
    """What the store says of an exchange."""
    status = None if exchange.response is None else exchange.response.status
    return Told(exchange.outcome, exchange.span_status, exchange.error_type, status)


@pytest.fixture
def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_seam_receiver_and_import_say_the_same(case: str, raw: str, refused: str, tmp_path: Path) -> None:
    """What the seam records, its span tells a receiver, and its tape an import, message and all."""
    path, act, expected = CASES[case]
    own, received, imported = tmp_path / "own", tmp_path / "received", tmp_path / "imported"
    provider = TracerProvider()
    with Receiver(bind("127.0.0.1", 0), store=received) as receiver:
        endpoint = f"http://127.0.0.1:{receiver.port}/v1/traces"
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint)))
        instrumentor = TraceforkInstrumentor()
        instrumentor.instrument(
            store=own, tracer_provider=provider, http_spans=False, event_body_limit=UNLIMITED
        )
        try:
            asyncio.run(act(refused if path == "refused" else raw + path))
        finally:
            instrumentor.uninstrument()
            provider.shutdown()
    seam = read_store(own).only()
    with open_store(own) as store:
        reconstruct(store, store.run(seam.trace_id)).dump(tmp_path / "one.tape")
    import_tape(imported, tmp_path / "one.tape")
    with open_store(imported) as store:
        (again,) = store.run(seam.trace_id).exchanges
    others = read_store(received).only(), again
    assert told(seam) == expected
    assert [told(other) for other in others] == [expected, expected]
    assert [other.error_message or None for other in others] == [seam.error_message or None] * 2


@pytest.mark.parametrize("case", CASES)
def test_the_proxy_says_the_same(case: str, raw: str, refused: str, tmp_path: Path) -> None:
    """What passes a proxy ends in the same words as where the agent itself records it."""
    path, act, expected = CASES[case]
    origin, rest = (refused, "/") if path == "refused" else (raw, path)
    with proxying(origin, store=tmp_path) as (url, _):
        asyncio.run(act(url + rest))
    assert told(read_store(tmp_path).only()) == PROXIED.get(case, expected)
