"""A call that has so long and no longer, such as a search whose pattern never ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_SPARE_S = 1.0


class Endless(Exception):
    """The call was given up."""


class _GivenUp(BaseException):
    """What ends the call from within: no error that it may take for one of its own."""


def bounded(call: Callable[[], T], limit_s: float | None) -> T:
    """Return what the call gives; raise Endless if it takes longer, with what it raises let through."""
    if limit_s is None:
        return call()
    if can_interrupt(limit_s):
        return _interrupted(call, limit_s)
    return _left_behind(call, limit_s)


def can_interrupt(limit_s: float) -> bool:
    """Return whether a call of this thread can be ended wherever it is, in a search of `re` too.

    There is one alarm in a process; whoever has set it already gets it, unless it is to go off later.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    return signal.getsignal(signal.SIGALRM) is not None and (left == 0.0 or left > limit_s + _SPARE_S)


def _interrupted(call: Callable[[], T], limit_s: float) -> T:
    """Have an alarm end it, and again each second: what goes on after the first is ended by another."""

    def give_up(number: int, frame: object) -> None:
        raise _GivenUp

    before, started = signal.signal(signal.SIGALRM, give_up), time.monotonic()
    left, again = signal.setitimer(signal.ITIMER_REAL, max(limit_s, 1e-3), 1.0)
    try:
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _GivenUp:
        raise Endless from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), again)


def _left_behind(call: Callable[[], T], limit_s: float) -> T:
    """Wait no longer for it: nothing can end a thread, so it goes on by itself until this process ends."""
    given: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            given.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="tracefork-oracle", daemon=True)
    thread.start()
    thread.join(min(limit_s, threading.TIMEOUT_MAX))
    if failed:
        raise failed[0]
    if not given:
        raise Endless
    return given[0]
