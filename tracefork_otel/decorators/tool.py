"""`@tracefork_otel.tool`: a tool whose calls are recorded, and get their recorded results in a replay."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..errors import UsageError
from .around import Call, around

if TYPE_CHECKING:
    from ..session.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(*, name: str | None = None, live: bool = False) -> Callable[[Function], Function]: ...
def tool(function: Any = None, /, *, name: str | None = None, live: bool = False) -> Any:
    """Make each call of the function a span `execute_tool {name}` and a row of the `tools` view.

    In a replay, and in a fork where the recording has such a call, it gets what the recorded call gave: the
    value where that is JSON, the exception where it raised one. The function does not run then, unless its
    result is no JSON or it makes requests of its own, which are served. A call that the recording lacks
    raises Drift in a replay. With `live` the function always runs, for what it changes in the agent's memory.
    Raise UsageError for a generator: it has no one result.
    """
    if function is None:
        return functools.partial(_wrap, name=name, live=live)
    return _wrap(function, name=name, live=live)


def _wrap(function: Any, *, name: str | None, live: bool) -> Any:
    shown = name or getattr(function, "__name__", type(function).__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"the tool {shown} is a generator, which has no one result to record: let it return a list"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those that are written in C have none
        signature = None
    waits = inspect.iscoroutinefunction(function)

    def begin(session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        from . import tool_call, values

        arguments, by_text = values.arguments_text(_named(signature, args, kwargs))
        arguments = session.redactor.text(arguments)
        return tool_call.OpenToolCall(session, shown, arguments, by_text, waits=waits, live=live)

    return around(function, begin, what="a tool", decides=True)


def _named(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the arguments by parameter, as far as they fit."""
    if signature is not None:
        try:
            return signature.bind(*args, **kwargs).arguments
        except TypeError:  # the function's own error to raise, a moment later
            pass
    return {"args": list(args), "kwargs": kwargs}
