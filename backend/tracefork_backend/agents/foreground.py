"""A command on our terminal, as if typed: which signals it gets, and what Ctrl-C may leave of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tracefork_otel.errors import UsageError

from .kept_output import KeptOutput
from .supervise import exit_status
from .watching import Watch

_HEARD_S = 0.3
"""So long another process may take to say that a signal reached it too, on a machine that is busy."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WITNESS = Path(__file__).with_name("witness.py")
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

    def __init__(self, told: bytes | None, heard: Callable[[int], bool]) -> None:
        self._told = told
        self._heard = heard
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def begun(self, child: subprocess.Popen[bytes]) -> None:
        """This is the command from now on."""
        self._child = child
        for number in self._early:
            self._send(number)

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """Pass on what came to us alone; a Ctrl-C that was typed came to our whole process group."""
        if self._child is None:
            self._early.append(number)
        else:
            threading.Thread(target=self._pass_on, args=(number,), daemon=True).start()

    def _pass_on(self, number: int) -> None:
        # A second one makes many programs stop at once that were about to end in order.
        if not self._heard(number):
            self._send(number)

    def _send(self, number: int) -> None:
        if self._child is None or self._child.poll() is not None:
            return
        # Ctrl-C to all that a terminal would give it: a shell alone would wait for what it has started.
        rest = _in_group(self._told) if number == signal.SIGINT else []
        for process in {self._child.pid, *rest}:
            with contextlib.suppress(OSError):
                os.kill(process, number)


@contextlib.contextmanager
def _signals_passed_on(told: bytes | None) -> Iterator[_Command]:
    """Leave to the command what signals our whole process group; pass on what signals us alone."""
    if threading.current_thread() is not threading.main_thread():
        yield _Command(told, lambda number: False)
        return
    with _witness() as heard:
        command = _Command(told, heard)
        before = {number: signal.getsignal(number) for number in _PASSED_ON}
        for number in _PASSED_ON:
            # What is ignored stays ignored in the command, as SIGHUP under nohup.
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, command.signalled)
        try:
            yield command
        finally:
            for number, before_us in before.items():
                signal.signal(number, before_us)


@contextlib.contextmanager
def _witness() -> Iterator[Callable[[int], bool]]:
    """Keep a process in our group, and tell whether a signal that we have got reached it too."""
    # Blocked until it listens: it must not end of what it is there to tell.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WITNESS)],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # of what reaches it nothing is known
        yield lambda number: False
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    told = bytearray()
    asking = threading.Lock()
    ended = False

    def heard(number: int) -> bool:
        deadline = time.monotonic() + _HEARD_S
        with asking:
            while number not in told:
                left = deadline - time.monotonic()
                if ended or left < 0 or process.stdout is None:
                    return False
                if select.select([process.stdout], [], [], left)[0]:
                    more = os.read(process.stdout.fileno(), 64)
                    if not more:
                        return False
                    told.extend(more)
            told.remove(number)
            return True

    with process:
        try:
            yield heard
        finally:
            process.kill()
            with asking:  # whoever still asks is told at once, by its end
                ended = True


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
