"""Which recorded call of a `@tool` function is the one that a step's answer asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tracefork_otel.errors import UsageError

from .calls import Called, calls_of, chosen, numbered, spelled, tool_of

if TYPE_CHECKING:
    from tracefork_otel.tape.reads import ToolCall
    from tracefork_otel.tape.tape import Tape

_Fits: TypeAlias = Callable[[Called, "ToolCall"], bool]


def own_call(tape: Tape, step: int, wanted: str, *, flag: str) -> int | None:
    """Return the place of the recorded call that is meant; None where the step leads to none of a `@tool`.

    Raises UsageError where it could be one or another.
    """
    from ..evidence import step_before

    exchange = tape.exchanges[step]
    asked = calls_of(exchange)
    by_id = next((one for one in asked if one.call_id == wanted and one.name != wanted), None)
    if by_id is not None:
        wanted = spelled(by_id)
    name = tool_of(wanted)
    later = [
        at
        for at, call in enumerate(tape.tools)
        if call.name in (name, wanted) and call.started_ns >= exchange.started_ns
    ]
    own = [at for at in later if step_before(tape, tape.tools[at]) == step]
    mine = [one for one in asked if one.name in (name, wanted)]
    if mine and exchange.ended_ns is not None:
        ended = exchange.ended_ns
        own = _with_late(tape, own, [at for at in later if tape.tools[at].started_ns >= ended], mine)
    if not own:
        return None
    if len(mine) > 1 and (len(own) > 1 or wanted not in (name, tape.tools[own[0]].name)):
        return _paired(tape, chosen(mine, wanted, flag=flag), mine, own)
    if mine:
        own = next(filter(None, ([at for at in own if fits(mine[0], tape.tools[at])] for fits in _FITS)), own)
    calls = numbered([(tape.tools[at].name, tape.tools[at].arguments, None) for at in own])
    found = chosen(calls, wanted, flag=flag)
    return None if found is None else own[calls.index(found)]


def _with_late(tape: Tape, own: list[int], after: Sequence[int], asked: Sequence[Called]) -> list[int]:
    """Return also the calls of the answer that began after another step had.

    So they do in an agent that does several things at once.
    """
    found: dict[int, None] = {}
    for one in asked:
        at = next((at for at in (*own, *after) if at not in found and _is_equal(one, tape.tools[at])), None)
        if at is not None:
            found[at] = None
    every = {*own, *found} or after[: len(asked)]
    return sorted(every, key=lambda at: tape.tools[at].started_ns)


def _paired(tape: Tape, wanted: Called | None, asked: Sequence[Called], own: Sequence[int]) -> int | None:
    """Return which of a tool's recorded calls is the wanted one of those that the answer asks for.

    Calls that begin at once begin in any order: what they were given says which is which, and their order
    only where that is the same.
    """
    if wanted is None:
        return None
    left, recorded = list(asked), list(own)
    found: dict[int, int] = {}
    for fits in _FITS:
        for one in tuple(left):
            may = [at for at in recorded if fits(one, tape.tools[at])]
            if may and len({tape.tools[at].arguments for at in may}) == 1:
                found[one.nth] = may[0]
                left.remove(one)
                recorded.remove(may[0])
    calls = [tape.tools[at] for at in recorded]
    one_by_one = all(before.ended_ns <= after.started_ns for before, after in pairwise(calls))
    if len(left) == len(recorded) and one_by_one:
        found |= {one.nth: at for one, at in zip(left, recorded, strict=True)}
    if wanted.nth not in found:
        raise UsageError(
            f"it cannot be told which recorded call of {wanted.name} is {spelled(wanted)} of its answer: "
            "what they were given is not what the answer gives them, and they did not run one by one; change "
            "the request that carries the result instead (--set, at the next step)"
        )
    return found[wanted.nth]


def _is_equal(one: Called, call: ToolCall) -> bool:
    """Return whether the call was given just this."""
    given, got = _object(one.given), _object(call.arguments)
    return given is not None and given == got and not call.by_text


def _holds(one: Called, call: ToolCall) -> bool:
    """Return whether the call was given this beside what else its function takes."""
    given, got = _object(one.given), _object(call.arguments)
    if given is None or got is None:
        return False
    known = {key: value for key, value in given.items() if key not in call.by_text}
    return bool(known) and all(key in got and got[key] == value for key, value in known.items())


_FITS: tuple[_Fits, ...] = (_is_equal, _holds)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
