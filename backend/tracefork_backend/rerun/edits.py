"""What a person wants changed at a step of a run, whichever run that will be.

Each function gives an `Edit`; `interventions.build` binds it to a step of a tape. One edit binds to any
number of runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tracefork_otel.decorators.values import exact
from tracefork_otel.errors import UsageError
from tracefork_otel.wire.paths import parse_path

if TYPE_CHECKING:
    from tracefork_otel.play.intervention import Kind

Fault: TypeAlias = Literal["429", "500", "529", "timeout", "disconnect"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_SHOWN = 40
"""Characters of a value in a label: enough to tell variants apart in a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What to change at a step, not yet bound to a run; only what its kind needs is set."""

    kind: Kind
    text: str | None = None
    body: bytes | None = None
    """The whole response's body."""
    value: object = None
    """The tool call's input, or its result."""
    tool: str | None = None
    """The tool whose first call is meant; for an input that may be None, the first call of all."""
    changes: tuple[tuple[str, object], ...] = ()
    """(JSON path, JSON value) pairs of the request."""
    system: str | None = None
    model: str | None = None
    fault: Fault | None = None

    @property
    def label(self) -> str:
        """What tables and spans call it: `text`, `request model=…`, `fault 529`."""
        if self.kind == "request":
            parts = [f"{path}={_shown(value)}" for path, value in self.changes]
            parts += ["system"] if self.system is not None else []
            parts += [f"model={self.model}"] if self.model is not None else []
            return " ".join(["request", *parts])
        if self.kind == "tool_input" and self.tool is not None:
            return f"tool_input {self.tool}"
        if self.kind == "tool_result":
            return f"tool_result {self.tool}"
        return f"fault {self.fault}" if self.kind == "fault" else self.kind


def text(text: str) -> Edit:
    """The model's answer is this text."""
    return Edit(kind="text", text=text)


def response(body: bytes | str) -> Edit:
    """The response is this body, whole, with status 200."""
    return Edit(kind="response", body=body.encode() if isinstance(body, str) else body)


def tool_input(value: object, *, tool: str | None = None) -> Edit:
    """The model calls its first tool (or the first of that name) with this input."""
    return Edit(kind="tool_input", value=value, tool=tool)


def tool_result(name: str, value: object, *, text: str | None = None) -> Edit:
    """The next call of that tool after the step's answer gives this value.

    A tool that gave a text is given one: `text`, or else the value as JSON.
    """
    if not name:
        raise UsageError("a tool result needs the tool's name")
    spelled = exact(value)
    if spelled is None:
        raise UsageError(f"the result of {name} is no JSON value: {value!r}; give it as text")
    said = value if isinstance(value, str) else spelled
    return Edit(kind="tool_result", tool=name, value=value, text=said if text is None else text)


def request(
    *,
    set: Mapping[str, object] | None = None,
    system: str | None = None,
    model: str | None = None,
) -> Edit:
    """The agent's request goes out for real with these JSON paths, this system prompt, this model."""
    return of_changes(tuple((set or {}).items()), system=system, model=model)


def of_changes(
    changes: tuple[tuple[str, object], ...], *, system: str | None = None, model: str | None = None
) -> Edit:
    """The same edit of the request, from (JSON path, JSON value) pairs in their order."""
    if not changes and system is None and model is None:
        raise UsageError("a request edit needs set, system or model; for the same request use resample()")
    paths = [parse_path(path) for path, _ in changes]
    twice = next((path for n, (path, _) in enumerate(changes) if paths[n] in paths[:n]), None)
    if twice is not None:
        raise UsageError(f"{twice} is set twice in one edit: give one value, or make two variants")
    if model is not None and ("model",) in paths:
        raise UsageError("the model is set twice, by --set and by --model: give one of them")
    return Edit(kind="request", changes=changes, system=system, model=model)


def fault(kind: str | int) -> Edit:
    """The request fails: status 429, 500 or 529, a read timeout, or a connection cut in mid-body."""
    named: Fault | None = next((known for known in FAULTS if known == str(kind)), None)
    if named is None:
        raise UsageError(f"{kind} is no fault: use one of {', '.join(FAULTS)}")
    return Edit(kind="fault", fault=named)


def resample() -> Edit:
    """The same request goes out for real, and the model answers anew."""
    return Edit(kind="resample")


def noop() -> Edit:
    """Nothing is changed: the recorded response is served."""
    return Edit(kind="noop")


def _shown(value: object) -> str:
    """A value in a label, shortened."""
    spelled = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    spelled = " ".join(spelled.split())
    return spelled if len(spelled) <= _SHOWN else f"{spelled[: _SHOWN - 1]}…"
