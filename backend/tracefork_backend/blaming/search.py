"""The search as a state machine: it asks for trials, is told their outcomes, and has an answer at any time.

It runs nothing and draws nothing at random. So the caller may run trials at the same time and report them
in any order, and a search that was interrupted is rebuilt by reporting its recorded trials to a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from tracefork_otel.errors import UsageError

from .answer import findings
from .findings import Findings, StopReason
from .modes import mode_named
from .plan import Plan
from .state import State
from .tasks import Task
from .trials import Phase, TrialRequest

_ALL = 1 << 30
"""More trials than a search ever asks for at once."""


class Search:
    """One blame experiment; see `next_batch`, `observe`, `verdict`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._state = State(plan)
        self._state.tested = plan.tested
        mode = mode_named(plan.mode).settled(natural=plan.natural)
        self._task: Task[None] | None = mode.search(self._state)
        self._queue: deque[TrialRequest] = deque()
        """Trials that are wanted and not given out yet."""
        self._given = 0
        self._running: dict[str, TrialRequest] = {}
        self._resume()
        self._limit()

    @property
    def phase(self) -> Phase:
        """What the search is doing now."""
        return self._state.phase

    @property
    def done(self) -> bool:
        """Whether no more trials will be asked for."""
        return self._task is None

    def shares(self, arm_id: str, replicate: int) -> str | None:
        """Return the name of what a trial of that arm shares memory with, None if the arm is not known."""
        arm = self._state.ledger.arms.get(arm_id)
        return None if arm is None else arm.shares(replicate)

    def next_batch(self, room: int = _ALL) -> Sequence[TrialRequest]:
        """Return at most `room` trials to run now; none while the search waits for others, or is done."""
        if self.plan.max_trials is not None:
            room = min(room, self.plan.max_trials - self._given)
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
        arm = self._state.ledger.arms[request.arm_id]
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

    def stop(self, reason: StopReason = "budget") -> None:
        """End the search; its verdict is what the outcomes so far support, aborted where none was graded."""
        if self._task is not None:
            self._task.close()
            self._task = None
            self._queue.clear()
            made = [arm for arm in self._state.ledger.arms.values() if arm.outcomes]
            graded = any(arm.defined for arm in made)
            self._state.stop_reason = reason if graded or not made else "aborted"

    def verdict(self) -> Findings:
        """Return the answer as of now."""
        return findings(self._state)

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
            return
        for arm, target in wants:
            while arm.issued < target:
                self._queue.append(arm.request(self._state.phase))

    def _limit(self) -> None:
        """Stop where more trials are wanted than may be given out, once those that run have ended."""
        most = self.plan.max_trials
        if most is not None and self._given >= most and not self._running:
            self.stop("max_trials")
