"""Whether who calls is somebody's telemetry: its requests are no part of what an agent does."""

from __future__ import annotations

from functools import lru_cache
from types import FrameType
from typing import NamedTuple

_EXPORTERS = (
    "opentelemetry.exporter.",
    "opentelemetry.sdk._logs._internal.export",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
    "opentelemetry.sdk.trace.export",
)
"""Modules that send what OpenTelemetry collected, or call what does."""
_SENDERS = (
    "agentops.client.api",
    "agentops.client.http",
    "agentops.helpers.version",
    "agents.tracing.processors",
    "azure.monitor.opentelemetry.exporter",
    "datadog.dogstatsd",
    "ddtrace.internal.datastreams",
    "ddtrace.internal.remoteconfig",
    "ddtrace.internal.telemetry",
    "ddtrace.internal.writer",
    "ddtrace.vendor.dogstatsd",
    "helicone_helpers.manual_logger",
    "langfuse._task_manager",
    "langsmith._internal._background_thread",
    "mlflow.telemetry.client",
    "mlflow.telemetry.utils",
    "mlflow.tracing.export",
    "newrelic.common.agent_http",
    "newrelic.core.agent_streaming",
    "opik.analytics",
    "opik.file_upload",
    "opik.healthcheck",
    "opik.message_processing",
    "posthog.consumer",
    "sentry_sdk.transport",
    "sentry_sdk.worker",
    "statsd.client.udp",
    "traceloop.sdk.images.image_uploader",
    "weave.utils.pypi_version_check",
)
"""Those of others that do so: not the modules with which they wrap a model's client, nor those that ask for
what an agent goes on with, such as a prompt.
"""
_FUNCTIONS = {
    "braintrust.logger": ("_HTTPBackgroundLogger.",),
    "ddtrace.llmobs._writer": ("BaseLLMObsWriter.",),
    "langsmith.client": (
        "Client.batch_ingest_runs",
        "Client.create_feedback",
        "Client.create_run",
        "Client.multipart_ingest",
        "Client.update_run",
    ),
    "posthog.request": ("batch_post",),
    "weave.trace_server_bindings.remote_http_trace_server": tuple(
        f"RemoteHTTPTraceServer.{name}"
        for name in (
            *("_flush_", "_send_", "_upsert_", "call_end", "call_start", "calls_complete", "otel_export"),
            *("file_create", "obj_create", "table_create", "feedback_create"),
        )
    ),
}
"""The same, of modules that ask as well: how the names of what tells begin."""
_CALLED = {"agents": "openai-agents", "azure": "azure-monitor-opentelemetry"}
"""What people call a package of another name."""
_ASKERS = ("logfire._internal.config", "posthog.request")
"""Modules that ask their makers what a process goes on with: whose token it has, which features are on."""
_ASKING = {
    "braintrust.logger": (
        "BraintrustState._start_request",  # where a thread of its own logs in and looks its project up
        "_compute_logger_metadata",
        "_login_with_api_key",
        "login_to_state",
    ),
}
"""The same, of modules that do other things as well: how the names of what asks begin."""
_MAKING = {
    "braintrust.logger": ("init.<locals>.compute_metadata", "init_dataset.<locals>.compute_metadata"),
}
"""What makes a thing at its maker's, by whose id the agent goes on: its own, even where a sender is who asks
for that id first. Asked anew, each replay would make another thing.
"""


class Sender(NamedTuple):
    """Whose telemetry it is."""

    package: str
    asks: bool = False
    """Whether what it hears is of use to the process, rather than to its makers what it says."""


def sender_above(frame: FrameType | None) -> Sender | None:
    """Return whose telemetry is being sent at this frame, or None."""
    asks: Sender | None = None  # unless what tells is what called it
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module in _MAKING and frame.f_code.co_qualname.startswith(_MAKING[module]):
            return asks
        for one in _senders(module) if isinstance(module, str) else ():
            if one.functions is None or frame.f_code.co_qualname.startswith(one.functions):
                if not one.sender.asks:
                    return one.sender
                asks = one.sender
        frame = frame.f_back
    return asks


class _Module(NamedTuple):
    """A module that sends, by all of its functions or by some."""

    sender: Sender
    functions: tuple[str, ...] | None = None


@lru_cache(maxsize=4096)  # stacks of agents are deep, and each of their calls asks
def _senders(module: str) -> tuple[_Module, ...]:
    if module.startswith(_EXPORTERS):
        return (_Module(Sender("opentelemetry")),)
    package = module.partition(".")[0]
    package = _CALLED.get(package, package)
    found = list[_Module]()
    if module.startswith(_SENDERS):
        found.append(_Module(Sender(package)))
    if module in _FUNCTIONS:
        found.append(_Module(Sender(package), _FUNCTIONS[module]))
    if module.startswith(_ASKERS):
        found.append(_Module(Sender(package, asks=True)))
    if module in _ASKING:
        found.append(_Module(Sender(package, asks=True), _ASKING[module]))
    return tuple(found)
