"""Tracers for a process that has no provider: its libraries' spans are kept, until it sets one itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.util._decorator import _agnosticcontextmanager

from . import current, providers, root


class RootedTracer(trace.Tracer):
    """A library's tracer, whose spans are children of the process's root where they have no other parent."""

    def __init__(self, name: str, version: str | None, schema_url: str | None, attributes: Any) -> None:
        self._real = providers.stand_in().get_tracer(name, version, schema_url, attributes)

    def start_span(self, name: str, context: Any = None, *args: Any, **kwargs: Any) -> trace.Span:
        """Start a span in the trace of the process."""
        return self._real.start_span(name, _rooted(context), *args, **kwargs)

    @_agnosticcontextmanager
    def start_as_current_span(
        self, name: str, context: Any = None, *args: Any, **kwargs: Any
    ) -> Iterator[trace.Span]:
        """Start a span that is the current one inside the block."""
        with self._real.start_as_current_span(name, _rooted(context), *args, **kwargs) as span:
            yield span


def _rooted(context: Any) -> Any:
    """Return the context, that of the process's root where it has no span."""
    session = current.session
    if session is None or trace.get_current_span(context).get_span_context().is_valid:
        return context
    return root.context(session)


def instead(before: property) -> property:
    """Return a property for a proxy's tracer: the application's or, while it has none, a `RootedTracer`."""
    rooted: dict[tuple[str, str | None], RootedTracer] = {}

    def tracer(proxy: Any) -> trace.Tracer:
        given = before.__get__(proxy)
        session = current.session
        if not isinstance(given, trace.NoOpTracer) or session is None or not session.settings.provider:
            return given
        key = (proxy._instrumenting_module_name, proxy._instrumenting_library_version)
        if key not in rooted:
            rooted[key] = RootedTracer(*key, proxy._schema_url, proxy._attributes)
        return rooted[key]

    return property(tracer)
