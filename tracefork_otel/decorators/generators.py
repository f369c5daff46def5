"""Generators driven step by step: what is current inside of them is so for their own steps alone."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeAlias


class Opened(Protocol):
    """A call that was begun."""

    def suspend(self) -> None:
        """Make what was current before it so again."""
        ...

    def yielded(self, item: Any) -> None:
        """Keep what the call gave."""
        ...

    def exhausted(self) -> None:
        """Keep that it gave no more."""
        ...


Made: TypeAlias = AbstractContextManager[Opened]


def driven(steps: Generator[Any, Any, Any], made: Made) -> Generator[Any, Any, Any]:
    """Yield what the generator yields, as one call from its first step to its last."""
    with made as call:
        held = _Held(call)
        step: Callable[[], Any] = steps.__next__
        while True:
            try:
                with held:
                    item = step()
            except StopIteration as stop:
                call.exhausted()
                return stop.value
            call.yielded(item)
            try:
                step = partial(steps.send, (yield item))
            except GeneratorExit:  # who consumes it has enough
                with held:
                    steps.close()
                call.exhausted()
                raise
            except BaseException as error:
                step = partial(steps.throw, error)


async def adriven(steps: AsyncGenerator[Any, Any], made: Made) -> AsyncGenerator[Any, Any]:
    """Do what `driven` does, for an asynchronous generator."""
    with made as call:
        held = _Held(call)
        step = _unregistered(steps)
        while True:
            try:
                with held:
                    item = await step
            except StopAsyncIteration:
                call.exhausted()
                return
            call.yielded(item)
            try:
                step = steps.asend((yield item))
            except GeneratorExit:
                with held:
                    await steps.aclose()
                call.exhausted()
                raise
            except BaseException as error:
                step = steps.athrow(error)


def _unregistered(steps: AsyncGenerator[Any, Any]) -> Any:
    """Return the generator's first step; its loop closes the one that drives it, which closes this one."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return steps.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


class _Held:
    """What is current inside of a generator, in place during each of its steps."""

    def __init__(self, call: Opened) -> None:
        from ..session import spans

        self._spans = spans
        self._current = spans.current_here()
        call.suspend()

    def __enter__(self) -> None:
        self._back = self._spans.put_here(self._current)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current = self._spans.current_here()  # with spans that it opened over a yield
        self._back()


def consumed(result: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
    """Return what a call gave in the end: a coroutine awaited by `run`, a generator's items as a list."""
    if inspect.iscoroutine(result):
        return run(result)
    if inspect.isasyncgen(result):
        return run(_collected(result))
    return list(result) if inspect.isgenerator(result) else result


async def _collected(steps: AsyncGenerator[Any, Any]) -> list[Any]:
    return [item async for item in steps]
