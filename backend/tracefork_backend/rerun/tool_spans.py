"""Calls of local tools as spans: read from a run's spans onto its tape, and written as spans again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tracefork_otel.store.records import SpanRecord
from tracefork_otel.tape.reads import ToolCall, ToolForm
from tracefork_otel.wire.dumps import dumps

TOOL = "execute_tool "
"""What the names of a tool's spans begin with, by the semantic conventions; frameworks' spans too."""
SCOPE = "tracefork_otel"
_FORM = "tracefork.tool.form"
_STRING = "string"
"""The form of a text that stands on its span as it is; on the tape it is JSON like any other value."""


def tool_spans(spans: Iterable[SpanRecord], *, ours: bool) -> Iterator[tuple[str, SpanRecord]]:
    """Yield name and span of each call of a tool that ended: of `@tool` functions, or of all other tools."""
    for span in spans:
        if span.name.startswith(TOOL) and (span.scope == SCOPE) is ours and span.ended_ns is not None:
            yield span.name.removeprefix(TOOL), span


def calls_of(spans: Iterable[SpanRecord]) -> tuple[ToolCall, ...]:
    """Return the calls of tools of ours that came to an end, in order of their start."""
    found: dict[str, ToolCall] = {}
    for span in spans:
        if span.ended_ns is not None and _FORM in span.attributes:
            found.setdefault(span.span_id, _call_of(span, span.ended_ns))
    return tuple(sorted(found.values(), key=lambda call: (call.started_ns, call.span_id)))


def _call_of(span: SpanRecord, ended_ns: int) -> ToolCall:
    attributes: Any = span.attributes
    written = attributes[_FORM]
    form: ToolForm = "value" if written == _STRING else written
    result = attributes["tracefork.tool.error" if form == "error" else "gen_ai.tool.call.result"]
    arguments = attributes["gen_ai.tool.call.arguments"]
    # A redaction rule that cannot be read replaces a text whole.
    if form == "value" and written != _STRING and not _is_json(result):
        form = "text"
    return ToolCall(
        name=attributes["gen_ai.tool.name"],
        arguments=arguments if _is_json(arguments) else dumps({"arguments": arguments}),
        by_text=tuple(attributes.get("tracefork.tool.by_text", ())),
        form=form,
        result=dumps(result) if written == _STRING else result,
        exchanges=attributes.get("tracefork.tool.exchanges", 0),
        inside=attributes.get("tracefork.tool.inside"),
        span_id=span.span_id,
        process_id=span.process_id,
        started_ns=span.started_ns,
        ended_ns=ended_ns,
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def span_of(call: ToolCall, run_id: str, parent_span_id: str | None, service: str) -> SpanRecord:
    """Return the span of which `calls_of` makes this call again."""
    attributes: dict[str, object] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.arguments": call.arguments,
        _FORM: call.form,
    }
    message = None
    if call.form == "error":
        error = json.loads(call.result)
        attributes["tracefork.tool.error"] = call.result
        attributes["error.type"] = f"{error['module']}.{error['name']}"
        message = f"{error['name']}: {error['message']}"
    else:
        value = json.loads(call.result) if call.form == "value" else None
        text = isinstance(value, str) and dumps(value) == json.dumps(value, ensure_ascii=False)
        attributes["gen_ai.tool.call.result"] = value if text else call.result
        attributes[_FORM] = _STRING if text else call.form
    rest = {"by_text": list(call.by_text), "exchanges": call.exchanges, "inside": call.inside}
    attributes |= {f"tracefork.tool.{name}": value for name, value in rest.items() if value}
    return SpanRecord(
        trace_id=run_id,
        span_id=call.span_id,
        parent_span_id=parent_span_id,
        name=f"{TOOL}{call.name}",
        kind="INTERNAL",
        started_ns=call.started_ns,
        ended_ns=call.ended_ns,
        status="UNSET" if message is None else "ERROR",
        status_message=message,
        service=service,
        scope=SCOPE,
        attributes=attributes,
    )
