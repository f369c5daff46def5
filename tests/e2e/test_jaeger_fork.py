"""Real forks of a traced agent, typed on the command line, read back from a real Jaeger."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.command import EXAMPLES, here, tracefork
from jaeger import Jaeger, JaegerTrace

pytestmark = pytest.mark.slow

STEP = 2
AGENT = """
import runpy, sys
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tracefork_backend.simulate import spawn
import os

provider = TracerProvider(resource=Resource.create({"service.name": "booking-agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
agent = runpy.run_path(sys.argv[1])
os.environ["ANTHROPIC_API_KEY"] = "not needed"

def book():
    with trace.get_tracer("agent").start_as_current_span("book_flight"):
        return agent["book"]("Osaka")

with spawn("booking", file=__file__) as url, ThreadPoolExecutor(1) as pool:
    os.environ["ANTHROPIC_BASE_URL"] = url
    print(pool.submit(book).result())
provider.shutdown()
"""


@dataclass(frozen=True)
class Forked:
    """A recorded run, its trace before it was forked, and its two forks' ids."""

    run_id: str
    step_span_id: str
    before: JaegerTrace
    forks: tuple[str, str]


@pytest.fixture(scope="module")
def forked(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Forked:
    """An agent whose spans start in a pool's thread was recorded by `run`, then forked twice by `fork`."""
    folder: Path = tmp_path_factory.mktemp("forked")
    (folder / "agent.py").write_text(AGENT)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http, "TRACEFORK_EVENT_BODY_LIMIT": "4096"}
    done = tracefork(
        "run", "--", sys.executable, "agent.py", EXAMPLES / "booking_agent.py", cwd=folder, **env
    )
    assert done.status == 0, done.err
    query = f"select run_id, span_id from exchanges where step = {STEP} and not replayed"
    (step,) = here("sql", query, "--json", cwd=folder).rows
    before = jaeger.trace(
        step["run_id"],
        lambda trace: trace.named("book_flight") and len(trace.named("chat claude-sonnet-5")) == 5,
    )
    edits = ["--tool-input", '{"flight": "NH176", "date": "2026-11-03"}'], ["--noop"]
    ids: list[str] = []
    for back, edit in enumerate(edits):
        ref = f"last~{back}@{STEP}"
        done = tracefork("fork", ref, *edit, "--json", "--success-re", "BOOKED", cwd=folder, **env)
        assert done.status == 0, done.out + done.err
        ids.append(done.rows[0]["run_id"])
    return Forked(step["run_id"], step["span_id"], before, (ids[0], ids[1]))


def test_both_forks_are_found_by_their_parent(jaeger: Jaeger, forked: Forked) -> None:
    """Jaeger's search by `tracefork.parent.run_id` finds the two forks; one of them succeeded."""
    assert set(jaeger.find("tracefork", {"tracefork.parent.run_id": forked.run_id})) == set(forked.forks)
    tags = {"tracefork.parent.run_id": forked.run_id, "tracefork.run.outcome": "true"}
    assert set(jaeger.find("tracefork", tags)) == {forked.forks[0]}


def test_the_agents_spans_stand_below_the_forks_root(jaeger: Jaeger, forked: Forked) -> None:
    """A fork's root is `fork NAME@STEP`; the agent's span, started in a pool's thread, is its child."""
    for fork in forked.forks:
        trace = jaeger.trace(fork, lambda trace: len(trace.named("chat claude-sonnet-5")) == 5)
        (root,) = (span for span in trace.spans if span.service == "tracefork")
        assert root.name.startswith("fork ")
        assert root.name.endswith(f"@{STEP}")
        (agent,) = trace.named("book_flight")
        assert (agent.parent_span_id, agent.service) == (root.span_id, "booking-agent")
        targets = {span for _, span in root.links}
        assert forked.step_span_id in targets
        assert {trace_id for trace_id, _ in root.links} == {forked.run_id}
        replayed = [span.tags.get("tracefork.replayed") for span in trace.named("chat claude-sonnet-5")]
        assert replayed[:STEP] == [True] * STEP


def test_the_parent_says_where_it_was_forked_and_is_as_long_as_before(jaeger: Jaeger, forked: Forked) -> None:
    """Two notes of 1 µs end with the forked exchange and link to the forks; the parent has not grown."""
    trace = jaeger.trace(
        forked.run_id, lambda trace: sum(span.name.startswith("tracefork.fork ") for span in trace.spans) == 2
    )
    notes = [span for span in trace.spans if span.name.startswith("tracefork.fork ")]
    step = trace.span(forked.step_span_id)
    assert {note.name for note in notes} == {"tracefork.fork tool_input", "tracefork.fork noop"}
    for note in notes:
        assert (note.parent_span_id, note.duration_us, note.ended_us) == (step.span_id, 1, step.ended_us)
    assert {trace_id for note in notes for trace_id, _ in note.links} == set(forked.forks)
    assert trace.duration_us == forked.before.duration_us


def test_bodies_are_readable_text(jaeger: Jaeger, forked: Forked) -> None:
    """The body previews on the forked step are text that a person can read."""
    step = jaeger.trace(forked.run_id, lambda trace: trace.spans).span(forked.step_span_id)
    (request,) = (event for event in step.events if event["event"] == "tracefork.request.body")
    assert "Please book a flight to Osaka" in request["tracefork.body"]
    assert step.types["tracefork.body"] == "string"
