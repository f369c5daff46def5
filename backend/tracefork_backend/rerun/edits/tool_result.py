"""Another result of a tool: of a `@tool` function, or in the request that carries it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.decorators.values import exact
from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.wire.dumps import dumps

from ...flag import Flag, json_or_text, text_value
from ...spelling import short
from .edit import Edit, Given

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape
    from tracefork_otel.wire.writing import ToolResult as Carried


@dataclass(frozen=True, slots=True)
class ToolResult(Edit):
    """The tool's next call after the step's answer gives this value.

    A function under `@tracefork_otel.tool` gets it in place of its own result, whoever called it. Of any
    other tool the result is changed in the later request that carries it, which is the forked step then.
    """

    kind: ClassVar[Kind] = "tool_result"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("tool_result", "The tool that the answer calls gives this.", "NAME=VALUE"),
    )
    answers: ClassVar[bool] = False

    tool: str
    value: object
    text: str
    """The value for a tool that gave a text."""

    @classmethod
    def giving(cls, name: str, value: object, *, text: str | None = None) -> ToolResult:
        """Return the edit; a tool that gave a text is given one: `text`, or else the value as JSON."""
        if not name:
            raise UsageError("a tool result needs the tool's name")
        spelled = exact(value)
        if spelled is None:
            raise UsageError(f"the result of {name} is no JSON value: {value!r}; give it as text")
        said = value if isinstance(value, str) else spelled
        return cls(name, value, said if text is None else text)

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit of NAME=VALUE, whose value is JSON where it is JSON, else the text itself."""
        name, equals, result = value.partition("=")
        if not (equals and name.strip()):
            raise UsageError(
                f"--tool-result {value!r} is not NAME=VALUE: write it like 'check_seats={{\"seats\": 0}}'"
            )
        text = text_value(result, "--tool-result")
        return cls.giving(name.strip(), json_or_text(text), text=text)

    @property
    def label(self) -> str:
        """The kind and the tool."""
        return f"{self.kind} {self.tool}"

    @property
    def variant(self) -> str:
        """The label and the value."""
        return f"{self.label} {short(self.text)}"

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the result for the function's next call, or the edits of the request that carries it."""
        from tracefork_otel.wire.json_edits import apply_edits

        at = _own_call(tape, step, self.tool)
        if at is not None:
            return self.at(step, tool=self.tool, result=self._result(tape, at), call=at)
        carried = _carried(tape, step, self.tool)
        if carried is None:
            raise UsageError(_why_not(tape, step, self.tool))
        later, found = carried
        changes = ((found.path, found.saying(self.value, self.text)), *found.undone)
        apply_edits(tape.exchanges[later].request.body, changes)
        return self.at(later, tool=self.tool, edits=changes)

    def _result(self, tape: Tape, at: int) -> str:
        """Return the value as the function's caller gets it: a text where the recorded result is one."""
        call = tape.tools[at]
        was_text = call.form == "value" and call.result.startswith('"')
        return dumps(self.text if was_text else self.value)


def _own_call(tape: Tape, step: int, name: str) -> int | None:
    """Return the first recorded call of that `@tool` function that follows from the step's answer."""
    from ..evidence import step_before

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
    """Return the tools that the step's answer calls, in their order."""
    from tracefork_otel.wire.facts import facts_of

    facts = facts_of(tape.exchanges[step])
    return tuple(one.name or "" for one in facts.reply if one.kind == "tool_use") if facts else ()


def _carried(tape: Tape, step: int, name: str) -> tuple[int, Carried] | None:
    """Return the first later request that carries results of the step's calls, that tool's among them."""
    from tracefork_otel.wire.facts import recorded_body

    response = tape.exchanges[step].response
    body = None if response is None else recorded_body(response)
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


def _answers(tape: Tape, step: int, body: bytes) -> Iterator[Carried]:
    """Yield the results in the step's request that answer calls of this response, known by their ids."""
    from tracefork_otel.wire.replies import tool_results

    for one in tool_results(tape.exchanges[step].request):
        if one.call_id is not None and one.call_id.encode() in body:
            yield one


def _why_not(tape: Tape, step: int, name: str) -> str:
    """Say why there is no result of that tool to change at the step, and where there are some."""
    from ..evidence import step_before

    asked = dict.fromkeys(_asked(tape, step))
    asked |= dict.fromkeys(call.name for call in tape.tools if step_before(tape, call) == step)
    if name in asked:
        return f"its answer calls {name}, but no later request of the run carries the result"
    there = f"it calls {', '.join(asked)}" if asked else "it calls no tool"
    steps = [at for at in range(tape.steps) if name in _asked(tape, at)]
    steps += [step_before(tape, call) for call in tape.tools if call.name == name]
    where = ", ".join(map(str, sorted(set(steps))))
    return f"its answer does not call {name}; {there}" + (f"; {name} is called at {where}" if where else "")
