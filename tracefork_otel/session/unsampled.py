"""Spans of a replay: recorded, so that the store has them; not sampled, so that no exporter sends them.

Those without a parent are children of the replay, which is current nowhere: the agent reads, and sends on,
the context that it read in the recording.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from ..undo import Undo
from . import current, spans

_REMEMBERED = 4096
_traces: set[int] = set()
"""Traces of this process that would have been sampled: a part of one may come back by propagation."""


def patch(sdk: ModuleType, undo: Undo) -> None:
    """Have every tracer of the SDK, those made before too, ask its sampler through an `Unsampled`."""

    def sampler(tracer: Any) -> Sampler:
        return Unsampled(vars(tracer)["sampler"])

    def keep(tracer: Any, theirs: Sampler) -> None:
        vars(tracer)["sampler"] = theirs

    undo.replace(sdk.Tracer, "sampler", property(sampler, keep))
    theirs = sdk.Tracer.start_span

    @functools.wraps(theirs)
    def start_span(tracer: Any, name: str, context: Any = None, *more: Any, **named: Any) -> Any:
        return theirs(tracer, name, _below(context), *more, **named)

    undo.replace(sdk.Tracer, "start_span", start_span)


def _below(context: Any) -> Any:
    """Return the context, below the replay where it has no span; one that was made for a new trace stays."""
    session = current.session
    if session is None or session.remote is None or trace.get_current_span(context) is not trace.INVALID_SPAN:
        return context
    if context is not None and context is not otel_context.get_current():
        return context
    above = spans.remote_parent(session).span
    return context if above is None else trace.set_span_in_context(NonRecordingSpan(above), context)


class Unsampled(Sampler):
    """A sampler that drops what the user's drops, and has everything else recorded alone."""

    def __init__(self, theirs: Sampler) -> None:
        self._theirs = theirs

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *more: Any, **named: Any
    ) -> SamplingResult:
        """Decide as the user's sampler does, whose spans would be sampled, without any being so."""
        result = self._theirs.should_sample(_as_sampled(parent_context), trace_id, name, *more, **named)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return result
        if len(_traces) < _REMEMBERED:
            _traces.add(trace_id)
        return SamplingResult(Decision.RECORD_ONLY, result.attributes, result.trace_state)

    def get_description(self) -> str:
        """Return the user's sampler's description, and that nothing is sampled."""
        return f"Unsampled{{{self._theirs.get_description()}}}"


def _as_sampled(context: Any) -> Any:
    """Return the context as if its span were sampled, where this module, here or in a parent, kept it so."""
    span = trace.get_current_span(context)
    place = span.get_span_context()
    session = current.session
    launched = session is not None and session.remote is not None and session.remote[0] == place.trace_id
    if place.trace_flags.sampled or not (span.is_recording() or launched or place.trace_id in _traces):
        return context
    flags = TraceFlags(place.trace_flags | TraceFlags.SAMPLED)
    sampled = SpanContext(place.trace_id, place.span_id, place.is_remote, flags, place.trace_state)
    return trace.set_span_in_context(NonRecordingSpan(sampled), context)
