"""The client of websockets: a connection is one exchange, and what both sides say is kept in order."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Capture
from e2e.command import here
from otel.seam.staged import replaying
from recorded import read_store, run_python
from websockets.asyncio.client import connect as aconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from tracefork_otel.exchange import Exchange
from tracefork_otel.seam import socketed
from tracefork_otel.wire.websocket import Message, is_websocket, messages


def answer(connection: ServerConnection) -> None:
    """Say each message back, or do what it asks for."""
    connection.send("hello")
    for said in connection:
        if said == "bye":
            connection.close(1011, "had enough")
        elif said == "parts":
            connection.send(iter(("one ", "two")))
        elif said == "drop":
            connection.socket.shutdown(socket.SHUT_RDWR)
        elif said == "ping":
            connection.ping().wait(5)
            connection.send("pinged")
        else:
            connection.send(said)


def gate(connection: ServerConnection, request: Request) -> Response | None:
    """Refuse one path."""
    return connection.respond(403, "no entry\n") if request.path == "/closed" else None


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that says things back."""
    server: Server
    with serve(answer, "127.0.0.1", 0, process_request=gate) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def by_sync(url: str, *said: Any) -> list[Any]:
    """What comes back for the greeting and for each of these, by the sync client."""
    with connect(url) as connection:
        heard = [connection.recv(5)]
        for one in said:
            connection.send(one)
            heard.append(connection.recv(5))
        return heard


def by_asyncio(url: str, *said: Any) -> list[Any]:
    """The same by the client on asyncio."""

    async def talk() -> list[Any]:
        async with aconnect(url) as connection:
            heard = [await connection.recv()]
            for one in said:
                await connection.send(one)
                heard.append(await connection.recv())
            return heard

    return asyncio.run(asyncio.wait_for(talk(), 10))


BOTH = pytest.mark.parametrize("talk", [by_sync, by_asyncio])


def said(exchange: Exchange) -> list[Message]:
    """What the exchange holds of both sides."""
    assert exchange.response is not None
    return messages(exchange.response.chunks())


@BOTH
def test_both_sides_are_kept(talk: Any, capture: Capture, url: str) -> None:
    """Text, binary, messages in parts; pings are none; who closed, and with which code."""
    capture.on()
    heard = talk(f"{url}/v1/talk?key=s3cret", "one", b"\x00\xff", "parts", "ping")
    assert heard == ["hello", "one", b"\x00\xff", "one two", "pinged"]
    recorded = capture.read()
    one = recorded.only()
    assert not recorded.notes
    assert is_websocket(one)
    assert (one.request.method, one.outcome, one.request.body) == ("GET", "complete", b"")
    assert "s3cret" not in one.request.url
    assert said(one) == [
        Message("server", "hello"),
        Message("agent", "one"),
        Message("server", "one"),
        Message("agent", b"\x00\xff"),
        Message("server", b"\x00\xff"),
        Message("agent", "parts"),
        Message("server", "one two"),
        Message("agent", "ping"),
        Message("server", "pinged"),
        Message("agent", None, 1000),
    ]
    assert one.response is not None
    assert list(one.response.chunk_offsets_us) == sorted(one.response.chunk_offsets_us)


@BOTH
def test_the_server_closes_with_a_code(talk: Any, capture: Capture, url: str) -> None:
    """The agent sees its client's own error, and the code and the reason are the last line."""
    capture.on()
    with pytest.raises(ConnectionClosed):
        talk(url, "bye")
    one = capture.read().only()
    assert said(one)[-1] == Message("server", None, 1011, "had enough")
    assert one.outcome == "complete"


@BOTH
def test_the_connection_breaks(talk: Any, capture: Capture, url: str) -> None:
    """A connection that nobody closed is cut, and what was said before is kept."""
    capture.on()
    with pytest.raises(ConnectionClosed):
        talk(url, "drop")
    one = capture.read().only()
    assert (one.outcome, [m.data for m in said(one)]) == ("cut", ["hello", "drop"])


@BOTH
def test_a_refused_handshake(talk: Any, capture: Capture, url: str) -> None:
    """It is an exchange with the server's own answer."""
    capture.on()
    with pytest.raises(InvalidStatus):
        talk(f"{url}/closed")
    one = capture.read().only()
    assert one.response is not None
    assert (one.response.status, one.response.body, one.outcome) == (403, b"no entry\n", "complete")


def test_a_connection_that_is_never_closed(url: str, tmp_path: Path) -> None:
    """At the process's end its messages are written down."""
    script = (
        "from tracefork_otel import TraceforkInstrumentor\n"
        "from websockets.sync.client import connect\n"
        "TraceforkInstrumentor().instrument()\n"
        f"c = connect({url!r}).__enter__(); c.recv(); c.send('x'); c.recv()\n"
    )
    run_python(script, store=tmp_path)
    one = read_store(tmp_path).only()
    assert [m.data for m in said(one)][:3] == ["hello", "x", "x"]


@BOTH
def test_a_secret_of_a_message_is_replaced(talk: Any, capture: Capture, url: str, tmp_path: Path) -> None:
    """Each message is redacted as a body of its own."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "key"\npath = "$.api_key"\n')
    capture.on(redact=rules)
    talk(url, '{"api_key": "hush"}')
    one = capture.read().only()
    assert [m.sender for m in said(one)] == ["server", "agent", "server", "agent"]
    assert one.response is not None
    assert b"hush" not in one.response.body


@BOTH
def test_a_replay_refuses_by_name(talk: Any, capture: Capture, url: str, tmp_path: Path) -> None:
    """Nothing is connected, the agent gets an error of a connection, and the drift says what it is."""
    capture.on()
    talk(url, "one")
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store, pytest.raises(OSError, match="recorded, not replayed"):
        talk(url, "one")
    again = read_store(store)
    drift = json.loads(str(again.only().attributes["tracefork.drift"]))
    assert (drift["step"], drift["cause"]) == (0, "websocket")
    assert not [note for note in again.notes if note.kind == "leak"]


@BOTH
def test_off_again(talk: Any, capture: Capture, url: str) -> None:
    """After uninstrument() the client is as it was."""
    capture.on()
    assert socketed.is_captured()
    capture.off()
    assert not socketed.is_captured()
    assert talk(url, "one") == ["hello", "one"]
    assert not capture.read().exchanges


def test_openais_realtime(capture: Capture) -> None:
    """The real SDK, sync and on asyncio: a connection is a step, and its key is not in the store."""
    key = "sk-proj-" + "a1B2c3D4" * 6

    def model(connection: ServerConnection) -> None:
        connection.send('{"type": "session.created"}')
        for _ in connection:
            connection.send('{"type": "response.done"}')

    async def by_asyncio(url: str) -> list[str]:
        client = openai.AsyncOpenAI(api_key=key, base_url=url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            heard = [(await connection.recv()).type]
            await connection.response.create()
            return [*heard, (await connection.recv()).type]

    def by_sync(url: str) -> list[str]:
        with openai.OpenAI(api_key=key, base_url=url).realtime.connect(model="gpt-realtime") as connection:
            heard = [connection.recv().type]
            connection.response.create()
            return [*heard, connection.recv().type]

    capture.on()
    with serve(model, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/v1"
        assert by_sync(url) == asyncio.run(by_asyncio(url)) == ["session.created", "response.done"]
        server.shutdown()
        thread.join()
    recorded = capture.read()
    assert len(recorded.exchanges) == 2
    for one in recorded.exchanges:
        assert one.request.url.endswith("/v1/realtime?model=gpt-realtime")
        assert [m.sender for m in said(one)] == ["server", "agent", "server", "agent"]
        assert key not in str(one)


@BOTH
def test_show_says_who_said_what(talk: Any, capture: Capture, url: str, tmp_path: Path) -> None:
    """A run's step counts the messages of both sides, and the step has each in a line."""
    capture.on()
    talk(f"{url}/v1", "one", b"\x00\xff")
    capture.off()
    run = here("show", "last", cwd=tmp_path, TRACEFORK_STORE=str(capture.store)).out
    assert "websocket: agent 2, server 3 messages" in " ".join(run.split())
    step = here("show", "last@0", cwd=tmp_path, TRACEFORK_STORE=str(capture.store)).out
    told = [line.split(" s  ")[1] for line in step.splitlines() if " s  " in line]
    assert told == [
        "server: hello",
        "agent:  one",
        "server: one",
        "agent:  (2 bytes: 00 ff)",
        "server: (2 bytes: 00 ff)",
        "agent:  closed the connection: 1000",
    ]


def test_the_client_of_before_is_named(url: str, tmp_path: Path) -> None:
    """`websockets.legacy` has a protocol of its own: what it says is not recorded, and that is said."""
    agent = f"""
import asyncio, warnings
warnings.simplefilter("ignore")
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import httpx2
from websockets.legacy.client import connect
async def main():
    async with connect("{url}") as connection:
        assert await connection.recv() == "hello"
asyncio.run(main())
"""
    run_python(agent, store=tmp_path)
    (note,) = (one for one in read_store(tmp_path).notes if one.kind == "unseen")
    assert note.attributes["client"] == "websockets"
