"""A worker's task, called without the worker and its queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from ..tape.start import ON_STARTUP, TASK


def task_by(entrypoint: str, find: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Return the function that does the task `task:pkg.mod:fn`; `find` gives what a module has by a name."""
    task: Any = find(entrypoint.removeprefix(TASK))
    # dramatiq's own function of a coroutine wants a worker's event loop; huey's task would be put in a queue.
    function = getattr(task, "call_local", task)
    unwrapped = inspect.unwrap(getattr(task, "fn", function))
    if inspect.iscoroutinefunction(unwrapped):
        function = unwrapped

    done = _awaited(function, find) if inspect.iscoroutinefunction(function) else _called(function)
    # By these it is called again, in a fork of the fork too.
    done.__module__, _, done.__qualname__ = entrypoint.rpartition(":")
    done.__name__ = done.__qualname__.rpartition(".")[2]
    return done


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    def done(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return done


def _awaited(function: Callable[..., Any], find: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    async def done(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], dict) and ON_STARTUP in args[0]:
            ctx = dict(cast("dict[str, Any]", args[0]))
            start = ctx.pop(ON_STARTUP)
            if start is not None:  # what a worker makes at its start
                await find(start.removeprefix(TASK))(ctx)
            args = (ctx, *args[1:])
        return await function(*args, **kwargs)

    return done
