"""Spans that no processor or exporter of the user's breaks: what it raises is logged, and goes no further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, Tracer, TracerProvider
from opentelemetry.util._decorator import _agnosticcontextmanager

from ..log import warn_once


def warn(what: str, error: Exception) -> None:
    """Log once that spans of ours meet errors of the user's own tracing; nothing is raised."""
    with suppress(Exception):  # a log handler of the application's may raise as well
        warn_once(
            f"tracing {what}",
            "a span processor or exporter of your TracerProvider raised at the %s of a span of ours (%s: %s):"
            " the exchange is recorded all the same",
            what,
            type(error).__name__,
            error,
        )


def end(span: Span, ended_ns: int | None = None) -> bool:
    """End the span and return True; False where that raised, which is logged."""
    try:
        span.end(ended_ns)
    except Exception as error:
        warn("end", error)
        return False
    return True


def tracer_of(provider: TracerProvider, *args: Any, **kwargs: Any) -> Tracer | None:
    """Return the provider's tracer; None where it raised, which is logged."""
    try:
        return provider.get_tracer(*args, **kwargs)
    except Exception as error:
        refused(provider, error)
        return None


def refused(provider: object, error: Exception) -> None:
    """Log once that the user's provider has no place for spans of ours; nothing is raised."""
    with suppress(Exception):
        warn_once(
            "provider raised",
            "your TracerProvider (%s) raised when it was asked for a tracer or given a processor (%s: %s):"
            " exchanges are stored all the same, in traces of their own",
            type(provider).__name__,
            type(error).__name__,
            error,
        )


class GuardedProvider(TracerProvider):
    """A provider whose spans raise nothing into the code that they are around; None is the global one."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """Return the provider's tracer, guarded."""
        tracer = tracer_of(self._provider or trace.get_tracer_provider(), *args, **kwargs)
        return trace.NoOpTracer() if tracer is None else _GuardedTracer(tracer)


class _GuardedTracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        try:
            return self._tracer.start_span(*args, **kwargs)
        except Exception as error:
            warn("start", error)
            return trace.INVALID_SPAN

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        *args: Any,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
        **kwargs: Any,
    ) -> Iterator[Span]:
        span = self.start_span(*args, **kwargs)
        try:
            if span is trace.INVALID_SPAN:  # what was current stays so
                yield span
                return
            with trace.use_span(
                span,
                end_on_exit=False,
                record_exception=record_exception,
                set_status_on_exception=set_status_on_exception,
            ):
                yield span
        finally:
            if end_on_exit:
                end(span)
