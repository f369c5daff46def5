"""`python -m tracefork_otel.decorators.main pkg.mod:fn` calls a function, its arguments as JSON on stdin."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ..tape.start import REQUESTS, TASK

NOT_STARTED = 120
"""Exit status if there is no such function, or if its module cannot be imported."""


def find(entrypoint: str) -> Callable[..., Any]:
    """Return the function that `pkg.mod:fn` names; raise ImportError, or what the module raises.

    `asgi:pkg.mod:app` and `wsgi:pkg.mod:app` are a request to that application, `task:pkg.mod:fn` a call of
    that task, with no worker.
    """
    if entrypoint.startswith(REQUESTS):
        from .request_call import request_to

        return request_to(entrypoint)
    if entrypoint.startswith(TASK):
        from .task_call import task_by

        return task_by(entrypoint, find)
    module, colon, path = entrypoint.partition(":")
    if not (module and colon and path):
        raise ImportError(f"{entrypoint!r} does not name a function: write it like pkg.mod:fn")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ImportError(f"module {module} has no {path}: is the agent's function still there?")
        found = getattr(found, name)
    if not callable(found):
        raise ImportError(f"{entrypoint} is not a function")
    return found


def call(function: Callable[..., Any], arguments: Any) -> Any:
    """Return what the function returns: awaited, or all that it yields."""
    from .generators import consumed

    given = arguments or {}
    return consumed(function(*given.get("args", ()), **given.get("kwargs", {})), asyncio.run)


def main(argv: list[str]) -> int:
    """Make the agent's call as one span and return its exit status; its own error goes to stderr."""
    from ..launch import boot, importing

    arguments = json.loads(sys.stdin.read() or "null")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # an agent that asks for input gets an end of file, not our arguments
    boot("agent")
    try:
        with importing():
            function = find(argv[0])
    except BaseException as error:
        _show(error)
        return NOT_STARTED
    return call_once(function, arguments)


def call_once(function: Callable[..., Any], arguments: Any) -> int:
    """Make a call as one span and return its exit status; its own error goes to stderr."""
    from . import around
    from .agent import agent

    code = getattr(function, "__code__", None)
    if code is None or code.co_filename != around.__file__:  # not decorated: its result is to be recorded too
        function = agent(function)
    try:
        call(function, arguments)
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
        return 1
    return 0


def _show(error: BaseException) -> None:
    """Print the error with its traceback, less the frames that led from here to the agent's code."""
    frame = error.__traceback__
    while frame is not None and _is_way_in(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    traceback.print_exception(error.with_traceback(frame))


def _is_way_in(file: str) -> bool:
    return os.path.dirname(file) == os.path.dirname(__file__) or "importlib" in file or "asyncio" in file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
