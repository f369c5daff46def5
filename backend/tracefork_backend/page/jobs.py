"""What the page started: commands of ours in processes of their own, how they go, and their money."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from tracefork_otel.errors import StoreError, UsageError

from ..rerun.edits import Edit
from ..rerun.edits.files import write_edits
from .experiments import begun_since, booked_usd, ended_usd
from .permits import Ledger

State: TypeAlias = Literal["running", "done", "failed", "stopped"]
_USAGE = 2
"""Exit status of a command of ours that was asked for what cannot be."""
_LONGEST = 100_000
"""Characters of flags; the system takes some 130,000 bytes of one word."""
_LINES = 200
"""Lines of what a job said that are kept."""
_LINE = 2_000
_ENDED = 100
"""Ended jobs that are remembered."""
_PATIENCE_S = 5.0
"""So long a job may take to end by itself once it is told to."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One command that was started from the page."""

    id: str
    what: str
    """In words, for a person."""
    run_id: str
    words: tuple[str, ...]
    """The command, as it could be typed."""
    started: float
    ended: float | None = None
    state: State = "running"
    status: int | None = None
    result: Any = None
    """What it printed as JSON."""
    said: deque[str] = field(default_factory=lambda: deque[str](maxlen=_LINES))
    """What it said on standard error."""
    experiment_id: str | None = None
    """The experiment that it resumes; None where it begins one."""
    spent_usd: float | None = None
    held_usd: float = 0.0
    """What is set aside for it."""
    before_usd: float = 0.0
    """What the experiment that it resumes may have spent before."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(self.words)

    @property
    def made(self) -> tuple[str, ...]:
        """The runs of the forks that it made."""
        if not isinstance(self.result, Mapping):
            return ()
        if "run_id" in self.result and "parent_run_id" in self.result:
            return (str(self.result["run_id"]),)
        cells = self.result.get("cells") or ()
        return tuple(run_id for cell in cells for run_id in cell.get("forks") or ())

    @property
    def output(self) -> str:
        """What its one fork put out; empty where it made several, or none."""
        return str(self._of_result("stdout") or self._of_result("last_text") or "")

    @property
    def found(self) -> str:
        """What it came to, in a sentence."""
        return str(self._of_result("summary") or self._of_result("message") or "")

    @property
    def problem(self) -> str:
        """Why its one fork is not what was asked for; empty where it is."""
        problem = self._of_result("problem")
        return str(problem.get("text", "")) if isinstance(problem, Mapping) else ""

    def _of_result(self, name: str) -> Any:
        return self.result.get(name) if isinstance(self.result, Mapping) else None

    @property
    def seconds(self) -> float:
        """How long it runs, or ran."""
        return (self.ended or time.time()) - self.started


class Jobs:
    """All jobs of one page, newest first."""

    def __init__(self, store: Path, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="tracefork-page-")
        self._closed = False

    def __iter__(self) -> Iterator[Job]:
        return iter(sorted(self._jobs.values(), key=lambda job: -job.started))

    def get(self, job_id: str) -> Job | None:
        """Return the job of that id."""
        return self._jobs.get(job_id)

    def running(self) -> list[Job]:
        """Return those that run."""
        return [job for job in self if job.state == "running"]

    def fork(
        self,
        *,
        run_id: str,
        step: int,
        edit: Edit,
        flags: Sequence[str],
        more: Sequence[str],
        budget_usd: float,
        what: str,
    ) -> Job:
        """Start forks of a run at a step with this edit, which these flags ask for, with `more` beside it."""
        job_id = secrets.token_hex(4)
        how = list(flags)
        if sum(map(len, flags)) > _LONGEST:
            file = Path(self._folder.name) / f"{job_id}.json"
            write_edits(file, {step: edit})
            file.chmod(0o600)
            how = ["--edit", str(file)]
        words = ["fork", f"{run_id}@{step}", *how, *more]
        return self._start(job_id, words, run_id=run_id, what=what, budget_usd=budget_usd)

    def blame(self, run_id: str, *, flags: Sequence[str], budget_usd: float, what: str) -> Job:
        """Begin an experiment on a run."""
        words = ["blame", "run", run_id, *flags]
        return self._start(secrets.token_hex(4), words, run_id=run_id, what=what, budget_usd=budget_usd)

    def free(self, words: Sequence[str], *, run_id: str, what: str) -> Job:
        """Start a command of ours that spends nothing."""
        return self._start(secrets.token_hex(4), words, run_id=run_id, what=what, budget_usd=None)

    def resume(
        self, experiment_id: str, *, run_id: str, had_usd: float, more_usd: float, max_trials: int | None
    ) -> Job:
        """Go on with an experiment, whose budget grows by that much."""
        words = ["blame", "resume", experiment_id]
        if max_trials is not None:
            words += ["--max-trials", str(max_trials)]
        return self._start(
            secrets.token_hex(4),
            words,
            run_id=run_id,
            what=f"go on with experiment {experiment_id[:8]}",
            budget_usd=more_usd,
            experiment_id=experiment_id,
            before_usd=had_usd,
        )

    def _start(
        self,
        job_id: str,
        words: Sequence[str],
        *,
        run_id: str,
        what: str,
        budget_usd: float | None,
        experiment_id: str | None = None,
        before_usd: float = 0.0,
    ) -> Job:
        if self._closed:
            raise UsageError("this page is being ended: start it again")
        held = budget_usd or 0.0
        self._ledger.hold(job_id, held)
        limit = [] if budget_usd is None else ["--budget", f"{before_usd + budget_usd:.10g}"]
        words = [*words, *limit, "--json", "--store", str(self._store)]
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "tracefork_backend.cli.tied", *words],
                stdin=subprocess.PIPE,  # held open: it ends with this process, killed or not
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C of the page's terminal ends it by way of the page
            )
        except OSError as error:
            self._ledger.settle(job_id, 0.0)
            raise UsageError(f"the command cannot be started: {error.strerror or error}") from error
        job = Job(
            id=job_id,
            what=what,
            run_id=run_id,
            words=("tracefork-otel", *words),
            started=time.time(),
            experiment_id=experiment_id,
            held_usd=held,
            before_usd=before_usd,
            process=process,
        )
        with self._lock:
            self._jobs[job_id] = job
            for old in [one for one in self if one.state != "running"][_ENDED:]:
                del self._jobs[old.id]
        out: list[bytes] = []
        readers = [
            threading.Thread(target=_collect, args=(process.stdout, out.append), daemon=True),
            threading.Thread(target=_collect, args=(process.stderr, _saying(job.said)), daemon=True),
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(job, process, readers, out), daemon=True).start()
        return job

    def _wait(
        self,
        job: Job,
        process: subprocess.Popen[bytes],
        readers: Sequence[threading.Thread],
        out: Sequence[bytes],
    ) -> None:
        status = process.wait()
        assert process.stdin is not None
        process.stdin.close()
        for reader in readers:
            reader.join(_PATIENCE_S)  # what it started may still hold the other end
        with suppress(ValueError):
            job.result = json.loads(b"".join(out))
        job.status = status
        # With bad usage or input nothing was begun.
        told = 0.0 if job.result is None and status == _USAGE else spent_of(job.result)
        if told is None:
            told = self._ended(job)
        elif job.experiment_id is not None:
            # In the measure in which it was told how much more it may take.
            with suppress(StoreError, UsageError):
                told = booked_usd(self._store, job.experiment_id) - job.before_usd
        job.spent_usd = None if told is None else max(0.0, told)
        self._ledger.settle(job.id, job.spent_usd)
        job.ended = time.time()
        job.state = "stopped" if job.state == "stopped" else "failed" if job.result is None else "done"

    def _ended(self, job: Job) -> float | None:
        """Return what an experiment took that was ended before it said so; None where nobody knows."""
        if job.words[1] != "blame":
            return None
        with suppress(StoreError, UsageError):
            began = job.experiment_id or begun_since(self._store, job.run_id, job.started)
            if began is None:
                return None
            job.experiment_id = began
            taken = ended_usd(self._store, began)
            return None if taken is None else taken - job.before_usd
        return None

    def stop(self, job: Job) -> None:
        """End a job as Ctrl-C does; what was made until then is kept."""
        if job.process is not None and job.process.poll() is None:
            job.state = "stopped"
            with suppress(ProcessLookupError):
                os.kill(job.process.pid, signal.SIGINT)

    def close(self) -> None:
        """End all jobs, and wait until they have ended."""
        self._closed = True
        at_work = [job for job in self if job.process is not None and job.process.poll() is None]
        for job in at_work:
            self.stop(job)
        end = time.monotonic() + _PATIENCE_S
        for job in at_work:
            assert job.process is not None
            try:
                job.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
        self._folder.cleanup()


def spent_of(result: Any) -> float | None:
    """Return what a command's JSON says that it spent; None where it says nothing."""
    if not isinstance(result, Mapping):
        return None
    if "spent_usd" in result:
        grading = result.get("grading_usd") or 0.0
        return None if result["spent_usd"] is None else float(result["spent_usd"]) + float(grading)
    if "cells" in result:
        return sum(float(cell.get("cost_usd") or 0.0) for cell in result["cells"])
    if "cost_usd" in result:
        return float(result["cost_usd"] or 0.0)
    return None


def _collect(stream: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
    assert stream is not None
    with stream, suppress(ValueError, OSError):
        for line in stream:
            take(line)


def _saying(said: deque[str]) -> Callable[[bytes], None]:
    def take(line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            said.append(text[:_LINE])

    return take
