"""An agent started on other machines: each start is a job of bytes, whose files come back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TypeAlias

from tracefork_otel.errors import AgentFailed, TapeError, UsageError
from tracefork_otel.play.memory import tapes_beside
from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape

from ..agents.left import Left
from ..agents.supervise import Stopper
from ..spelling import shown
from ..store.prices import Given
from ..writeback.spans import Root
from .job import Job, Outcome, write_files
from .spending import Room, Tally
from .starting import Ended
from .workspace import TrialSpace

Submit: TypeAlias = Callable[[bytes], "Future[bytes]"]
"""Sends a job to whoever works, and gives what will come of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Who works, and what they may be."""

    submit: Submit
    allow_drift: bool = False
    """Whether a worker may have another Python, other packages or another commit than was recorded."""


class InJobs:
    """A command, or a function of a module, started by whoever works on jobs."""

    concurrent = True
    is_here = False
    """Nothing of it is here until it has ended."""
    left: tuple[Left, ...] = ()
    """Programs that the command starts out of reach, as the last worker told."""

    def __init__(
        self,
        agent: str | None,
        tape: Tape,
        how: Settings,
        workers: Elsewhere,
        *,
        portable: bool,
        go_on: bool,
        given: Given,
    ) -> None:
        self._workers = workers
        self._tape = tape.to_bytes()
        self._name = shown(agent or tape.start.calls or " ".join(tape.start.command or ()) or tape.name)
        self._given = given
        self._job = Job(
            director=secrets.token_hex(16),
            run_id=tape.run_id,
            root_span_id="0" * 16,
            settings=how.to_env(),
            agent=agent,
            portable=portable,
            go_on=go_on,
            allow_drift=workers.allow_drift,
            timeout=None,
            share=None,
            prices=tuple((model, one.input_usd, one.output_usd) for model, one in given.items()),
            tape=self._tape,
        )

    @property
    def folder(self) -> Path:
        """Where an agent would be started here."""
        return Path.cwd()

    def run(
        self,
        space: TrialSpace,
        root: Root,
        timeout: float | None,
        stopper: Stopper,
        room: Room | None = None,
    ) -> Ended:
        """Have the agent run to its end by a job; what its trial recorded is then in the space.

        A worker that is lost is data here. Raises UsageError where a worker refuses what it was given, and
        AgentFailed where there is nobody left to work.
        """
        job = replace(
            self._job,
            run_id=root.trace_id,
            root_span_id=root.span_id,
            timeout=timeout,
            share=None if room is None else room.share,
            files=dict(_files(space)),
        )
        try:
            future = self._workers.submit(job.to_bytes())
        except (BrokenExecutor, RuntimeError) as error:
            raise AgentFailed(
                f"the executor takes no more jobs: {_said(error)}; what was made is kept: start anew with "
                "one that works, or `blame resume` what was begun"
            ) from error
        waiting = _Waiting(future)
        with stopper.over(waiting):
            waiting.over.wait()
        if not future.done() or future.cancelled():
            return Ended(exit_status=None, name=self._name, stopped=True, lost="it was given up from here")
        try:
            came = Outcome.from_bytes(future.result())
        except TapeError as error:
            return self._lost(f"what came back of its job cannot be read: {error}")
        except Exception as error:  # whatever an engine raises where a worker is gone
            return self._lost(f"its worker was lost: {_said(error)}")
        if came.refused is not None:
            raise UsageError(f"a worker refused the job: {came.refused}")
        assert came.ended is not None
        write_files(came.files, space.folder, beside="trial")
        self.left = came.left
        if room is not None:
            room.has_room(Tally(space.store, self._given).now())
        return replace(came.ended, changed=came.changed)

    def _lost(self, why: str) -> Ended:
        return Ended(exit_status=None, name=self._name, not_started=f"{self._name}: {why}", lost=why)

    def close(self) -> None:
        """Hold nothing."""


class _Waiting:
    """A job that somebody waits for, who may give it up."""

    def __init__(self, future: Future[bytes]) -> None:
        self.over = Event()
        self._future = future
        future.add_done_callback(lambda done: self.over.set())

    def ask_to_end(self, *, at_once: bool = False) -> None:
        """Take the job back where nobody works on it yet, and wait for it no more."""
        self._future.cancel()
        self.over.set()

    def commands(self) -> list[int]:
        """Return nothing: its processes are elsewhere."""
        return []


def _files(space: TrialSpace) -> dict[str, bytes]:
    """Return the files that a trial begins with."""
    assert space.intervention is not None
    beside = [space.intervention, *space.intervention.parent.glob("*.memory")]
    found = {f"trial/{path.name}": path.read_bytes() for path in beside}
    shared = {f"shared/{path.name}": path.read_bytes() for path in tapes_beside(space.intervention)}
    return {**found, **shared}


def _said(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "its job was cancelled"
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
