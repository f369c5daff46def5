"""A command on our terminal, as if typed: which signals it gets, and what Ctrl-C may leave of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tracefork_otel.errors import UsageError

from .kept_output import KeptOutput
from .supervise import exit_status
from .watching import Watch

_HEARD_S = 0.2
"""So long a command may take to end of a Ctrl-C that reached it too, before it is passed on."""
_GRACE_S = 0.3
"""So long what is left after Ctrl-C may take to end by itself."""
_LOOK_S = 0.01
INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C ended."""
_PROC = Path("/proc")


def run_inherited(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: int | None = None,
    printed: KeptOutput | None = None,
    watch: Watch | None = None,
    launch_id: str | None = None,
) -> int:
    """Run a command on our terminal, streams and process group, and return its exit status.

    `stdin` is what it gets as its standard input, and `printed` has its standard output, where not ours. The
    `watch` looks at what it starts. Where Ctrl-C ends it, nothing of the launch is left in our group.
    """
    printed = printed or KeptOutput()
    told = None if launch_id is None else f"TRACEPARENT=00-{launch_id}-".encode()
    with _signals_passed_on(told) as command:
        try:
            child = subprocess.Popen(list(argv), env=dict(env), stdin=stdin, stdout=printed.sink)
        except FileNotFoundError as error:
            raise UsageError(f"no such command or folder: {error.filename or argv[0]}") from error
        except OSError as error:
            raise UsageError(f"cannot start {argv[0]!r}: {error.strerror or error}") from error
        command.begun(child)
        printed.started()
        with contextlib.nullcontext() if watch is None else watch.over(child.pid):
            status = exit_status(child.wait())
        if status == INTERRUPTED and told is not None:
            _end_rest(told)
        return status


class _Command:
    """The command, as signals reach it; those that came before it began are given to it then."""

    def __init__(self, told: bytes | None) -> None:
        self._told = told
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def begun(self, child: subprocess.Popen[bytes]) -> None:
        """This is the command from now on."""
        self._child = child
        for number in self._early:
            self.send(number)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Pass on a Ctrl-C that did not reach it by the terminal."""
        if self._child is None:
            self._early.append(number)
        elif not _typed():
            late = threading.Timer(_HEARD_S, self._as_typed)
            late.daemon = True
            late.start()

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """Pass on what would end us alone."""
        if self._child is None:
            self._early.append(number)
        self.send(number)

    def _as_typed(self) -> None:
        """Give Ctrl-C to all that a terminal would: a shell alone would wait for what it has started."""
        if self._child is None or self._child.poll() is not None:
            return
        for process in {self._child.pid, *_in_group(self._told)}:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGINT)

    def send(self, number: int) -> None:
        """Signal it, if it runs."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                self._child.send_signal(number)


@contextlib.contextmanager
def _signals_passed_on(told: bytes | None) -> Iterator[_Command]:
    """Leave Ctrl-C to the command, which the terminal sends it too; pass on what would end us alone."""
    command = _Command(told)
    if threading.current_thread() is not threading.main_thread():
        yield command
        return
    # Ctrl-C has a handler also where there is nothing to do: what is ignored stays ignored in the command.
    handlers = {
        signal.SIGINT: command.interrupt,
        signal.SIGTERM: command.pass_on,
        signal.SIGHUP: command.pass_on,
    }
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN:  # under nohup, SIGHUP stays ignored
            signal.signal(number, handler)
    try:
        yield command
    finally:
        for number, before_us in before.items():
            signal.signal(number, before_us)


def _typed() -> bool:
    """Return whether a terminal has us, and so the command, in its foreground, and sends Ctrl-C to both."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _end_rest(told: bytes) -> None:
    """End what the command has left in our process group, which Ctrl-C was for: a shell's `&` has it ignored.

    What began a session or a group of its own is meant to stay. Linux alone says whose a process is.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in _in_group(told):
            with contextlib.suppress(OSError):
                os.kill(process, number)
        deadline = time.monotonic() + _GRACE_S
        while _in_group(told) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def _in_group(told: bytes | None) -> list[int]:
    """Return the living processes of our process group whose environment has a line that begins so."""
    found: list[int] = []
    if told is None:
        return found
    ours = os.getpid()
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            process = int(entry.name)
            if process == ours or os.getpgid(process) != os.getpgrp():
                continue
            # Of a process that has ended and that nobody waited for, this is empty.
            lines = (entry / "environ").read_bytes().split(b"\0")
            if any(line.startswith(told) for line in lines):
                found.append(process)
    return found
