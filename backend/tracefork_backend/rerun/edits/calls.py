"""Which call of a tool is meant: by its name, by `NAME#2` where there are several, or by the call's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError

from ...spelling import counted, short

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange

_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One call of a tool that a step makes."""

    name: str
    given: str
    """What it is called with."""
    call_id: str | None = None
    nth: int = 0
    """Its place among the step's calls of that tool, from 0."""


def calls_of(exchange: Exchange) -> list[Called]:
    """Return the tools that the step's answer calls, in their order."""
    from tracefork_otel.wire.facts import facts_of

    facts = facts_of(exchange)
    said = [one for one in facts.reply if one.kind == "tool_use"] if facts else []
    return numbered([(one.name or "", one.content, one.call_id) for one in said])


def numbered(calls: Sequence[tuple[str, str, str | None]]) -> list[Called]:
    """Return calls of these names, inputs and ids, each with its place among those of its tool."""
    seen: dict[str, int] = {}
    found: list[Called] = []
    for name, given, call_id in calls:
        found.append(Called(name=name, given=given, call_id=call_id, nth=seen.get(name, 0)))
        seen[name] = seen.get(name, 0) + 1
    return found


def tool_of(wanted: str) -> str:
    """Return the tool's name of `NAME` or `NAME#2`; a call's id stays what it is."""
    name, mark, number = wanted.rpartition("#")
    return name if mark and name and number.isdecimal() else wanted


def chosen(calls: Sequence[Called], wanted: str | None, *, flag: str) -> Called | None:
    """Return the call that is meant, None where none goes by that name.

    Raises UsageError that says which there are where it could be one or another.
    """
    if wanted is None:
        meant = list(calls)
    else:
        meant = [one for one in calls if one.name == wanted]
        if not meant:
            meant = [one for one in calls if one.call_id == wanted]
        name = tool_of(wanted)
        if not meant and name != wanted:
            among = [one for one in calls if one.name == name]
            number = int(wanted.rpartition("#")[2])
            meant = [one for one in among if one.nth == number - 1]
            if among and not meant:
                raise UsageError(
                    f"{wanted} is none of its {counted(len(among), 'call')} of {name}: {_listed(among)}"
                )
    if len(meant) > 1:
        what = "tools" if wanted is None else meant[0].name
        raise UsageError(
            f"its answer calls {what} {len(meant)} times: {_listed(meant)}; say which, such as "
            f"{flag} {spelled(meant[-1])}, or give the call's id"
        )
    return meant[0] if meant else None


def spelled(call: Called) -> str:
    """Return how the call is named."""
    return f"{call.name}#{call.nth + 1}"


def _listed(calls: Sequence[Called]) -> str:
    more = [f"and {len(calls) - _LISTED} more"] if len(calls) > _LISTED else []
    return ", ".join([*map(_shown, calls[:_LISTED]), *more])


def _shown(call: Called) -> str:
    known = f" ({call.call_id})" if call.call_id not in (None, "", call.name) else ""
    return f"{spelled(call)}{known} {short(call.given)}"
