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
    """Stores the spans that it is given; one that the processor stored already is not stored again."""

    def __init__(self, store: str | Path | None = None) -> None:
        """Spans go to the store that this process records into, else to the given or the environment's."""
        open_session("exporter", store=store)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """The spans are in the WAL, or their loss is counted and logged."""
        session = current.session
        if session is None:
            return SpanExportResult.FAILURE
        for span in spans:
            store_span(session, span)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held back, so nothing is left to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Everything is in the WAL already."""
        return True
