"""Files read as they are, without taking away the locks that this process has on them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import open_whole


@contextmanager
def reading(path: str) -> Iterator[Callable[[int], bytes]]:
    """Give what reads the file on, so many bytes at most each time.

    Where this process has it open it is read by that descriptor: to close another one of the same file would
    take away all locks that the process has on it, and with them those of SQLite.
    """
    descriptor = open_here(path)
    if descriptor is None:
        with open_whole(Path(path)) as file:
            yield file.read
        return
    at = 0

    def read(most: int) -> bytes:
        nonlocal at
        found = os.pread(descriptor, most, at)
        at += len(found)
        return found

    yield read


def open_here(path: str) -> int | None:
    """Return a descriptor by which this process has the file open to read it; None for none."""
    wanted = os.stat(path)
    with suppress(FileNotFoundError):
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):
                descriptor = int(name)
                if os.path.samestat(os.fstat(descriptor), wanted):
                    how = fcntl.fcntl(descriptor, fcntl.F_GETFL)
                    if how & os.O_ACCMODE != os.O_WRONLY:
                        return descriptor
    return None
