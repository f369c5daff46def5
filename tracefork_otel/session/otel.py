"""Changes to OpenTelemetry's API: late providers are adopted, and a replay is every span's parent."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import opentelemetry.context as context_api
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from .. import private_names as names
from ..log import LOG
from ..undo import Undo
from . import current, providers, spans, stand_in
from .session import Session


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
    if session is not None and session.remote is not None and session.settings.mode in ("replay", "fork"):
        _default_context(session, undo)
    providers.provider()


def _default_context(session: Session, undo: Undo) -> None:
    """Make threads and tasks that attached nothing children of the replay, by OTel's default context."""
    runtime = getattr(context_api, names.RUNTIME_CONTEXT, None)
    context = spans.remote_parent(session).context
    if not isinstance(runtime, ContextVarsRuntimeContext) or not hasattr(runtime, names.CURRENT_CONTEXT):
        context_api.attach(context)
        LOG.warning(
            "tracefork: the runtime context is %s, so only the main thread's spans join the replay's trace",
            type(runtime).__name__,
        )
        return
    present = runtime.get_current()
    variable = ContextVar("current_context", default=context)
    if present:
        variable.set(present)
    undo.replace(runtime, names.CURRENT_CONTEXT, variable)
