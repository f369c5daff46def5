"""A recorded answer's end held back, until those that came before it in the recording have come."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .resting import wait_for_others

if TYPE_CHECKING:
    from ..play.order import Order

_TURNS = 50
"""Turns of an event loop that what has just ended gets, to reach whoever waits for it: an SDK takes a few."""
_TURNS_OF_A_PART = 10
"""The same for a part of a stream, which is read in the task that waits for it."""
_LOOK_S = (0.02, 0.32)
"""How soon it is looked for what other processes took, and how seldom in the end."""


@dataclass(slots=True)
class Held:
    """One answer's place in the order."""

    order: Order
    step: int

    def wait(self, most_s: float) -> None:
        """Return when the answer may end, at the latest after that time: an agent may have changed."""
        order, step = self.order, self.step
        if not order.may_end(step):
            woken = threading.Event()
            with order.waking(step, woken.set):
                for pause in _pauses(most_s):
                    order.look(step)
                    if woken.wait(pause):
                        break
            if not order.may_end(step):
                order.give_up(step)
        # Whoever got the answer before this one has passed it on by then, and was heard.
        wait_for_others()

    async def turn(self, most_s: float) -> None:
        """Do what `wait` does, for an event loop."""
        order, step = self.order, self.step
        if order.may_end(step):
            return
        await _woken(order, step, partial(order.waking, step), most_s)
        if not order.may_end(step):
            order.give_up(step)
        for _ in range(_TURNS):
            await asleep(0)

    def came(self, number: int) -> None:
        """Note that the part is given."""
        parts = self.order.parts(self.step)
        if parts is not None:
            parts.came(self.step, number)

    async def part(self, number: int, most_s: float) -> None:
        """Return when the part may come, in an event loop, at the latest after that time."""
        parts, step = self.order.parts(self.step), self.step
        if parts is None:
            return
        if not parts.may_come(step, number):
            await _woken(self.order, step, partial(parts.waking, step, number), most_s)
            if not parts.may_come(step, number):
                parts.free()
        if parts.follows_another(step, number):
            for _ in range(_TURNS_OF_A_PART):
                await asleep(0)

    def over(self) -> None:
        """Note that the answer was given, or nobody wants it any more."""
        self.order.ended(self.step)


async def asleep(seconds: float) -> None:
    """Sleep in whatever event loop runs here; 0 lets others have a turn."""
    if _is_asyncio():
        await asyncio.sleep(seconds)
    else:
        import anyio  # where trio runs, httpx or httpx2 has brought it

        await anyio.sleep(seconds)


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _event() -> Any:
    if _is_asyncio():
        return asyncio.Event()
    import anyio

    return anyio.Event()


async def _woken(
    order: Order,
    step: int,
    waking: Callable[[Callable[[], object]], AbstractContextManager[None]],
    most_s: float,
) -> None:
    """Return once this wakes it, or after that time; meanwhile look what other processes took."""
    woken = _event()
    with waking(_from_any_thread(woken.set)):
        for pause in _pauses(most_s):
            order.look(step)
            await _wait(woken, pause)
            if woken.is_set():
                return


async def _wait(woken: Any, most_s: float) -> None:
    if isinstance(woken, asyncio.Event):
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await woken.wait()
        return
    import anyio

    with anyio.move_on_after(most_s):
        await woken.wait()


def _pauses(most_s: float) -> Iterator[float]:
    """Yield how long to wait each time, until that time is over."""
    until = time.monotonic() + most_s
    pause, longest = _LOOK_S
    while (left := until - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(2 * pause, longest)


def _from_any_thread(call: Callable[[], None]) -> Callable[[], object]:
    """Return what has the event loop that runs here do this, whichever thread calls it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        trio: Any = sys.modules["trio"]
        return partial(trio.lowlevel.current_trio_token().run_sync_soon, call)
    return partial(loop.call_soon_threadsafe, call)
