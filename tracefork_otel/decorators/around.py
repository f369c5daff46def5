"""What stands around each call of a decorated function, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from ..session import current

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
                call.returned(result)
                return result

        return asynchronous

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        with _made(begin, args, kwargs, what=what, decides=decides) as call:
            result = function(*args, **kwargs) if call.instead is None else call.instead()
            call.returned(result)
            return result

    return synchronous


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
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            call.end(failure)
        except Exception as problem:
            session.lost(f"end of {what}", problem)
