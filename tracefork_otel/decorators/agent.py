"""`@tracefork_otel.agent`: a span around the agent's function that says how to call it again."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .around import Call, around
from .values import cut

if TYPE_CHECKING:
    from ..session.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])


RESULT_LIMIT = 64 * 1024
"""Bytes of a result that are kept: enough to grade it, not a second copy of the run."""


@overload
def agent(function: Function, /) -> Function: ...
@overload
def agent(*, name: str | None = None) -> Callable[[Function], Function]: ...
def agent(function: Any = None, /, *, name: str | None = None) -> Any:
    """Make each call of the function a span `invoke_agent {name}` that says how to make it again."""
    if function is None:
        return functools.partial(_wrap, name=name)
    return _wrap(function, name=name)


def _wrap(function: Any, *, name: str | None) -> Any:
    entrypoint = f"{_module_of(function)}:{function.__qualname__}"
    shown = name or function.__name__

    def begin(session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return _AgentCall(session, shown, entrypoint, args, kwargs)

    return around(function, begin, what="an agent", decides=False)


def _module_of(function: Any) -> str:
    """Return the module's importable name, also where it was started as `__main__`."""
    module = function.__module__
    if module != "__main__":
        return module
    spec = getattr(inspect.getmodule(function), "__spec__", None)
    if spec is not None and spec.name:
        return spec.name.removesuffix(".__main__")
    file = inspect.getsourcefile(function)
    return inspect.getmodulename(file) or module if file else module


class _AgentCall(Call):
    """A call of an agent, which is a span."""

    def __init__(
        self, session: Session, name: str, entrypoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        from ..session import root

        session.flush_draws()
        attributes = session.redactor.attributes(_attributes(name, entrypoint, args, kwargs))
        self._session = session
        self._span, self._release = root.enter(session, f"invoke_agent {name}", attributes)

    def returned(self, result: Any) -> None:
        """Put the result on the call's span."""
        try:
            text = self._session.redactor.text(result_text(result))
            self._span.attributes["tracefork.result"] = text
        except Exception as problem:
            self._session.lost("result of an agent", problem)

    def end(self, failure: BaseException | None) -> None:
        """End the span, after what the agent drew."""
        from ..session import spans

        self._session.flush_draws(self._span.trace_id)
        self._release()
        spans.end(self._session, self._span, error=failure)


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
    """Return the result as it is kept and graded: text, else JSON, else its repr; cut at the limit."""
    if isinstance(result, str):
        return cut(result, RESULT_LIMIT)
    try:
        text = json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(result)
    return cut(text, RESULT_LIMIT)
