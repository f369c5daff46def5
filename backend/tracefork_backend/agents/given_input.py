"""Standard input on its way to a recorded command: handed on as it comes, and kept as far as it was read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import struct
import sys
import termios
import threading
from collections.abc import Iterator

LIMIT = 2**20
"""Bytes that are kept: far over any task that is piped to an agent, and little beside its prompts."""
_PIECE = 64 * 2**10


class GivenInput:
    """What came by standard input; nothing, where nobody read of it."""

    def __init__(self, source: int | None = None) -> None:
        self.source = source
        """What the command gets as its standard input; None for ours."""
        self.kind: str | None = None
        """`pipe` where it comes by one, `closed` where there is none."""
        self.data = bytearray()
        self.beyond = False
        """Whether more was read than is kept."""

    def keep(self, data: bytes) -> None:
        """Keep what was read, up to the limit."""
        self.beyond = self.beyond or len(self.data) + len(data) > LIMIT
        if self.beyond:
            self.data.clear()
        else:
            self.data += data


@contextlib.contextmanager
def given_input() -> Iterator[GivenInput]:
    """Give a command's standard input, whose content is known after the block.

    A file is left as it is, and what was read of it is read again. A pipe is handed on, at most some
    pieces ahead of the command. A terminal, and any other device, is nobody's but the command's.
    """
    try:
        # What we opened since we began may have its number; Python looked when it began.
        mode = None if sys.__stdin__ is None else os.fstat(0).st_mode
    except OSError:
        mode = None
    if mode is None:
        closed = GivenInput()
        closed.kind = "closed"
        yield closed
        return
    if stat.S_ISREG(mode):
        with _file() as given:
            yield given
    elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        with _handed_on() as given:
            yield given
    else:
        yield GivenInput()


@contextlib.contextmanager
def _file() -> Iterator[GivenInput]:
    given = GivenInput()
    # The command shares our place in the file, so that shows how far it has read.
    before = os.lseek(0, 0, os.SEEK_CUR)
    yield given
    with contextlib.suppress(OSError):  # it is open for writing alone
        read = os.lseek(0, 0, os.SEEK_CUR) - before
        given.keep(os.pread(0, min(read, LIMIT + 1), before) if read > 0 else b"")


@contextlib.contextmanager
def _handed_on() -> Iterator[GivenInput]:
    theirs, ours = os.pipe()
    ended, end = os.pipe()
    given = GivenInput(theirs)
    given.kind = "pipe"
    os.set_blocking(ours, False)
    pump = threading.Thread(target=_pump, args=(ours, ended, given), daemon=True)
    pump.start()
    try:
        yield given
    finally:
        os.close(end)  # whoever waits for more input is woken: the rest is left to others
        pump.join()
        del given.data[max(0, len(given.data) - _unread(theirs)) :]
        for one in (theirs, ended):
            os.close(one)


def _pump(ours: int, ended: int, given: GivenInput) -> None:
    """Hand on what comes until there is no more, nobody reads it, or the command has ended."""
    with contextlib.suppress(OSError):
        while 0 in select.select([0, ended], [], [])[0]:
            rest = os.read(0, _PIECE)
            if not rest:
                break
            while rest:
                woken, _, _ = select.select([ended], [ours], [])
                if woken:
                    raise BrokenPipeError
                done = os.write(ours, rest)
                given.keep(rest[:done])
                rest = rest[done:]
    os.close(ours)


def _unread(pipe: int) -> int:
    """Return how many bytes are in the pipe that nobody has read."""
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0])
    return 0
