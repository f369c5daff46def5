"""A warm process: it imported an agent once, and forks a supervised child for each trial."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracefork_otel.settings import Settings

from .environment import traced
from .program import Program
from .supervise import GRACE_S, Finished, NeverBegan, Stopper, supervise

_ZYGOTE = Path(__file__).with_name("zygote.py")

# An agent that takes longer than this to import is not worth waiting for here: a fresh start shows why.
IMPORT_S = 120.0
_END_S = 2.0
_MESSAGE = 64 * 1024
_TRIAL = b"trial"
_OUTPUT = 2000


_OFF = Settings(mode="off")


class Refused(Exception):
    """The agent cannot be forked from a process that imported it; the message says why."""


class WarmPool:
    """One process that imported the agent; none of it is left after `close`."""

    def __init__(
        self,
        agent: str | Program,
        *,
        env: Mapping[str, str],
        cwd: Path,
        tape: Path,
        settings: Settings = _OFF,
        draws: bool = False,
    ) -> None:
        """Import the agent, `pkg.mod:fn`, or what a program imports of what is installed.

        With `draws` its modules read the tape's clocks and randomness, as the `settings` of the fork say.
        Raises Refused if its children would share threads or connections.
        """
        program = agent if isinstance(agent, Program) else None
        self._name = agent if isinstance(agent, str) else agent.name
        python = (sys.executable,) if program is None else program.python
        self._cwd = cwd
        self._lock = threading.Lock()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*python, str(_ZYGOTE), str(theirs.fileno())],
                env=traced(env, replace(settings, mode="off")),
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                # A session of its own: the terminal's Ctrl-C is ours to pass on, in our own way.
                start_new_session=True,
            )
        try:
            self._import(program, tape, draws)
        except BaseException:
            self.close()
            raise

    def _import(self, program: Program | None, tape: Path, draws: bool) -> None:
        entrypoint = self._name
        order = {
            "entrypoint": entrypoint,
            "program": None if program is None else program.told(),
            "tape": str(tape.absolute()),
            "draws": draws,
        }
        self._control.settimeout(IMPORT_S)
        try:
            self._control.send(json.dumps(order).encode())
            answer: dict[str, Any] = json.loads(self._control.recv(_MESSAGE) or b"{}")
        except TimeoutError:
            raise Refused(f"{entrypoint} was not imported within {IMPORT_S:g} s") from None
        except OSError:
            answer = {}
        finally:
            self._control.settimeout(None)
        if "refused" in answer:
            raise Refused(f"{entrypoint} cannot be forked from a warm process: {answer['refused']}")
        if "ready" not in answer:
            raise Refused(f"the process that was to import {entrypoint} ended{self._said()}")

    def _said(self) -> str:
        self._output.seek(0)
        text = self._output.read()[-_OUTPUT:].decode("utf-8", "replace").strip()
        return f": {text.splitlines()[-1]}" if text else ""

    @property
    def pid(self) -> int:
        """The process that imported the agent."""
        return self._process.pid

    def run(
        self,
        *,
        env: Mapping[str, str],
        timeout: float | None,
        arguments: Any = None,
        stdin: bytes | None = None,
        stdin_kind: str | None = None,
        stopper: Stopper | None = None,
        linger: float = 0.0,
    ) -> Finished:
        """Run the agent in a child of the warm process, and end all that the child started.

        A program reads `stdin`, and what it leaves running may `linger`, as `run_command` has it.
        Raises Refused if the warm process is gone; from any number of threads at once.
        """
        spec = {
            "env": dict(env),
            "arguments": arguments,
            "timeout": timeout,
            "grace": GRACE_S,
            "linger": linger,
        }
        piped = stdin_kind == "pipe"
        try:
            return supervise(spec, self._name, self._hand_over, stdin=stdin, piped=piped, stopper=stopper)
        except NeverBegan:
            raise Refused(f"the process that imported {self._name} is gone{self._said()}") from None

    def _hand_over(self, ends: Sequence[int]) -> None:
        try:
            with self._lock:
                socket.send_fds(self._control, [_TRIAL], ends)
        except OSError as error:
            raise Refused(
                f"the process that imported {self._name} is gone ({error.strerror}){self._said()}"
            ) from None

    def close(self) -> None:
        """End the warm process; its children end when those who wait for them do."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                # With what its import started, which is in its session.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._output.close()
