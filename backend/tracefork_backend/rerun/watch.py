"""A drift, said when it happens; an agent ended that only tries again."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from tracefork_otel.play.claims import DRIFTED, Claims, Part, claim_to

from ..agents.at_rest import AtRest, at_rest
from .resting import ONLY_LISTENS, ONLY_WAITS

OnDrift: TypeAlias = Callable[[str], None]
"""Is given the first drift of an agent, in words, while the agent is at work."""

PATIENCE_S = 5.0
"""So long an agent may go on without an answer from its tape, once there was none for a request of it.
SDKs try again within 8 s at most, frameworks for minutes (273 s were seen); what an agent does between two
calls of its own is seldom as long."""
LOOK_S = 0.1
"""Between two looks."""
REST_S = 5.0
"""So long an agent has to be seen to wait for somebody before it is ended: it asks for nothing more."""
PAUSE_S = 30.0
"""So long an agent may pause before its first call or after its last, of which its tape does not tell."""
_REST_LOOK_S = 1.0
_LOOKS = int(REST_S / _REST_LOOK_S)
_IDLE = 0.1
"""Of a processor: servers that wait look up now and then."""


class Watch(ABC):
    """Looks at one agent within a block, on a thread of its own, and may end it."""

    def __init__(self, name: str) -> None:
        """`name` is the thread's."""
        self.ended: str | None = None
        """Why the agent was ended, if it was."""
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def __enter__(self) -> Self:
        if self._is_needed():
            self._thread.start()
        return self

    def _is_needed(self) -> bool:
        """Return whether anybody is told or ended by what is seen."""
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self._thread.ident is not None:
            self._thread.join()

    @abstractmethod
    def _watch(self) -> None:
        """Look until it is over, or the agent was ended."""


class RestWatch(Watch):
    """Ends an agent that has nothing more to ask, and only listens or waits for work.

    One that computes, sleeps, is connected or has an answer to wait for goes on, unless it waits for longer
    than its recording did, and so does each agent where the system does not say what its processes are at.
    """

    def __init__(
        self,
        claims: Claims,
        commands: Callable[[], Sequence[int]],
        end: Callable[[], None],
        *,
        steps: int,
        replays: bool,
        waited: bool,
        pause_s: float,
    ) -> None:
        """`steps` are on its tape; a fork asks for more. `waited` says that its recording was ended.

        One that was not came to its end by itself, and will again, unless it listens. In the recording, a
        step began or ended at least every `pause_s`.
        """
        self._claims = claims
        self._commands = commands
        self._end = end
        self._steps = steps
        self._replays = replays
        self._waited = waited
        self._pause_s = max(pause_s, PAUSE_S)
        super().__init__("tracefork-rest")

    def _is_done(self) -> bool:
        """Return whether it asked for as much as was recorded."""
        taken = self._claims.taken
        parts: tuple[Part, ...] = ("step",) if self._replays else ("step", "place")
        asked = sum(any(taken(claim_to(part, number)) for part in parts) for number in range(self._steps))
        # The answer of a fork's own step is not its tape's.
        return asked + (not self._replays and taken(claim_to("step", self._steps))) >= self._steps

    def _watch(self) -> None:
        answered, looks = -1, list[AtRest]()
        while not self.over.wait(_REST_LOOK_S):
            commands = self._commands()
            now = at_rest(commands[0]) if commands else None
            if now is None or not now.waits or len(self._claims) != answered:
                answered, looks = len(self._claims), []
            elif looks and now.cpu_s - looks[-1].cpu_s > _IDLE * _REST_LOOK_S:
                looks = []
            elif len(looks) >= _LOOKS and self._only_waits(now, looks):
                self.ended = ONLY_LISTENS if now.listens else ONLY_WAITS
                self._end()
                return
            if now is not None and now.waits:
                looks.append(now)

    def _only_waits(self, now: AtRest, looks: Sequence[AtRest]) -> bool:
        done = self._is_done()
        beats = now.is_beating(looks[-_LOOKS])
        if not any(self._may_be_answered(look, done) for look in (*looks[-_LOOKS:], now)):
            ends = done or not now.connected if now.listens and beats else done and self._waited
            if ends:
                return True
        # For work that is not there again, as of a queue: its recording was never at rest for so long.
        lasts = len(looks) * _REST_LOOK_S > self._pause_s
        return lasts and beats and self._waited and self._replays

    def _may_be_answered(self, look: AtRest, done: bool) -> bool:
        """Return whether what the agent waits for may be an answer, or the end of a pause of its own.

        A replay has each answer on its tape: after the last one, it is work. A fork asks for real. A server
        with no connection gets none, and `aiohttp.web.run_app` sleeps for an hour at a time.
        """
        if not look.expects or (self._replays and done):
            return False
        idle = look.listens and not look.connected and not look.answers
        return not (idle and look.longest_s > self._pause_s)


class DriftWatch(Watch):
    """Watches one agent within a block, by what its processes claim."""

    def __init__(
        self,
        claims: Claims,
        *,
        on_drift: OnDrift | None = None,
        end: Callable[[], None] | None = None,
        steps: int = 0,
    ) -> None:
        """`end` ends the agent, not before it took the first `steps` of its tape; without it it may go on."""
        self._claims = claims
        self._on_drift = on_drift
        self._end = end
        self._open = list(range(steps))
        super().__init__("tracefork-drift")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._say()  # an agent may end before anybody looked

    def _is_needed(self) -> bool:
        return self._on_drift is not None or self._end is not None

    def _say(self) -> bool:
        said = self._claims.said(DRIFTED)
        if said and self._on_drift is not None:
            tell, self._on_drift = self._on_drift, None
            tell(said)
        return bool(said)

    def _all_taken(self) -> bool:
        self._open = [step for step in self._open if not self._claims.taken(claim_to("step", step))]
        return not self._open

    def _watch(self) -> None:
        while not self._say():
            if self.over.wait(LOOK_S):
                return
        answered, since = len(self._claims), time.monotonic()
        while self._end is not None and not self.over.wait(LOOK_S):
            if len(self._claims) != answered:
                answered, since = len(self._claims), time.monotonic()
            elif time.monotonic() - since >= PATIENCE_S and self._all_taken():
                self.ended = (
                    f"the agent was ended, as its tape answered nothing for {PATIENCE_S:g} s after the drift"
                    "; --go-on lets it go on"
                )
                self._end()
                return
