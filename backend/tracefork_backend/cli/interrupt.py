"""Ctrl-C and the end of its time, while a library is at work that does not come back to Python for it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tracefork_otel.errors import UsageError

from ..spelling import visible

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
_TERMINATED = 143
_PATIENCE_S = 0.5
"""So long the work may take to end by itself."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM in a verb, its cause; of those that typer knows it makes a bare status."""


@contextmanager
def passed_on() -> Iterator[None]:
    """Raise Interrupted for what interrupts the block, past typer to whoever tells what is known."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted from error


def status_of(error: BaseException) -> int:
    """Return the exit status after Ctrl-C or SIGTERM, once what is known was said on standard error."""
    cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__ or error.__context__
    for note in getattr(cause, "__notes__", ()):
        sys.stderr.write(visible(f"{note}\n"))
    return _TERMINATED if isinstance(cause, Terminated) else INTERRUPTED


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, where it would end the process: agents are ended with it."""
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_interrupt(error: Exception) -> bool:
    """Return whether the error is DuckDB's own word for Ctrl-C."""
    return str(error) == "Query interrupted"


@contextmanager
def at_once(patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Let Ctrl-C, and SIGTERM in `terminable`, end the process so soon, whatever the block is at.

    What the block writes is whole or not there however it ends, and what it starts ends with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    asked, done = threading.Event(), threading.Event()
    by: list[int] = []

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                by.append(number[0])
                asked.set()
                if not done.wait(patience_s):
                    os._exit(_TERMINATED if by[0] == signal.SIGTERM else INTERRUPTED)
        os.close(reader)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception as error:
        # The library's own word for it, which may come before the watcher had its turn.
        if "interrupt" in str(error).lower() and asked.wait(1):
            raise (Terminated if by[0] == signal.SIGTERM else KeyboardInterrupt) from None
        raise
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writer)


@contextmanager
def at_last(seconds: float) -> Iterator[None]:
    """End the process where the block goes on for longer, half a second after it was asked to end itself.

    For blocks that only read.
    """
    from ..store.limits import duration, too_long

    def end() -> None:
        sys.stderr.write(f"error: {too_long(seconds)}\n")
        sys.stderr.flush()
        os._exit(UsageError.exit_status)

    timer = threading.Timer(duration(seconds) + _PATIENCE_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
