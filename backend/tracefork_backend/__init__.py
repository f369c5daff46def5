"""The backend: reads the store, rebuilds tapes, replays and forks runs, compares them, and answers in SQL.

Its names are imported when they are first used, so that an agent that needs only the scripted model server
(`tracefork_backend.simulate`) does not pay for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blaming.experiment import blame
    from .blaming.parting import blame_parts
    from .blaming.result import BlameResult
    from .diffs.diff import Diff, diff
    from .executors.engines import ray_executor
    from .exporting.export import Exported, export
    from .grading.exit_code import exit_code
    from .grading.field import field
    from .grading.function import function
    from .grading.graded import Graded
    from .grading.regex import regex
    from .matrices.matrix import Matrix, matrix
    from .repairing.repair import repair
    from .repairing.result import RepairResult
    from .rerun.edits import (
        fault,
        model,
        noop,
        request,
        resample,
        response,
        system,
        text,
        tool_input,
        tool_result,
    )
    from .rerun.forking import fork
    from .rerun.replaying import ReplayResult, replay
    from .rerun.result import Fork
    from .store import Run, Step, Store, open_store

_HOME = {
    "BlameResult": "blaming.result",
    "Diff": "diffs.diff",
    "Exported": "exporting.export",
    "Fork": "rerun.result",
    "Graded": "grading.graded",
    "Matrix": "matrices.matrix",
    "RepairResult": "repairing.result",
    "ReplayResult": "rerun.replaying",
    "Run": "store",
    "Step": "store",
    "Store": "store",
    "blame": "blaming.experiment",
    "blame_parts": "blaming.parting",
    "diff": "diffs.diff",
    "exit_code": "grading.exit_code",
    "export": "exporting.export",
    "fault": "rerun.edits",
    "field": "grading.field",
    "fork": "rerun.forking",
    "function": "grading.function",
    "matrix": "matrices.matrix",
    "model": "rerun.edits",
    "noop": "rerun.edits",
    "open_store": "store",
    "ray_executor": "executors.engines",
    "regex": "grading.regex",
    "repair": "repairing.repair",
    "replay": "rerun.replaying",
    "request": "rerun.edits",
    "resample": "rerun.edits",
    "response": "rerun.edits",
    "system": "rerun.edits",
    "text": "rerun.edits",
    "tool_input": "rerun.edits",
    "tool_result": "rerun.edits",
}
"""The module that each public name comes from."""

__all__ = [
    "BlameResult",
    "Diff",
    "Exported",
    "Fork",
    "Graded",
    "Matrix",
    "RepairResult",
    "ReplayResult",
    "Run",
    "Step",
    "Store",
    "blame",
    "blame_parts",
    "diff",
    "exit_code",
    "export",
    "fault",
    "field",
    "fork",
    "function",
    "matrix",
    "model",
    "noop",
    "open_store",
    "ray_executor",
    "regex",
    "repair",
    "replay",
    "request",
    "resample",
    "response",
    "system",
    "text",
    "tool_input",
    "tool_result",
]


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
