"""What a tracing vendor receives: any POST, by HTTP or OTLP/gRPC, kept as it came."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OURS = "tracefork_otel"
TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
"""What vendors call the tokens of a request."""


class Sink(ThreadingHTTPServer):
    """A vendor's server on a real socket."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.spans: list[tuple[str, Any]] = []
        """Scope and span of each that came by OTLP."""
        self.grpc_port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes, *, otlp: bool) -> None:
        """Keep what was sent."""
        self.bodies.append(body)
        if not otlp:
            return
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in group.scope_spans:
                self.spans += [(scope.scope.name, span) for span in scope.spans]

    def forget(self) -> None:
        """Keep nothing of what was sent so far."""
        self.bodies.clear()
        self.spans.clear()

    def theirs(self) -> Counter[tuple[Any, ...]]:
        """The spans of the application: what each is, and the names of its attributes."""
        names = {span.span_id: span.name for _, span in self.spans}
        return Counter(
            (
                scope,
                span.name,
                span.kind,
                span.status.code,
                names.get(span.parent_span_id),
                tuple(sorted(entry.key for entry in span.attributes)),
            )
            for scope, span in self.spans
            if scope != OURS and not scope.startswith("opentelemetry.instrumentation.httpx")
        )

    def tokens(self) -> int:
        """The tokens of all requests as a backend adds them up: each span by the first name that it has."""
        total = 0
        for _, span in self.spans:
            told = {entry.key: entry.value for entry in span.attributes}
            name = next((name for name in TOKENS if name in told), None)
            total += 0 if name is None else told[name].int_value
        return total

    def mentions(self, text: bytes) -> int:
        """How often the text stands in what was sent."""
        return sum(body.count(text) for body in self.bodies)


class _Handler(BaseHTTPRequestHandler):
    server: Sink
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """The body is kept and 200 is answered."""
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(body, otlp=self.path.endswith("/v1/traces"))
        self._empty()

    do_PUT = do_POST

    def do_GET(self) -> None:
        """Nothing is there."""
        self._empty()

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _empty(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def sink() -> Iterator[Sink]:
    """Run a vendor's server, by HTTP and by gRPC."""
    import grpc

    with Sink() as server:

        def taking(*, otlp: bool) -> Any:
            def export(body: bytes, context: Any) -> bytes:
                server.take(body, otlp=otlp)
                return b""  # each service's answer, with nothing in it

            return grpc.unary_unary_rpc_method_handler(export)

        rpc = grpc.server(ThreadPoolExecutor(2))
        for kind in ("trace", "metrics", "logs"):
            service = f"opentelemetry.proto.collector.{kind}.v1.{kind.capitalize()}Service"
            methods = {"Export": taking(otlp=kind == "trace")}
            rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        server.grpc_port = rpc.add_insecure_port("127.0.0.1:0")
        rpc.start()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            rpc.stop(0).wait()
