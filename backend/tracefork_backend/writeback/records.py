"""What the records of written-back spans are made of."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tracefork_otel.exchange import Exchange
from tracefork_otel.recording.process import process_started
from tracefork_otel.store.records import ProcessStarted

from .names import SERVICE

_NOTE_US = 1
"""A longer note would take the critical path and the self time away from the model call that it stands on."""

Status: TypeAlias = Literal["UNSET", "OK", "ERROR"]
LinkKind: TypeAlias = Literal["parent", "forked_from", "fork"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRef:
    """A span that others link to."""

    trace_id: str
    span_id: str


def link(trace_id: str, span_id: str, kind: LinkKind) -> dict[str, object]:
    """A link as the store keeps it, saying what it leads to."""
    return {"trace_id": trace_id, "span_id": span_id, "attributes": {"tracefork.link": kind}}


def end_of(exchange: Exchange) -> tuple[int, int]:
    """The last whole microsecond of the exchange, as a backend counts that keeps start and length in µs."""
    ended_ns = exchange.ended_ns if exchange.ended_ns is not None else exchange.started_ns
    length_us = (ended_ns - exchange.started_ns) // 1000
    end = exchange.started_ns + max(0, length_us) * 1000
    return max(exchange.started_ns, end - _NOTE_US * 1000), max(exchange.started_ns, end)


def present(attributes: Mapping[str, object]) -> dict[str, object]:
    """The attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}


def new_id(size: int) -> str:
    """Random hex digits, not all of them 0: that is no id."""
    while True:
        digits = secrets.token_hex(size)
        if digits.strip("0"):
            return digits


def process() -> ProcessStarted:
    """How the backend describes itself at the head of its WAL."""
    # Without argv: the director's command line may carry texts and values that the user means for the agent.
    return process_started(mode="off", via="backend", service=SERVICE)
