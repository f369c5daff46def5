"""`@tracefork_otel.agent`: a span around the agent's function that says how to call it again."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..play.claims import result_of
from ..session.result import RESULT_LIMIT, WHOLE_LIMIT, Items, as_text, kept
from .around import Call, around

if TYPE_CHECKING:
    from ..session.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])


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
    if getattr(sys.modules.get(module), "__file__", None) is None:
        return module  # a notebook's, which nobody else can import
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
        if session.settings.state:
            from ..session.files import files_of_call

            attributes |= files_of_call(session)
        self._session = session
        self._whole = session.player is not None
        self._items = Items(WHOLE_LIMIT if self._whole else RESULT_LIMIT)
        # The last that can fail, or what fails would leave the span current.
        self._span, self._release = root.enter(session, f"invoke_agent {name}", attributes)
        if session.settings.state:
            session.called.append(self._span.context.trace_id)

    def returned(self, result: Any) -> None:
        """Put the result on the call's span."""
        self._keep(as_text(result))

    def _keep(self, text: str, lost: int = 0) -> None:
        found, attributes = kept(text, self._session.redactor.text, whole=self._whole), self._span.attributes
        attributes["tracefork.result"] = found.text
        if found.left_out or lost:
            attributes["tracefork.result.left_out"] = found.left_out + lost
        if found.whole is not None and not lost and self._session.player is not None:
            self._session.player.keep(result_of(self._span.span_id), found.whole)

    def suspend(self) -> None:
        """Make what was current before the call so again."""
        release, self._release = self._release, _nothing
        release()

    def yielded(self, item: Any) -> None:
        """Keep the item as text, at once as it may change, and no more of them than a result may take."""
        try:
            self._items.add(item)
        except Exception as problem:
            self._session.lost("result of an agent", problem)

    def exhausted(self) -> None:
        """Put what was yielded on the call's span, as a JSON list."""
        try:
            self._keep(self._items.text(), self._items.lost)
        except Exception as problem:
            self._session.lost("result of an agent", problem)

    def end(self, failure: BaseException | None) -> None:
        """End the span, after what the agent drew."""
        self._release()
        from ..session import spans

        self._session.flush_draws(self._span.trace_id)
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
            f"its arguments are not JSON ({error}): a replay cannot make this call again by itself"
        )
    return attributes


def _nothing() -> None:
    """Do nothing: it is done already."""
