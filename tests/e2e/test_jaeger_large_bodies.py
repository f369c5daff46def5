"""A user's own telemetry beside bodies of 0.9 MB: over gRPC, 4 MiB in one message would lose every span."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaeger import Jaeger
from recorded import read_store, run_python

BODY = 900_000
CALLS = 6
"""Six bodies in one batch are 5.4 MB; a receiver takes 4 MiB."""
OWN = 20

AGENT = """
import sys, httpx2
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tracefork_otel import TraceforkInstrumentor

provider = TracerProvider(resource=Resource.create({"service.name": "heavy-agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=5), schedule_delay_millis=600_000))
trace.set_tracer_provider(provider)
TraceforkInstrumentor().instrument()
url, body, calls, own = sys.argv[1], "ä" * (int(sys.argv[2]) // 2), int(sys.argv[3]), int(sys.argv[4])
tracer = trace.get_tracer("agent")
with tracer.start_as_current_span("root") as root:
    for number in range(own):
        with tracer.start_as_current_span(f"own {number}"):
            if number < calls:
                answer = httpx2.post(url + "/echo", content=body.encode())
                assert len(answer.content) == int(sys.argv[2]), answer
print(f"{root.get_span_context().trace_id:032x}")
provider.shutdown()
"""


def _run(jaeger: Jaeger, raw: str, folder: Path, **env: str) -> str:
    (folder / "agent.py").write_text(AGENT)
    arguments = [str(folder / "agent.py"), raw, str(BODY), str(CALLS), str(OWN)]
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc}
    return run_python(arguments, store=folder / "store", **endpoint, **env).stdout.strip()


@pytest.mark.slow
def test_no_span_of_the_user_is_lost(jaeger: Jaeger, raw: str, tmp_path: Path) -> None:
    """Every span of the user's arrives by gRPC, and ours with them; the bodies are whole in the store."""
    trace_id = _run(jaeger, raw, tmp_path)
    trace = jaeger.trace(trace_id, lambda trace: len(trace.spans) >= 1 + OWN + 2 * CALLS)
    names = sorted(span.name for span in trace.spans)
    stock, ours = ["POST"] * CALLS, ["POST 127.0.0.1"] * CALLS
    assert names == sorted(["root", *(f"own {number}" for number in range(OWN)), *stock, *ours])

    exchanges = read_store(tmp_path / "store").exchanges
    assert len(exchanges) == CALLS
    for exchange in exchanges:
        assert exchange.response is not None
        assert len(exchange.request.body) == len(exchange.response.body) == BODY
        events = {event["event"]: event for event in trace.span(exchange.span_id).events}
        for event, body in (("request", exchange.request), ("response", exchange.response)):
            preview = events[f"tracefork.{event}.body"]
            assert preview["tracefork.body.sha256"] == body.sha256
            assert preview["tracefork.body.length"] == BODY
            assert preview["tracefork.body.truncated"] is True
            assert "tracefork.body" not in preview


@pytest.mark.slow
def test_whole_bodies_on_spans_would_lose_them(jaeger: Jaeger, raw: str, tmp_path: Path) -> None:
    """With TRACEFORK_EVENT_BODY_LIMIT=unlimited the same batch is refused: the limit is what saves it."""
    trace_id = _run(jaeger, raw, tmp_path, TRACEFORK_EVENT_BODY_LIMIT="unlimited")
    assert trace_id not in jaeger.find("heavy-agent", {})
