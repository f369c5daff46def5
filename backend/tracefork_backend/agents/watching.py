"""Pythons below a command of another kind (make, a shell, node) that are out of reach, as they run.

Nobody of ours stands above them as a Python of the run does above what it starts, and no words of the command
tell of them. Linux alone says so, in `/proc`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from tracefork_otel.seam.programs import leaving, not_reached
from tracefork_otel.session.interpreter import is_python
from tracefork_otel.store.records import ProcessStarted

from .environment import is_boot
from .left import Left

_EVERY_S = 0.02
"""How often is looked: a Python takes longer to start, and as long again to ask a model."""
_PROC = Path("/proc")


class Watch:
    """What runs below a command while it does; everything that a Python of the run starts is left to that."""

    def __init__(self) -> None:
        self._found: dict[Left, int] = {}
        self._seen: set[tuple[int, bytes]] = set()

    @contextmanager
    def over(self, command: int) -> Iterator[None]:
        """Look at what the command with this process id starts, until the block ends."""
        ended = Event()

        def look() -> None:
            while not ended.wait(_EVERY_S):
                self.look(command)

        thread = Thread(target=look, name="tracefork-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def look(self, top: int) -> None:
        """Look at the process, and at what is below it as far as no Python starts it."""
        queue = [top]
        while queue:
            process = queue.pop()
            with suppress(OSError):  # it has just ended, or is another user's
                words = (_PROC / str(process) / "cmdline").read_bytes()
                argv = words.decode(errors="surrogateescape").split("\0")[:-1]
                if argv and is_python(argv[0]):
                    self._judge(process, words, argv)
                    continue
                for task in os.listdir(_PROC / str(process) / "task"):
                    below = (_PROC / str(process) / "task" / task / "children").read_text()
                    queue += map(int, below.split())

    def left(self, processes: Iterable[ProcessStarted], others: Iterable[Left]) -> tuple[Left, ...]:
        """Return the programs out of reach that neither recorded after all, nor are among the others."""
        recorded = {one.pid for one in processes}
        named = {one.program for one in others}
        return tuple(
            left for left, pid in self._found.items() if pid not in recorded and left.program not in named
        )

    def _judge(self, process: int, words: bytes, argv: list[str]) -> None:
        if (process, words) in self._seen:
            return
        self._seen.add((process, words))
        raw = (_PROC / str(process) / "environ").read_bytes().decode(errors="surrogateescape")
        environ = dict(line.split("=", 1) for line in raw.split("\0") if "=" in line)
        found = leaving(argv) or _taken_from(argv, environ)
        if found is not None:
            program, why = found
            left = Left(program=program, what=not_reached(program, why, _BELOW), ran=True)
            self._found.setdefault(left, process)


_BELOW = " below the command"


def _taken_from(argv: list[str], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return name of a Python and how it comes that its environment lacks what was handed down."""
    path = environ.get("PYTHONPATH", "")
    if any(map(is_boot, path.split(os.pathsep))) or environ.get("TRACEFORK_MODE") == "off":
        return None
    return leaving([*([f"PYTHONPATH={path}"] if path else ["env", "-i"]), *argv])
