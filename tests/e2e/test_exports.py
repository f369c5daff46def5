"""What reaches the user's own backend: what the agent did for real, and nothing that a tape made up."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e.command import here, tracefork
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tracefork_backend.simulate import ModelServer

AGENT = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[1] + "/v1/traces")))
trace.set_tracer_provider(provider)

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

reader = PeriodicExportingMetricReader(OTLPMetricExporter(sys.argv[1] + "/v1/metrics"))
metrics.set_meter_provider(MeterProvider([reader]))
metrics.get_meter("x").create_counter("started").add(1)

import anthropic

with trace.get_tracer("x").start_as_current_span("agent"):
    with trace.get_tracer("x").start_as_current_span("inner"):
        client = anthropic.Anthropic(base_url=sys.argv[2], api_key="none", max_retries=0)
        asked = [{"role": "user", "content": "PRIVATE question"}]
        print(client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=asked).content)
"""


class Sink:
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        kept = self.raw

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    zipped = self.headers["content-encoding"] == "gzip"
                    kept.append(gzip.decompress(body) if zipped else body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def taken(self) -> list[str]:
        """Return the names of the spans that came since the last call, and forget them."""
        batches = [ExportTraceServiceRequest.FromString(body) for body in self.raw]
        assert not any(b"PRIVATE" in body for body in self.raw)
        self.raw.clear()
        return sorted(
            span.name
            for batch in batches
            for one in batch.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        )


@pytest.fixture
def sinks() -> Iterator[tuple[Sink, Sink]]:
    """The user's own collector, and the one that a command's environment names."""
    both = Sink(), Sink()
    yield both
    for sink in both:
        sink.server.shutdown()
        sink.server.server_close()


@pytest.mark.slow
def test_a_replay_and_a_fork_export_nothing_of_the_users(sinks: tuple[Sink, Sink], tmp_path: Path) -> None:
    """The user's exporter gets the recorded run alone; a fork goes where the command's environment points."""
    own, named = sinks
    (tmp_path / "agent.py").write_text(AGENT)
    with ModelServer() as model:
        done = tracefork("run", "--", sys.executable, "agent.py", own.url, model.url, cwd=tmp_path)
        assert done.status == 0, done.err
        recorded = ["agent", "chat claude-haiku-4-5", "inner"]
        assert [name for name in own.taken() if not name.startswith("anthropic")] == recorded
        done = tracefork("replay", "last", cwd=tmp_path)
        assert done.status == 0, done.out
        assert "PASS" in done.out
        host = own.url.removeprefix("http://")
        assert f"note    telemetry of opentelemetry to {host} was not sent" in done.out
        assert own.taken() == []
        done = tracefork(
            *("fork", "last@0", "--text", "other"), cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=named.url
        )
        assert done.status == 0, done.out + done.err
    assert own.taken() == []
    sent = named.taken()
    assert set(recorded) <= set(sent)
    assert [name for name in sent if name.startswith("fork ")]
    (row,) = here("sql", "select count(*) as n from spans where name = 'inner'", "--json", cwd=tmp_path).rows
    assert row["n"] == 3
