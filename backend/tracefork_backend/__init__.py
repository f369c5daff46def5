"""The backend: reads the store, rebuilds tapes, replays and forks runs, compares them, and answers in SQL.

Its names are imported when they are first used, so that an agent that needs only the scripted model server
(`tracefork_backend.simulate`) does not pay for the others.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blame.experiment import blame
    from .blame.results import BlameResult
    from .diff import Diff, diff
    from .edits import fault, noop, request, resample, response, text, tool_input, tool_result
    from .fork import Fork, fork
    from .matrix import Matrix, matrix
    from .oracle import Graded, exit_code, field, function, regex
    from .replay import ReplayResult, replay
    from .store import Run, Store, open_store

_HOME = {
    "BlameResult": "blame.results",
    "Diff": "diff",
    "Fork": "fork",
    "Graded": "oracle",
    "Matrix": "matrix",
    "ReplayResult": "replay",
    "Run": "store",
    "Store": "store",
    "blame": "blame.experiment",
    "diff": "diff",
    "exit_code": "oracle",
    "fault": "edits",
    "field": "oracle",
    "fork": "fork",
    "function": "oracle",
    "matrix": "matrix",
    "noop": "edits",
    "open_store": "store",
    "regex": "oracle",
    "replay": "replay",
    "request": "edits",
    "resample": "edits",
    "response": "edits",
    "text": "edits",
    "tool_input": "edits",
    "tool_result": "edits",
}
"""The module that each public name comes from."""

__all__ = [
    "BlameResult",
    "Diff",
    "Fork",
    "Graded",
    "Matrix",
    "ReplayResult",
    "Run",
    "Store",
    "blame",
    "diff",
    "exit_code",
    "fault",
    "field",
    "fork",
    "function",
    "matrix",
    "noop",
    "open_store",
    "regex",
    "replay",
    "request",
    "resample",
    "response",
    "text",
    "tool_input",
    "tool_result",
]


class _Package(ModuleType):
    """This package; importing its module `fork` leaves `tracefork_backend.fork` the function."""

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds each submodule to its package; some share their name with what they offer.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
