"""Standard output on its way from a recorded command: handed on as it comes, its beginning and end kept."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .output import OUTPUT_HEAD, Output

HAND_ON = Path(__file__).with_name("hand_on.py")
# Where whoever reads our output does not take it, the recording does not wait for it.
_REPORT_S = 2.0


@dataclass(slots=True)
class KeptOutput:
    """What a command printed, known after the block that it ran in; None where nothing is kept."""

    sink: int | None = None
    """What the command gets as its standard output; None for ours."""
    output: Output | None = None

    def started(self) -> None:
        """Leave the way to the process that hands it on to the command alone, which has it now."""
        if self.sink is not None:
            os.close(self.sink)
            self.sink = None


@contextlib.contextmanager
def kept_output() -> Iterator[KeptOutput]:
    """Give a command's standard output, of which beginning and end are known after the block.

    It is a pipe where ours is a pipe or a file. A terminal stays the command's own, and so does a pipe or a
    file that takes errors too: two ways to it would mix them in another order.
    """
    if not _can_be_handed_on():
        yield KeptOutput()
        return
    with contextlib.ExitStack() as stack:
        source, sink = os.pipe()
        kept = KeptOutput(sink)
        stack.callback(kept.started)
        ended, end = os.pipe()
        report, told = os.pipe()
        reported = stack.enter_context(open(report, "rb", buffering=0))
        theirs = (source, ended, told)
        try:
            process = _hand_on(*theirs)
        except OSError:
            os.close(end)
            kept.started()
            yield KeptOutput()
            return
        finally:
            for one in theirs:
                os.close(one)
        try:
            yield kept
        finally:
            kept.started()
            os.close(end)
            kept.output = _reported(reported, process)


def _can_be_handed_on() -> bool:
    try:
        ours = os.fstat(1)
    except OSError:  # it is closed
        return False
    if not (stat.S_ISFIFO(ours.st_mode) or stat.S_ISREG(ours.st_mode)):
        return False
    with contextlib.suppress(OSError):
        errors = os.fstat(2)
        return (errors.st_dev, errors.st_ino) != (ours.st_dev, ours.st_ino)
    return True


def _hand_on(source: int, ended: int, told: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(HAND_ON), str(ended), str(told), str(OUTPUT_HEAD)],
        stdin=source,
        stderr=subprocess.DEVNULL,
        pass_fds=(ended, told),
        # Ctrl-C is the command's; what it prints about it is handed on.
        start_new_session=True,
    )


def _reported(reported: IO[bytes], process: subprocess.Popen[bytes]) -> Output | None:
    """Return what was kept; None where it is not told, as the output itself waits for whoever reads it."""
    told = bytearray()
    while select.select([reported], [], [], _REPORT_S)[0]:
        piece = reported.read(2**16)
        if piece:
            told += piece
            continue
        line, _, kept = bytes(told).partition(b"\n")
        total, head, goes_on = map(int, line.split() or (0, 0, 0))
        if not goes_on:
            process.wait()
        return Output.of(kept[:head], kept[head:], total) if line else None
    return None
