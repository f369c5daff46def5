"""`@tracefork_otel.tool`: a span around each call of a tool, with what it was given and what it gave."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from . import _session
from ._agent import around, result_text
from ._errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(*, name: str | None = None) -> Callable[[Function], Function]: ...
def tool(function: Any = None, /, *, name: str | None = None) -> Any:
    """Each call of the function is a span `execute_tool {name}` and a row of the `tools` view.

    The function itself runs, in a replay too. Raises UsageError for a generator: it has no one result.
    """
    if function is None:
        return functools.partial(_wrap, name=name)
    return _wrap(function, name=name)


def _wrap(function: Any, *, name: str | None) -> Any:
    shown = name or function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"the tool {shown} is a generator, which has no one result to record: let it return a list"
        )
    return around(function, lambda args, kwargs: _called(function, shown, args, kwargs))


@contextmanager
def _called(
    function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Generator[Callable[[Any], None]]:
    session = _session.current
    if session is None:
        yield lambda result: None
        return
    from . import _root

    try:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.arguments": result_text(_named(function, args, kwargs)),
        }
        span, release = _root.enter(session, f"execute_tool {name}", attributes, below_root=True)
    except Exception as problem:
        session.lost("start of a tool", problem)
        yield lambda result: None
        return

    def returned(result: Any) -> None:
        try:
            span.attributes["gen_ai.tool.call.result"] = result_text(result)
        except Exception as problem:
            session.lost("result of a tool", problem)

    failure: BaseException | None = None
    try:
        yield returned
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            release()
            span.end(session, error=failure)
        except Exception as problem:
            session.lost("end of a tool", problem)


def _named(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name; a value that is not JSON is its repr, so that the others stay readable."""
    try:
        bound = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        # A call that does not fit is the function's own error to raise, a moment later.
        bound = {"args": list(args), "kwargs": kwargs}
    return {key: value if _is_json(value) else repr(value) for key, value in bound.items()}


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
