"""One process's draws: kept for the store, and served from a tape."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from ..records import Draw
from .lanes import Lanes
from .scope import JOB, OUT, USER, Scope, site_of
from .values import decode, encode

CAP = 20_000
"""Values kept per stream: a loop that polls a clock must not eat the disk."""
PENDING = 200_000
"""Values held in memory between two exchanges."""


class Stream:
    """The draws of one source by one function in one lane."""

    __slots__ = ("count", "index", "lane", "moved", "recorded", "site", "source")

    def __init__(self, lane: str, source: str, site: str, recorded: deque[tuple[int, Any]]) -> None:
        self.lane = lane
        self.source = source
        self.site = site
        self.recorded = recorded
        """(line within the function, value) of those still to be served."""
        self.count = 0
        self.moved = False


class Deck:
    """Every draw of the agent's own code, with its place; no method raises into the agent."""

    def __init__(self, root: str, include: Iterable[str] = ()) -> None:
        self.root = root
        self.scope = Scope(include)
        self.lanes = Lanes(self.scope)
        self.real: dict[str, Callable[..., Any]] = {}
        """The true clocks that must go on from the last served value."""
        self.serves = False
        self.is_live: Callable[[], bool] = bool
        """Whether the fork point was passed: from then on the world is real."""
        self._tape: dict[tuple[str, str, str], deque[tuple[int, Any]]] = {}
        self._choose: Callable[[], Iterable[Draw]] | None = None
        self._streams: dict[tuple[str, str, str], Stream] = {}
        self._pending: deque[tuple[Stream, int, bool, Any]] = deque()
        self._notes: deque[tuple[str, str, str]] = deque()
        self._offsets: dict[str, float] = {}
        self._batch = 0

    def serve(self, choose: Callable[[], Iterable[Draw]], is_live: Callable[[], bool]) -> None:
        """Values come from what `choose` gives at the first draw of this process, up to the fork point."""
        self._choose, self.is_live, self.serves = choose, is_live, True
        self._tape.clear()

    def forked(self) -> None:
        """This forked child keeps its own draws, under a name made of its parent's."""
        self.lanes.forked()
        self.root += self.lanes.root.name
        self.lanes.root.name = ""
        self._pending.clear()
        self._notes.clear()
        self._streams.clear()
        self._batch = 0

    def note(self, kind: str, source: str, site: str) -> None:
        """The reader of the run is told once what was not as it should be, and where."""
        self._notes.append((kind, source, site))

    def stream(self, source: str, depth: int = 2) -> tuple[Stream, int] | None:
        """The stream of a draw, and its line; None if it is not the agent's, or if all is real again."""
        if self.serves and self.is_live():
            self.serves = False
        frame: FrameType | None = sys._getframe(depth)
        scope, via = self.scope, None
        verdict = scope.of(frame)
        while verdict != USER:
            if verdict == OUT:
                return None
            if verdict == JOB:
                lane = self.lanes.present()
                if lane.site is None:
                    return None
                return self.stream_of(lane.name, source, lane.site + ("" if via is None else f"<{via}")), 0
            via = frame.f_globals.get("__name__")
            frame = frame.f_back
            if frame is None:
                return None
            verdict = scope.of(frame)
        lane = self.lanes.present()
        code = frame.f_code
        key = (source, id(code), via)
        found = lane.cache.get(key)
        if found is None or found.lane != lane.name:
            found = lane.cache[key] = self.stream_of(lane.name, source, site_of(frame, via))
        return found, frame.f_lineno - code.co_firstlineno

    def stream_of(self, lane: str, source: str, site: str) -> Stream:
        """The stream of that place, with what the tape has for it."""
        key = (lane, source, site)
        found = self._streams.get(key)
        if found is None:
            if self._choose is not None:
                choose, self._choose = self._choose, None
                self._deal(choose())
            found = self._streams.setdefault(key, Stream(lane, source, site, self._tape.get(key) or deque()))
        return found

    def _deal(self, draws: Iterable[Draw]) -> None:
        for draw in draws:
            stream = self._tape.setdefault((draw.lane, draw.source, draw.site), deque())
            stream.append((draw.line, decode(draw.value)))

    def draw(
        self,
        place: tuple[Stream, int],
        real: Callable[[], Any],
        fits: Callable[[Any], bool] | None = None,
    ) -> Any:
        """The recorded value where there is one, else a real one; it is kept for the store in any case."""
        stream, line = place
        value: Any = None
        served = False
        if self.serves:
            try:
                before, value = stream.recorded.popleft()  # atomic: no lock that a signal could meet
            except IndexError:
                self.note("exhausted", stream.source, stream.site)
            else:
                if fits is None or fits(value):
                    served = True
                    if before != line and not stream.moved:
                        stream.moved = True
                        self.note("moved", stream.source, stream.site)
                    clock = self.real.get(stream.source)
                    if clock is not None:
                        self._offsets[stream.source] = value - clock()
                else:
                    self.note("shape", stream.source, stream.site)
        if not served:
            value = real()
            offset = self._offsets.get(stream.source)
            if offset is not None:  # a clock that only runs forward goes on from the last served value
                value += offset
        stream.count += 1
        if stream.count <= CAP and len(self._pending) < PENDING:
            self._pending.append((stream, line, served, value))
        elif stream.count == CAP + 1 or len(self._pending) == PENDING:
            self.note("capped", stream.source, stream.site)
        return value

    def taken(self) -> Mapping[str, object] | None:
        """What was drawn since the last call, as the attributes of a note; None if nothing was."""
        pending, notes = self._pending, self._notes
        if not pending and not notes:
            return None
        streams: dict[tuple[str, str, str, int], int] = {}
        values: list[list[object]] = []
        told: dict[tuple[str, str, str], int] = {}
        for _ in range(len(pending)):
            try:
                stream, line, served, value = pending.popleft()
            except IndexError:  # another thread takes as well
                break
            key = (stream.lane, stream.source, stream.site, line)
            values.append([streams.setdefault(key, len(streams)), int(served), encode(value)])
        for _ in range(len(notes)):
            try:
                told_now = notes.popleft()
            except IndexError:
                break
            told[told_now] = told.get(told_now, 0) + 1
        batch, self._batch = self._batch, self._batch + 1
        return {
            "root": self.root,
            "batch": batch,
            "streams": [list(key) for key in streams],
            "values": values,
            "notes": [[*key, count] for key, count in told.items()],
        }
