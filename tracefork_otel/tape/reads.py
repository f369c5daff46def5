"""What an agent reads beside its exchanges: draws, and what its local tools gave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One value that the agent read from a clock or from randomness; kept in batches as `draws` notes."""

    process: str
    """Which of the run's processes: `{program}:{digest of its arguments}#{number among equal ones}`."""
    lane: str
    """The line of execution: empty for the main thread, else as `/thread:work#0`."""
    source: str
    """`time`, `datetime.now`, `urandom`, …"""
    site: str
    """The function that drew, as `module:qualname`, and after `<` the module that drew on its behalf."""
    line: int
    """Lines from the start of that function."""
    value: object
    """JSON-able."""


ToolForm: TypeAlias = Literal[
    "value",  # what it returned, as JSON
    "text",  # what it returned, which is no JSON, by its repr
    "error",  # the exception that it raised, as JSON
]
TOOL_FORMS: tuple[ToolForm, ...] = get_args(ToolForm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a local tool and what came of it; kept as the attributes of its span."""

    name: str
    arguments: str
    """A JSON object by parameter."""
    by_text: tuple[str, ...] = ()
    """The arguments that are no JSON and stand there by their repr."""
    form: ToolForm
    result: str
    """What came of it, in that form."""
    exchanges: int = 0
    """Requests that it made itself: a replay calls its function, and serves these."""
    inside: str | None = None
    """The span of the tool call that made it, if one did."""
    span_id: str
    process_id: str = ""
    started_ns: int
    ended_ns: int
