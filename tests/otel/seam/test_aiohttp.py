"""What aiohttp's client has beside what all clients have (test_contract.py)."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from conftest import Capture
from otel.seam.servers import saying
from otel.seam.staged import replayed, replaying
from recorded import read_store

from tracefork_otel.seam import connected

Seen = tuple[Any, ...]


async def ask(method: str, url: str, *, cuts: bool = False, session: Any = None, **more: Any) -> Seen:
    """What an application sees of a response, or of the error in its place, by a fresh session."""
    more.setdefault("timeout", aiohttp.ClientTimeout(total=5))
    async with aiohttp.ClientSession() as own:
        read: list[bytes] = []
        try:
            async with (session or own).request(method, url, **more) as got:
                if cuts:
                    async for piece in got.content.iter_any():
                        read.append(piece)
                else:
                    read.append(await got.read())
                hops = [hop.status for hop in got.history]
                return got.status, got.reason, got.raw_headers, tuple(got.version), str(got.url), hops, read
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error), str(error), read


def by(method: str, url: str, **more: Any) -> Seen:
    """The same, outside of any loop."""
    return asyncio.run(ask(method, url, **more))


async def in_parts() -> AsyncIterator[bytes]:
    """What an upload is read from."""
    for part in (b"one,", b"two,", bytes(100_000), b"three"):
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize(
    "sent",
    [
        lambda: {"json": {"asked": "this"}},
        lambda: {"data": {"a": "b c"}},
        lambda: {"data": b"compressed " * 500, "compress": "gzip"},
        lambda: {"data": b"awaited", "expect100": True},
        lambda: {"data": in_parts(), "compress": "deflate"},
    ],
    ids=["json", "fields", "gzip", "expect", "deflated parts"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_bodies_that_are_sent(
    sent: Callable[[], dict[str, Any]], capture: Capture, raw: str, tmp_path: Path
) -> None:
    """They arrive as without us, and are recorded as the server got them."""

    async def call() -> Seen:
        return await ask("POST", f"{raw}/echo", **sent())

    capture.on()
    seen = asyncio.run(call())
    recorded = capture.read()
    exchange = recorded.only()
    (got,) = seen[-1]
    coding = exchange.request.header("content-encoding")
    assert (exchange.request.body == got) or coding is not None
    if coding is not None:
        plain = gzip.decompress if coding == "gzip" else zlib.decompress
        assert plain(exchange.request.body) == (plain(got) if got[:1] in b"\x1f\x78" else got)
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(call())) == seen


def test_a_body_that_was_read_is_not_sent_again(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A redirect that would need it once more is an error of aiohttp's, in a replay too."""

    async def call() -> Seen:
        return await ask("POST", f"{raw}/redirect?to=/raw/echo", data=in_parts())

    capture.on()
    seen = asyncio.run(call())
    recorded = capture.read()
    assert seen[0] is aiohttp.ClientPayloadError
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(call())) == seen


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("said", "outcome"), [((), "no_response"), ((OK + b"Content-Length: 9\r\n\r\n", b"four"), "failed")]
)
def test_a_total_time_that_is_over(
    said: tuple[bytes, ...], outcome: str, capture: Capture, tmp_path: Path
) -> None:
    """Of the whole request, head and body: its error is recorded as it is raised, and given back."""
    agent = lambda: by("POST", url, cuts=True, timeout=aiohttp.ClientTimeout(total=0.1))  # noqa: E731
    capture.on()
    with saying(*said, wait=1) as url:
        seen = agent()
    recorded = capture.read()
    assert (seen[0], recorded.only().outcome) == (TimeoutError, outcome)
    assert recorded.only().error_type == "builtins.TimeoutError"
    assert replayed(recorded, tmp_path / "r", agent) == seen


def test_a_retry_of_its_own_is_an_exchange(capture: Capture, tmp_path: Path) -> None:
    """A session asks once more where a kept connection was closed under it."""
    urls: list[str] = []
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked == 2:
                break
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        writer.close()

    async def agent(url: str) -> list[Seen]:
        urls.append(url)
        async with aiohttp.ClientSession() as session:
            return [await ask("GET", url, session=session) for _ in range(2)]

    async def served() -> list[Seen]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await agent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/asked")

    capture.on()
    seen = asyncio.run(served())
    recorded = capture.read()
    outcomes = [one.outcome for one in recorded.in_order()]
    assert outcomes == ["complete", "no_response", "complete"]
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(agent(urls[0]))) == seen


@pytest.mark.parametrize("how", ["close", "release", "leave"])
def test_a_stream_left_early_is_closed(how: str, capture: Capture, raw: str, tmp_path: Path) -> None:
    """It is no error, and a replay ends it there, too."""

    async def call() -> list[bytes]:
        async with aiohttp.ClientSession() as session:
            got = await session.get(f"{raw}/sse?events=40&delay_ms=5")
            read = [await got.content.readany() for _ in range(3)]
            if how == "leave":
                async with got:
                    pass
            else:
                getattr(got, how)()
            return read

    capture.on()
    seen = asyncio.run(call())
    recorded = capture.read()
    exchange = recorded.only()
    assert (exchange.outcome, exchange.span_status, exchange.error_type) == ("closed", "UNSET", None)
    assert exchange.response is not None
    read = b"".join(seen)
    assert exchange.response.body.startswith(read)
    again = b"".join(replayed(recorded, tmp_path / "r", lambda: asyncio.run(call())))
    assert read.startswith(again) if len(again) < len(read) else again.startswith(read)


def test_a_response_that_nobody_reads_is_complete(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Its bytes come all the same, in a replay as in the recording."""

    async def call() -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{raw}/bytes/3000") as got:
            if capture.store.exists() and not first:
                await asyncio.sleep(0.05)
            return got.status

    first: list[bool] = []
    capture.on()
    assert asyncio.run(call()) == 200
    recorded = capture.read()
    assert recorded.only().outcome == "complete"
    first.append(True)
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(call())) == 200


def test_a_session_closed_with_its_streams(capture: Capture, raw: str) -> None:
    """Closes them; that is no cut."""

    async def call() -> None:
        session = aiohttp.ClientSession()
        got = await session.get(f"{raw}/sse?events=50&delay_ms=20")
        await session.close()
        await asyncio.sleep(0.05)
        assert got.status == 200

    capture.on()
    asyncio.run(call())
    assert capture.read().only().outcome == "closed"


def test_many_at_once(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Each response has its own bytes; their ends come in the recorded order in a replay."""

    async def call() -> tuple[list[int], list[int]]:
        ended: list[int] = []

        async def one(session: Any, number: int) -> int:
            url = f"{raw}/slow?ms={(8 - number) * 30}&n={number}"
            if number % 2:
                url = f"{raw}/sse?events=3&delay_ms={(8 - number) * 10}&n={number}"
            seen = await ask("GET", url, session=session)
            ended.append(number)
            return len(seen[-1][0])

        async with aiohttp.ClientSession() as session:
            sizes = await asyncio.gather(*(one(session, number) for number in range(6)))
        return sizes, ended

    capture.on()
    seen = asyncio.run(call())
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        again = asyncio.run(call())
    assert again == seen
    assert len(read_store(store).exchanges) == 6


def test_below_another_client_it_is_one_exchange(capture: Capture, raw: str) -> None:
    """A transport of httpx that sends by aiohttp, as litellm's, sends what is recorded above."""

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            async with aiohttp.ClientSession() as session:
                seen = await ask(request.method, str(request.url), session=session)
                return httpx.Response(seen[0], content=seen[-1][0])

    async def call() -> None:
        async with httpx.AsyncClient(transport=Transport()) as client:
            await client.get(f"{raw}/bytes/7")
        await ask("GET", f"{raw}/bytes/7")

    capture.on()
    asyncio.run(call())
    assert len(capture.read().exchanges) == 2


def test_a_websocket_goes_as_it_was(capture: Capture) -> None:
    """It is no exchange, and noted while nobody records it."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("said")
        await socket.close()
        return socket

    async def call() -> str:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            said = await socket.receive_str()
        await runner.cleanup()
        return said

    capture.on()
    assert asyncio.run(call()) == "said"
    found = capture.read()
    assert found.exchanges == []
    (note,) = found.notes
    assert (note.kind, note.attributes["client"]) == ("unseen", "aiohttp")


def test_a_version_that_does_not_fit_is_left_alone(capture: Capture, monkeypatch: Any, raw: str) -> None:
    """And said to be."""
    monkeypatch.delattr(aiohttp.connector.Connection, "add_callback")
    capture.on()
    assert not connected.is_captured()
    (note,) = capture.read().notes
    assert "it has no Connection.add_callback" in str(note.attributes["why"])
