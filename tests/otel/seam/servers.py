"""Servers of a few lines that the contract of the seams needs beside the awkward routes."""

from __future__ import annotations

import contextlib
import http.server
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@contextmanager
def saying(*pieces: bytes, wait: float = 0.0) -> Iterator[str]:
    """The URL of a server that answers each connection by these pieces, and then ends it."""

    def answer(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            asked = peer.makefile("rb")
            length = 0
            while (line := asked.readline().lower()).strip():
                length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
            asked.read(length)
            for piece in pieces:
                peer.sendall(piece)
                time.sleep(0.02)
            over.wait(wait)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threads.append(threading.Thread(target=answer, args=(peer,)))
                threads[-1].start()

    over = threading.Event()
    threads = [threading.Thread(target=serve)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads[0].start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/asked"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


@dataclass
class Origin:
    """A running server that gives back what it was sent, and what it was asked."""

    port: int
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list[Any])
    """Method, target and headers of each request."""
    peers: set[Any] = field(default_factory=set[Any])
    """Where the connections come from."""
    open: list[socket.socket] = field(default_factory=list[socket.socket])


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Origin
    to: int = 0
    """Where tunnels lead, whatever host is asked for."""

    def setup(self) -> None:
        super().setup()
        self.origin.open.append(self.connection)

    def do_POST(self) -> None:
        self._note()
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def do_CONNECT(self) -> None:
        self._note()
        self.send_response(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with socket.create_connection(("127.0.0.1", self.to)) as there, contextlib.suppress(OSError):
            ends = {self.connection: there, there: self.connection}
            while True:
                for end in select.select(list(ends), [], [], 5)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def _note(self) -> None:
        self.origin.peers.add(self.client_address)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.origin.asked.append((self.command, self.path, headers))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def echoing(*, secure: tuple[Path, Path] | None = None, to: int = 0) -> Iterator[Origin]:
    """A server that echoes; by TLS with this certificate and key, or a proxy whose tunnels lead to a port."""
    origin = Origin(0)
    handler = type("Handler", (_Echo,), {"origin": origin, "to": to})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
        origin.port = server.server_port
        if secure is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*secure)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield origin
        server.shutdown()
        thread.join()
        for peer in origin.open:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
