"""A loopback server that answers by a function of the request: for wire forms that no model server speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts

Answer = Callable[[str, dict[str, Any]], Response]


@dataclass(frozen=True, slots=True)
class Answering:
    """A running server: where it is, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)


def whole(value: Any, status: int = 200, kind: str = "application/json") -> Response:
    """A response of this JSON."""
    body = json.dumps(value).encode()
    return Response(
        status=status, headers=(("content-type", kind),), body=body, chunk_sizes=(len(body),) if body else ()
    )


def lines(*values: Any) -> Response:
    """A stream of JSON lines."""
    parts = [json.dumps(one).encode() + b"\n" for one in values]
    return _streamed(parts, "application/x-ndjson")


def events(*values: Any, named: bool = False, done: bool = True) -> Response:
    """A stream of server-sent events, with the mark that ends it."""
    parts = [
        (f"event: {one['type']}\n" if named else "").encode() + b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in values
    ]
    return _streamed([*parts, b"data: [DONE]\n\n"] if done else parts, "text/event-stream")


def _streamed(parts: list[bytes], kind: str) -> Response:
    headers = (("content-type", kind),)
    return Response(status=200, headers=headers, body=b"".join(parts), chunk_sizes=tuple(map(len, parts)))


def read(request: Request, response: Response, body: bytes | None = None) -> Facts:
    """What we read in an exchange, or in one whose response ended after this much."""
    found = facts(
        request.method,
        request.url,
        request=request.body,
        response=response.body if body is None else body,
        content_type=response.header("content-type"),
    )
    assert found is not None
    return found


@contextmanager
def answering(answer: Answer) -> Iterator[Answering]:
    """A server that answers every POST by this function of its path and its JSON."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = Request(
                method="POST",
                url=running.url + self.path,
                headers=tuple((name.lower(), value) for name, value in self.headers.items()),
                body=body,
            )
            running.requests.append(asked)
            response = answer(self.path, json.loads(body or b"{}"))
            self.send_response(response.status)
            for name, value in response.headers:
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in response.chunks():
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = Answering(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield running
        server.shutdown()
        thread.join()
