"""Work queues: the one place in each library at which its worker does a task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from operator import is_
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..tape.start import ON_STARTUP
from . import tasks
from .tasks import Task

if TYPE_CHECKING:
    from ..undo import Undo


def watch(module: ModuleType, undo: Undo) -> None:
    """Have what the workers of the module's library do be recorded task by task, until that is undone."""
    QUEUES[module.__name__](module, undo)


def _celery(signals: Any, undo: Undo) -> None:
    for signal, receiver in ((signals.task_prerun, _celery_begins), (signals.task_postrun, _celery_ended)):
        signal.connect(receiver, weak=False)
        undo.add(lambda signal=signal, receiver=receiver: signal.disconnect(receiver))


def _celery_begins(*, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    if not task.request.is_eager:  # one that is called in place is a part of what calls it
        tasks.begins(partial(_celery_task, task, args, kwargs))


def _celery_task(task: Any, args: Any, kwargs: Any) -> Task:
    # What a module has may be a stand-in, which has what it stands for.
    found = tasks.entry(
        type(task).__module__,
        getattr(task, "__qualname__", None) or type(task).__name__,
        lambda one: getattr(one, "name", None) == task.name,
    )
    return Task(name=task.name, entrypoint=found, args=args, kwargs=kwargs, by=task)


def _celery_ended(*, task: Any, retval: Any, **_: Any) -> None:
    if task.request.is_eager:
        return
    if isinstance(retval, BaseException):
        tasks.ends(failure=retval, by=task)
    else:
        tasks.ends(retval, by=task)


def _rq(module: Any, undo: Undo) -> None:
    before = module.Job.perform

    @wraps(before)
    def perform(job: Any) -> Any:
        if job.worker_name in (None, "", "sync"):  # it is done where it was asked for
            return before(job)
        with tasks.doing(lambda: _rq_task(job), job) as results:
            results.append(before(job))
        return results[-1]

    undo.replace(module.Job, "perform", perform)


def _rq_task(job: Any) -> Task:
    return _by_function(job.func, job.args, job.kwargs, by=job)


def _dramatiq(module: Any, undo: Undo) -> None:
    before, after = module.Broker.emit_before, module.Broker.emit_after

    @wraps(before)
    def emit_before(broker: Any, signal: str, *args: Any, **kwargs: Any) -> None:
        before(broker, signal, *args, **kwargs)
        if signal == "process_message" and not args[0].failed:
            tasks.begins(partial(_dramatiq_task, broker, args[0]))

    @wraps(after)
    def emit_after(broker: Any, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal in ("process_message", "skip_message"):
            tasks.ends(kwargs.get("result"), kwargs.get("exception"), by=args[0])
        after(broker, signal, *args, **kwargs)

    undo.replace(module.Broker, "emit_before", emit_before)
    undo.replace(module.Broker, "emit_after", emit_after)


def _dramatiq_task(broker: Any, message: Any) -> Task:
    actor = broker.get_actor(message.actor_name)
    return _by_function(actor.fn, message.args, message.kwargs, by=message, found=actor)


def _huey(module: Any, undo: Undo) -> None:
    before = module.Huey.execute

    @wraps(before)
    def execute(huey: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        if huey.immediate:  # it is done where it was asked for
            return before(huey, task, *args, **kwargs)
        own = task.execute

        def done() -> Any:
            with tasks.doing(lambda: _huey_task(module, task), task) as results:
                results.append(own())
            return results[-1]

        # The class's own is below it: what goes wrong within is handled above it, and not to be seen there.
        task.execute = done
        try:
            return before(huey, task, *args, **kwargs)
        finally:
            del task.execute

    undo.replace(module.Huey, "execute", execute)


def _huey_task(module: Any, task: Any) -> Task:
    where = type(task).__module__
    members = vars(sys.modules[where]) if where in sys.modules else {}
    for name, one in list(members.items()):
        if isinstance(one, module.TaskWrapper) and one.task_class is type(task):
            args, kwargs = task.data
            return Task(
                name=f"{where}.{name}",
                entrypoint=tasks.entry(where, name, partial(is_, one)),
                args=args,
                kwargs=kwargs,
                by=task,
                alone="its worker hands it its own task (`context=True`)" if one.context else None,
            )
    return Task(name=f"{where}.{type(task).__name__}", entrypoint=None, by=task)


def _arq(module: Any, undo: Undo) -> None:
    before = module.Worker.__init__

    @wraps(before)
    def made(worker: Any, *args: Any, **kwargs: Any) -> None:
        before(worker, *args, **kwargs)
        for name, one in list(worker.functions.items()):
            worker.functions[name] = replace(one, coroutine=_arq_done(worker, one.coroutine))

    undo.replace(module.Worker, "__init__", made)


def _arq_done(worker: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def done(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        account = object()
        with tasks.doing(
            lambda: _arq_task(worker, function, (ctx, *args), kwargs, account), account
        ) as results:
            results.append(await function(ctx, *args, **kwargs))
        return results[-1]

    return done


def _arq_task(
    worker: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], by: object
) -> Task:
    ctx, *given = args
    kept = {name: value for name, value in ctx.items() if _is_json(value)}
    if worker.on_startup is not None:
        start = worker.on_startup
        kept[ON_STARTUP] = tasks.entry(start.__module__, start.__qualname__, partial(is_, start))
    return _by_function(function, [kept, *given], kwargs, by=by)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _by_function(function: Any, args: Any, kwargs: Mapping[str, Any], *, by: Any, found: Any = None) -> Task:
    """Return the task that is a call of a function, which a module has by its name, or has `found` there."""
    module, name = function.__module__, getattr(function, "__qualname__", type(function).__name__)
    wanted = function if found is None else found
    entrypoint = tasks.entry(module, name, partial(is_, wanted))
    return Task(name=f"{module}.{name}", entrypoint=entrypoint, args=args, kwargs=kwargs, by=by)


QUEUES: Mapping[str, Callable[[Any, Undo], None]] = {
    "celery.signals": _celery,
    "rq.job": _rq,
    "dramatiq.broker": _dramatiq,
    "huey.api": _huey,
    "arq.worker": _arq,
}
"""By the module in which that place is."""
