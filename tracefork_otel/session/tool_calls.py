"""Which tool call the code that runs here belongs to, and how many requests each call makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import context as otel_context

_KEY = otel_context.create_key("tracefork-tool-call")
"""In OTel's own context, which reaches whatever threads and tasks spans reach."""


@dataclass(slots=True)
class Inside:
    """One call of a tool that goes on."""

    span_id: str
    outer: Inside | None
    exchanges: int = 0


def current() -> Inside | None:
    """Return the innermost tool call that the code here belongs to, or None."""
    found = otel_context.get_value(_KEY)
    return found if isinstance(found, Inside) else None


def enter(span_id: str) -> tuple[Inside, Callable[[], None]]:
    """Begin a tool call here, which goes on until the returned function is called."""
    here = Inside(span_id, current())
    token = otel_context.attach(otel_context.set_value(_KEY, here))
    return here, lambda: otel_context.detach(token)


def count() -> None:
    """Count one more request for every tool call that the code here belongs to."""
    here = current()
    while here is not None:
        here.exchanges += 1
        here = here.outer
