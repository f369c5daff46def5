"""Whether who calls is somebody's telemetry: its requests are no part of what an agent does."""

from __future__ import annotations

from types import FrameType

_EXPORTERS = (
    "opentelemetry.exporter.",
    "opentelemetry.sdk._logs._internal.export",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
    "opentelemetry.sdk.trace.export",
)
"""Modules that send what OpenTelemetry collected, or call what does."""
_SENDERS = (
    "ddtrace.internal.remoteconfig",
    "ddtrace.internal.telemetry",
    "ddtrace.internal.writer",
    "langsmith._internal._background_thread",
    "logfire._internal.config",  # asks whose token it was given
    "posthog.consumer",
    "posthog.request",
    "sentry_sdk.transport",
    "sentry_sdk.worker",
)
"""Those of others that do so: not the modules with which they wrap a model's client."""


def sender_above(frame: FrameType | None) -> str | None:
    """Return the package whose telemetry is being sent at this frame, or None."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_EXPORTERS):
            return "opentelemetry"
        if module.startswith(_SENDERS):
            return module.partition(".")[0]
        frame = frame.f_back
    return None
