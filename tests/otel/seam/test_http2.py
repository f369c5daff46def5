"""HTTP/2 exchanges are recorded like any other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import httpx2
import pytest
from conftest import Capture
from recorded import fetch


@pytest.fixture
def h2_server() -> Iterator[str]:
    """A server on loopback that speaks HTTP/2 without TLS and answers in three frames."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)  # `close` alone does not wake the accepting thread
    listener.close()
    thread.join(5)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            connection = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=False))
            connection.initiate_connection()
            peer.sendall(connection.data_to_send())
            while data := peer.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.StreamEnded):
                        connection.send_headers(event.stream_id, [(":status", "200"), ("x-mark", "two")])
                        for part in (b"first ", b"second ", b"third"):
                            connection.send_data(event.stream_id, part)
                        connection.end_stream(event.stream_id)
                peer.sendall(connection.data_to_send())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_http2_is_recorded(kind: str, capture: Capture, h2_server: str) -> None:
    """An HTTP/2 exchange is recorded with its version, headers and body."""
    capture.on()
    response = fetch(
        httpx2, kind, "POST", f"{h2_server}/v1", content=b"asked", client={"http1": False, "http2": True}
    )
    exchange = capture.read().only()
    assert response.http_version == "HTTP/2"
    assert exchange.response is not None
    assert exchange.response.http_version == "HTTP/2"
    assert exchange.response.body == response.content == b"first second third"
    assert exchange.response.header("x-mark") == "two"
    assert exchange.request.body == b"asked"
    assert exchange.response.stream_id == response.extensions["stream_id"] == 1
    assert exchange.response.reason_phrase is None
