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
from .tasks import Task, Wants
from .trials import Arm, Phase, TrialRequest


class Search:
    """One blame experiment; see `next_batch`, `observe`, `verdict`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._state = State(plan)
        self._state.tested = plan.tested
        mode = mode_named(plan.mode).settled(natural=plan.natural)
        self._task: Task[None] | None = mode.search(self._state)
        self._queue: deque[TrialRequest] = deque()
        self._open: dict[str, tuple[Arm, int]] = {}
        self._issued = 0
        self._resume()

    @property
    def phase(self) -> Phase:
        """What the search is doing now."""
        return self._state.phase

    @property
    def done(self) -> bool:
        """Whether no more trials will be asked for."""
        return self._task is None

    def shares(self, arm_id: str, replicate: int) -> str | None:
        """The name of what a trial of that arm shares memory with; None if the arm was not asked for."""
        arm = self._state.ledger.arms.get(arm_id)
        return None if arm is None else arm.shares(replicate)

    def next_batch(self, room: int) -> Sequence[TrialRequest]:
        """Return at most `room` trials to run now; none while the search waits for others, or when it is
        done.
        """
        batch: list[TrialRequest] = []
        while self._queue and len(batch) < room:
            batch.append(self._queue.popleft())
        return batch

    def observe(self, trial_id: str, outcome: bool | None, *, tail: str = "", shared: bool = False) -> None:
        """Take in how a trial ended: flipped, did not, or could not be graded.

        `tail` is a digest of everything that the fork answered, where known: alike for identical forks.
        `shared` says that some of its calls were answered from the memory of its replicate.
        """
        found = self._open.pop(trial_id, None)
        if found is None:
            if self.done:
                return
            raise UsageError(f"trial {trial_id} was not asked for, or was reported before")
        arm, replicate = found
        arm.record(replicate, outcome, tail, shared=shared)
        if self._task is not None and len(arm.outcomes) == arm.issued:
            self._resume()

    def replay(self, recorded: Mapping[str, tuple[bool | None, str, bool]]) -> int:
        """Take in recorded trials (outcome, tail, shared by id) as far as asked for; return how many.

        Asked again afterwards, `next_batch` gives only trials that were not recorded.
        """
        used = 0
        waiting: list[TrialRequest] = []
        while batch := self.next_batch(1 << 30):
            for request in batch:
                known = recorded.get(request.trial_id)
                if known is None:
                    waiting.append(request)
                else:
                    self.observe(request.trial_id, known[0], tail=known[1], shared=known[2])
                    used += 1
        self._queue.extend(waiting)
        return used

    def stop(self, reason: StopReason = "budget") -> None:
        """End the search; its verdict is what the outcomes so far support."""
        if self._task is not None:
            self._task.close()
            self._task = None
            self._state.stop_reason = reason
            self._queue.clear()

    def verdict(self) -> Findings:
        """Return the answer as of now."""
        return findings(self._state)

    def _resume(self) -> None:
        assert self._task is not None
        try:
            wants = next(self._task)
        except StopIteration:
            self._task = None
            self._queue.clear()
            return
        self._issue(wants)

    def _issue(self, wants: Wants) -> None:
        limit = self.plan.max_trials
        for arm, target in wants:
            while arm.issued < target and (limit is None or self._issued < limit):
                self._issued += 1
                request = arm.request(self._state.phase)
                self._open[request.trial_id] = (arm, request.replicate)
                self._queue.append(request)
        if not self._open:
            # Something is wanted, nothing may be issued: the limit is reached.
            self.stop("budget")
