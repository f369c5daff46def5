"""A command run to its end: bounded in time and output, its whole process tree gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from tracefork_otel.errors import AgentFailed

from .output import Output

Reason: TypeAlias = Literal["exit", "timeout", "stopped"]
Launch: TypeAlias = Callable[[Sequence[int]], "subprocess.Popen[bytes] | None"]
"""Starts a supervisor, given socket, stdin, stdout and stderr; None if another process waits for it."""

SUPERVISOR = Path(__file__).with_name("supervisor.py")

# Time between SIGTERM and SIGKILL: more than the 2 s that a recording process may take to flush.
GRACE_S = 3.0
# The supervisor ends within its grace and its own bound on killing; more than that means that it hangs.
_SUPERVISOR_S = 30.0
# All writers are gone when the supervisor reports; what they wrote is in the pipe already.
_DRAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended."""

    exit_status: int
    """128+n if signal n ended it."""
    reason: Reason
    """`timeout` and `stopped` if it was ended from here."""
    stdout: str
    stderr: str
    """The beginning and the end of both."""
    output: Output
    """The first of them, as whole as it was kept."""
    seconds: float
    swept: int = 0
    """Processes that the command left running and that were ended."""


class NeverBegan(AgentFailed):
    """The supervisor was gone before it started anything."""


class Ends(Protocol):
    """What runs, and can be ended."""

    def ask_to_end(self, *, at_once: bool = False) -> None:
        """Begin to end it; where it is to be `at_once`, without the time to do something more."""
        ...

    def commands(self) -> list[int]:
        """Return the process ids of its commands, once they are known."""
        ...


class Stopper:
    """Ends every command that runs under it, from any thread; what starts afterwards is ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Ends] = set()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped

    def stop(self, *, at_once: bool = False) -> None:
        """Begin to end each command; whoever waits for one gets it back with the reason `stopped`.

        Where it is to be `at_once` no process of it gets the time to do something more.
        """
        with self._lock:
            self._stopped = True
            for supervised in self._running:
                supervised.ask_to_end(at_once=at_once)

    ask_to_end = stop

    def commands(self) -> list[int]:
        """Return the process ids of the commands that run under it."""
        with self._lock:
            return [one for supervised in self._running for one in supervised.commands()]

    @contextlib.contextmanager
    def over(self, supervised: Ends) -> Iterator[None]:
        """Count this command, or those of another stopper, among those that are ended, within the block."""
        with self._lock:
            self._running.add(supervised)
            if self._stopped:
                supervised.ask_to_end()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(supervised)


def run_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float | None = None,
    stdin: bytes | None = None,
    stdin_kind: str | None = None,
    grace: float = GRACE_S,
    stopper: Stopper | None = None,
    linger: float = 0.0,
) -> Finished:
    """Run the command to its end; nothing that it started is left, also if this call is interrupted.

    It reads `stdin` from a file, or of the kind `pipe` from a pipe, if one has room for all of it; where that
    is `closed` it has none.
    What it leaves running when it ends may go on for `linger` seconds, before it is ended.
    Raises AgentFailed if it cannot be started, or if a process of it cannot be ended.
    """
    spec = {
        "argv": list(argv),
        "env": dict(os.environ if env is None else env),
        "cwd": None if cwd is None else str(cwd),
        "timeout": timeout,
        "grace": grace,
        "linger": linger,
        "closed": stdin_kind == "closed",
    }
    return supervise(spec, argv[0], _own_supervisor, stdin=stdin, piped=stdin_kind == "pipe", stopper=stopper)


def supervise(
    spec: Mapping[str, Any],
    name: str,
    launch: Launch,
    *,
    stdin: bytes | None = None,
    piped: bool = False,
    stopper: Stopper | None = None,
) -> Finished:
    """Supervise what `launch` starts to its end, once it gave the supervisor its descriptors.

    Raises AgentFailed as `run_command` does, `name` standing for the command.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        supervised = _Supervised(stack, spec, _input(stdin, piped), launch)
        try:
            with (stopper or Stopper()).over(supervised):
                report = supervised.follow()
        except BaseException:
            supervised.stop()
            raise
    if "failed" in report:
        raise AgentFailed(f"cannot start {name!r}: {report['failed']}")
    if not report:
        kind = AgentFailed if supervised.began else NeverBegan
        raise kind(f"the supervisor of {name!r} was ended from outside; the command was ended with it")
    if report["remaining"]:
        raise AgentFailed(f"{name!r} left processes that cannot be ended: {report['remaining']}")
    return Finished(
        exit_status=exit_status(report["ended"]),
        reason=report["reason"],
        stdout=supervised.outputs["stdout"].text(),
        stderr=supervised.outputs["stderr"].text(),
        output=supervised.outputs["stdout"],
        seconds=time.monotonic() - started,
        swept=report["swept"],
    )


def _own_supervisor(ends: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), *map(str, ends)],
        pass_fds=ends,
        stdin=subprocess.DEVNULL,
        # A session of its own: the terminal's Ctrl-C is ours to pass on, in our own way.
        start_new_session=True,
    )


def exit_status(returncode: int) -> int:
    """Return a return code as a shell tells it: 128+n for signal n."""
    return 128 - returncode if returncode < 0 else returncode


class _Supervised:
    """The supervisor process, its socket, and the two streams of its command."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        spec: Mapping[str, Any],
        given: contextlib.AbstractContextManager[int],
        launch: Launch,
    ) -> None:
        self.outputs = {"stdout": Output(), "stderr": Output(limit=0)}
        self._report: dict[str, Any] = {}
        self.began = False
        """Whether the supervisor said that it started what it was told to."""
        self._command: int | None = None
        self._received = b""
        self._ended = False
        self._selector = stack.enter_context(selectors.DefaultSelector())
        ours, theirs = socket.socketpair()
        self._socket = stack.enter_context(ours)
        with theirs, given as source, contextlib.ExitStack() as writers:
            ends = [theirs.fileno(), source]
            for name in self.outputs:
                reader, writer = os.pipe()
                writers.callback(os.close, writer)
                stack.callback(os.close, reader)
                self._selector.register(reader, selectors.EVENT_READ, name)
                ends.append(writer)
            self._process = launch(ends)
        self._selector.register(self._socket, selectors.EVENT_READ, "report")
        stack.callback(self._leave)
        with contextlib.suppress(BrokenPipeError):  # ended already: its last word is still to be read
            self._socket.sendall(json.dumps(spec).encode() + b"\n")

    def commands(self) -> list[int]:
        """Return the command's process id, once it is known."""
        return [] if self._command is None else [self._command]

    def follow(self) -> dict[str, Any]:
        """Take in all output, and return the supervisor's last word."""
        while not self._ended:
            self._take(None)
        deadline = time.monotonic() + _DRAIN_S
        # A process outside the tree may have been given the pipes, and keep them open.
        while self._selector.get_map() and self._take(max(0.0, deadline - time.monotonic())):
            pass
        return self._report

    def ask_to_end(self, *, at_once: bool = False) -> None:
        """Tell the supervisor to end the tree, without its grace where it is to be at once."""
        with contextlib.suppress(OSError):
            if at_once:
                self._socket.sendall(b"at once\n")
            self._socket.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """End the whole tree."""
        self.ask_to_end()
        deadline = time.monotonic() + _SUPERVISOR_S
        while not self._ended and time.monotonic() < deadline:
            self._take(1.0)

    def _take(self, timeout: float | None) -> bool:
        """Read what is there, or comes in time; return whether anything was."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if key.data == "report":
                self._hear()
            elif data := os.read(key.fd, 65536):
                self.outputs[key.data].feed(data)
            else:
                self._selector.unregister(key.fd)
        return bool(ready)

    def _hear(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:  # the supervisor was killed before it read what to start
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "started" in message:
                self.began = True
                self._command = message["started"]
            else:
                self._report = message
        if not data or self._report:
            self._ended = True
            self._selector.unregister(self._socket)

    def _leave(self) -> None:
        self._socket.close()  # whatever still runs is ended by this
        if self._process is None:  # forked from a warm process, which waits for it
            return
        try:
            self._process.wait(_SUPERVISOR_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def _full_pipe(data: bytes) -> int | None:
    """Return the end to read of a pipe that holds these bytes and ends after them; None if it has no room."""
    reader, writer = os.pipe()
    try:
        with contextlib.suppress(AttributeError, OSError):  # Linux's; a user's pipes have a limit together
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, len(data))
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            if not data or os.write(writer, data) == len(data):
                return reader
    finally:
        os.close(writer)
    os.close(reader)
    return None


@contextlib.contextmanager
def _input(data: bytes | None, piped: bool) -> Iterator[int]:
    """Yield a descriptor to read these bytes from; a file where a pipe would have to be fed."""
    if piped and data is not None:
        pipe = _full_pipe(data)
        if pipe is not None:
            try:
                yield pipe
            finally:
                os.close(pipe)
            return
    with tempfile.TemporaryFile() if data is not None else open(os.devnull, "rb") as file:
        if data is not None:
            file.write(data)
            file.seek(0)
        yield file.fileno()
