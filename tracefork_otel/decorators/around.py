"""What stands around each call of a decorated function: sync, async, or a generator of either kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from ..session import current
from .generators import adriven, driven

if TYPE_CHECKING:
    from ..session.session import Session


class Call:
    """One call of the function; as it stands, one that is not recorded."""

    instead: Callable[[], Any] | None = None
    """What gives the result in place of the function; a coroutine where it has to be waited for."""

    def enter(self) -> None:
        """Decide what the call gets; raise what it is to raise."""

    def returned(self, result: Any) -> None:
        """Keep what the call gave."""

    def suspend(self) -> None:
        """Make what was current before the call so again: a generator's steps each put it back."""

    def yielded(self, item: Any) -> None:
        """Keep one of the things that a generator gives; it raises nothing."""

    def exhausted(self) -> None:
        """Keep all that a generator gave; it raises nothing."""

    def end(self, failure: BaseException | None) -> None:
        """End the call; `failure` is what came out of it, if anything did."""


Begin: TypeAlias = Callable[["Session", tuple[Any, ...], dict[str, Any]], Call]


def around(function: Any, begin: Begin, *, what: str, decides: bool) -> Any:
    """Return the function so that each call is begun by `begin`; what fails there is counted as a loss.

    `what` names the call in the log. Where `decides`, a replay says what the call gets, so that none runs
    unseen in a replay.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            with _made(begin, args, kwargs, what=what, decides=decides) as call:
                if call.instead is None:
                    result = await function(*args, **kwargs)
                else:
                    result = call.instead()
                    result = await result if inspect.iscoroutine(result) else result
                _kept(call, result, what)
                return result

        return asynchronous

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generating(*args: Any, **kwargs: Any) -> Any:
            steps = function(*args, **kwargs)
            if current.session is not None:
                steps = driven(steps, _made(begin, args, kwargs, what=what, decides=decides))
            return (yield from steps)

        return generating

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def agenerating(*args: Any, **kwargs: Any) -> Any:
            steps = function(*args, **kwargs)
            if current.session is None:
                return steps
            return adriven(steps, _made(begin, args, kwargs, what=what, decides=decides))

        return agenerating

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        with _made(begin, args, kwargs, what=what, decides=decides) as call:
            result = function(*args, **kwargs) if call.instead is None else call.instead()
            _kept(call, result, what)
            return result

    return synchronous


def _kept(call: Call, result: Any, what: str) -> None:
    try:
        call.returned(result)
    except Exception as problem:
        if (session := current.session) is not None:
            session.lost(f"result of {what}", problem)


@contextmanager
def _made(
    begin: Begin, args: tuple[Any, ...], kwargs: dict[str, Any], *, what: str, decides: bool
) -> Generator[Call]:
    session = current.session
    if session is None:
        yield Call()
        return
    try:
        call = begin(session, args, kwargs)
    except Exception as problem:
        session.lost(f"start of {what}", problem)
        if decides and session.player is not None:
            raise
        yield Call()
        return
    failure: BaseException | None = None
    try:
        call.enter()
        yield call
    except GeneratorExit:  # who consumes a generator has enough of it
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            call.end(failure)
        except Exception as problem:
            session.lost(f"end of {what}", problem)
