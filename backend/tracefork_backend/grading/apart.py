"""A named function asked in processes of its own: elsewhere nothing ends one that `re` keeps busy."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import BinaryIO

from .bounded import Endless
from .graded import Graded

_MAIN = (
    "import sys; sys.path[:] = sys.argv[3:]; from tracefork_backend.grading.apart_main import main; "
    "main(int(sys.argv[1]), sys.argv[2])"
)
_SPARE_S = 30.0
"""So long the process may take beyond the limit, which it keeps itself: its start is in it."""


class Failed(Exception):
    """The function raised, or its process ended; the message says what."""


@dataclass(frozen=True, slots=True)
class Told:
    """What such a process says of one run."""

    answer: object = None
    """True, False or None, else how it reads."""
    failed: str | None = None
    endless: bool = False


def question(graded: Graded, limit_s: float) -> bytes | None:
    """Return a line that asks such a process of a run; None where the output is no value of JSON."""
    shown = {field.name: getattr(graded, field.name) for field in dataclasses.fields(graded)}
    try:
        line = json.dumps([shown, limit_s])
        # A tuple comes back as a list, a number that is a key as a text: an oracle could tell.
        same = repr(json.loads(line)[0]["output"]) == repr(graded.output)
    except Exception:  # a user's objects raise what they like
        return None
    return line.encode() + b"\n" if same else None


class Apart:
    """Processes that each ask the function for one run at a time; none is left when this is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[_Process] = []
        self._lock = threading.Lock()

    def ask(self, question: bytes, limit_s: float) -> object:
        """Return what the function answers; raise Endless where it takes longer, Failed if it raises."""
        with self._lock:
            process = self._idle.pop() if self._idle else _Process(self._name)
        try:
            told = process.ask(question, limit_s + _SPARE_S)
        except BaseException:
            process.close()
            raise
        with self._lock:
            self._idle.append(process)
        if told.endless:
            raise Endless
        if told.failed is not None:
            raise Failed(told.failed)
        return told.answer

    def __del__(self) -> None:
        for process in self._idle:
            process.close()


class _Process:
    def __init__(self, name: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno()), name, *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self._answers: BinaryIO = ours.makefile("rb")

    def ask(self, asked: bytes, limit_s: float) -> Told:
        self._socket.settimeout(limit_s)
        try:
            self._socket.sendall(asked)
            line = self._answers.readline()
        except TimeoutError:
            raise Endless from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            status = self._process.wait()
            raise Failed(f"the process that asked it ended with status {status}")
        return Told(**json.loads(line))

    def close(self) -> None:
        """End it, also one that has not answered."""
        self._answers.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()
