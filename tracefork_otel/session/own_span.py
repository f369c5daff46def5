"""A span of ours while it is open, and what it is a child of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext


class Parent(NamedTuple):
    """What a new span is a child of."""

    context: Context
    span: SpanContext | None


@dataclass(slots=True)
class OwnSpan:
    """A span of ours; `sdk` is None where no provider records it."""

    name: str
    context: SpanContext
    parent_id: int | None
    sdk: Span | None
    started_ns: int
    attributes: dict[str, Any]
    ended: bool = False

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return f"{self.context.span_id:016x}"

    @property
    def parent_span_id(self) -> str | None:
        """16 hex digits, or None for a root."""
        return None if self.parent_id is None else f"{self.parent_id:016x}"
