"""What the simulated server puts on the wire: cuts, encodings, and the awkward routes below /raw/."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import h11
import httpx
import httpx2
import pytest
from anthropic import Anthropic
from openai import OpenAI
from tracefork_backend.simulate import ModelServer, Reply

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "hi"}],
}
TEXT = "Grüße aus Zürich 🌦 und noch etwas mehr"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server that answers `TEXT`."""
    with ModelServer(lambda _: Reply(text=TEXT), seed=1) as running:
        yield running


def http_chunks(server: ModelServer, path: str, body: bytes = b"") -> list[bytes]:
    """The chunks of the answer's transfer coding, as they were cut by the server."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", "x"), ("content-length", str(len(body))), ("connection", "close")]
    chunks: list[bytes] = []
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        request = h11.Request(method="POST", target=path, headers=headers)
        sock.sendall((connection.send(request) or b"") + (connection.send(h11.Data(data=body)) or b""))
        connection.send(h11.EndOfMessage())
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(sock.recv(65536))
            elif isinstance(event, h11.EndOfMessage):
                return chunks
            elif isinstance(event, h11.Data):
                if event.chunk_start:
                    chunks.append(b"")
                chunks[-1] += event.data


def test_each_event_is_one_chunk_unless_cut_in_bytes() -> None:
    """Each SSE event is a chunk of its own, and chunk_bytes cuts through events and characters instead."""
    body = httpx.Request("POST", "http://x", json={**ASK, "stream": True}).content
    with ModelServer(lambda _: Reply(text=TEXT), seed=1) as server:
        events = http_chunks(server, "/v1/messages", body)
    with ModelServer(lambda _: Reply(text=TEXT, chunk_bytes=7), seed=1) as server:
        slices = http_chunks(server, "/v1/messages", body)
        with (
            Anthropic(base_url=server.url, api_key="none") as client,
            client.messages.stream(**ASK) as stream,
        ):
            assert stream.get_final_text() == TEXT
    assert all(event.startswith(b"event: ") and event.endswith(b"\n\n") for event in events)
    assert len(events) == 9
    assert {len(piece) for piece in slices[:-1]} == {7}
    assert b"".join(slices) == b"".join(events)


def test_writes_are_not_delayed(server: ModelServer) -> None:
    """The server's connections have TCP_NODELAY set."""
    with httpx.Client() as client:
        client.get(f"{server.url}/raw/empty")
        transports = list(server.transports.values())
        options = [
            t.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for t in transports
        ]
    assert len(options) == 1
    assert all(options)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_the_sdks_decode_encoded_answers(encoding: Any) -> None:
    """Compressed JSON and compressed streams are read by both SDKs as if they were plain."""
    with (
        ModelServer(lambda _: Reply(text=TEXT, encoding=encoding)) as server,
        Anthropic(base_url=server.url, api_key="none") as client,
        OpenAI(base_url=server.openai_url, api_key="none") as other,
    ):
        raw = client.messages.with_raw_response.create(**ASK)
        assert raw.headers["content-encoding"] == encoding
        assert raw.parse().content[0].text == TEXT
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_text() == TEXT
        answer = other.responses.create(model="gpt-5-mini", input="x")
        assert answer.output_text == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_encoded_events_arrive_one_by_one(encoding: str, server: ModelServer) -> None:
    """A compressed stream can be decoded up to each event's end, and is whole, in every encoding."""
    with (
        httpx.Client() as client,
        client.stream("GET", f"{server.url}/raw/sse?events=3&encoding={encoding}") as response,
    ):
        chunks = [chunk for chunk in response.iter_bytes() if chunk]
        assert response.headers["content-encoding"] == encoding
    assert len(chunks) == 3
    assert all(chunk.startswith(b"event: tick\n") and chunk.endswith(b"\n\n") for chunk in chunks)
    encoded = httpx.get(f"{server.url}/raw/encoded/{encoding}")
    assert encoded.json()["encoding"] == encoding
    assert int(encoded.headers["content-length"]) < len(encoded.content)


def test_raw_statuses_and_bodies(server: ModelServer) -> None:
    """The raw routes answer with the status, length and bytes that their names say."""
    with httpx2.Client(base_url=server.url) as client:
        statuses = [client.get(f"/raw/status/{code}").status_code for code in (200, 204, 304, 404, 503)]
        assert statuses == [200, 204, 304, 404, 503]
        empty, none = client.get("/raw/empty"), client.post("/raw/204")
        assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")
        assert (none.status_code, none.content) == (204, b"")
        assert "content-length" not in none.headers
        whole = client.get("/raw/bytes/5000").content
        assert len(whole) == 5000
        with pytest.raises(UnicodeDecodeError):
            whole.decode()
        assert client.get("/raw/bytes/5000?pieces=9").content == whole
        body = bytes(range(256)) * 2000
        echoed = client.post("/raw/echo", content=body, headers={"content-type": "x/y"})
        assert (echoed.content, echoed.headers["content-type"]) == (body, "x/y")
        assert client.get("/raw/nowhere").status_code == 404


def test_raw_redirect_keeps_the_body(server: ModelServer) -> None:
    """The redirect leads to the echo with the method and body of the first request."""
    with httpx2.Client(base_url=server.url, follow_redirects=True) as client:
        answer = client.post("/raw/redirect", content=b"kept")
    assert (answer.content, len(answer.history)) == (b"kept", 1)
    assert [request.path for request in server.requests] == ["/raw/redirect", "/raw/echo"]


def test_raw_stream_cut_and_slow(server: ModelServer) -> None:
    """The raw stream has its number of events, the cut ends early with an error, slow takes its time."""
    chunks = http_chunks(server, "/raw/sse?events=44")
    assert len(chunks) == 44
    got: list[bytes] = []
    with (
        httpx2.stream("GET", f"{server.url}/raw/cut?after=3") as response,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        got.extend(response.iter_raw())
    assert b"".join(got).count(b"\n\n") == 3
    began = time.monotonic()
    assert httpx2.get(f"{server.url}/raw/slow?ms=60").json() == {"slow": True}
    assert time.monotonic() - began >= 0.06


def test_requests_are_kept_as_they_came(server: ModelServer) -> None:
    """A recorded request has the method, the path with its query, the headers and the exact body."""
    httpx.post(f"{server.url}/raw/echo?a=%20b&c", content=b"\xff\x00", headers={"X-Mine": "1"})
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/raw/echo?a=%20b&c", b"\xff\x00")
    assert (request.header("x-mine"), request.header("X-Mine"), request.header("absent")) == ("1", "1", None)
