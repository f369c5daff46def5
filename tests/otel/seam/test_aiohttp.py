"""aiohttp's client: one exchange per attempt, byte-exact however it ends, given back without a network."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from conftest import Capture
from e2e.command import here
from otel.seam.test_serve import replaying
from recorded import Recorded, read_store
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

from tracefork_otel.exchange import Exchange
from tracefork_otel.seam import connected

Seen = tuple[Any, ...]
ENCODED = {"accept-encoding": "gzip, br, zstd"}


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


def replayed(recorded: Recorded, folder: Path, agent: Callable[[], Any], **settings: Any) -> Any:
    """What the agent sees in a replay of this, whose exchanges are the recorded ones, in their order."""
    with replaying(recorded, folder, **settings) as store:
        seen = agent()
    again = read_store(store)
    assert not again.notes
    assert [shape(one) for one in again.in_order()] == [shape(one) for one in recorded.in_order()]
    assert all(one.replayed for one in again.exchanges)
    return seen


def shape(one: Exchange) -> tuple[Any, ...]:
    """What of an exchange is the same in a replay."""
    response = one.response and (one.response.status, one.response.headers, one.response.chunks())
    return one.request.body, response, one.outcome, one.error_type, one.error_message


@pytest.mark.parametrize(
    "path",
    [
        *(
            "encoded/gzip",
            "encoded/br",
            "encoded/deflate",
            "bytes/5000",
            "bytes/300000?pieces=9",
            "empty",
            "204",
        ),
        *("status/404", "status/503", "sse?events=3", "redirect?to=/raw/bytes/9"),
    ],
)
def test_a_body_is_recorded_and_given_back(path: str, capture: Capture, raw: str, tmp_path: Path) -> None:
    """What is recorded is what came over the wire; a replay shows the same, with no server."""
    url = f"{raw}/{path}"
    plain = by("GET", url, headers=ENCODED)
    capture.on()
    seen = by("GET", url, headers=ENCODED)
    recorded = capture.read()
    exchange = recorded.in_order()[-1]
    assert (seen[0], seen[-1]) == (plain[0], plain[-1])
    assert exchange.outcome == "complete"
    assert exchange.response is not None
    assert (exchange.response.status, exchange.response.reason_phrase) == seen[:2]
    assert exchange.response.headers == tuple((k.decode(), v.decode()) for k, v in seen[2])
    assert exchange.request.url == seen[4]
    assert [one.response.status for one in recorded.in_order() if one.response] == [*seen[5], seen[0]]
    if path == "encoded/gzip":
        assert gzip.decompress(exchange.response.body) == seen[-1][0]
    assert replayed(recorded, tmp_path / "r", lambda: by("GET", url, headers=ENCODED)) == seen


def test_head_has_no_body(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Whatever length its head tells."""
    capture.on()
    seen = by("HEAD", f"{raw}/bytes/500")
    recorded = capture.read()
    assert recorded.only().outcome == "complete"
    assert replayed(recorded, tmp_path / "r", lambda: by("HEAD", f"{raw}/bytes/500")) == seen


@pytest.mark.parametrize("timing", ["none", "recorded"])
def test_chunks_come_as_they_were_sent(timing: str, capture: Capture, raw: str, tmp_path: Path) -> None:
    """A stream is held back neither while it is recorded nor in a replay; its cuts are the server's."""
    url = f"{raw}/sse?events=5&delay_ms=20"
    capture.on()
    seen = by("GET", url, cuts=True)
    recorded = capture.read()
    response = recorded.only().response
    assert response is not None
    assert list(response.chunks()) == seen[-1]
    assert len(seen[-1]) >= 5
    assert response.chunk_offsets_us[-1] - response.chunk_offsets_us[0] >= 60_000
    again = replayed(recorded, tmp_path / "r", lambda: by("GET", url, cuts=True), timing=timing)
    assert again == seen


def test_a_stream_is_read_as_it_comes(capture: Capture, raw: str) -> None:
    """The first event is there long before the last was sent."""

    async def call() -> float:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session, session.get(f"{raw}/sse?events=4&delay_ms=150") as got:
            started = loop.time()
            await got.content.readline()
            first = loop.time() - started
            await got.read()
            return first

    capture.on()
    assert asyncio.run(call()) < 0.3
    assert capture.read().only().outcome == "complete"


async def in_parts() -> AsyncIterator[bytes]:
    """What an upload is read from."""
    for part in (b"one,", b"two,", bytes(100_000), b"three"):
        await asyncio.sleep(0)
        yield part


def form() -> aiohttp.FormData:
    """A form with a file."""
    made = aiohttp.FormData()
    made.add_field("name", "value")
    made.add_field("file", b"\xff\x00file" * 20_000, filename="sent.bin")
    return made


@pytest.mark.parametrize(
    "sent",
    [
        lambda path: {"data": "text \u00e9"},
        lambda path: {"data": bytes(range(256)) * 4000},
        lambda path: {"json": {"asked": "this"}},
        lambda path: {"data": {"a": "b c"}},
        lambda path: {"data": in_parts()},
        lambda path: {"data": path.open("rb")},
        lambda path: {"data": b"compressed " * 500, "compress": "gzip"},
        lambda path: {"data": b"awaited", "expect100": True},
        lambda path: {"data": in_parts(), "compress": "deflate"},
    ],
    ids=["text", "bytes", "json", "fields", "parts", "file", "gzip", "expect", "deflated parts"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_bodies_that_are_sent(
    sent: Callable[[Path], dict[str, Any]], capture: Capture, raw: str, tmp_path: Path
) -> None:
    """They arrive as without us, and are recorded as the server got them."""
    file = tmp_path / "sent.bin"
    file.write_bytes(b"\xff\x00file" * 20_000)

    async def call() -> Seen:
        return await ask("POST", f"{raw}/echo", **sent(file))

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


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_form_is_recorded_whole(capture: Capture, raw: str) -> None:
    """With its boundaries, as the server got it."""

    async def call() -> Seen:
        return await ask("POST", f"{raw}/echo", data=form())

    capture.on()
    seen = asyncio.run(call())
    assert capture.read().only().request.body == seen[-1][0]


def test_a_cut_stream_keeps_its_part(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A connection that breaks in mid-body leaves the part that came, and its error, as in a replay."""
    capture.on()
    seen = by("GET", f"{raw}/cut?after=3", cuts=True)
    recorded = capture.read()
    exchange = recorded.only()
    assert seen[0] is aiohttp.ClientPayloadError
    assert exchange.outcome == "cut"
    assert exchange.response is not None
    assert exchange.response.body.count(b"event: tick") == 3
    assert exchange.error_type == "aiohttp.client_exceptions.ClientPayloadError"
    assert exchange.error_message == seen[1]
    again = replayed(recorded, tmp_path / "r", lambda: by("GET", f"{raw}/cut?after=3", cuts=True))
    assert (again[:2], b"".join(again[2])) == (seen[:2], b"".join(seen[2]))


async def served(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    agent: Callable[[str], Awaitable[Any]],
) -> Any:
    """What the agent gets of a server that answers each connection so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await agent(f"http://127.0.0.1:{port}/asked")


def saying(*pieces: bytes, wait: float = 0.0) -> Any:
    """An answer of these pieces, after which the connection ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        await asyncio.sleep(wait)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "more", "kind", "outcome"),
    [
        (saying(), {}, "ServerDisconnectedError", "no_response"),
        (saying(b"nonsense\r\n\r\n"), {}, "ClientResponseError", "no_response"),
        (saying(OK + b"Content-Length: 9\r\n\r\n", b"four"), {}, "ClientPayloadError", "cut"),
        (saying(wait=1), {"timeout": aiohttp.ClientTimeout(total=0.1)}, "TimeoutError", "no_response"),
        (saying(wait=1), {"timeout": aiohttp.ClientTimeout(sock_read=0.1)}, "SocketTimeout", "no_response"),
        (
            saying(OK + b"Content-Length: 9\r\n\r\n", b"four", wait=1),
            {"timeout": aiohttp.ClientTimeout(sock_read=0.1)},
            "SocketTimeout",
            "failed",
        ),
        (
            saying(OK + b"Content-Length: 9\r\n\r\n", b"four", wait=1),
            {"timeout": aiohttp.ClientTimeout(total=0.1)},
            "TimeoutError",
            "failed",
        ),
    ],
    ids=["nothing", "nonsense", "cut", "total", "read", "read in body", "total in body"],
)
def test_each_error_is_recorded_and_given_back(
    answer: Any, more: dict[str, Any], kind: str, outcome: str, capture: Capture, tmp_path: Path
) -> None:
    """By its class and words, as the application gets it."""
    urls: list[str] = []

    async def agent(url: str) -> Seen:
        urls.append(url)
        return await ask("POST", url, cuts=True, **more)

    capture.on()
    seen = asyncio.run(served(answer, agent))
    recorded = capture.read()
    exchange = recorded.only()
    assert kind in seen[0].__name__
    assert (exchange.outcome, exchange.error_message) == (outcome, seen[1])
    assert kind in str(exchange.error_type)
    again = replayed(recorded, tmp_path / "r", lambda: asyncio.run(agent(urls[0])))
    assert again[0] is seen[0]
    assert again[2:] == seen[2:]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (saying(OK + b"\r\n", b"until ", b"the end"), b"until the end"),
        (saying(b"HTTP/1.0 200 OK\r\n\r\n", b"old"), b"old"),
        (saying(b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok"), b"ok"),
        (saying(OK[:5], OK[5:] + b"Content-", b"Length: 2\r\n\r", b"\nok"), b"ok"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n3", b"\r\none\r\n0\r\nA: b\r\n\r\n"), b"one"),
    ],
    ids=["until the end", "1.0", "early", "head in parts", "trailer"],
)
def test_each_framing_is_recorded_and_given_back(
    answer: Any, body: bytes, capture: Capture, tmp_path: Path
) -> None:
    """However a server says where its body ends."""
    urls: list[str] = []

    async def agent(url: str) -> Seen:
        urls.append(url)
        return await ask("GET", url)

    capture.on()
    seen = asyncio.run(served(answer, agent))
    recorded = capture.read()
    exchange = recorded.only()
    assert exchange.response is not None
    assert (exchange.outcome, exchange.response.body, seen[-1]) == ("complete", body, [body])
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(agent(urls[0]))) == seen


def test_nobody_listens(capture: Capture, tmp_path: Path) -> None:
    """A request that nobody answers is recorded with its error, which a replay raises too."""
    capture.on()
    seen = by("POST", "http://127.0.0.1:9/nobody", data=b"asked")
    recorded = capture.read()
    exchange = recorded.only()
    assert seen[0] is aiohttp.ClientConnectorError
    assert (exchange.outcome, exchange.response, exchange.request.body) == ("no_response", None, b"asked")
    assert exchange.error_message == seen[1]
    agent = lambda: by("POST", "http://127.0.0.1:9/nobody", data=b"asked")  # noqa: E731
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
                return
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")

    async def agent(url: str) -> list[Seen]:
        urls.append(url)
        async with aiohttp.ClientSession() as session:
            return [await ask("GET", url, session=session) for _ in range(2)]

    capture.on()
    seen = asyncio.run(served(answer, agent))
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


def test_reading_beyond_what_was_read_ends(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Where the recording left a stream, a replay that reads on is told so."""

    async def call(count: int) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{raw}/sse?events=40&delay_ms=5") as got:
            for _ in range(count):
                await got.content.readany()
            return count

    capture.on()
    asyncio.run(call(2))
    recorded = capture.read()
    with (
        replaying(recorded, tmp_path / "r"),
        pytest.raises(aiohttp.ClientPayloadError, match="recording of this exchange ends here"),
    ):
        asyncio.run(call(30))


@pytest.mark.parametrize("path", ["sse?events=90&delay_ms=20", "slow?ms=3000"], ids=["body", "head"])
def test_a_cancelled_task_is_cancelled(path: str, capture: Capture, raw: str, tmp_path: Path) -> None:
    """It leaves `cancelled` and what had come; a replay waits to be cancelled."""

    async def call() -> list[Any]:
        read: list[Any] = []

        async def reading() -> None:
            async with aiohttp.ClientSession() as session, session.get(f"{raw}/{path}") as got:
                async for piece in got.content.iter_any():
                    read.append(piece)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading(), 0.2)
        return read

    capture.on()
    seen = asyncio.run(call())
    recorded = capture.read()
    assert recorded.only().outcome == "cancelled"
    assert (recorded.only().response is None) == (path.startswith("slow"))
    assert replayed(recorded, tmp_path / "r", lambda: asyncio.run(call())) == seen


def test_a_dropped_response_is_abandoned(capture: Capture, raw: str) -> None:
    """A response that is dropped unread, with its session, is ended at the latest at the end."""

    async def call() -> None:
        session = aiohttp.ClientSession()
        await session.get(f"{raw}/sse?events=50&delay_ms=20")

    capture.on()
    asyncio.run(call())
    gc.collect()
    assert capture.read().only().outcome == "abandoned"


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


def test_a_session_made_before_is_captured(capture: Capture, raw: str) -> None:
    """With its kept connection; and once the recorder is off, nothing of it is."""

    async def call() -> None:
        async with aiohttp.ClientSession() as session:
            await ask("GET", f"{raw}/empty", session=session)
            before = session.connector
            capture.on()
            await ask("GET", f"{raw}/bytes/3", session=session)
            assert before is session.connector
            capture.off()
            await ask("GET", f"{raw}/bytes/4", session=session)

    asyncio.run(call())
    assert capture.read().only().request.url.endswith("/bytes/3")
    assert not connected.is_captured()


def test_connections_are_kept(capture: Capture) -> None:
    """As without us: one for all that follow one another."""
    met: set[Any] = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        met.add(request.transport.get_extra_info("peername"))
        return web.Response(body=await request.read())

    async def call() -> None:
        app = web.Application()
        app.router.add_route("*", "/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session:
            for data in (b"a", None, in_parts(), b"c"):
                await ask("POST", url, data=data, session=session)
        await runner.cleanup()

    capture.on(skip_hosts=())
    asyncio.run(call())
    capture.off()
    assert len(met) == 1


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


def test_what_was_not_recorded_is_a_drift(capture: Capture, raw: str, tmp_path: Path) -> None:
    """It is a connection that cannot be made, which says what differs."""
    capture.on()
    by("POST", f"{raw}/echo", json={"asked": "this"})
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        seen = by("POST", f"{raw}/echo", json={"asked": "that"})
    assert seen[0] is aiohttp.ClientConnectorError
    assert "tracefork replay" in seen[1]
    assert read_store(store).only().error_type == "tracefork_otel.Drift"


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


def test_keys_are_not_recorded(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Neither in headers nor in addresses; a replay has them replaced likewise."""

    def call() -> Seen:
        return by("GET", f"{raw}/empty?api_key=very-secret", headers={"Authorization": "Bearer very-secret"})

    capture.on()
    call()
    recorded = capture.read()
    assert "very-secret" not in repr(recorded.only())
    replayed(recorded, tmp_path / "r", call)


def test_a_run_is_complete_and_named(capture: Capture) -> None:
    """A model's answer that is read by aiohttp is a step like any other, with model and tokens."""
    with ModelServer(lambda call: Reply(text="I am here.")) as server:
        capture.on()
        body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
        seen = by("POST", f"{server.url}/v1/messages", json=body, headers={"x-api-key": "k"})
        capture.off()
    assert "I am here." in json.loads(seen[-1][0])["content"][0]["text"]
    with open_store(capture.store) as store:
        run = store.run("last")
        rows = store.sql("select model, output_tokens > 0 from exchanges").fetchall()
    assert run.complete, run.incomplete_reasons
    assert rows == [("claude-haiku-4-5", True)]


def test_a_version_that_does_not_fit_is_left_alone(capture: Capture, monkeypatch: Any, raw: str) -> None:
    """And said to be."""
    monkeypatch.delattr(aiohttp.connector.Connection, "add_callback")
    capture.on()
    assert not connected.is_captured()
    (note,) = capture.read().notes
    assert "it has no Connection.add_callback" in str(note.attributes["why"])


AGENT = """
import asyncio, os
import aiohttp, httpx, requests

KEY = {"authorization": "Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"}
URL = os.environ["MODEL_URL"] + "/chat/completions"

async def main():
    said = []
    async with aiohttp.ClientSession(headers=KEY) as session, httpx.AsyncClient(headers=KEY) as other:
        for turn in ("one", "two", "three", "four", "five"):
            said.append({"role": "user", "content": turn})
            body = {"model": "gpt-4o", "messages": said}
            try:
                if turn == "four":
                    answer = (await other.post(URL, json=body)).json()
                elif turn == "five":
                    answer = requests.post(URL, json=body, headers=KEY, timeout=9).json()
                else:
                    async with session.post(URL, json=body) as response:
                        answer = await response.json()
                said.append(answer["choices"][0]["message"])
            except (aiohttp.ClientError, TimeoutError) as error:
                said.append({"role": "assistant", "content": type(error).__name__})
    print([one["content"] for one in said[1::2]])

asyncio.run(main())
"""


@pytest.mark.slow
def test_an_agent_on_aiohttp(tmp_path: Path) -> None:
    """By the commands, beside httpx and requests: recorded whole, replayed to its output, forked."""
    (tmp_path / "agent.py").write_text(AGENT)
    with ModelServer(lambda call: Reply(text=f"{call.model}: {len(call.messages)}")) as server:
        env = {"MODEL_URL": server.openai_url}
        assert here("run", "--", sys.executable, "agent.py", cwd=tmp_path, **env).status == 0
        arrived = len(server.requests)
        replayed = here("replay", "last", cwd=tmp_path, **env)
        assert len(server.requests) == arrived == 5
        forked = here("fork", "last@1", "--text", "other", cwd=tmp_path, **env)
        edited = here("fork", "last~1@1", "--model", "gpt-4o-mini", cwd=tmp_path, **env)
        asked = [request.body for request in server.requests[arrived:]]
        faults = [
            here("fork", f"last~{number + 2}@1", "--fault", kind, cwd=tmp_path, **env)
            for number, kind in enumerate(("timeout", "disconnect"))
        ]
    assert "PASS" in replayed.out, replayed.out
    assert "1 served, 1 edited, 3 live" in forked.out
    assert "'gpt-4o: 1', 'other', 'gpt-4o: 5'" in forked.out
    assert "held in 4 of 4 requests" in edited.out
    assert b"other" in asked[0]
    assert [b"gpt-4o-mini" in body for body in asked] == [False] * 3 + [True] * 4
    assert "'SocketTimeoutError', 'gpt-4o: 5'" in faults[0].out
    assert "'ClientPayloadError', 'gpt-4o: 5'" in faults[1].out
    with open_store(tmp_path / ".tracefork") as store:
        run = store.run("last~4")
        assert run.complete
        assert not run.unseen
        rows = store.sql("select provider, model, operation from exchanges where run_id = ?", [run.run_id])
        assert rows.fetchall() == [("openai", "gpt-4o", "chat")] * 5
        assert not any("abcdefghij" in repr(exchange) for exchange in run.exchanges)
