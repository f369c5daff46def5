"""The end of a recording process: its root ends, and what is known is handed on within a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from . import current

FLUSH_SECONDS = 2.0
"""How long a process that was told to end may spend on handing on what it knows."""


def end_recording(how: str) -> None:
    """End the process's root, if it has one, and write down what is known so far."""
    session, root = current.session, sys.modules.get("tracefork_otel.session.root")
    if session is not None:
        session.flush()
        if root is not None:
            root.end_root(session, how)


def watch_sigterm() -> bool:
    """Take SIGTERM over where it has its default, to hand on what is known first; return whether we did."""
    with contextlib.suppress(ValueError, OSError):
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _sigterm)
            return True
    return False


def leave_sigterm() -> None:
    """Give SIGTERM its default back, where it is still ours."""
    with contextlib.suppress(ValueError, OSError):
        if signal.getsignal(signal.SIGTERM) is _sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sigterm(number: int, frame: FrameType | None) -> None:
    """Hand on everything within a limit; then die of the same signal."""
    # In a thread of its own, as the main thread may have been interrupted with any lock in its hands.
    thread = threading.Thread(target=_flush_all, args=("SIGTERM",), daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush_all(how: str) -> None:
    end_recording(how)
    providers = sys.modules.get("tracefork_otel.session.providers")
    if providers is not None:
        for provider in providers.adopted():
            with contextlib.suppress(Exception):
                provider.force_flush(int(FLUSH_SECONDS * 750))
