"""What asks for trials and is told how they ended, whatever it decides by them.

It runs nothing and draws nothing at random. So the caller may run trials at the same time and report them
in any order, and a search that was interrupted is rebuilt by reporting its recorded trials to a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from tracefork_otel.errors import UsageError

from .findings import StopReason
from .tasks import Task
from .trials import Ledger, Phase, TrialRequest

_ALL = 1 << 30
"""More trials than a search ever asks for at once."""


class Memory(Protocol):
    """What a task knows while it runs."""

    ledger: Ledger
    phase: Phase
    stop_reason: StopReason


class Asking:
    """A task that decides by the trials it asked for; see `next_batch`, `observe`."""

    def __init__(self, memory: Memory, task: Task[None], *, max_trials: int | None = None) -> None:
        self._memory = memory
        self._task: Task[None] | None = task
        self._most = max_trials
        self._queue: deque[TrialRequest] = deque()
        """Trials that are wanted and not given out yet."""
        self._given = 0
        self._running: dict[str, TrialRequest] = {}
        self._resume()
        self._limit()

    @property
    def phase(self) -> Phase:
        """What the search is doing now."""
        return self._memory.phase

    @property
    def done(self) -> bool:
        """Whether no more trials will be asked for."""
        return self._task is None

    def shares(self, arm_id: str, replicate: int) -> str | None:
        """Return the name of what a trial of that arm shares memory with, None if the arm is not known."""
        arm = self._memory.ledger.arms.get(arm_id)
        return None if arm is None else arm.shares(replicate)

    def next_batch(self, room: int = _ALL) -> Sequence[TrialRequest]:
        """Return at most `room` trials to run now; none while the search waits for others, or is done."""
        if self._most is not None:
            room = min(room, self._most - self._given)
        return [self._give() for _ in range(min(room, len(self._queue)))]

    def observe(self, trial_id: str, outcome: bool | None, *, tail: str = "", shared: bool = False) -> None:
        """Take in how a trial ended: flipped, did not, or could not be graded.

        `tail` is a digest of everything that the fork answered, where known: alike for identical forks.
        `shared` says that some of its calls were answered from the memory of its replicate.
        """
        request = self._running.pop(trial_id, None)
        if request is None:
            if self.done:
                return
            raise UsageError(f"trial {trial_id} was not asked for, or was reported before")
        arm = self._memory.ledger.arms[request.arm_id]
        arm.record(request.replicate, outcome, tail, shared=shared)
        if self._task is not None and len(arm.outcomes) == arm.issued:
            self._resume()
        self._limit()

    def replay(self, recorded: Mapping[str, tuple[bool | None, str, bool]]) -> int:
        """Take in recorded trials (outcome, tail, shared by id) as far as asked for; return how many.

        Asked again afterwards, `next_batch` gives only trials that were not recorded.
        """
        used = 0
        waiting: list[TrialRequest] = []
        while self._queue:
            known = recorded.get(self._queue[0].trial_id)
            if known is None:
                waiting.append(self._queue.popleft())
            else:
                self.observe(self._give().trial_id, known[0], tail=known[1], shared=known[2])
                used += 1
        if not self.done:
            self._queue.extend(waiting)
        return used

    def stop(self, reason: StopReason = "budget", *, anyhow: bool = False) -> None:
        """End the search; its verdict is what the outcomes so far support.

        It is aborted where forks were made and none was graded, unless the reason holds `anyhow`.
        """
        if self._task is not None:
            self._task.close()
            self._task = None
            self._queue.clear()
            self._end(reason)
            if anyhow:
                self._memory.stop_reason = reason

    def _end(self, reason: StopReason) -> None:
        """Keep why the search ended: aborted where forks were made, and none could be graded."""
        made = [arm for arm in self._memory.ledger.arms.values() if arm.outcomes]
        graded = any(arm.defined for arm in made)
        self._memory.stop_reason = reason if graded or not made else "aborted"

    def _give(self) -> TrialRequest:
        """Return the next trial that is wanted, which runs from now on."""
        request = self._queue.popleft()
        self._given += 1
        self._running[request.trial_id] = request
        return request

    def _resume(self) -> None:
        """Let the search decide by what is there, and queue the trials that it waits for then."""
        assert self._task is not None
        try:
            wants = next(self._task)
        except StopIteration:
            self._task = None
            self._queue.clear()
            self._end(self._memory.stop_reason)
            return
        for arm, target in wants:
            while arm.issued < target:
                self._queue.append(arm.request(self._memory.phase))

    def _limit(self) -> None:
        """Stop where more trials are wanted than may be given out, once those that run have ended."""
        if self._most is not None and self._given >= self._most and not self._running:
            self.stop("max_trials")
