"""Another result of a tool: of a `@tool` function, or in the request that carries it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.decorators.values import exact
from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.play.onward import SCOPES, Onward, Scope
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.dumps import dumps

from ...flag import Flag, json_or_text, text_value
from ...spelling import short
from .calls import calls_of, chosen, tool_of
from .edit import ONCE, Edit, Given, scoped
from .own_calls import own_call

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape
    from tracefork_otel.wire.writing import ToolResult as Carried


@dataclass(frozen=True, slots=True)
class ToolResult(Edit):
    """The tool's next call after the step's answer gives this value.

    A function under `@tracefork_otel.tool` gets it in place of its own result, whoever called it. Of any
    other tool the result is changed in the later request that carries it, which is the forked step then, and
    in each one after it that does, unless the scope is `once`.
    """

    kind: ClassVar[Kind] = "tool_result"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("tool_result", "The tool that the answer calls gives this.", "NAME[#2]=VALUE"),
        ONCE,
    )
    answers: ClassVar[bool] = False

    tool: str
    """Its name, `NAME#2` for the second call that the answer makes of it, or the call's id."""
    value: object
    text: str
    """The value for a tool that gave a text."""
    scope: Scope | None = None
    """How far it holds; None: onward."""

    @classmethod
    def giving(
        cls, name: str, value: object, *, text: str | None = None, scope: Scope | None = None
    ) -> ToolResult:
        """Return the edit; a tool that gave a text is given one: `text`, or else the value as JSON."""
        if scope not in (None, *SCOPES):
            raise UsageError(f"{scope!r} is no scope: use one of {', '.join(SCOPES)}")
        if not name:
            raise UsageError("a tool result needs the tool's name")
        spelled = exact(value)
        if spelled is None:
            raise UsageError(f"the result of {name} is no JSON value: {value!r}; give it as text")
        said = value if isinstance(value, str) else spelled
        return cls(name, value, said if text is None else text, scope)

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit of NAME=VALUE, whose value is JSON where it is JSON, else the text itself."""
        name, equals, result = value.partition("=")
        if not (equals and name.strip()):
            raise UsageError(
                f"--tool-result {value!r} is not NAME=VALUE: write it like 'check_seats={{\"seats\": 0}}'"
            )
        text = text_value(result, "--tool-result")
        return cls.giving(name.strip(), json_or_text(text), text=text, scope=scoped(given))

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
        from tracefork_otel.wire.rewriting import carried, saying

        at = own_call(tape, step, self.tool, flag=_FLAG)
        if at is not None:
            if self.scope == "once":
                raise UsageError(
                    f"{self.name} is under @tracefork_otel.tool: the agent itself gets the other result, and "
                    "keeps it, so that it cannot hold once: leave that out"
                )
            named = tape.tools[at].name  # an id names the call in the answer alone
            return self.at(step, tool=named, result=self._result(tape, at), call=at)
        found = _carried(tape, step, self.tool)
        if found is None:
            raise UsageError(_why_not(tape, step, self.tool))
        later, one, among, name = found
        changes = saying(one, self.value, self.text)
        apply_edits(plain_request(tape.exchanges[later].request), changes)
        scope: Scope = self.scope or "onward"
        onward = None
        if scope == "onward":
            onward = Onward(result=carried(one, among, name, self.value, self.text), label=self.label)
        return self.at(later, tool=name, edits=changes, scope=scope, onward=onward)

    @property
    def name(self) -> str:
        """The tool's name."""
        return tool_of(self.tool)

    def _result(self, tape: Tape, at: int) -> str:
        """Return the value as the function's caller gets it: a text where the recorded result is one."""
        call = tape.tools[at]
        was_text = call.form == "value" and call.result.startswith('"')
        return dumps(self.text if was_text else self.value)


@dataclass(frozen=True, slots=True)
class LastResult(Edit):
    """The last result that the step's request carries of a tool says this, wherever it is repeated."""

    kind: ClassVar[Kind] = "tool_result"
    flags: ClassVar[tuple[Flag, ...]] = ()
    answers: ClassVar[bool] = False

    text: str

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the edits of the request, and what holds in each later one that carries the same call."""
        from tracefork_otel.wire.replies import tool_results
        from tracefork_otel.wire.rewriting import carried, saying

        among = tool_results(tape.exchanges[step].request)
        if not among:
            raise UsageError("its request carries no result of a tool")
        last = among[-1]
        tool = last.name or _name_of(tape, step, last.call_id)
        label = f"{self.kind} {tool}".strip()
        result = carried(last, among, tool, self.text, self.text)
        return replace(
            self.at(step, tool=tool or None, edits=saying(last, self.text, self.text), scope="onward"),
            label=label,
            onward=Onward(result=result, label=label),
        )


def _name_of(tape: Tape, step: int, call_id: str | None) -> str:
    """Return the tool that an earlier answer called by that id; nothing where none did."""
    calls = (call for exchange in tape.exchanges[:step] for call in calls_of(exchange))
    return next((call.name for call in calls if call.call_id == call_id), "")


_FLAG = "--tool-result"


def _asked(tape: Tape, step: int) -> tuple[str, ...]:
    """Return the names of the tools that the step's answer calls, in their order."""
    return tuple(one.name for one in calls_of(tape.exchanges[step]))


def _carried(tape: Tape, step: int, wanted: str) -> tuple[int, Carried, list[Carried], str] | None:
    """Return the first later request that carries the result of the step's call that is meant.

    With it that result, all results of the request, and the tool's name.
    """
    from tracefork_otel.wire.facts import recorded_body
    from tracefork_otel.wire.replies import tool_results

    response = tape.exchanges[step].response
    body = None if response is None else recorded_body(response)
    asked = calls_of(tape.exchanges[step])
    call = chosen(asked, wanted, flag=_FLAG)
    if body is None or call is None:
        return None
    alone = len({one.name for one in asked}) == 1
    before = tool_results(tape.exchanges[step].request)
    for later in range(step + 1, tape.steps):
        among = tool_results(tape.exchanges[later].request)
        # A request that only goes on with a stored conversation does not name what it answers.
        found = [one for one in among if one.name == call.name or (alone and one.name is None)]
        found = [one for one in found if one.call_id is not None and one.call_id.encode() in body]
        by_id = [one for one in found if call.call_id and one.call_id == call.call_id]
        if by_id:
            # Servers repeat ids: what the step's own request carried under this one answers an earlier call.
            found = by_id[sum(one.call_id == call.call_id for one in before) :]
        repeated = sum((one.call_id, one.name) == (call.call_id, call.name) for one in asked) > 1
        at = call.nth if repeated or not by_id else 0
        if at < len(found):
            return later, found[at], among, call.name
    return None


def _why_not(tape: Tape, step: int, wanted: str) -> str:
    """Say why there is no result of that tool to change at the step, and where there are some."""
    from ..evidence import step_before

    name = tool_of(wanted)
    asked = dict.fromkeys(_asked(tape, step))
    asked |= dict.fromkeys(call.name for call in tape.tools if step_before(tape, call) == step)
    called = [one.name for one in calls_of(tape.exchanges[step]) if wanted in (one.call_id, one.name)]
    if name in asked or called:
        name = called[0] if called else name
        return f"its answer calls {name}, but no later request of the run carries the result"
    there = f"it calls {', '.join(asked)}" if asked else "it calls no tool"
    steps = [at for at in range(tape.steps) if name in _asked(tape, at)]
    steps += [step_before(tape, call) for call in tape.tools if call.name == name]
    where = ", ".join(map(str, sorted(set(steps))))
    return f"its answer does not call {name}; {there}" + (f"; {name} is called at {where}" if where else "")
