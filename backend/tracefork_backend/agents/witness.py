"""A process of its own in a recorded command's process group, which tells what signals reach the group.

Started by path, with `-I -S`, by `foreground.py`, which has blocked the signals until this listens; standard
library only. It writes the number of each as one byte, and ends when its standard input does.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def tell(number: int, frame: FrameType | None) -> None:
    """Write the signal's number."""
    os.write(1, bytes([number]))


if __name__ == "__main__":
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, tell)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.read(0, 1)
