"""A recorded answer's end held back, until those that came before it in the recording have come."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .resting import wait_for_others

if TYPE_CHECKING:
    from ..play.order import Order

_TURNS = 50
"""Turns of an event loop that what has just ended gets, to reach whoever waits for it: an SDK takes a few."""
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
        import anyio  # both client libraries bring it

        order, step = self.order, self.step
        if order.may_end(step):
            return
        woken = anyio.Event()
        with order.waking(step, _from_any_thread(woken.set)):
            for pause in _pauses(most_s):
                order.look(step)
                with anyio.move_on_after(pause):
                    await woken.wait()
                if woken.is_set():
                    break
        if not order.may_end(step):
            order.give_up(step)
        for _ in range(_TURNS):
            await anyio.sleep(0)

    def over(self) -> None:
        """Note that the answer was given, or nobody wants it any more."""
        self.order.ended(self.step)


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
