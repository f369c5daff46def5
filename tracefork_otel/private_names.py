"""Every private name of another library that we rely on, in one place; a test fails when one moves."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.util._decorator import _agnosticcontextmanager as AGNOSTIC

SEND = "_send_single_request"
"""`Client` and `AsyncClient` of httpx2 and httpx: one request, one response, below redirects and auth."""
TRANSPORT_FOR_URL = "_transport_for_url"
"""The same classes: asked by `SEND` for the transport; a replay answers it with one that plays a tape."""
RUNTIME_CONTEXT = "_RUNTIME_CONTEXT"
"""`opentelemetry.context`: the object behind `attach` and `get_current`."""
CURRENT_CONTEXT = "_current_context"
"""`ContextVarsRuntimeContext`: its ContextVar, exchanged for one whose default is the parent of a replay."""
GLOBAL_PROVIDER = "_TRACER_PROVIDER"
"""`opentelemetry.trace`: the provider that was set, read without loading the one the environment names."""

PROXY_TRACER = "_tracer"
"""`opentelemetry.trace.ProxyTracer`: the tracer behind it, which does nothing until a provider is set."""


class Private(NamedTuple):
    """Where a private name is looked for."""

    module: str
    owner: str | None
    """A class of the module, or None for the module itself."""
    name: str
    on_instance: bool = False
    """True if only instances have it."""


PRIVATE_NAMES: tuple[Private, ...] = (
    Private("httpx2", "Client", SEND),
    Private("httpx2", "AsyncClient", SEND),
    Private("httpx", "Client", SEND),
    Private("httpx", "AsyncClient", SEND),
    Private("httpx2", "Client", TRANSPORT_FOR_URL),
    Private("httpx2", "AsyncClient", TRANSPORT_FOR_URL),
    Private("httpx", "Client", TRANSPORT_FOR_URL),
    Private("httpx", "AsyncClient", TRANSPORT_FOR_URL),
    Private("opentelemetry.context", None, "_SUPPRESS_INSTRUMENTATION_KEY"),
    Private("opentelemetry.context", None, RUNTIME_CONTEXT),
    Private("opentelemetry.context.contextvars_context", "ContextVarsRuntimeContext", CURRENT_CONTEXT, True),
    Private("opentelemetry.trace", None, GLOBAL_PROVIDER),
    Private("opentelemetry.trace", "ProxyTracer", PROXY_TRACER),
    Private("opentelemetry.util._decorator", None, "_agnosticcontextmanager"),
)

__all__ = [
    "AGNOSTIC",
    "CURRENT_CONTEXT",
    "GLOBAL_PROVIDER",
    "PRIVATE_NAMES",
    "PROXY_TRACER",
    "RUNTIME_CONTEXT",
    "SEND",
    "SUPPRESS",
    "TRANSPORT_FOR_URL",
    "Private",
]
