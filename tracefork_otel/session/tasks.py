"""Tasks of work queues, each of which is a run of its own where a worker does it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..tape.start import TASK
from . import current, root
from .outside import FromOutside
from .process import importable
from .result import as_text

if TYPE_CHECKING:
    from .own_span import OwnSpan, Parent
    from .session import Session

_Opens: TypeAlias = "Callable[[Parent | None], OwnSpan | None] | None"
_going_on: ContextVar[tuple[TaskCall, Token[_Opens]] | None] = ContextVar("tracefork_task", default=None)
"""The task that a worker does here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker is to do."""

    name: str
    entrypoint: str | None
    """`task:pkg.mod:fn` of a task that is a module's own; None where it is none's."""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    by: Any = None
    """The library's own account of it, by which its end is known."""
    alone: str | None = None
    """Why nobody but a worker can do it."""


def begins(told: Callable[[], Task]) -> None:
    """Have what is asked here from now on be the task's, until it has ended; what fails costs that alone."""
    session = current.session
    if session is None or session.player is not None or not session.capturing:
        return
    if _going_on.get() is not None:  # one that is called within another is a part of it
        return
    try:
        call = TaskCall(session, told())
        session.runs.serves = True
        _going_on.set((call, root.waiting.set(call.open)))
    except Exception as problem:
        session.lost("start of a task", problem)


def ends(result: Any = None, failure: BaseException | None = None, *, by: Any = None) -> None:
    """End the task that was begun here by this account of it, if any was."""
    going_on = _going_on.get()
    if going_on is None or not going_on[0].is_by(by):
        return
    call, token = going_on
    _going_on.set(None)
    root.waiting.reset(token)
    if failure is None:
        call.returns(result)
    call.end(failure)


@contextmanager
def doing(told: Callable[[], Task], by: Any) -> Iterator[list[Any]]:
    """Have the block be the task, which `by` accounts for; what it puts into the list last is its result."""
    results: list[Any] = []
    begins(told)
    try:
        yield results
    except BaseException as error:
        ends(failure=error, by=by)
        raise
    ends(results[-1] if results else None, by=by)


def entry(module: str, name: str, is_task: Callable[[Any], bool]) -> str | None:
    """Return `task:pkg.mod:fn`, if that is how the task is found; None where it is not."""
    where = sys.modules.get(module)
    found: Any = where
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None or not is_task(found):
        return None
    return f"{TASK}{importable(module, where, getattr(where, '__file__', None))}:{name}"


class TaskCall(FromOutside):
    """One task that a worker does."""

    def __init__(self, session: Session, task: Task) -> None:
        self._task = task
        self._returned: Any = None
        super().__init__(session, f"task {task.name}", task.entrypoint)

    def is_by(self, by: Any) -> bool:
        """Return whether the library's account of it is this one."""
        return self._task.by is by

    def returns(self, value: Any) -> None:
        """Keep what came of it."""
        self._returned = value

    def _attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {"tracefork.task": self._task.name}
        if self.entrypoint is not None:
            attributes["tracefork.entrypoint"] = self.entrypoint
        missing = "tracefork.arguments.missing"
        if self._task.alone is not None:
            attributes[missing] = self._task.alone
            return self.session.redactor.attributes(attributes)
        given = {"args": list(self._task.args), "kwargs": dict(self._task.kwargs)}
        try:
            attributes["tracefork.arguments"] = json.dumps(given, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            attributes[missing] = (
                f"its arguments are not JSON ({error}): a replay cannot do this task again by itself"
            )
        return self.session.redactor.attributes(attributes)

    def _closed(self, span: OwnSpan) -> None:
        self.keep(span, as_text(self._returned))
