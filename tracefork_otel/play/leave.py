"""Leave to send a request over the network, which an agent waits for where a budget has to hold."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from threading import get_ident

from ..exchange import Request

# As they were at import: where an agent works on copies, one of each of its own files is looked for first.
_open, _mkfifo, _unlink = os.open, os.mkfifo, os.unlink
_ASKED = "leave"
_GIVEN, _REFUSED = b"1", b"0"
_LOOK_MS = 1000
"""So often somebody who waits looks whether anybody is left who could answer."""
_numbers = itertools.count()


class Leave:
    """What all processes of a fork ask before they send a request; its director answers or ends them.

    Who asks lays the request beside the fork's files and names it in a pipe, of which somebody may read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is that of the fork's files; without one, or a director who listens, everything may go."""
        self._folder = folder

    def wait(self, request: Request) -> bool:
        """Return whether the request may be sent, once that is known; who is to be ended is, meanwhile."""
        if self._folder is None:
            return True
        asking = self._asking()
        if asking is None:
            return True
        path = self._folder / f"{_ASKED}-{os.getpid()}-{get_ident()}-{next(_numbers)}"
        answer = path.with_suffix(".answer")
        try:
            _lay(path, request)
            _mkfifo(answer, 0o600)
            heard = _open(answer, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(asking, f"{path.name}\n".encode())
                return self._hear(heard)
            finally:
                os.close(heard)
        except OSError:  # the folder went away: nobody is left to ask
            return True
        finally:
            os.close(asking)
            for one in (path, answer):
                with suppress(OSError):
                    _unlink(one)

    def _asking(self) -> int | None:
        """Return the pipe to whoever answers, None where nobody does."""
        assert self._folder is not None
        with suppress(OSError):
            return _open(self._folder / _ASKED, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return None

    def _hear(self, heard: int) -> bool:
        waiting = poll()
        waiting.register(heard, POLLIN)
        while not waiting.poll(_LOOK_MS):
            again = self._asking()
            if again is None:
                return True
            os.close(again)
        return os.read(heard, 1) != _REFUSED


class Leaves:
    """The director's end: who asks for leave, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / _ASKED
        _mkfifo(path, 0o600)
        # Open for both, so that it does not end when the last who asks has closed it.
        self._asked = _open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiting = poll()
        self._waiting.register(self._asked, POLLIN)
        self._rest = b""

    def wait(self, seconds: float) -> list[str]:
        """Return the names of those who ask, once there are any; none after so long, or once woken."""
        if not self._waiting.poll(seconds * 1000):
            return []
        with suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self._asked, 65536)).split(b"\n")
            return [line.decode() for line in lines if line.startswith(_ASKED.encode())]
        return []

    def wake(self) -> None:
        """Let whoever waits here return."""
        os.write(self._asked, b"\n")

    def request(self, name: str) -> Request | None:
        """Return what somebody asks for; None where it is no more there."""
        with suppress(OSError, ValueError, KeyError):
            head, _, body = (self._folder / name).read_bytes().partition(b"\n")
            told = json.loads(head)
            headers = tuple((key, value) for key, value in told["headers"])
            return Request(method=told["method"], url=told["url"], headers=headers, body=body)
        return None

    def give(self, name: str) -> None:
        """Let who asked go on, where somebody still waits."""
        self._say(name, _GIVEN)

    def refuse(self, name: str) -> None:
        """Tell who asked that the request may not be sent."""
        self._say(name, _REFUSED)

    def _say(self, name: str, word: bytes) -> None:
        with suppress(OSError):
            answer = _open(
                (self._folder / name).with_suffix(".answer"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                os.write(answer, word)
            finally:
                os.close(answer)

    def close(self) -> None:
        """Listen no more: who asks from now on may go."""
        os.close(self._asked)


def leave_beside(path: Path) -> Leave:
    """Return the leave of a fork whose intervention is in this file."""
    return Leave(path.parent)


def _lay(path: Path, request: Request) -> None:
    head = {"method": request.method, "url": request.url, "headers": [list(one) for one in request.headers]}
    file = _open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        told = memoryview(json.dumps(head).encode() + b"\n" + request.body)
        while told:
            told = told[os.write(file, told) :]
    finally:
        os.close(file)
