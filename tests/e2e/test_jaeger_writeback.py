"""Forks and notes in a real Jaeger, beside the run of an agent that exports its own traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jaeger import Jaeger, JaegerTrace
from recorded import REPOSITORY, run_python
from tracefork_backend.simulate import ModelServer, behaviours
from tracefork_backend.store import Run, open_store
from tracefork_backend.writeback.spans import RootSpan, SpanRef, WriteBack

from tracefork_otel.play.intervention import Intervention, Kind

STEP = 2
"""The step that is forked: neither the first nor the last of the booking agent's."""

AGENT = """
import runpy, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tracefork_otel import TraceforkInstrumentor

provider = TracerProvider(resource=Resource.create({"service.name": "booking-agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
TraceforkInstrumentor().instrument()
agent = runpy.run_path(sys.argv[1])
with trace.get_tracer("agent").start_as_current_span("book_flight"):
    print(agent["book"]("Osaka"))
"""


@dataclass(frozen=True, slots=True)
class Written:
    """A recorded run that was forked twice, and its trace in Jaeger before that."""

    run: Run
    root_span_id: str
    before: JaegerTrace
    forks: tuple[RootSpan, RootSpan]


@pytest.fixture(scope="module")
def written(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    """An agent ran and exported to Jaeger; then two forks of one step were written back, with their notes."""
    folder = tmp_path_factory.mktemp("written")
    store = folder / "store"
    (folder / "agent.py").write_text(AGENT)
    with ModelServer(behaviours.booking) as model:
        run_python(
            [str(folder / "agent.py"), str(REPOSITORY / "examples" / "booking_agent.py")],
            store=store,
            ANTHROPIC_BASE_URL=model.url,
            ANTHROPIC_API_KEY="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp_http,
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="SPAN_ONLY",
            TRACEFORK_EVENT_BODY_LIMIT="4096",
        )
    with open_store(store) as opened, pytest.MonkeyPatch.context() as environment:
        run = opened.run("last")
        (root,) = opened.rows(
            "select span_id from spans where trace_id = $run and parent_span_id is null", {"run": run.run_id}
        )
        before = jaeger.trace(
            run.run_id, lambda trace: len(trace.spans) > run.steps and trace.named("book_flight")
        )
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_http)
        with WriteBack(store) as back:
            first = _fork(back, run, root["span_id"], kind="text", outcome=True)
            second = _fork(back, run, root["span_id"], kind="noop", outcome=False)
        yield Written(run, root["span_id"], before, (first, second))


def _fork(back: WriteBack, run: Run, root_span_id: str, *, kind: Kind, outcome: bool) -> RootSpan:
    forked = run.exchanges[STEP]
    fork = back.open_fork(
        Intervention(kind=kind, step=STEP, label=kind),
        name=run.name,
        parent_run_id=run.run_id,
        parent_root_span_id=root_span_id,
        forked=SpanRef(trace_id=forked.told_in, span_id=forked.span_id),
    )
    fork.end(outcome=outcome)
    back.note_fork(exchange=forked, kind=kind, fork=fork, attributes={"tracefork.run.outcome": outcome})
    return fork


@pytest.mark.slow
def test_forks_are_found_by_the_run_they_came_from(jaeger: Jaeger, written: Written) -> None:
    """Jaeger's search for `tracefork.parent.run_id` finds the two forks, and nothing else."""
    found = jaeger.find("tracefork", {"tracefork.parent.run_id": written.run.run_id})
    assert set(found) == {fork.trace_id for fork in written.forks}
    for fork in written.forks:
        (root,) = found[fork.trace_id].spans
        assert (root.service, root.name) == ("tracefork", f"fork book_flight@{STEP}")
        assert root.parent_span_id is None
        assert root.tags["tracefork.fork.step"] == STEP
        assert root.tags["tracefork.fork.tail"] == "live"
        assert "otel.status_code" not in root.tags


@pytest.mark.slow
def test_a_search_by_outcome_finds_the_fork_that_ended_so(jaeger: Jaeger, written: Written) -> None:
    """What the oracle said stands on the fork's root, as a tag that Jaeger can search for."""
    tags = {"tracefork.parent.run_id": written.run.run_id, "tracefork.run.outcome": "true"}
    assert set(jaeger.find("tracefork", tags)) == {written.forks[0].trace_id}


def test_links_lead_to_the_original_run_and_to_the_step(jaeger: Jaeger, written: Written) -> None:
    """A fork's root links to the root of its parent and to the forked exchange, which are in Jaeger."""
    run = written.run
    targets = ((run.run_id, written.root_span_id), (run.run_id, run.exchanges[STEP].span_id))
    for fork in written.forks:
        (root,) = jaeger.trace(fork.trace_id, lambda trace: trace.spans).spans
        assert root.links == targets
    assert written.before.span(written.root_span_id).name == "book_flight"
    assert written.before.span(run.exchanges[STEP].span_id).name == "chat claude-sonnet-5"


def test_the_original_trace_says_where_it_was_forked(jaeger: Jaeger, written: Written) -> None:
    """Each note is a child of the forked exchange, 1 µs long, ends when it does, and links to its fork."""
    trace = jaeger.trace(
        written.run.run_id,
        lambda trace: trace.named("tracefork.fork text") and trace.named("tracefork.fork noop"),
    )
    step = trace.span(written.run.exchanges[STEP].span_id)
    for fork, kind in zip(written.forks, ("text", "noop"), strict=True):
        (note,) = trace.named(f"tracefork.fork {kind}")
        assert note.service == "tracefork"
        assert note.parent_span_id == step.span_id
        assert (note.duration_us, note.ended_us) == (1, step.ended_us)
        assert note.links == ((fork.trace_id, fork.span_id),)
        assert note.tags["tracefork.fork.run_id"] == fork.trace_id
        assert "error" not in note.tags


def test_notes_leave_the_original_trace_as_long_as_it_was(jaeger: Jaeger, written: Written) -> None:
    """The parent's duration has not grown, and every span that was there is there unchanged."""
    trace = jaeger.trace(written.run.run_id, lambda trace: len(trace.spans) >= len(written.before.spans) + 2)
    assert len(trace.spans) == len(written.before.spans) + 2
    assert trace.duration_us == written.before.duration_us
    for span in written.before.spans:
        after = trace.span(span.span_id)
        assert (after.started_us, after.duration_us) == (span.started_us, span.duration_us)


def test_body_previews_are_readable_text(written: Written) -> None:
    """A person reads in Jaeger what was asked and answered: the bodies are strings, not base64."""
    span = written.before.span(written.run.exchanges[0].span_id)
    bodies = {event["event"]: event["tracefork.body"] for event in span.events}
    assert set(bodies) == {"tracefork.request.body", "tracefork.response.body"}
    assert span.types["tracefork.body"] == "string"
    asked = json.loads(bodies["tracefork.request.body"])
    assert asked["messages"][0]["content"].startswith("Please book a flight to Osaka")
    assert "search_flights" in bodies["tracefork.response.body"]
    assert written.run.exchanges[0].request.body.decode() == bodies["tracefork.request.body"]


def test_jaeger_has_the_conversation_where_it_was_asked_for(written: Written) -> None:
    """What Jaeger's GenAI tab reads is on every model call: operation, model and messages as JSON.

    Its usage is told once, by the SDK's own span.
    """
    for exchange in written.run.exchanges:
        tags = written.before.span(exchange.span_id).tags
        assert (tags["gen_ai.operation.name"], tags["gen_ai.request.model"]) == ("chat", "claude-sonnet-5")
        assert "gen_ai.usage.input_tokens" not in tags
        assert exchange.parent_span_id is not None
        usage = written.before.span(exchange.parent_span_id).tags
        assert usage["gen_ai.usage.input_tokens"] > usage["gen_ai.usage.output_tokens"] > 0
        asked, answered = (json.loads(tags[f"gen_ai.{side}.messages"]) for side in ("input", "output"))
        assert asked[0]["parts"][0]["content"].startswith("Please book a flight to Osaka")
        assert len(answered) == 1
    assert answered[0]["finish_reason"] == "stop"
    assert [part["type"] for part in asked[-1]["parts"]] == ["tool_call_response"]


def test_grpc_is_spoken_where_the_environment_asks_for_it(
    jaeger: Jaeger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Written
) -> None:
    """With OTEL_EXPORTER_OTLP_PROTOCOL=grpc the spans arrive at Jaeger's gRPC port."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_grpc)
    warnings: list[str] = []
    with WriteBack(tmp_path / "store", warn=warnings.append) as back:
        fork = _fork(back, written.run, written.root_span_id, kind="resample", outcome=True)
    assert warnings == []
    assert jaeger.trace(fork.trace_id, lambda trace: trace.spans).spans[0].span_id == fork.span_id
