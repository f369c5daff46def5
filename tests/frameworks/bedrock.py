"""A loopback server that speaks Bedrock's two forms, for tests with unmodified AWS SDKs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.messages import Message, Reply, Usage, message
from tracefork_otel.wire.registry import load, place, placed
from tracefork_otel.wire.writing import Ids, deltas


@dataclass(slots=True)
class Bedrock:
    """The server's URL, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)


Answering = Callable[[Request], Response]


@contextmanager
def bedrock(answer: Answering) -> Iterator[Bedrock]:
    """A server that gives these answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = Request(
                method="POST",
                url=served.url + self.path,
                headers=tuple((name.lower(), value) for name, value in self.headers.items()),
                body=body,
            )
            served.requests.append(asked)
            said = answer(asked)
            self.send_response(said.status)
            for name, value in said.headers:
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            at = 0
            for size in (*said.chunk_sizes, 0):
                piece = said.body[at : at + size]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
                at += size

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Bedrock(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def saying(
    request: Request, *turn: Message, usage: Usage | None = None, reason: str | None = None
) -> Response:
    """The reply of these messages, whole or streamed as the request's URL asks."""
    found = placed(place(request.url)[1])
    assert found is not None
    form = load(found[0].name)
    asked = {**json.loads(request.body), "model": found[2]}
    reply = Reply(
        choices=(turn,),
        finish_reasons=(reason,),
        usage=usage or Usage(input_tokens=100, output_tokens=20, cached_tokens=30, cache_write_tokens=10),
    )
    whole = form.write_reply(reply, request=asked, frame={}, ids=Ids(request.body))
    streams = form.streams(request.url, asked)
    if streams is None:
        cuts, kind = [json.dumps(whole).encode()], "application/json"
    else:
        cuts, kind = streams.write(form.write_events(asked, whole, deltas)), streams.content_type
    headers = (("content-type", kind), ("x-amzn-requestid", "3f7bd6ce-2b15-4c6e-a95f-5d0b7d9f8a11"))
    return Response(status=200, headers=headers, body=b"".join(cuts), chunk_sizes=tuple(map(len, cuts)))


def text(said: str) -> Message:
    """A text of the model's."""
    return message("assistant", "text", said)


def call(name: str, **given: object) -> Message:
    """A tool call of the model's."""
    return message("assistant", "tool_use", json.dumps(given), name)
