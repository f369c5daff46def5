"""Vendors whose own threads send what an agent said: unmodified, their server on a real socket."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tracefork_backend.simulate import ModelServer

pytest.importorskip("grpc", reason="the vendors' packages are not installed")
from vendors.sink import sink
from vendors.test_vendors import LINE, RUN, SECRET, Agent, Vendor

CALLS = f"""
import anthropic
client = anthropic.Anthropic()

@traced
def ask(number):
    asked = [{{"role": "user", "content": f"{SECRET} {{number}}"}}]
    return client.messages.create(model="claude-haiku-4-5", max_tokens=50, messages=asked).content[0].text

for number in range(3):
    print("SAID", len(ask(number)) > 0)
"""


@dataclass(frozen=True, slots=True)
class Sending:
    """A vendor: the source that sets it up and makes `traced`, the package, its variables, how it starts."""

    setup: str
    needs: str
    extra: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (sys.executable,)


SENDING = {
    "langsmith": Sending(
        """
import os
os.environ["LANGSMITH_ENDPOINT"] = os.environ["SINK"]
from langsmith import traceable as traced
""",
        "langsmith",
        {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "none"},
    ),
    # Metrics and logs, which no sampler keeps back, by compiled code that no audit hook sees.
    "opentelemetry": Sending(
        """
import logging
import os
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
place = {"endpoint": "http://127.0.0.1:" + os.environ["SINK_GRPC"], "insecure": True}
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**place))
metrics.set_meter_provider(MeterProvider([reader]))
logs = LoggerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**place)))
logging.getLogger().addHandler(LoggingHandler(logger_provider=logs))
calls = metrics.get_meter("theirs").create_counter("calls")

def traced(ask):
    def asked(number):
        calls.add(1)
        said = ask(number)
        logging.getLogger("theirs").warning("%s", said)
        return said
    return asked
""",
        "opentelemetry.exporter.otlp.proto.grpc",
    ),
    "ddtrace": Sending(
        """
from ddtrace import tracer
traced = tracer.wrap()
""",
        "ddtrace",
        {
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_LLMOBS_ENABLED": "1",
            "DD_LLMOBS_ML_APP": "theirs",
        },
        ("ddtrace-run", sys.executable),
    ),
    "sentry_sdk": Sending(
        """
import os
import sentry_sdk
sentry_sdk.init(dsn=os.environ["SINK"].replace("http://", "http://key@") + "/1", traces_sample_rate=1.0)

def traced(ask):
    def asked(number):
        with sentry_sdk.start_transaction(op="task", name="ask"):
            return ask(number)
    return asked
""",
        "sentry_sdk",
    ),
    # It has a client of its own, which connects as Python does.
    "newrelic": Sending(
        """
import newrelic.agent
traced = newrelic.agent.background_task()
""",
        "newrelic",
        {
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_APP_NAME": "theirs",
            "NEW_RELIC_HOST": "127.0.0.1",
            "NEW_RELIC_STARTUP_TIMEOUT": "1",
        },
        ("newrelic-admin", "run-program", sys.executable),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SENDING)
@pytest.mark.parametrize("order", ["first", "run"])
def test_it_has_its_traces_of_recordings_and_none_of_replays(name: str, order: str, tmp_path: Path) -> None:
    """Its requests are no steps; a replay passes, sends it nothing, and says so."""
    vendor = SENDING[name]
    pytest.importorskip(vendor.needs)
    with ModelServer() as server, sink() as received:
        agent = Agent(
            Vendor(vendor.setup, needs=vendor.needs, extra=vendor.extra, otlp=False, command=vendor.command),
            tmp_path,
            server,
            received,
        )
        source = (LINE if order == "first" else "") + vendor.setup + CALLS
        ran = agent.starts(source, *(RUN if order == "run" else ()))
        assert (ran.status, ran.out.count("SAID True")) == (0, 3), ran.err
        assert [outcome for outcome, _, _ in agent.steps()] == ["complete"] * 3
        # New Relic's wants a certificate, and says nothing to whom it cannot trust.
        assert received.bodies or name == "newrelic"
        received.forget()
        played = agent.typed("replay", "last")
        assert played.out.endswith("PASS    bit-exact\n"), played.out
        ports = (received.server_port, received.grpc_port)
        said = [f"note    telemetry of {name} to 127.0.0.1:{port} was not sent" for port in ports]
        # New Relic's is brought in by a program that starts the agent's, which the line cannot know.
        assert any(line in played.out for line in said) or (name, order) == ("newrelic", "first"), played.out
        assert not received.bodies
        assert len(server.requests) == 3
