"""The calls of a run's local tools: from its spans onto its tape, and what a replay made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from tracefork_otel.errors import UsageError
from tracefork_otel.play.tools import TOOLS_MODES, Why
from tracefork_otel.store.records import SpanRecord, ToolCall, ToolForm
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.dumps import dumps

TOOL = "execute_tool "
"""What the names of a tool's spans begin with, by the semantic conventions; frameworks' spans too."""
_FORM = "tracefork.tool.form"
_STRING = "string"
"""The form of a text that stands on its span as it is; on the tape it is JSON like any other value."""
_RECORDED = "tracefork.tool.recorded_span_id"
_LISTED = 3

_RAN: dict[Why, str] = {
    "live": "ran for real",
    "text": "ran for real, as no JSON of its result is recorded",
    "exchanges": "ran, as its requests are on the tape",
    "change": "ran, as a call of its own is changed",
    "tail": "ran for real, as it is not recorded",
}


def check_tools(asked: object) -> None:
    """Raises UsageError if this is no way to answer calls of tools."""
    if asked is not None and asked not in TOOLS_MODES:
        raise UsageError(f"tools={asked!r}: use {', '.join(TOOLS_MODES[:-1])} or {TOOLS_MODES[-1]}")


def calls_of(spans: Iterable[SpanRecord]) -> tuple[ToolCall, ...]:
    """The calls of tools of ours that came to an end, in order of their start."""
    found: dict[str, ToolCall] = {}
    for span in spans:
        if span.ended_ns is not None and _FORM in span.attributes:
            found.setdefault(span.span_id, _call_of(span, span.attributes, span.ended_ns))
    return tuple(sorted(found.values(), key=lambda call: (call.started_ns, call.span_id)))


def _call_of(span: SpanRecord, attributes: Mapping[str, Any], ended_ns: int) -> ToolCall:
    written = attributes[_FORM]
    form: ToolForm = "value" if written == _STRING else written
    if form == "error":
        result = attributes["tracefork.tool.error"]
    else:
        result = attributes["gen_ai.tool.call.result"]
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


def step_before(tape: Tape, call: ToolCall) -> int:
    """The last step that had begun when the call did, 0 if none had."""
    return max(0, sum(one.started_ns <= call.started_ns for one in tape.exchanges) - 1)


def span_of(call: ToolCall, run_id: str, parent_span_id: str | None, service: str) -> SpanRecord:
    """The span of which `calls_of` makes this call again."""
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
    for name, value in (
        ("by_text", list(call.by_text)),
        ("exchanges", call.exchanges),
        ("inside", call.inside),
    ):
        if value:
            attributes[f"tracefork.tool.{name}"] = value
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
        scope="tracefork_otel",
        attributes=attributes,
    )


def within(calls: Sequence[ToolCall], served: Iterable[str]) -> set[str]:
    """The span ids of the calls that these calls made, and those in turn."""
    known, found = set(served), set[str]()
    for call in calls:  # outer calls start before inner ones
        if call.inside in known:
            known.add(call.span_id)
            found.add(call.span_id)
    return found


def served(tape: Tape, spans: Sequence[SpanRecord]) -> tuple[ToolCall, ...]:
    """The recorded calls whose results were given, so that their functions did not run."""
    given = {
        span.attributes.get(_RECORDED) for span in _ours(spans) if span.attributes.get("tracefork.replayed")
    }
    return tuple(call for call in tape.tools if call.span_id in given)


def unasked(tape: Tape, spans: Sequence[SpanRecord]) -> tuple[ToolCall, ...]:
    """The recorded calls that the replay did not make, though the calls around them were made."""
    asked = {span.attributes.get(_RECORDED) for span in _ours(spans)}
    covered = asked | within(tape.tools, (call.span_id for call in served(tape, spans)))
    return tuple(call for call in tape.tools if call.span_id not in covered)


def _ours(spans: Sequence[SpanRecord]) -> Iterator[SpanRecord]:
    """The ended spans of tools of ours."""
    for span in spans:
        if span.name.startswith(TOOL) and span.scope == "tracefork_otel" and span.ended_ns is not None:
            yield span


def account(tape: Tape, spans: Sequence[SpanRecord]) -> str | None:
    """What became of the calls of tools in a replay or a fork, as one line; None if there were none."""
    served, replaced, loosely = 0, Counter[str](), Counter[str]()
    ran: dict[Why, Counter[str]] = {why: Counter() for why in get_args(Why)}
    refused = Counter[str]()
    called = 0
    for span in _ours(spans):
        name, attributes = span.name.removeprefix(TOOL), span.attributes
        called += 1
        why: Any = attributes.get("tracefork.tool.ran")
        if "tracefork.drift" in attributes:
            refused[name] += 1
        elif "tracefork.intervention" in attributes:
            replaced[name] += 1
        elif attributes.get("tracefork.replayed"):
            served += 1
        elif why in ran:
            ran[why][name] += 1
        if attributes.get("tracefork.tool.loosely"):
            loosely[name] += 1
    if not called and not tape.tools:
        return None
    parts = [f"{served} of {called} served from the tape"]
    parts += [f"replaced: {_named(replaced)}"] if replaced else []
    parts += [f"{_RAN[why]}: {_named(names)}" for why, names in ran.items() if names]
    parts += [f"refused: {_named(refused)}"] if refused else []
    parts += [f"told apart without arguments that are no JSON: {_named(loosely)}"] if loosely else []
    return "; ".join(parts)


def others(spans: Sequence[SpanRecord]) -> tuple[str, ...]:
    """The tools of frameworks, whose own code ran, in one sentence; nothing where none did."""
    ran = Counter(
        span.name.removeprefix(TOOL)
        for span in spans
        if span.name.startswith(TOOL) and span.scope != "tracefork_otel" and span.ended_ns is not None
    )
    return (f"tools ran for real: {_named(ran)}",) if ran else ()


def _named(names: Counter[str]) -> str:
    listed = [f"{name} ({n} times)" if n > 1 else name for name, n in sorted(names.items())]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
