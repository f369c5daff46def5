"""One process's draws: kept for the store, and served from a tape."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, TypeAlias

from ..recording.process import cwd
from ..tape.reads import Draw
from .lanes import Lanes, is_pooled
from .scope import JOB, OUT, USER, VIA, Scope, site_of
from .values import decode, encode

CAP = 20_000
"""Values kept per stream: a loop that polls a clock must not eat the disk."""
PENDING = 200_000
"""Values held in memory between two exchanges."""
_INLINED = ("<listcomp>", "<setcomp>", "<dictcomp>")
"""Part of their function since Python 3.12, and taken for it before."""
SUSPECTS = 256
"""Draws that did not go as recorded, and draws of libraries, that are kept to explain a drift."""


class Stream:
    """The draws of one source by one function in one lane."""

    __slots__ = ("count", "lane", "recorded", "shift", "site", "source")

    def __init__(self, lane: str, source: str, site: str, recorded: deque[tuple[int, Any]]) -> None:
        self.lane = lane
        self.source = source
        self.site = site
        self.recorded = recorded
        """(line within the function, value) of those still to be served."""
        self.count = 0
        self.shift: int | None = None
        """How many lines below its recorded place the last draw was."""


Place: TypeAlias = tuple[Stream, int, CodeType | None]
"""A draw's stream, its line within the function, and the function, if it is the agent's."""


def _where(place: Place) -> str:
    """Return the file and the line of a draw; empty if no code of the agent's made it."""
    _, line, code = place
    if code is None or code.co_filename.startswith("<"):
        return ""
    file, here = code.co_filename, os.path.join(cwd(), "")
    file = file.removeprefix(here) if file.startswith(here) else os.path.basename(file)
    return f"{file}:{code.co_firstlineno + line}"


@dataclass(slots=True, eq=False)
class Suspect:
    """A draw that did not go as it was recorded, in case that a request differs."""

    kind: str
    source: str
    site: str
    where: str
    value: Any
    lane: str | None
    fresh: bool = True
    """Whether no request of its lane was answered since."""


class Deck:
    """Every draw of the agent's own code, with its place; no method raises into the agent."""

    def __init__(self, root: str, include: Iterable[str] = (), outside: tuple[str, ...] = ()) -> None:
        self.root = root
        self.scope = Scope(include, outside)
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
        self._notes: deque[tuple[str, str, str, str]] = deque()
        self.suspects: deque[Suspect] = deque(maxlen=SUSPECTS)
        self.when_live: list[Callable[[], None]] = []
        """What is to be done at the fork point."""
        self._offsets: dict[str, float] = {}
        self._batch = 0
        self._pooled = False

    def serve(self, choose: Callable[[], Iterable[Draw]], is_live: Callable[[], bool]) -> None:
        """Serve what `choose` gives at the first draw of this process, up to the fork point."""
        self._choose, self.is_live, self.serves = choose, is_live, True
        self._tape.clear()

    def forked(self) -> None:
        """Begin anew in a forked child, under a name made of its parent's."""
        self._pooled = is_pooled()
        self.lanes.forked()
        self.root += self.lanes.root.name
        self.lanes.root.name = ""
        self._pending.clear()
        self._notes.clear()
        self._streams.clear()
        self._batch = 0

    def note(self, kind: str, source: str, site: str, where: str = "") -> None:
        """Tell the reader of the run what was not as it should be, and where."""
        self._notes.append((kind, source, site, where))

    def suspect(self, kind: str, source: str, site: str, value: Any, where: str = "") -> None:
        """Keep a draw that is looked at if a request differs."""
        self.suspects.append(Suspect(kind, source, site, where, value, self.lanes.present().name))

    def library(self, source: str, value: Any) -> None:
        """Keep what a library drew for itself, unrecorded: if a request differs, it may be why."""
        frame: FrameType | None = sys._getframe(2)
        via: str | None = None
        while frame is not None and (verdict := self.scope.of(frame)) != OUT:
            via = frame.f_globals.get("__name__") if verdict == VIA else via
            frame = frame.f_back
        if frame is not None:
            module = str(frame.f_globals.get("__name__"))
            self.suspect("library", source, module + (f"<{via}" if via else ""), value)

    def answered(self) -> None:
        """Note that a request of this lane was as recorded: what it drew before did that one no harm."""
        lane = self.lanes.present().name if self.suspects else None
        for one in list(self.suspects):
            one.fresh = one.fresh and one.lane != lane

    def go_live(self) -> None:
        """Serve nothing any more: the fork point is passed."""
        self.serves = False
        while self.when_live:
            self.when_live.pop()()

    def stream(self, source: str, depth: int = 2) -> Place | None:
        """Return where a draw belongs; None if it is not the agent's."""
        if self.serves and self.is_live():
            self.go_live()
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
                site = lane.site + ("" if via is None else f"<{via}")
                return self.stream_of(lane.name, source, site), 0, None
            via = frame.f_globals.get("__name__")
            frame = frame.f_back
            if frame is None:
                return None
            verdict = scope.of(frame)
        lane = self.lanes.present()
        code, line = frame.f_code, frame.f_lineno
        while code.co_name in _INLINED and frame.f_back is not None:
            frame = frame.f_back
            code = frame.f_code
        key = (source, id(code), via)
        found = lane.cache.get(key)
        if found is None or found.lane != lane.name:
            found = lane.cache[key] = self.stream_of(lane.name, source, site_of(frame, via))
        return found, line - code.co_firstlineno, code

    def stream_of(self, lane: str, source: str, site: str) -> Stream:
        """Return the stream of that place, with what the tape has for it."""
        key = (lane, source, site)
        found = self._streams.get(key)
        if found is None:
            if self._choose is not None:
                choose, self._choose = self._choose, None
                self._deal(choose())
            if self._pooled:
                self.note("pooled", source, site)
            found = self._streams.setdefault(key, Stream(lane, source, site, self._tape.get(key) or deque()))
        return found

    def _deal(self, draws: Iterable[Draw]) -> None:
        for draw in draws:
            stream = self._tape.setdefault((draw.lane, draw.source, draw.site), deque())
            stream.append((draw.line, decode(draw.value)))

    def draw(
        self,
        place: Place,
        real: Callable[[], Any],
        fits: Callable[[Any], bool] | None = None,
    ) -> Any:
        """Return the recorded value where there is one, else a real one; keep it for the store either way."""
        stream, line, _ = place
        value: Any = None
        served, odd = False, ""
        if self.serves:
            try:
                before, value = stream.recorded.popleft()  # atomic: no lock that a signal could meet
            except IndexError:
                odd = "exhausted"
            else:
                served = fits is None or fits(value)
                if not served:
                    odd = "shape"
                elif before != line or stream.shift != 0:
                    odd = self._shifted(place, line - before, value)
                clock = self.real.get(stream.source)
                if served and clock is not None:
                    self._offsets[stream.source] = value - clock()
        if not served:
            value = real()
            offset = self._offsets.get(stream.source)
            if offset is not None:  # a clock that only runs forward goes on from the last served value
                value += offset
        if odd:
            self._odd(odd, place, value)
        stream.count += 1
        if stream.count <= CAP and len(self._pending) < PENDING:
            self._pending.append((stream, line, served, value))
        elif stream.count == CAP + 1 or len(self._pending) == PENDING:
            self.note("capped", stream.source, stream.site, _where(place))
        return value

    def _shifted(self, place: Place, shift: int, value: Any) -> str:
        """Return `moved` if a draw may have been added before this one: other edits move all draws alike."""
        stream = place[0]
        odd = shift < 0 if stream.shift is None else shift != stream.shift
        stream.shift = shift
        if shift and not odd:
            self.suspect("moved", stream.source, stream.site, value, _where(place))
        return "moved" if odd else ""

    def _odd(self, kind: str, place: Place, value: Any) -> None:
        stream, where = place[0], _where(place)
        self.suspect(kind, stream.source, stream.site, value, where)
        self.note(kind, stream.source, stream.site, where)

    def taken(self) -> Mapping[str, object] | None:
        """Return what was drawn since the last call, as the attributes of a note; None if nothing was."""
        pending, notes = self._pending, self._notes
        if not pending and not notes:
            return None
        streams: dict[tuple[str, str, str, int], int] = {}
        values: list[list[object]] = []
        told: dict[tuple[str, str, str, str], int] = {}
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
            "notes": [[*key[:3], count, key[3]] for key, count in told.items()],
        }
