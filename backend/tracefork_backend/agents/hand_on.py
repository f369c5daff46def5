"""A process of its own that hands a recorded command's output on, and keeps its beginning and end.

Started by path, with `-I -S`, by `kept_output.py`; standard library only. What the command prints it reads
from its standard input and writes to its standard output until nobody can print any more: also what those
print that the command left running, and where the process that started it was killed. Once the descriptor
that its first argument names is closed, or the output ends, it writes what it kept to that of its second:
a line with the length of the whole, that of the beginning, and 1 if more may come; then beginning and end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios

_PIECE = 64 * 2**10


class Kept:
    """The beginning and the end of what was handed on, until it is told."""

    def __init__(self, report: int, limit: int) -> None:
        self.report, self.limit = report, limit
        self.told = False
        self.head = bytearray()
        self.tail = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Count the data, and keep of it what is near an end."""
        self.total += len(data)
        room = self.limit - len(self.head)
        self.head += data[:room]
        self.tail += data[room:][-self.limit :]
        if len(self.tail) > 2 * self.limit:
            del self.tail[: -self.limit]

    def tell(self, *, goes_on: bool) -> None:
        """Report it once, and whether there may be more of which nothing is kept."""
        if self.told:
            return
        self.told = True
        with contextlib.suppress(OSError), open(self.report, "wb") as file:
            file.write(b"%d %d %d\n" % (self.total, len(self.head), goes_on))
            file.write(self.head + self.tail[-self.limit :])


def waiting() -> int:
    """Return how many bytes were printed and not read yet."""
    return int(struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, b"\0\0\0\0"))[0])


def hand_on(data: bytes) -> None:
    """Write all of it, also where the other side has set that writing does not wait."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])


def pump(ended: int, report: int, limit: int) -> None:
    """Hand on until the output ends or nobody reads it; report as soon as the command has ended."""
    kept = Kept(report, limit)
    polled = select.poll()
    polled.register(0, select.POLLIN)
    polled.register(1, 0)  # says when nobody reads any more, so that whoever prints hears of it too
    polled.register(ended, select.POLLIN)
    left: int | None = None  # of what the command itself can have printed, once it has ended
    try:
        while 1 not in (found := dict(polled.poll())):
            if ended in found:
                polled.unregister(ended)
                left = waiting()
            else:
                data = os.read(0, _PIECE)
                if not data:
                    break
                hand_on(data)
                kept.feed(data)
                left = None if left is None else left - len(data)
            if left is not None and left <= 0:
                kept.tell(goes_on=True)
    except OSError:  # nobody reads it, or there is no room for it
        pass
    os.close(0)  # whoever prints on is told
    kept.tell(goes_on=False)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    pump(*map(int, sys.argv[1:]))
