"""Celery's tasks, each of which is a run of its own where a worker does it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..tape.start import TASK
from . import current, root
from .outside import FromOutside
from .result import as_text

if TYPE_CHECKING:
    from ..undo import Undo
    from .own_span import OwnSpan, Parent
    from .session import Session

_Opens: TypeAlias = "Callable[[Parent | None], OwnSpan | None] | None"
_going_on: ContextVar[tuple[TaskCall, Token[_Opens]] | None] = ContextVar("tracefork_task", default=None)
"""The task that a worker does here."""


def watch(signals: ModuleType, undo: Undo) -> None:
    """Have what Celery's workers do be recorded task by task, until that is undone."""
    for signal, receiver in ((signals.task_prerun, _begins), (signals.task_postrun, _ended)):
        signal.connect(receiver, weak=False)
        undo.add(lambda signal=signal, receiver=receiver: signal.disconnect(receiver))


def _begins(*, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], **_: Any) -> None:
    session = current.session
    if session is None or session.player is not None or not session.capturing:
        return
    # One that is called in place, or within another, is a part of what calls it.
    if task.request.is_eager or _going_on.get() is not None:
        return
    try:
        call = TaskCall(session, task, args, kwargs)
        session.runs.serves = True
        _going_on.set((call, root.waiting.set(call.open)))
    except Exception as problem:
        session.lost("start of a task", problem)


def _ended(*, task: Any, retval: Any, **_: Any) -> None:
    going_on = _going_on.get()
    if going_on is None or not going_on[0].is_of(task):
        return
    call, token = going_on
    _going_on.set(None)
    root.waiting.reset(token)
    if isinstance(retval, BaseException):
        call.end(retval)
        return
    call.returns(retval)
    call.end(None)


class TaskCall(FromOutside):
    """One task that a worker does."""

    def __init__(self, session: Session, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._task = task
        self._given = {"args": list(args), "kwargs": dict(kwargs)}
        self._returned: Any = None
        super().__init__(session, f"task {task.name}", _entrypoint(task))

    def is_of(self, task: Any) -> bool:
        """Return whether it is this task that is done, as it was asked for."""
        return task is self._task and not task.request.is_eager

    def returns(self, value: Any) -> None:
        """Keep what came of it."""
        self._returned = value

    def _attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {"tracefork.task": self._task.name}
        if self.entrypoint is not None:
            attributes["tracefork.entrypoint"] = self.entrypoint
        try:
            attributes["tracefork.arguments"] = json.dumps(self._given, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            attributes["tracefork.arguments.missing"] = (
                f"its arguments are not JSON ({error}): a replay cannot do this task again by itself"
            )
        return self.session.redactor.attributes(attributes)

    def _closed(self, span: OwnSpan) -> None:
        self.keep(span, as_text(self._returned))


def _entrypoint(task: Any) -> str | None:
    """Return `task:pkg.mod:fn` of a task that is a module's own; None where it is none's."""
    name = getattr(task, "__qualname__", None) or type(task).__name__
    found: Any = sys.modules.get(type(task).__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    # What a module has may be a stand-in, which has what it stands for.
    if getattr(found, "name", None) != task.name:
        return None
    return f"{TASK}{type(task).__module__}:{name}"
