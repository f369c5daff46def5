"""Which session and conversation a run is part of, as its spans or their resource say."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind
from recorded import fetch
from tracefork_backend.store import open_store

from tracefork_otel.store import sealing


def names(capture: Capture) -> list[tuple[str | None, str | None]]:
    """Session and conversation of each run, as the view has them live, and after sealing."""
    capture.off()
    query = "SELECT session_id, conversation_id FROM runs ORDER BY started_at"
    with open_store(capture.store) as store:
        live = [(row["session_id"], row["conversation_id"]) for row in store.rows(query)]
        runs = [(run.session_id, run.conversation_id) for run in reversed(store.runs())]
    sealing.seal_dead(capture.store)
    with open_store(capture.store) as store:
        sealed = [(row["session_id"], row["conversation_id"]) for row in store.rows(query)]
    assert live == runs == sealed
    return live


@pytest.mark.slow
def test_spans_of_any_place_name_their_run(capture: Capture, provider: TracerProvider, raw: str) -> None:
    """A root says it when it starts, a span within when it ends; the first of two counts."""
    tracer = provider.get_tracer("agent")
    capture.on(tracer_provider=provider)
    with tracer.start_as_current_span("work", attributes={"session.id": "s1"}):
        with tracer.start_as_current_span("chat m") as chat:
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
            chat.set_attribute("gen_ai.conversation.id", "c1")
        with tracer.start_as_current_span("chat m", attributes={"gen_ai.conversation.id": "c2"}):
            pass
    apart: dict[str, Any] = {"kind": SpanKind.CONSUMER}
    with tracer.start_as_current_span("work", **apart), tracer.start_as_current_span("x") as inner:
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
        inner.set_attribute("gen_ai.conversation.id", 7)
    with tracer.start_as_current_span("work", attributes={"session.id": "", "user.id": "u"}, **apart):
        fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert names(capture) == [("s1", "c1"), (None, "7"), (None, None)]


@pytest.mark.slow
def test_calls_that_are_traces_name_the_run_of_their_process(
    capture: Capture, provider: TracerProvider, raw: str
) -> None:
    """A call's own span names the run, although it is in another trace."""
    tracer = provider.get_tracer("sdk")
    capture.on(tracer_provider=provider)
    for _ in range(2):
        with tracer.start_as_current_span("chat m", kind=SpanKind.CLIENT) as span:
            fetch(httpx2, "sync", "GET", f"{raw}/empty")
            span.set_attribute("gen_ai.conversation.id", "thread_1")
    assert names(capture) == [(None, "thread_1")]


@pytest.mark.slow
def test_a_processor_that_names_every_span(capture: Capture, raw: str) -> None:
    """What another processor puts on our own spans alone counts, and a session of the resource."""

    class Baggage(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            span.set_attribute("gen_ai.conversation.id", "of baggage")

    provider = TracerProvider(resource=Resource({"session.id": "of the resource"}), shutdown_on_exit=False)
    provider.add_span_processor(Baggage())
    capture.on(tracer_provider=provider)
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert names(capture) == [("of the resource", "of baggage")]


@pytest.mark.slow
def test_without_a_provider_the_environment_names_it(
    capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTel's own variable for resources names the run of an agent that has no provider."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,session.id=s%2C1,gen_ai.conversation.id=c")
    capture.on()
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert names(capture) == [("s,1", "c")]
