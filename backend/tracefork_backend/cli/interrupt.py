"""Ctrl-C while a library is at work that does not come back to Python for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
_PATIENCE_S = 0.5
"""So long the work may take to end by itself."""


@contextmanager
def at_once() -> Iterator[None]:
    """Let Ctrl-C end the process within half a second, whatever the block is at.

    For blocks that only read: nothing of theirs is undone, and no process of theirs may be left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    asked, done = threading.Event(), threading.Event()

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGINT:
                asked.set()
                if not done.wait(_PATIENCE_S):
                    os._exit(INTERRUPTED)
        os.close(reader)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception as error:
        # The library's own word for it, which may come before the watcher had its turn.
        if "interrupt" in str(error).lower() and asked.wait(1):
            raise KeyboardInterrupt from None
        raise
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
