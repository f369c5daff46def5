"""Where in the agent's own code a request was asked for: its innermost frame that is no library's."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from .. import private_names as names
from ..redaction.redact import Redactor
from .noting import is_own_code

_LOOPS = frozenset({"asyncio.runners", "asyncio.base_events", "asyncio.events", "trio._core._run"})
"""Modules that run tasks: what is above them on the stack started the loop, and may not have asked."""
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_ASIDE, _LOOP, _LIBRARY = "", "\1", "\2"
"""Marks of code that is not the agent's: the standard library's and ours, an event loop's, a library's."""
_MAIN = "the loop's first task"
_DEEP = 8
"""So many tasks and futures are followed from one that waits to the next."""

_known: dict[int, tuple[CodeType, str]] = {}
"""By the code's id, for equal code of two files compares equal; it is kept, so that no id comes twice."""
_folder = ""


def begin() -> None:
    """Have paths told from the folder that the process is in now."""
    global _folder
    _known.clear()
    try:
        _folder = os.path.join(os.getcwd(), "")
    except OSError:
        _folder = ""


def site(redactor: Redactor) -> str | None:
    """Return who called, as `file:line function`; None where only libraries are on the stack.

    Of a task that a library's coroutine began with, it is where the agent's code waits for that task.
    """
    frame: FrameType | None = sys._getframe(1)
    looped = False
    while frame is not None:
        code = frame.f_code
        found = _known.get(id(code))
        place = _place(code, frame.f_globals, redactor) if found is None else found[1]
        if place == _LOOP:
            looped = True
        elif place == _LIBRARY:
            looped = False
        elif place:
            if looped and (waiting := _awaited_at(redactor)) is not _MAIN:
                return waiting
            return _told(place, frame.f_lineno)
        frame = frame.f_back
    return None


def _told(place: str, line: int) -> str:
    file, function = place.split("\0", 1)
    return f"{file}:{line} {function}"


def _place(code: CodeType, module: dict[str, Any], redactor: Redactor) -> str:
    """Return file and function of the agent's code, else a mark; decided once for each code."""
    file, name = code.co_filename, str(module.get("__name__") or "")
    if name in _LOOPS:
        place = _LOOP
    elif is_own_code(file):
        place = f"{redactor.error(_shown(file))}\0{code.co_qualname.replace('.<locals>', '')}"
    else:
        ours = name.partition(".")[0] in ("tracefork_otel", "tracefork_backend")
        standard = file.startswith(("<frozen", _STDLIB)) and "-packages" not in file
        place = _ASIDE if ours or standard else _LIBRARY
    _known[id(code)] = code, place
    return place


def _shown(file: str) -> str:
    if len(_folder) > 1 and file.startswith(_folder):
        return file[len(_folder) :]
    home = os.path.expanduser("~")
    if home not in ("~", "/") and file.startswith(home + os.sep):
        return "~" + file[len(home) :]
    return file


def _awaited_at(redactor: Redactor) -> str | None:
    """Return where the agent's code waits for this task; `_MAIN` where who started the loop does."""
    try:
        future: Any = asyncio.current_task()
        met: list[Any] = []
        while future is not None and len(met) < _DEEP:
            met.append(future)
            if isinstance(future, asyncio.Task) and len(met) > 1 and (found := _suspended(future, redactor)):
                return found
            future = next((one for one in _waiters(future) if one is _MAIN or one not in met), None)
            if future is _MAIN:
                return _MAIN if len(met) == 1 else None
    except Exception:
        return None  # nobody's request fails by what only tells where it came from
    return None


def _waiters(future: Any) -> Iterator[Any]:
    """Yield the tasks and futures that wait for this one: asyncio keeps them in what it calls at its end."""
    for callback, _ in getattr(future, names.CALLBACKS) or ():
        if getattr(callback, "__name__", "") == names.LOOP_STOPS:
            yield _MAIN
        owner = getattr(callback, "__self__", None)
        parts = [owner, getattr(owner, names.PARENT_TASK, None)]
        if isinstance(callback, functools.partial):
            parts += callback.args
        parts += [cell.cell_contents for cell in getattr(callback, "__closure__", None) or ()]
        yield from (one for one in parts if isinstance(one, asyncio.Future))


def _suspended(task: asyncio.Task[Any], redactor: Redactor) -> str | None:
    """Return the innermost place of the agent's code in which the task waits."""
    found: str | None = None
    inner: Any = task.get_coro()
    while inner is not None:
        kind = next((one for one in ("cr", "gi", "ag") if hasattr(inner, f"{one}_frame")), None)
        if kind is None:
            break
        frame: FrameType | None = getattr(inner, f"{kind}_frame")
        if frame is not None:
            place = _place(frame.f_code, frame.f_globals, redactor)
            if place not in (_ASIDE, _LOOP, _LIBRARY):
                found = _told(place, frame.f_lineno)
        inner = getattr(inner, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return found
