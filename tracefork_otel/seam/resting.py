"""Whether the other threads of this process rest: what the system says of each, not how much time went by.

A thread that was given an answer hands it on, and whoever waits for that acts on it; on a busy machine that
takes any time. It is over once none of them runs, wants to, or has run since it was looked at before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

_BETWEEN_S = 0.0005
"""Others get the interpreter for so long at least between two looks."""
_MOST_S = 1.0
"""So long they are waited for: one that works all the time never rests."""
_AGAIN_S = 0.02
"""The same after one did not."""
_UNKNOWN_S = 0.01
"""What is waited for where the system says nothing: an answer is given on in some 2 ms on a busy machine."""
_TOLD = (b"State:", b"voluntary_ctxt_switches:", b"nonvoluntary_ctxt_switches:")

_Look: TypeAlias = Mapping[int, tuple[bytes, ...]]
_waiting: set[int] = set()
"""The threads that wait for the others here."""
_most_s = _MOST_S


def wait_for_others() -> None:
    """Return once no other thread of this process is at work; not later than after some time."""
    global _most_s
    own = threading.get_native_id()
    _waiting.add(own)
    try:
        before, until = _look(), time.monotonic() + _most_s
        if before is None:
            time.sleep(_UNKNOWN_S)
            return
        while before:
            time.sleep(_BETWEEN_S)
            now = _look()
            if now is None or (now == before and all(_sleeps(told) for told in now.values())):
                return
            if time.monotonic() > until:
                _most_s = _AGAIN_S
                return
            before = now
    finally:
        _waiting.discard(own)


def _sleeps(told: tuple[bytes, ...]) -> bool:
    return bool(told) and told[0].split()[1] == b"S"


def _look() -> _Look | None:
    """Return what the system says of each thread but those that wait here; None where it says nothing."""
    found: dict[int, tuple[bytes, ...]] = {}
    for thread in threading.enumerate():
        native = thread.native_id
        if native is None or native in _waiting:
            continue
        try:
            descriptor = os.open(f"/proc/self/task/{native}/status", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.isdir("/proc/self/task"):
                return None
            continue  # it has ended
        try:
            with suppress(OSError):  # it has ended meanwhile
                lines = os.read(descriptor, 2**16).splitlines()
                found[native] = tuple(line for line in lines if line.startswith(_TOLD))
        finally:
            os.close(descriptor)
    return found
