"""The store behind OTel's standard exporter interface, for pipelines of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from . import current
from .opening import open_session
from .processor import store_span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class TraceforkSpanExporter(SpanExporter):
    """A span exporter that writes into the store; a span that the processor stored already is left out.

    >>> provider.add_span_processor(BatchSpanProcessor(TraceforkSpanExporter(store="runs")))
    """

    def __init__(self, store: str | Path | None = None) -> None:
        """Use the store that this process records into already, else the given or the environment's."""
        open_session("exporter", store=store)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans into the WAL; a loss is counted and logged."""
        session = current.session
        if session is None:
            return SpanExportResult.FAILURE
        for span in spans:
            store_span(session, span)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: no span is held back."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True at once: every span is in the WAL already."""
        return True
