"""The one line in agents that vendors trace: their packages unmodified, their server on a real socket."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e.command import Typed, environment, tracefork
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

pytest.importorskip("grpc", reason="the vendors' packages are not installed")
from vendors.sink import OURS, Sink, sink

SECRET = "PRIVATE-PATIENT-DATA"
LINE = "from tracefork_otel import TraceforkInstrumentor\nTraceforkInstrumentor().instrument()\n"
CALLS = f"""
import anthropic
import openai

with span("the-agent"):
    asked = [{{"role": "user", "content": "{SECRET}"}}]
    said = anthropic.Anthropic().messages.create(model="claude-haiku-4-5", max_tokens=50, messages=asked)
    print("SAID", len(said.content[0].text) > 0)
    said = openai.OpenAI().chat.completions.create(model="gpt-5-mini", messages=asked)
    print("SAID", len(said.choices[0].message.content) > 0)
"""
OWN = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
{exporter}
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
span = trace.get_tracer("theirs").start_as_current_span
"""
HIDDEN = {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"}
"""So that OpenInference tells no prompts, and any that the vendor hears are ours."""
INSTRUMENTED = """
from {package}.anthropic import AnthropicInstrumentor
from {package}.openai import OpenAIInstrumentor
AnthropicInstrumentor().instrument({by})
OpenAIInstrumentor().instrument({by})
"""
BY_HTTP = """from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
exporter = OTLPSpanExporter(os.environ["SINK"] + "/v1/traces")"""
BY_GRPC = """from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
exporter = OTLPSpanExporter("http://127.0.0.1:" + os.environ["SINK_GRPC"], insecure=True)"""


@dataclass(frozen=True, slots=True)
class Vendor:
    """How people set a vendor's tracing up: the source that does it, and makes `span`."""

    setup: str
    _: KW_ONLY
    needs: str
    otlp: bool = True
    """Whether what it sends can be read as spans."""
    command: tuple[str, ...] = (sys.executable,)
    extra: dict[str, str] = field(default_factory=dict)


VENDORS = {
    "own provider, OTLP by HTTP": Vendor(OWN.format(exporter=BY_HTTP), needs="opentelemetry"),
    "own provider, OTLP by gRPC": Vendor(OWN.format(exporter=BY_GRPC), needs="grpc"),
    "opentelemetry-instrumentation-anthropic, -openai": Vendor(
        OWN.format(exporter=BY_HTTP) + INSTRUMENTED.format(package="opentelemetry.instrumentation", by=""),
        needs="opentelemetry.instrumentation.anthropic",
        extra={"TRACELOOP_TRACE_CONTENT": "false"},
    ),
    "openinference": Vendor(
        OWN.format(exporter=BY_HTTP) + INSTRUMENTED.format(package="openinference.instrumentation", by=""),
        needs="openinference.instrumentation.anthropic",
        extra=HIDDEN,
    ),
    "phoenix": Vendor(
        """
import os
from phoenix.otel import register
provider = register(
    endpoint=os.environ["SINK"] + "/v1/traces", protocol="http/protobuf", batch=True, verbose=False
)
span = provider.get_tracer("theirs").start_as_current_span
"""
        + INSTRUMENTED.format(package="openinference.instrumentation", by="tracer_provider=provider"),
        needs="phoenix.otel",
        extra=HIDDEN,
    ),
    "logfire": Vendor(
        """
import os
import logfire
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
sent = BatchSpanProcessor(OTLPSpanExporter(os.environ["SINK"] + "/v1/traces"))
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[sent])
logfire.instrument_anthropic()
logfire.instrument_openai()
span = logfire.span
""",
        needs="logfire",
    ),
    "langfuse": Vendor(
        """
import os
from langfuse import Langfuse
client = Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", host=os.environ["SINK"])
span = lambda name: client.start_as_current_observation(name=name, as_type="span")
""",
        needs="langfuse",
    ),
    "sentry": Vendor(
        """
import os
import sentry_sdk
sentry_sdk.init(dsn=os.environ["SINK"].replace("http://", "http://key@") + "/1", traces_sample_rate=1.0)
span = lambda name: sentry_sdk.start_transaction(op="task", name=name)
""",
        needs="sentry_sdk",
        otlp=False,
    ),
    "ddtrace": Vendor(
        """
from ddtrace import tracer
span = tracer.trace
""",
        needs="ddtrace",
        otlp=False,
        command=("ddtrace-run", sys.executable),
        extra={"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"},
    ),
    "opentelemetry-instrument": Vendor(
        """
from opentelemetry import trace
span = trace.get_tracer("theirs").start_as_current_span
""",
        needs="opentelemetry.distro",
        command=("opentelemetry-instrument", sys.executable),
        extra={
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "TRACELOOP_TRACE_CONTENT": "false",
            **HIDDEN,
        },
    ),
}
ORDERS = ("first", "last", "run")
RUN = (sys.executable, "-m", "tracefork_backend.cli", "run", "--")
INTERNAL, CLIENT = 1, 3
"""Kinds of spans in OTLP."""


@dataclass(slots=True)
class Agent:
    """An agent in a folder of its own, the model that it asks, and its vendor's server."""

    vendor: Vendor
    folder: Path
    server: ModelServer
    sink: Sink

    def starts(self, source: str, *words: str, **extra: str) -> Typed:
        """Run the agent as its user does, and nothing of an earlier start is left at the vendor's."""
        (self.folder / "agent.py").write_text(source)
        self.sink.forget()
        program = [str(Path(sys.executable).parent / self.vendor.command[0]), *self.vendor.command[1:]]
        done = subprocess.run(
            [*words, *program, "agent.py"],
            cwd=self.folder,
            env=self.environment(**extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Typed(done.returncode, done.stdout, done.stderr)

    def typed(self, *words: str) -> Typed:
        """Run a command of ours."""
        return tracefork(*words, cwd=self.folder, **self.outside())

    def outside(self) -> dict[str, str]:
        """Return where everything is, as variables."""
        return {
            **self.vendor.extra,
            "SINK": self.sink.url,
            "SINK_GRPC": str(self.sink.grpc_port),
            "ANTHROPIC_BASE_URL": self.server.url,
            "OPENAI_BASE_URL": f"{self.server.url}/v1",
            "ANTHROPIC_API_KEY": "none",
            "OPENAI_API_KEY": "none",
            "DD_TRACE_AGENT_URL": self.sink.url,
            "NEW_RELIC_PORT": str(self.sink.server_port),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.sink.url,
        } | ({} if "opentelemetry-instrument" in self.vendor.command else {"OTEL_EXPORTER_OTLP_ENDPOINT": ""})

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the agent's environment."""
        return environment(**self.outside(), **extra)

    def steps(self) -> list[tuple[str, str, bool]]:
        """Return outcome, run, and whether its parent is in the store, of each recorded call."""
        with open_store(self.folder / ".tracefork") as store:
            return store.sql(
                "select e.outcome, r.run_id, exists(select 1 from spans s where s.span_id = e.parent_span_id)"
                " from exchanges e join runs r using (run_id) where r.kind = 'record' order by e.step"
            ).fetchall()


@pytest.fixture(params=VENDORS)
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    """An agent that a vendor traces."""
    vendor = VENDORS[request.param]
    try:
        found = importlib.util.find_spec(vendor.needs)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{vendor.needs} is not installed")
    with ModelServer() as server, sink() as received:
        yield Agent(vendor, tmp_path, server, received)


def source(vendor: Vendor, order: str) -> str:
    """Return the agent with our line before or after the vendor's, or without it."""
    return {"first": LINE + vendor.setup, "last": vendor.setup + LINE}.get(order, vendor.setup) + CALLS


def before_ours(agent: Agent, **extra: str) -> tuple[Counter[tuple[Any, ...]], int, int]:
    """Return what the vendor has of the agent without us: spans, tokens, and how often the prompt."""
    extra["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "tracefork"
    alone = agent.starts(source(agent.vendor, "none"), **extra)
    assert (alone.status, alone.out.count("SAID True")) == (0, 2), alone.err
    return agent.sink.theirs(), agent.sink.tokens(), agent.sink.mentions(SECRET.encode())


@pytest.mark.slow
def test_the_agent_and_its_vendor_have_what_they_had(agent: Agent) -> None:
    """In any order each call is a step of one run, and the vendor has the spans, tokens and prompts it had.

    With message content asked for, each call has one span with its usage, the vendor's or ours. A replay
    passes, and tells the vendor nothing.
    """
    had = before_ours(agent)
    for order in ORDERS:
        if "opentelemetry-instrument" in agent.vendor.command and order != "run":
            continue  # it stands before any line
        asked = len(agent.server.requests)
        ran = agent.starts(source(agent.vendor, order), *(RUN if order == "run" else ()))
        assert (ran.status, ran.out.count("SAID True")) == (0, 2), (order, ran.err)
        assert len(agent.server.requests) == asked + 2
        steps = agent.steps()
        assert [(outcome, below) for outcome, _, below in steps] == [("complete", True)] * 2, (order, steps)
        assert len({run for _, run, _ in steps}) == 1, (order, steps)
        now = (agent.sink.theirs(), agent.sink.tokens(), agent.sink.mentions(SECRET.encode()))
        assert now == had, order
        shutil.rmtree(agent.folder / ".tracefork")
    with_content(agent)
    replayed(agent)


def with_content(agent: Agent) -> None:
    """With message content asked for, each call has one span with its usage, the vendor's or ours."""
    if not agent.vendor.otlp:
        return
    wanted = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}
    _, alone, _ = before_ours(agent, **wanted)
    ran = agent.starts(source(agent.vendor, "run"), *RUN, **wanted)
    assert ran.status == 0, ran.err
    with open_store(agent.folder / ".tracefork") as store:
        ((spent,),) = store.sql("select sum(input_tokens) from exchanges").fetchall()
    assert agent.sink.tokens() == max(
        alone, spent
    )  # two instrumentations of one SDK count twice by themselves
    told = {span.span_id: "gen_ai.usage.input_tokens" in names(span) for _, span in agent.sink.spans}
    ours = [span for scope, span in agent.sink.spans if scope == OURS and span.name.startswith("chat ")]
    assert len(ours) == (0 if agent.vendor.needs == "logfire" else 2)
    assert [span.kind for span in ours] == [CLIENT if told[span.span_id] else INTERNAL for span in ours]


def names(span: Any) -> set[str]:
    """The names of the span's attributes."""
    return {entry.key for entry in span.attributes}


def replayed(agent: Agent) -> None:
    """The last run replays bit-exact with no request, and no call of it is sent anywhere."""
    if not (agent.folder / ".tracefork").exists():
        ran = agent.starts(source(agent.vendor, "run"), *RUN)
        assert ran.status == 0, ran.err
    agent.sink.forget()
    asked = len(agent.server.requests)
    again = agent.typed("replay", "last")
    assert again.status == 0, again.out + again.err
    assert "PASS" in again.out
    assert len(agent.server.requests) == asked
    # That there was a replay is told by the command, where its own variables point.
    assert {scope for scope, _ in agent.sink.spans} <= {"tracefork_backend"}
    assert agent.vendor.otlp or not agent.sink.bodies


@pytest.mark.slow
def test_logfire_as_its_own_first_page_has_it(tmp_path: Path) -> None:
    """It asks its server whose token it was given, by `requests` beside the agent: that is no leak."""
    pytest.importorskip("logfire")
    setup = """
import os
import threading
import logfire
threading.excepthook = lambda told: None  # the sink says nothing of tokens
place = logfire.AdvancedOptions(base_url=os.environ["SINK"])
logfire.configure(token="none", console=False, advanced=place)
logfire.instrument_anthropic()
logfire.instrument_openai()
span = logfire.span
"""
    with ModelServer() as server, sink() as received:
        agent = Agent(Vendor(setup, needs="logfire"), tmp_path, server, received)
        ran = agent.starts(source(agent.vendor, "first"))
        assert (ran.status, ran.out.count("SAID True")) == (0, 2), ran.err
        assert [outcome for outcome, _, _ in agent.steps()] == ["complete"] * 2
        assert "incomplete" not in agent.typed("show", "last").out
        played = agent.typed("replay", "last")
    assert played.out.endswith("PASS    bit-exact\n"), played.out
    assert "note    telemetry of logfire" in played.out
