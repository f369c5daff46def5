"""`@tracefork_otel.agent`: a span around the agent's function that says how to call it again."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, overload

from ..session import current

if TYPE_CHECKING:
    from ..session.session import Session
    from ..session.spans import OwnSpan

Function = TypeVar("Function", bound=Callable[..., Any])


class Around(Protocol):
    """What stands around one call of a function."""

    @property
    def instead(self) -> Callable[[], Any] | None:
        """What gives the result in the function's place, if it is not to run."""
        ...

    def returned(self, result: Any) -> None:
        """The result of the call is noted."""
        ...


Called: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], AbstractContextManager[Around]]

RESULT_LIMIT = 64 * 1024
"""Bytes of a result that are kept: enough to grade it, not a second copy of the run."""


@overload
def agent(function: Function, /) -> Function: ...
@overload
def agent(*, name: str | None = None) -> Callable[[Function], Function]: ...
def agent(function: Any = None, /, *, name: str | None = None) -> Any:
    """Each call of the function is a span `invoke_agent {name}` that says how to make the same call again."""
    if function is None:
        return functools.partial(_wrap, name=name)
    return _wrap(function, name=name)


def _wrap(function: Any, *, name: str | None) -> Any:
    entrypoint = f"{_module_of(function)}:{function.__qualname__}"
    shown = name or function.__name__
    return around(function, lambda args, kwargs: _called(shown, entrypoint, args, kwargs))


def around(function: Any, called: Called) -> Any:
    """Each call, sync or async, is made inside `called(args, kwargs)`, which gives or is told the result."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            with called(args, kwargs) as call:
                if call.instead is None:
                    result = await function(*args, **kwargs)
                else:
                    result = call.instead()
                    result = await result if inspect.iscoroutine(result) else result
                call.returned(result)
                return result

        return asynchronous

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        with called(args, kwargs) as call:
            result = function(*args, **kwargs) if call.instead is None else call.instead()
            call.returned(result)
            return result

    return synchronous


def _module_of(function: Any) -> str:
    """The module's importable name, also where it was started as `__main__`."""
    module = function.__module__
    if module != "__main__":
        return module
    spec = getattr(inspect.getmodule(function), "__spec__", None)
    if spec is not None and spec.name:
        return spec.name.removesuffix(".__main__")
    file = inspect.getsourcefile(function)
    return inspect.getmodulename(file) or module if file else module


class _Unseen:
    """Around a call that is not recorded."""

    instead = None

    def returned(self, result: Any) -> None:
        """Nothing is noted."""


UNSEEN = _Unseen()


class _Seen:
    """Around a call of an agent."""

    instead = None

    def __init__(self, session: Session, span: OwnSpan) -> None:
        self._session = session
        self._span = span

    def returned(self, result: Any) -> None:
        """The result is on the call's span."""
        try:
            self._span.attributes["tracefork.result"] = self._session.redactor.text(result_text(result))
        except Exception as problem:
            self._session.lost("result of an agent", problem)


@contextmanager
def _called(name: str, entrypoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Around]:
    session = current.session
    if session is None:
        yield UNSEEN
        return
    from ..session import root

    session.flush_draws()
    try:
        span, release = root.enter(
            session,
            f"invoke_agent {name}",
            session.redactor.attributes(_attributes(name, entrypoint, args, kwargs)),
        )
    except Exception as problem:
        session.lost("start of an agent", problem)
        yield UNSEEN
        return

    failure: BaseException | None = None
    try:
        yield _Seen(session, span)
    except BaseException as error:
        failure = error
        raise
    finally:
        session.flush_draws(span.trace_id)
        try:
            release()
            span.end(session, error=failure)
        except Exception as problem:
            session.lost("end of an agent", problem)


def _attributes(name: str, entrypoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": name,
        "tracefork.entrypoint": entrypoint,
    }
    try:
        attributes["tracefork.arguments"] = json.dumps({"args": args, "kwargs": kwargs}, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        attributes["tracefork.arguments.missing"] = (
            f"the arguments are not JSON ({error}): a replay cannot make this call again by itself"
        )
    return attributes


def result_text(result: Any) -> str:
    """The result as it is kept and graded: text as it stands, else JSON, else its repr; cut at the limit."""
    if isinstance(result, str):
        text = result
    else:
        try:
            text = json.dumps(result, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            text = repr(result)
    data = text.encode("utf-8", "replace")
    return text if len(data) <= RESULT_LIMIT else data[:RESULT_LIMIT].decode("utf-8", "ignore")


__all__ = ["RESULT_LIMIT", "agent", "result_text"]
