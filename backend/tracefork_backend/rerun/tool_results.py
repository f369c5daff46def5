"""Another result of a tool, bound to a tape: of a `@tool` function, or in the request that carries it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.wire import facts as providers
from tracefork_otel.wire.dumps import dumps
from tracefork_otel.wire.json_edits import apply_edits

from .evidence import step_before

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape
    from tracefork_otel.wire.writing import ToolResult

    from .edits import Edit


def bind(edit: Edit, tape: Tape, step: int) -> Intervention:
    """The intervention by which the tool's next call after this step's answer gives the edit's value.

    A function under `@tracefork_otel.tool` gets it in place of its own result, whoever called it. Of any
    other tool the result is changed in the later request that carries it, which is the forked step then.
    Raises UsageError where the tool is not called there.
    """
    name = str(edit.tool)
    at = _own_call(tape, step, name)
    if at is not None:
        return Intervention(
            kind="tool_result",
            step=step,
            label=edit.label,
            tool=name,
            result=_result(edit, tape, at),
            call=at,
        )
    carried = _carried(tape, step, name)
    if carried is None:
        raise UsageError(_why_not(tape, step, name))
    later, found = carried
    changes = ((found.path, found.saying(edit.value, str(edit.text))), *found.undone)
    apply_edits(tape.exchanges[later].request.body, changes)
    return Intervention(kind="tool_result", step=later, label=edit.label, tool=name, edits=changes)


def _result(edit: Edit, tape: Tape, at: int) -> str:
    """The value as the function's caller gets it: a text where the recorded result is one."""
    call = tape.tools[at]
    was_text = call.form == "value" and call.result.startswith('"')
    return dumps(edit.text) if was_text else dumps(edit.value)


def _own_call(tape: Tape, step: int, name: str) -> int | None:
    """The first recorded call of a `@tool` function of that name that follows from the step's answer."""
    exchange = tape.exchanges[step]
    later = [
        at
        for at, call in enumerate(tape.tools)
        if call.name == name and call.started_ns >= exchange.started_ns
    ]
    for at in later:
        if step_before(tape, tape.tools[at]) == step:
            return at
    # In an agent that does several things at once, another step may have begun meanwhile.
    if name not in _asked(tape, step) or exchange.ended_ns is None:
        return None
    return next((at for at in later if tape.tools[at].started_ns >= exchange.ended_ns), None)


def _asked(tape: Tape, step: int) -> tuple[str, ...]:
    """The tools that the step's answer calls, in their order."""
    facts = providers.facts_of(tape.exchanges[step])
    return tuple(one.name or "" for one in facts.reply if one.kind == "tool_use") if facts else ()


def _carried(tape: Tape, step: int, name: str) -> tuple[int, ToolResult] | None:
    """The first later request that carries results of the step's tool calls, and that tool's among them."""
    response = tape.exchanges[step].response
    body = None if response is None else providers.recorded_body(response)
    asked = _asked(tape, step)
    if body is None or name not in asked:
        return None
    for later in range(step + 1, tape.steps):
        found = list(_answers(tape, later, body))
        for one in found:
            # A request that only goes on with a stored conversation does not name what it answers.
            if (one.name or (asked[0] if len(set(asked)) == 1 else None)) == name:
                return later, one
    return None


def _answers(tape: Tape, step: int, body: bytes) -> Iterator[ToolResult]:
    """The results in the step's request that answer calls of this response, known by their ids."""
    for one in providers.tool_results(tape.exchanges[step].request):
        if one.call_id is not None and one.call_id.encode() in body:
            yield one


def _why_not(tape: Tape, step: int, name: str) -> str:
    """Why there is no result of that tool to change at the step, and where there are some."""
    asked = dict.fromkeys(_asked(tape, step))
    asked |= dict.fromkeys(call.name for call in tape.tools if step_before(tape, call) == step)
    if name in asked:
        return f"its answer calls {name}, but no later request of the run carries the result"
    there = f"it calls {', '.join(asked)}" if asked else "it calls no tool"
    steps = [at for at in range(tape.steps) if name in _asked(tape, at)]
    steps += [step_before(tape, call) for call in tape.tools if call.name == name]
    where = ", ".join(map(str, sorted(set(steps))))
    return f"its answer does not call {name}; {there}" + (f"; {name} is called at {where}" if where else "")
