"""`python -m tracefork_backend.cli.tied` is the command, ended as by Ctrl-C once its standard input ends.

Whoever starts it holds the other end of a pipe, which the system closes however the holder ends.
"""

from __future__ import annotations

import os
import signal
import threading

from . import main


def _tie() -> None:
    """Watch standard input on a thread; the command, and what it starts, reads an empty one."""
    held = os.dup(0)  # not inherited by what the command starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(held,), daemon=True).start()


def _end_with(held: int) -> None:
    while os.read(held, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    _tie()
    main()
