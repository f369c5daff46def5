"""A process of its own around one command: it alone is the parent of all that the command leaves behind.

Started by path, with `-I -S`, by `supervise.py`; standard library only. It talks to its director over the
socket whose number is its first argument: one JSON line in (what to start), JSON lines out (`started` or
`failed`, then `ended`). When the socket closes, however the director died, the whole tree is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# What the command left running may end by itself once its parent is gone, as multiprocessing's tracker does.
_SETTLE_S = 0.3
# A tree that forks faster than it is killed is given up after this long, and reported as left.
_KILL_S = 10.0


def prctl(option: int, value: int) -> None:
    """Set a property of this process where the system has it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """Have the system kill this process when the one that started it ends."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def without_input() -> None:
    """Do so too, and close the standard input of the process that is about to run."""
    die_with_parent()
    os.close(0)


def adopt_orphans() -> None:
    """Make this process the parent of all that is left below it."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _descendants() -> list[int]:
    """Return the living processes below this one; orphans are among them, as this is a subreaper."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    with open(f"/proc/{name}/stat", "rb") as file:
                        raw = file.read()
                    state, parent = raw[raw.rindex(b")") + 2 :].split()[:2]
                    if state != b"Z":
                        children.setdefault(int(parent), []).append(int(name))
    found, queue = list[int](), [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


class Supervisor:
    """One command and the tree below it."""

    def __init__(self, director: socket.socket) -> None:
        self.director = director
        self.child: int | None = None
        self.status: int | None = None
        self.wake_r, self.wake_w = os.pipe()
        os.set_blocking(self.wake_w, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_w, warn_on_full_buffer=False)

    def say(self, **message: object) -> None:
        """Send the director the message, if it still lives."""
        with contextlib.suppress(OSError):
            self.director.sendall(json.dumps(message).encode() + b"\n")

    def start(self, spec: dict, *streams: int) -> bool:
        """Start the command in a session of its own; return False, and say why, if it cannot be started."""
        stdin, stdout, stderr = streams
        try:
            # Kept, as it would take the command's status for itself when it goes.
            self.command = subprocess.Popen(
                spec["argv"],
                env=spec["env"],
                cwd=spec["cwd"],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                # Were this process killed, nobody would end the command. It has one thread, so this is safe.
                preexec_fn=without_input if spec.get("closed") else die_with_parent,
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self.say(failed=str(error))
            return False
        for descriptor in streams:
            os.close(descriptor)
        self.child = self.command.pid
        self.say(started=self.child)
        return True

    def reap(self) -> None:
        """Wait for every process that ended below, and keep the command's status."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.child:
                    self.status = os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float | None) -> bool:
        """Sleep until something happens; return True if the director wants the tree ended, or is gone."""
        ready, _, _ = select.select([self.wake_r, self.director], [], [], seconds)
        if self.wake_r in ready:
            os.read(self.wake_r, 4096)
        return self.director in ready

    def run(self, timeout: float | None) -> str:
        """Return why the command ended: `exit`, `timeout` or `stopped`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.reap()
            if self.status is not None:
                return "exit"
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return "timeout"
            if self.wait(left):
                return "stopped"

    def linger(self, seconds: float) -> None:
        """Let what the command left go on for so many seconds, or until the director wants it ended."""
        deadline = time.monotonic() + seconds
        while _descendants() and (left := deadline - time.monotonic()) > 0:
            if self.wait(min(left, 0.1)):
                return
            self.reap()

    def settle(self, seconds: float) -> list[int]:
        """Return the processes that are still there after at most so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            self.reap()
            below = _descendants()
            if self.status is None and self.child and self.child not in below:
                below = [*below, self.child]  # without /proc at least the command itself is seen
            left = deadline - time.monotonic()
            if not below or left <= 0:
                return below
            # Only direct children wake us, not those below them.
            time.sleep(min(left, 0.02))

    def signal_all(self, number: int) -> None:
        """Send every process of the tree the signal."""
        targets = _descendants()
        if not targets and self.child and self.status is None:
            with contextlib.suppress(OSError):
                os.killpg(self.child, number)
        for pid in targets:
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def end(self, reason: str, grace: float) -> tuple[int, list[int]]:
        """End the tree; return how many had to be ended after the command's own exit, and which remain."""
        left = self.settle(_SETTLE_S) if reason == "exit" else _descendants() or [0]
        if not left:
            return 0, []
        ended = len(left) if reason == "exit" else 0
        if grace:
            self.signal_all(signal.SIGTERM)
        remaining = self.settle(grace)
        deadline = time.monotonic() + _KILL_S
        while remaining and time.monotonic() < deadline:
            self.signal_all(signal.SIGKILL)
            remaining = self.settle(0.1)
        return ended, remaining

    def is_to_end_at_once(self) -> bool:
        """Return whether the director said so."""
        with contextlib.suppress(OSError):
            return bool(self.director.recv(4096, socket.MSG_DONTWAIT))
        return False

    def watch(self, *streams: int) -> None:
        """Start what the director orders, see the end of all that it started, and report it."""
        with self.director.makefile("rb") as orders:
            line = orders.readline()
        if not line:
            return
        spec = json.loads(line)
        if not self.start(spec, *streams):
            return
        reason = self.run(spec["timeout"])
        if reason == "exit":
            self.linger(spec["linger"])
        ended, remaining = self.end(reason, 0.0 if self.is_to_end_at_once() else spec["grace"])
        self.say(ended=self.status, reason=reason, swept=ended, remaining=remaining)


if __name__ == "__main__":
    control, *streams = (int(word) for word in sys.argv[1:5])
    adopt_orphans()
    Supervisor(socket.socket(fileno=control)).watch(*streams)
