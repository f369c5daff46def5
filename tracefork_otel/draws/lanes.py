"""Lanes: one sequential line of execution each, named alike in a recording and its replay."""

from __future__ import annotations

import contextvars
import datetime as _datetime
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, ModuleType
from typing import Any

from .scope import JOB, USER, VIA, Scope, site_of

Replace = Callable[[Any, str, Any], None]
_LANE: contextvars.ContextVar[Lane | None] = contextvars.ContextVar("tracefork_lane", default=None)
_PASSING = ("asyncio", "concurrent.futures", "threading")
_BARE = ("time", "uuid", "random", "secrets", "os", "posix")
_DATES = (_datetime.datetime, _datetime.date)
_POOLS = ("concurrent.futures.process", "multiprocessing.pool")


def is_pooled() -> bool:
    """Return whether this child was just forked for a pool, whose jobs go to another worker each time."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") in _POOLS:
            return True
        frame = frame.f_back
    return False


class Lane:
    """The main thread, a thread, a job of an executor, an asyncio task or a forked child."""

    __slots__ = ("__weakref__", "cache", "name", "site", "spawned")

    def __init__(self, name: str, site: str | None = None) -> None:
        self.name = name
        self.site = site
        """The function of the agent that handed a bare library function to this job."""
        self.spawned: dict[str, int] = {}
        self.cache: dict[Any, Any] = {}

    def child(self, kind: str, name: str, site: str | None = None) -> Lane:
        """Return the next lane that this one starts for that function."""
        key = f"{kind}:{name}"
        number = self.spawned[key] = self.spawned.get(key, -1) + 1
        return Lane(f"{self.name}/{key}#{number}", site)


class Lanes:
    """Which lane runs, and the hooks that give each new one its name."""

    def __init__(self, scope: Scope) -> None:
        self.root = Lane("")
        self.forks = -1
        self._scope = scope
        self._tasks: weakref.WeakKeyDictionary[Any, Lane] = weakref.WeakKeyDictionary()
        self._local = threading.local()
        self._task: Callable[[], Any] = lambda: None
        """The asyncio task that runs now, once asyncio is loaded."""

    def present(self) -> Lane:
        """Return the lane of the code that runs now."""
        # The task's own first; a job's before the context, which a job may have copied from elsewhere.
        task = self._task()
        lane = None if task is None else self._tasks.get(task)
        return lane or getattr(self._local, "lane", None) or _LANE.get() or self.root

    def enter(self, kind: str, name: str) -> Callable[[], None]:
        """Begin a lane of its own in this thread or task, until the returned function is called."""
        lane, task, local = self.present().child(kind, name), self._task(), self._local
        token = _LANE.set(lane)
        if task is not None:
            before = self._tasks.get(task)
            self._tasks[task] = lane
        else:
            before = getattr(local, "lane", None)
            local.lane = lane

        def leave() -> None:
            if task is None:
                local.lane = before
            elif before is None:
                self._tasks.pop(task, None)
            else:
                self._tasks[task] = before
            try:
                _LANE.reset(token)
            except ValueError:  # left in another context than it was entered in
                _LANE.set(before)

        return leave

    def forked(self) -> None:
        """Begin a lane of its own in this forked child."""
        self.root = Lane(f"{self.present().name}/fork#{self.forks}")
        self.forks = -1
        self._local.lane = None
        self._tasks.clear()
        _LANE.set(None)
        task = self._task()
        if task is not None:
            self._tasks[task] = self.root

    def site_of_caller(self, depth: int) -> str | None:
        """Return the agent's function that hands over a job, or None if a library does."""
        frame: FrameType | None = sys._getframe(depth)
        while frame is not None:
            verdict = self._scope.of(frame)
            if verdict == USER:
                return site_of(frame, None)
            module = str(frame.f_globals.get("__name__"))
            if verdict != VIA and not module.startswith(_PASSING):
                return None
            frame = frame.f_back
        return None

    def watch_threads(self, replace: Replace) -> None:
        """Give each thread that is started a lane of its own."""
        start = threading.Thread.start

        def started(thread: threading.Thread) -> None:
            name = getattr(getattr(thread, "_target", None), "__qualname__", type(thread).__name__)
            lane = self.present().child("thread", name, self.site_of_caller(2))
            run = thread.run

            def run_in_lane() -> None:
                _LANE.set(lane)
                run()

            self._scope.mark(run_in_lane.__code__, JOB)
            thread.run = run_in_lane
            start(thread)

        replace(threading.Thread, "start", started)

    def watch_jobs(self, module: ModuleType, replace: Replace) -> None:
        """Give each job of a thread pool a lane of its own."""
        submit, local = module.ThreadPoolExecutor.submit, self._local

        def submitted(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            name = getattr(function, "__qualname__", None) or type(function).__name__
            lane = self.present().child("job", name, self.site_of_caller(2))

            def run_job() -> Any:
                before, local.lane = getattr(local, "lane", None), lane
                try:
                    return function(*args, **kwargs)
                finally:
                    local.lane = before

            self._scope.mark(run_job.__code__, JOB)
            return submit(pool, run_job)

        replace(module.ThreadPoolExecutor, "submit", submitted)

    def watch_process_jobs(
        self, module: ModuleType, replace: Replace, note: Callable[[str, str, str], None]
    ) -> None:
        """Note each clock handed to a pool of processes: nothing of the agent's calls it there."""
        submit = module.ProcessPoolExecutor.submit

        def submitted(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            handed = function.args[0] if isinstance(function, partial) and function.args else function
            if getattr(handed, "__module__", None) in _BARE or getattr(handed, "__self__", None) in _DATES:
                note("pooled", getattr(handed, "__qualname__", "?"), self.site_of_caller(2) or "a library")
            return submit(pool, function, *args, **kwargs)

        replace(module.ProcessPoolExecutor, "submit", submitted)

    def watch_tasks(self, module: ModuleType, replace: Replace) -> None:
        """Give each asyncio task a lane of its own, which also reaches the worker threads of its context."""
        running, current = module.events._get_running_loop, module.current_task
        self._task = lambda: None if (loop := running()) is None else current(loop)
        self.watch_loop(module.base_events.BaseEventLoop, replace)

    def watch_loop(self, base: Any, replace: Replace) -> None:
        """Give each task of loops of this class a lane of its own."""
        create = base.create_task

        def create_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            name = getattr(coro, "__qualname__", type(coro).__name__)
            lane = self.present().child("task", name)
            token = _LANE.set(lane)
            try:
                task = create(loop, coro, **kwargs)
            finally:
                _LANE.reset(token)
            self._tasks[task] = lane
            return task

        replace(base, "create_task", create_task)
