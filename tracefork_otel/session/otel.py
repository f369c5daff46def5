"""Changes to OpenTelemetry's API: late providers are adopted, and one stands in where there is none."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from .. import private_names as names
from ..undo import Undo
from . import current, providers, stand_in


def patch(trace: ModuleType, undo: Undo) -> None:
    """Adopt the provider that is set and the one that comes late; `trace` is `opentelemetry.trace`."""
    before = trace.set_tracer_provider

    @functools.wraps(before)
    def set_tracer_provider(tracer_provider: Any) -> None:
        before(tracer_provider)
        if current.session is not None:
            providers.provider()

    undo.replace(trace, "set_tracer_provider", set_tracer_provider)
    session = current.session
    if session is not None and session.settings.provider:
        theirs = getattr(trace.ProxyTracer, names.PROXY_TRACER)
        undo.replace(trace.ProxyTracer, names.PROXY_TRACER, stand_in.instead(theirs))
    providers.provider()
