"""In a replay every span that would have been sent is recorded, and none is sampled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import sampling

from tracefork_otel.session import unsampled
from tracefork_otel.undo import Undo


@pytest.fixture
def patched() -> Iterator[None]:
    """The SDK as it is in a replay."""
    undo = Undo()
    unsampled.patch(sdk, undo)
    yield
    undo.take_back()
    assert "sampler" not in vars(sdk.Tracer)


@pytest.mark.parametrize("sampler", [sampling.ALWAYS_ON, sampling.DEFAULT_ON])
def test_recorded_and_not_sampled(patched: None, sampler: sampling.Sampler) -> None:
    """A root, its child, and a child by a context that went out and came back are all recorded."""
    tracer = sdk.TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("x")
    with tracer.start_as_current_span("root") as root:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        child = tracer.start_span("child")
    back = tracer.start_span("back", context=propagate.extract(carrier))
    for span in (root, child, back):
        assert span.is_recording() == (span is not root)
        assert not span.get_span_context().trace_flags.sampled
    assert back.get_span_context().trace_id == root.get_span_context().trace_id


def test_what_the_users_sampler_drops_stays_dropped(patched: None) -> None:
    """Neither a root that is dropped nor what is below a parent that others did not sample is recorded."""
    tracer = sdk.TracerProvider(sampler=sampling.DEFAULT_OFF, shutdown_on_exit=False).get_tracer("x")
    assert not tracer.start_span("root").is_recording()
    carrier = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
    tracer = sdk.TracerProvider(sampler=sampling.DEFAULT_ON, shutdown_on_exit=False).get_tracer("x")
    assert not tracer.start_span("x", context=propagate.extract(carrier)).is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN
