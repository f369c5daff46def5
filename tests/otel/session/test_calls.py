"""Calls that are traces of their own, as SDKs make them where nothing is around: one run, in every view."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from forked import at_desk
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind
from recorded import fetch
from tracefork_backend.rerun.edits import text
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import open_store, removing

from tracefork_otel.session.process import program
from tracefork_otel.store import sealing

CALLS: list[dict[str, Any]] = [
    {"kind": SpanKind.CLIENT, "attributes": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}},
    {"kind": SpanKind.CLIENT},
    {"attributes": {"openinference.span.kind": "LLM", "llm.model_name": "m"}},
    {"attributes": {"langfuse.observation.type": "generation"}},
    {"attributes": {"gen_ai.request.model": "m", "request_data": "{}"}},
    {"attributes": {"gen_ai.operation.name": "embeddings"}},
    {"kind": SpanKind.CLIENT, "attributes": {"llm.request.type": "chat"}},
]
"""Spans of a call, as vendors write them."""
WORK: list[dict[str, Any]] = [
    {},
    {"kind": SpanKind.SERVER},
    {"kind": SpanKind.CLIENT, "attributes": {"gen_ai.operation.name": "invoke_agent"}},
    {"attributes": {"openinference.span.kind": "CHAIN", "gen_ai.request.model": "m"}},
    {"attributes": {"traceloop.span.kind": "workflow", "llm.request.type": "chat"}},
]
"""Spans of what holds calls."""


@pytest.mark.slow
def test_calls_that_are_traces_are_one_run(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str
) -> None:
    """By whatever convention they are told, nested, beside bare HTTP: one run, and spans as they were.

    Its removal takes the spans of the calls too.
    """
    tracer = provider.get_tracer("sdk")
    capture.on(tracer_provider=provider)
    for how in CALLS:
        with tracer.start_as_current_span("call", **how), tracer.start_as_current_span("inner"):
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.off()
    sealing.seal_dead(capture.store)
    with open_store(capture.store) as store:
        (run,) = store.runs()
        assert (run.steps, run.name, run.status) == (len(CALLS) + 1, program(), "ok")
        assert all(one.parent_span_id for one in run.exchanges)
        told = store.rows("SELECT trace_id, span_id, parent_span_id FROM spans")
        spans = {row["span_id"]: row for row in told}
        sent = {f"{one.context.span_id:016x}": one for one in exported.get_finished_spans() if one.context}
        assert {key for key, row in spans.items() if row["trace_id"] != run.run_id} <= sent.keys()
        for one in run.exchanges[:-1]:
            span = sent[one.span_id]
            assert span.context
            assert span.attributes
            assert spans[one.span_id]["trace_id"] == f"{span.context.trace_id:032x}" == one.told_in
            assert span.attributes["tracefork.run.id"] == run.run_id
        removing.remove(store, removing.planned(store, [run.run_id]))
        assert store.rows("SELECT * FROM spans") == []


@pytest.mark.slow
@pytest.mark.parametrize("how", WORK)
def test_work_and_calls_are_one_run(capture: Capture, provider: TracerProvider, raw: str, how: Any) -> None:
    """What holds calls, and calls beside it, are their process's run; what came from outside is its own."""
    tracer = provider.get_tracer("agent")
    capture.on(tracer_provider=provider)
    for _ in range(2):
        with tracer.start_as_current_span("work", **how), tracer.start_as_current_span("call", **CALLS[0]):
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    for _ in range(2):
        with tracer.start_as_current_span("call", **CALLS[0]):
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.off()
    from_outside = how.get("kind") is SpanKind.SERVER
    with open_store(capture.store) as store:
        assert sorted((run.name, run.steps) for run in store.runs()) == (
            [(program(), 2), ("work", 1), ("work", 1)] if from_outside else [("work", 4)]
        )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(TraceIdRatioBased(0))])
def test_calls_that_a_sampler_drops(capture: Capture, raw: str, sampler: Any) -> None:
    """They are one run too, where each would be a trace, with work; a dropped request is a run of its own."""
    tracer = TracerProvider(sampler=sampler).get_tracer("sdk")
    capture.on()
    for how in CALLS:
        with tracer.start_as_current_span("call", **how), tracer.start_as_current_span("inner"):
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    for how in WORK:
        with tracer.start_as_current_span("work", **how):
            for call in CALLS[:2]:
                with tracer.start_as_current_span("call", **call):
                    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.off()
    sealing.seal_dead(capture.store)
    with open_store(capture.store) as store:
        assert sorted(run.steps for run in store.runs()) == [2, 2 * (len(WORK) - 1) + len(CALLS)]


@pytest.mark.slow
def test_a_provider_that_was_not_adopted(capture: Capture, raw: str) -> None:
    """An instrumentor with a provider of its own, which nobody handed to us, makes one run of its calls."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("sdk")
    capture.on()
    for how in CALLS:
        with tracer.start_as_current_span("call", **how):
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.off()
    with open_store(capture.store) as store:
        assert [run.steps for run in store.runs()] == [len(CALLS)]


def test_a_call_of_another_process_stays_in_its_trace(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """A call whose parent came from elsewhere is part of that trace: a worker's of a queue, say."""
    capture.on(tracer_provider=provider)
    far = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1))
    context = trace.set_span_in_context(trace.NonRecordingSpan(far))
    with provider.get_tracer("sdk").start_as_current_span("call", context=context, **CALLS[0]):
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert capture.read().only().trace_id == f"{0xABC:032x}"


@pytest.mark.parametrize("inner", [True, False])
def test_ids_that_are_made_up_here_begin_no_runs(
    capture: Capture, provider: TracerProvider, raw: str, inner: bool
) -> None:
    """A vendor that puts ids of its own in the place of spans, as LangSmith does, has one run."""
    tracer = provider.get_tracer("sdk")
    capture.on(tracer_provider=provider)
    for number in (0xAB1, 0xAB2):
        own = trace.SpanContext(number, number, is_remote=False, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(own)), ExitStack() as stack:
            if inner:
                stack.enter_context(tracer.start_as_current_span("call", **CALLS[0]))
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert {exchange.trace_id for exchange in capture.read().exchanges} == {f"{0xAB1:032x}"}


def test_an_open_call_takes_no_call_of_another_thread(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """A call whose span says so in OpenInference's words alone is no work for others to belong to."""
    capture.on(tracer_provider=provider)
    with provider.get_tracer("sdk").start_as_current_span("call", **CALLS[2]) as span:
        thread = threading.Thread(target=fetch, args=(httpx2, "sync", "GET", f"{raw}/empty"))
        thread.start()
        thread.join()
    assert capture.read().only().parent_span_id != f"{span.get_span_context().span_id:016x}"


TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
trace.set_tracer_provider(TracerProvider())
SDK = trace.get_tracer("sdk")
def ask(text):
    with SDK.start_as_current_span("chat m", kind=trace.SpanKind.CLIENT):
        return say(text)
first = ask("one")
ask("two of " + first)
print(ask("three"))
"""


@pytest.mark.slow
def test_replay_and_fork_of_a_run_of_such_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `run` they are steps of the command's run, which replays and forks as one."""
    with at_desk(tmp_path, monkeypatch) as desk:
        desk.write(TRACED)
        recorded = desk.record()
        assert [run.steps for run in recorded.runs] == [3]
        assert recorded.runs[0].run_id == recorded.launch_id
        with open_store(desk.store_path) as store:
            run = store.run("last")
            assert run.name == "agent.py"
            assert replay(run).passed
            made = fork(run, at=1, edit=text("four"))
            assert (made.calls_replayed, made.calls_live) == (1, 1)
            again = store.run(made.run_id)
            assert (again.steps, again.kind, again.parent_run_id) == (3, "fork", run.run_id)
            links = store.rows("SELECT links FROM spans WHERE span_id = ?", [store.root_of(made.run_id)])
            assert run.exchanges[1].told_in != run.run_id
            assert run.exchanges[1].told_in in links[0]["links"]
            tape = reconstruct(store, run)
            tape.dump(tmp_path / "t.jsonl")
            assert type(tape).load(tmp_path / "t.jsonl").exchanges[1].told_in == run.exchanges[1].told_in


ASKED = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
SAID = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 8, "output_tokens": 3},
}


def ask() -> None:
    """One call of Anthropic's API, answered here."""
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=SAID))) as client:
        client.post("https://api.anthropic.com/v1/messages", json=ASKED)


@pytest.mark.parametrize(
    ("around", "below"),
    [
        ([how], "gen_ai.operation.name" in str(how) or "kind" not in how or "llm.request.type" in str(how))
        for how in CALLS
    ]
    + [([how], False) for how in WORK]
    + [([CALLS[0], {"attributes": {"http.request.method": "POST"}}], True)]
    + [([WORK[2], {"attributes": {"http.method": "POST"}}], False)]
    + [([CALLS[0], {}], False)],
)
def test_a_call_is_told_once(
    around: list[dict[str, Any]],
    below: bool,
    capture: Capture,
    provider: TracerProvider,
    exported: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Below the call's own span ours is INTERNAL, without usage, and with messages only if that has none."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    tracer = provider.get_tracer("sdk")
    capture.on(tracer_provider=provider)
    with ExitStack() as spans:
        for how in around:
            spans.enter_context(tracer.start_as_current_span("around", **how))
        ask()
    capture.off()
    (ours,) = [one for one in exported.get_finished_spans() if one.name == "chat claude-haiku-4-5"]
    assert ours.kind is (SpanKind.INTERNAL if below else SpanKind.CLIENT)
    told = ours.attributes or {}
    assert ("gen_ai.usage.input_tokens" in told) is not below
    assert ("gen_ai.input.messages" in told) is not (below and "request_data" in str(around))


def test_other_requests_are_no_calls(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str
) -> None:
    """What goes to no provider is INTERNAL: the HTTP client's own span is the CLIENT."""
    capture.on(tracer_provider=provider)
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    capture.off()
    assert {one.kind for one in exported.get_finished_spans()} == {SpanKind.INTERNAL}


def test_a_span_that_has_nothing_to_tell(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    """A span that is readable by its class alone, as Logfire's where it does not record, hides no call."""

    class Unreadable(ReadableSpan, trace.NonRecordingSpan):
        def __init__(self) -> None:
            context = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
            trace.NonRecordingSpan.__init__(self, context)

        def __getattribute__(self, name: str) -> Any:
            if name in ("attributes", "parent", "kind"):
                raise AttributeError(name)
            return object.__getattribute__(self, name)

        get_span_context = trace.NonRecordingSpan.get_span_context

    capture.on(tracer_provider=provider)
    with trace.use_span(Unreadable(), end_on_exit=False):
        ask()
    assert [one.outcome for one in capture.read().exchanges] == ["complete"]
