"""The experiments with real forks, each part in a process of its own, and their gates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import IO, Literal, TypeAlias

from tracefork_otel.errors import AgentFailed

from .real import Part
from .report import Gate, Row

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Told of what, how much is done, and of how much; from any thread."""

_WORDS: dict[Part, str] = {"flaky": "flaky agents", "faults": "fault classes", "wall": "wall time"}
_PROGRAM = __package__ or ""
_END_S = 5.0

# What would make the parts record, export or start otherwise than they say.
_FOREIGN = ("TRACEFORK_", "OTEL_", "TRACEPARENT")


class RealForks:
    """Parts that run beside the caller; a context manager, after which none of their processes is left."""

    def __init__(self, parts: Iterable[Part], *, quick: bool, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self._readers = ThreadPoolExecutor()
        self._processes: list[subprocess.Popen[str]] = []
        self._measured: list[Future[list[Row]]] = []
        for part in parts:
            said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by its reader)
            process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM, part, "quick" if quick else "full"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                text=True,
            )
            self._processes.append(process)
            self._measured.append(self._readers.submit(self._listen, part, process, said))

    def _listen(self, part: Part, process: subprocess.Popen[str], said: IO[str]) -> list[Row]:
        rows: list[Row] | None = None
        with said, process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                if "rows" in told:
                    rows = [Row(**row) for row in told["rows"]]
                elif self._on_progress is not None:
                    self._on_progress(_WORDS[part], told["done"], told["of"])
            status = process.wait()
            if status or rows is None:
                said.seek(0)
                words = said.read().strip().splitlines() or ["nothing"]
                raise AgentFailed(
                    f"the experiments with {_WORDS[part]} ended with status {status}: {words[-1]}; "
                    f"see more by running them alone: python -m {_PROGRAM} {part} quick"
                )
            return rows

    def rows(self) -> list[Row]:
        """Return what all parts measured; AgentFailed, with its last words, if one ended before."""
        return [row for measured in self._measured for row in measured.result()]

    def __enter__(self) -> RealForks:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.terminate()
        wait(self._measured, _END_S)
        for process in self._processes:
            process.kill()
        self._readers.shutdown()


# What real forks promise: in words, of which cells, which of their metrics, and its limit.
_PROMISES: tuple[tuple[str, str, str, Literal["at most", "at least"], float], ...] = (
    (
        "real forks of a flaky agent, 4 to 6 steps: experiments that certify an innocent",
        *("flaky", "false_blame", "at most", 0.05),
    ),
    ("real forks, five fault classes at every step: top-1", "fault", "top", "at least", 0.95),
    (
        "real forks that change nothing: experiments that certify a step",
        *("noop", "certified", "at most", 0.0),
    ),
    (
        "seconds for 10 steps, 4 trials each, 20 ms a live call, warm, the best run",
        *("n=10", "seconds", "at most", 1.0),
    ),
)


def gates(rows: Iterable[Row]) -> list[Gate]:
    """Return what real forks promise, and what was measured over all experiments of a kind."""
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(row.cell.split()[0].rstrip(","), []).append(row)
    made: list[Gate] = []
    for name, kind, metric, sense, limit in _PROMISES:
        runs = sum(row.runs for row in of[kind])
        value = sum(row.metrics[metric] * row.runs for row in of[kind]) / runs
        made.append(Gate(name=name, value=value, sense=sense, limit=limit, runs=runs))
    return made
