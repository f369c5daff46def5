"""The tools that start agents and spend money, as far as the command line allows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tracefork_otel.errors import UsageError

from ..spelling import run_name
from .answers import cut, rows
from .looking import Looking, Ref, Step

if TYPE_CHECKING:
    from ..page.jobs import Job, Jobs

_WAIT_S = 45.0
"""So long a call waits for what it started; clients give one a minute."""
_OFTEN_S = 0.05
_SAID = 10
"""Last lines that a job said, in an answer."""
_KEPT = (
    "summary", "message", "stop_reason", "experiment_id", "passed", "matched", "total", "outcome", "cost_usd",
    "spent_usd", "calls_replayed", "calls_live", "variant", "exit_status", "expected_exit_status", "problems",
    "drifts", "drift", "problem", "forks", "worst_usd", "cells",
)  # fmt: skip
"""What of a command's JSON tells what came of it."""
Usd = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False, description="the most that it may cost")]
Pattern = Annotated[str, Field(description="a success's output has this regex")]


class Acting:
    """What may be started from one server; what still runs ends with it."""

    def __init__(self, looking: Looking, budget_usd: float) -> None:
        self._looking = looking
        self._budget_usd = budget_usd
        self._started: Jobs | None = None
        self._lock = threading.Lock()

    @property
    def _jobs(self) -> Jobs:
        from ..page.jobs import Jobs
        from ..page.permits import Ledger

        with self._lock:
            if self._started is None:
                self._started = Jobs(self._looking.path, Ledger(self._budget_usd))
            return self._started

    def close(self) -> None:
        """End what was started and still runs."""
        if self._started is not None:
            self._started.close()

    def tools(self) -> list[Callable[..., str]]:
        """Return the tools; the first and third spend nothing."""
        return [self.replay, self.fork, self.blame_estimate, self.blame, self.blame_status]

    def replay(self, run: Ref = "last") -> str:
        """Run the agent again on its tape, without network: is the code still what was recorded?"""
        found = self._looking.store.run(run)
        job = self._jobs.free(
            ["replay", found.run_id], run_id=found.run_id, what=f"replay {run_name(found.run_id)}"
        )
        return self._answer(self._waited(job))

    def fork(
        self,
        run: Ref,
        step: Step,
        edit: Literal["resample", "text", "tool_input", "tool_result", "system", "model"],
        value: Annotated[str, Field(description="the new text; tool_input: JSON", max_length=100_000)] = "",
        tool: Annotated[str, Field(description="which, for tool_input and tool_result")] = "",
        tail: Literal["live", "recorded", "offline"] = "live",
        success_re: Pattern = "",
        max_usd: Usd = 0.0,
    ) -> str:
        """Replay a run up to a step, change one thing there, and let the agent go on; then compare."""
        from ..page import changing
        from ..rerun.reconstruct import reconstruct

        found = self._looking.store.run(run)
        filled = changing.Filled(kind=edit, value=value, name=tool, tail=tail)
        changing.planned(reconstruct(self._looking.store, found), step, filled)
        job = self._jobs.fork(
            run_id=found.run_id,
            step=step,
            edit=filled.edit,
            flags=filled.flags,
            more=["--tail", tail, *([f"--success-re={success_re}"] if success_re else [])],
            budget_usd=max_usd,
            what=f"fork of {run_name(found.run_id)}@{step}: {edit}",
        )
        return self._answer(self._waited(job))

    def blame_estimate(self, run: Ref, success_re: Pattern) -> str:
        """What finding the step that moves the outcome would take; runs nothing."""
        found = self._looking.store.run(run)
        words = ["blame", "run", found.run_id, "--estimate", f"--success-re={success_re}"]
        job = self._jobs.free(words, run_id=found.run_id, what=f"estimate of {run_name(found.run_id)}")
        return self._answer(self._waited(job))

    def blame(self, run: Ref, success_re: Pattern, max_usd: Usd) -> str:
        """Begin to find the step that moves the outcome, by forks beside controls; see blame_status."""
        found = self._looking.store.run(run)
        job = self._jobs.blame(
            found.run_id,
            flags=[f"--success-re={success_re}"],
            budget_usd=max_usd,
            what=f"blame {run_name(found.run_id)}",
        )
        return self._answer(job)

    def blame_status(self, job: Annotated[str, Field(max_length=100)], stop: bool = False) -> str:
        """How a job goes that blame or a long fork began; `stop` ends it and keeps what it found."""
        found = self._jobs.get(job)
        if found is None:
            raise UsageError(
                f"no job {job!r}: " + (", ".join(one.id for one in self._jobs) or "none was started")
            )
        if stop:
            self._jobs.stop(found)
        return self._answer(self._waited(found))

    def _waited(self, job: Job) -> Job:
        end = time.monotonic() + _WAIT_S
        while job.ended is None and time.monotonic() < end:
            time.sleep(_OFTEN_S)
        return job

    def _answer(self, job: Job) -> str:
        said = [cut(line, 300) for line in list(job.said)[-_SAID:]]
        if job.ended is None:
            note = f"it goes on: ask blame_status with job {job.id}"
            return rows("said", said, 0, more=False, job=job.id, state="running", what=job.what, note=note)
        if job.state == "failed":
            raise UsageError(
                " ".join(said).removeprefix("error: ") or f"{job.what} ended with status {job.status}"
            )
        told: dict[str, Any] = {}
        if isinstance(job.result, dict):
            kept = job.result if "--estimate" in job.words else _KEPT
            told = {name: job.result[name] for name in kept if name in job.result}
        lines = [*self._differences(job), *(said if not job.made else ())]
        return rows(
            "said",
            lines,
            0,
            more=False,
            what=job.what,
            state=job.state,
            run=run_name(job.made[0]) if job.made else None,
            output=job.output or None,
            **told,
        )

    def _differences(self, job: Job) -> list[str]:
        """Return how the fork that was made differs from its run."""
        from ..diffs.diff import diff

        store = self._looking.store
        if not job.made or not store.has_run(job.made[0]):
            return []
        return [cut(line, 300) for line in diff(store.run(job.run_id), store.run(job.made[0])).lines()]
