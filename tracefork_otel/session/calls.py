"""Which spans of others are one call each: below it ours adds no usage, and alone it begins no run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from weakref import WeakValueDictionary

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from ..undo import Undo

if TYPE_CHECKING:
    from .own_span import Parent
    from .session import Session

Begins: TypeAlias = Literal["call", "entry", "work"]
"""What a trace begins with: one call, what came from outside and is a run by itself, or any other span."""

_TELLING: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    (
        "gen_ai.operation.name",
        frozenset({"chat", "text_completion", "generate_content", "embeddings"}),
        frozenset({"invoke_agent", "create_agent", "invoke_workflow"}),
    ),
    (
        "openinference.span.kind",
        frozenset({"LLM", "EMBEDDING", "RERANKER"}),
        frozenset({"AGENT", "CHAIN", "TOOL", "RETRIEVER", "GUARDRAIL", "EVALUATOR"}),
    ),
    (
        "langfuse.observation.type",
        frozenset({"generation", "embedding"}),
        frozenset({"agent", "chain", "span"}),
    ),
    ("traceloop.span.kind", frozenset[str](), frozenset({"workflow", "agent", "task", "tool"})),
)
"""By attribute of a convention (OpenTelemetry's, OpenInference's, Langfuse's, Traceloop's), its values for a
call of a model, and for what holds such calls."""
_ASKED = ("gen_ai.request.model", "llm.request.type")
"""Attributes that a call's span alone has, where none of the above is told."""
_MESSAGES = (
    "gen_ai.input.messages",
    "gen_ai.prompt",
    "llm.input_messages",
    "input.value",
    "request_data",
    "langfuse.observation.input",
)
_ENTRIES = ("tracefork.entrypoint", "tracefork.request", "tracefork.task")
"""Attributes of spans of ours that are a run by themselves: an agent's call, a request, a worker's task."""
_HTTP = ("http.request.method", "http.method")
_DEPTH = 4
"""Spans of HTTP clients between a call's span and ours: the stock instrumentation's, a vendor's."""

_begun: WeakValueDictionary[int, ReadableSpan] = WeakValueDictionary()
"""Spans of adopted providers by their id, as long as somebody holds them."""
_dropped: dict[Begins, WeakValueDictionary[int, trace.Span]] = {
    what: WeakValueDictionary() for what in get_args(Begins)
}
"""Spans that begin a trace and that a sampler dropped, by their traces, as long as somebody holds them."""
_REMEMBERED = 8192
_entered: dict[int, None] = {}
"""Traces that came to this process from another one, the latest of them."""


def patch(sdk: ModuleType, undo: Undo) -> None:
    """Have traces that come from other processes be known, and of each that begins here what it begins with.

    Spans that a sampler drops say nothing of themselves later.
    """
    theirs = sdk.Tracer.start_span

    @functools.wraps(theirs)
    def start_span(
        tracer: Any,
        name: str,
        context: Any = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        *more: Any,
        **named: Any,
    ) -> Any:
        span = theirs(tracer, name, context, kind, attributes, *more, **named)
        above = trace.get_current_span(context)
        if above.get_span_context().is_remote:
            _enters(span.get_span_context().trace_id)
        elif not span.is_recording() and above is trace.INVALID_SPAN:
            _dropped[_begins(attributes or {}, kind)][span.get_span_context().trace_id] = span
        return span

    undo.replace(sdk.Tracer, "start_span", start_span)


def _enters(trace_id: int) -> None:
    while len(_entered) >= _REMEMBERED:
        _entered.pop(next(iter(_entered)), None)
    _entered[trace_id] = None


def is_call(span: ReadableSpan) -> bool:
    """Return whether the span tells of one call of a model, or of anything else outside of the process."""
    return _is_call(_attributes(span), getattr(span, "kind", None))


def began(span: ReadableSpan) -> None:
    """Keep the span, so that what happens below one of its children finds it."""
    context = span.get_span_context()
    if context is not None:
        _begun[context.span_id] = span


def span_of_call(current: trace.Span) -> Any:
    """Return the current span, those of HTTP clients aside, if it is that of a call of a model, else None.

    Backends add up the tokens of all such spans: of one call there must be one.
    """
    span: Any = current
    for _ in range(_DEPTH):
        attributes = _attributes(span)
        if _of_a_model(attributes):
            return span
        above = getattr(span, "parent", None)
        if above is None or not any(name in attributes for name in _HTTP):
            return None
        span = _begun.get(above.span_id)
    return None


def tells_messages(span: Any) -> bool:
    """Return whether the span has what the model was asked, by whatever convention."""
    return any(name.startswith(_MESSAGES) for name in _attributes(span))


def begins(session: Session, parent: Parent) -> Begins | None:
    """Return what the parent's trace begins with; None where that is in another process, or not known."""
    if parent.span is None:
        return None
    trace_id = parent.span.trace_id
    for what, spans in _dropped.items():
        if trace_id in spans:
            return what
    root = session.roots.get(trace_id)
    if root is None:  # of a provider that was not adopted only the parent itself is known
        root = trace.get_current_span(parent.context)
    if not isinstance(root, ReadableSpan) or getattr(root, "parent", root) is not None:
        # Whose root nobody has seen: a vendor makes ids up, and tells of their spans when all is over.
        return None if parent.span.is_remote or trace_id in _entered else "work"
    return _begins(_attributes(root), getattr(root, "kind", None))


def _attributes(span: Any) -> Mapping[str, Any]:
    # Logfire's spans are ReadableSpans by their class, and have no attributes where they do not record.
    return getattr(span, "attributes", None) or {}


def _begins(attributes: Mapping[str, Any], kind: SpanKind | None) -> Begins:
    if _is_call(attributes, kind):
        return "call"
    entry = kind in (SpanKind.SERVER, SpanKind.CONSUMER) or any(name in attributes for name in _ENTRIES)
    return "entry" if entry else "work"


def _is_call(attributes: Mapping[str, Any], kind: SpanKind | None) -> bool:
    told = _of_a_model(attributes)
    return kind is SpanKind.CLIENT if told is None else told


def _of_a_model(attributes: Mapping[str, Any]) -> bool | None:
    """Return whether a span of these attributes is one call of a model; None where they do not tell."""
    if not attributes:
        return None
    for name, calls, others in _TELLING:
        told = attributes.get(name)
        if told in calls:
            return True
        if told in others:
            return False
    return True if any(name in attributes for name in _ASKED) else None
