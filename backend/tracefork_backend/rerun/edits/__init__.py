"""What a person wants changed at a step of a run: each kind of intervention is one class here.

A kind has its flags, its label, and how it is bound to a step of a tape, which gives the `Intervention` that
the agent's process serves. Whoever needs to know of kinds asks `KINDS`; adding one is adding its class there.
"""

from __future__ import annotations

from collections.abc import Mapping

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Kind

from .answer import Response, Text, ToolInput
from .edit import Edit, checked, together
from .fault import FAULTS, Fault
from .request import Request
from .same import Noop, Resample
from .tool_result import ToolResult

__all__ = [
    "FAULTS",
    "KINDS",
    "Edit",
    "checked",
    "fault",
    "from_flags",
    "model",
    "noop",
    "request",
    "resample",
    "response",
    "system",
    "text",
    "together",
    "tool_input",
    "tool_result",
]

KINDS: Mapping[Kind, type[Edit]] = {
    kind.kind: kind for kind in (Text, Response, ToolInput, ToolResult, Request, Fault, Resample, Noop)
}


def from_flags(given: Mapping[str, object]) -> list[Edit]:
    """Return one edit a variant that the values of flags ask for; a kind says what values given twice mean.

    They stand by the flags' names, as typer gives them. `@file` reads a value, `@@` is a plain `@`.
    Raises UsageError unless they ask for exactly one kind of change.
    """
    values = {flag.name: _values(given.get(flag.name)) for kind in KINDS.values() for flag in kind.flags}
    asked = [
        kind for kind in KINDS.values() if any(values[flag.name] for flag in kind.flags if flag.alone is None)
    ]
    if len(asked) != 1:
        flags = [flag for kind in asked or KINDS.values() for flag in kind.flags if flag.alone is None]
        raise UsageError(f"one fork changes one thing: choose one of {', '.join(map(str, flags))}")
    (kind,) = asked
    for other in KINDS.values():
        for flag in other.flags:
            if values[flag.name] and flag not in kind.flags and flag.alone is not None:
                raise UsageError(flag.alone)
    return list(kind.variants(values))


def _values(given: object) -> tuple[str, ...]:
    if given is None or given is False:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (str(given),)


# What Python calls: `tf.text("…")`, `tf.model("…", scope="once")`, `tf.fault(529)`.
text = Text
response = Response.of
tool_input = ToolInput
tool_result = ToolResult.giving
request = Request.setting
model = Request.for_model
system = Request.with_system
fault = Fault.named
resample = Resample
noop = Noop
