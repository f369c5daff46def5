"""What a recorded exchange says of its part in a fork."""

from __future__ import annotations

from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.match import Explanation
from tracefork_otel.store.records import SpanRecord

from .receipt import DriftReport

DRIFT = "tracefork_otel.Drift"
"""The error type of a request that was refused here."""


def phase_of(exchange: Exchange | SpanRecord) -> Any:
    """Its phase, as the seam wrote it; None if it never ended."""
    return exchange.attributes.get("tracefork.phase")


def went_live(exchange: Exchange) -> bool:
    """Whether it went over the network."""
    return not exchange.replayed and exchange.error_type != DRIFT


def report_of(exchange: Exchange | SpanRecord) -> DriftReport:
    """How a request, or a call of a tool, that was refused differs from its tape."""
    one = Explanation.from_json(str(exchange.attributes["tracefork.drift"]))
    return DriftReport(
        step=one.step,
        cause=one.cause,
        text=one.text(),
        path=one.path,
        recorded=one.recorded,
        got=one.got,
        nearest=one.nearest,
        differences=one.differences,
    )
