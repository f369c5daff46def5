"""What a worker does with a job: start the agent as the director would, and send back what was recorded."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from tracefork_otel.errors import TraceforkError, UsageError
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.session.process import git_commit
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..agents.environment import executable
from ..store.prices import Rates
from ..writeback.spans import SpanRef
from .budget import purse_of
from .job import Job, Outcome, files_of, write_files
from .stage import Stage

_IDLE_S = 60.0
"""Seconds that a worker keeps the warm process of a director that sends nothing: between two batches of an
experiment lie its decisions, milliseconds."""
_PRIVATE = "private"
"""The folder of the agent's copies of its files, which are the trial's own."""


def work(job: bytes) -> bytes:
    """Return what came of the job; what is wrong with it is told in that.

    What one director's jobs have in common, a warm process above all, is kept between them.
    """
    try:
        return _done(Job.from_bytes(job)).to_bytes()
    except TraceforkError as error:
        return Outcome(refused=f"{type(error).__name__}: {error}").to_bytes()


def _done(job: Job) -> Outcome:
    change = Intervention.from_json(job.files["trial/intervention.json"], where="the job")
    with _KEPT.stage(job) as stage:
        with _KEPT.lock:
            space = stage.workspace.trial(change)
        write_files(job.files, stage.workspace.folder, beside="shared")
        write_files(job.files, space.folder, beside="trial")
        purse = None if job.share is None else purse_of(job.share)
        root = SpanRef(trace_id=job.run_id, span_id=job.root_span_id)
        ended, records = stage.run(space, root, timeout=job.timeout, room=purse)
        try:
            files = dict(files_of(space.folder, beside="trial", without=(_PRIVATE,)))
            return Outcome(
                ended=ended, changed=tuple(records.changed), left=tuple(stage.way.left), files=files
            )
        finally:
            if ended.output is not None:
                ended.output.close()
            stage.workspace.drop(space)


@dataclass(slots=True, eq=False)
class _Held:
    """The stage of one director's tape, and how many of its jobs run."""

    stage: Stage
    running: int = 0
    since: float = field(default_factory=time.monotonic)
    """When the last of them ended."""


class _Kept:
    """What this process keeps between jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._sweeping = False

    @contextlib.contextmanager
    def stage(self, job: Job) -> Iterator[Stage]:
        """Give the stage of the job's tape, made if need be; raise UsageError where it cannot be here."""
        key = sha256(job.director.encode() + job.tape).hexdigest()
        with self.lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(_staged(job))
            held.running += 1
            self._sweep()
        try:
            yield held.stage
        finally:
            with self.lock:
                held.running -= 1
                held.since = time.monotonic()

    def _sweep(self) -> None:
        """See to it that stages are closed once nobody sends jobs for them."""
        if not self._sweeping:
            self._sweeping = True
            threading.Thread(target=self._watch, name="tracefork-worker", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_IDLE_S / 4)
            with self.lock:
                now = time.monotonic()
                idle = [
                    key for key, one in self._held.items() if not one.running and now - one.since > _IDLE_S
                ]
                stages = [self._held.pop(key).stage for key in idle]
                if over := not self._held:
                    self._sweeping = False
            for stage in stages:
                stage.__exit__(None, None, None)
            if over:
                return

    def close(self) -> None:
        """End every warm process."""
        with self.lock:
            held, self._held = list(self._held.values()), {}
        for one in held:
            one.stage.__exit__(None, None, None)


_KEPT = _Kept()
atexit.register(_KEPT.close)


def _staged(job: Job) -> Stage:
    tape = Tape.from_bytes(job.tape, where="the job's tape")
    stage = Stage(
        tape,
        Settings.from_env(job.settings),
        agent=job.agent,
        store=None,
        # Who sends jobs says what runs: whether the tape may was settled there.
        trust=True,
        warm=True,
        go_on=job.go_on,
        given={model: Rates(asked, said) for model, asked, said in job.prices},
        portable=job.portable,
    )
    try:
        found = [] if job.allow_drift else differences(tape.start, job.agent, stage.way.folder)
        if found:
            raise UsageError(
                f"it is not what the run was recorded with: {'; '.join(found)}; make it the same, or go on "
                "with --allow-drift (allow_drift=True)"
            )
    except BaseException:
        stage.__exit__(None, None, None)
        raise
    return stage


def differences(start: HowStarted, agent: str | None, folder: Path) -> list[str]:
    """Return in what this machine differs from the one of the recording: Python, packages, commit.

    Of a command whose interpreter is not this one's nothing but the commit is known here.
    """
    found: list[str] = []
    argv = () if agent is not None or start.calls is not None else executable(start.command or ("",))
    if not argv or Path(argv[0]).resolve() == Path(sys.executable).resolve():
        for name, recorded in sorted(start.versions.items()):
            here = _version(name)
            same = recorded == here or (name == "python" and _minor(recorded) == _minor(here or ""))
            if not same:
                called = "Python" if name == "python" else name
                found.append(f"{called} {recorded} was recorded, here is {here or 'none'}")
    commit = git_commit(folder)
    if commit is not None and start.git_commit is not None and commit != start.git_commit:
        found.append(f"commit {start.git_commit[:12]} was recorded, {folder} is at {commit[:12]}")
    return found


def _version(name: str) -> str | None:
    if name == "python":
        return sys.version.split()[0]
    try:
        return metadata.version(name.replace("_", "-").replace(".", "-"))
    except metadata.PackageNotFoundError:
        return None


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
