"""The order in which overlapping exchanges began and ended, which a replay keeps without a clock.

An exchange ends when all that began before its recorded end have begun, and all that ended before it have
ended: of those of its process that hang together by overlapping. None of those depended on its end when they
were recorded, so the same agent gets to each of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import RLock

from ..exchange import Exchange
from .parts import Parts

_LEFT = ("closed", "abandoned")
"""Ends that the garbage collector may have chosen."""
_LOOK_S = 0.02
"""How often at most it is looked for steps that other processes took: a call of the file system each."""


class Order:
    """What of a tape has begun and ended in this process; any thread may ask."""

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        steps: Collection[int],
        elsewhere: Callable[[int], bool] = lambda step: False,
    ) -> None:
        """Keep the order among the given steps; `elsewhere` says whether another process took one."""
        self._elsewhere = elsewhere
        self._lock = RLock()  # the garbage collector may end one anywhere
        self._places: dict[int, tuple[_Group, int]] = {}
        self._parts: dict[int, Parts] = {}
        for group in _groups(exchanges, steps):
            self._places |= {step: (group, place) for place, step in enumerate(group.ends)}
            parts = Parts(exchanges, group.ends)
            if parts.matter:
                self._parts |= dict.fromkeys(group.starts, parts)
        self._begun: set[int] = set()
        self._ended = {step for step in self._places if exchanges[step].outcome in _LEFT}
        self._waiting: dict[int, Callable[[], object]] = {}
        self._looked_s = 0.0
        self._free = False

    def has_others(self, step: int) -> bool:
        """Return whether any other exchange overlaps this one."""
        return step in self._places

    def parts(self, step: int) -> Parts | None:
        """Return the order of the parts of the streams that overlap with this one, if any do."""
        return self._parts.get(step)

    def begun(self, step: int) -> None:
        """Note that the exchange was asked for."""
        self._come(step, self._begun)

    def ended(self, step: int) -> None:
        """Note that the exchange is over."""
        self._come(step, self._ended)
        if step in self._parts:
            self._parts[step].over(step)

    def passed(self, step: int) -> None:
        """Wait for the exchange no more, which goes over the network: nobody knows when it ends."""
        self.begun(step)
        self.ended(step)

    def free(self) -> None:
        """Hold nothing any more: the agent has left its tape."""
        with self._lock:
            self._free = True
            for step in list(self._waiting):
                self._wake(step)
        for parts in self._parts.values():
            parts.free()

    def may_end(self, step: int) -> bool:
        """Return whether nothing that is to come before the exchange's end is missing."""
        group, place = self._places[step]
        return self._free or place < group.may_end

    @contextmanager
    def waking(self, step: int, wake: Callable[[], object]) -> Iterator[None]:
        """Within the block, call this as soon as the exchange may end: at once if it may."""
        with self._lock:
            self._waiting[step] = wake
            if self.may_end(step):
                self._wake(step)
        try:
            yield
        finally:
            self._waiting.pop(step, None)

    def look(self, step: int) -> None:
        """Pass over what the exchange waits for, as far as another process took it and nobody comes here."""
        group, place = self._places[step]
        with self._lock:
            if time.monotonic() - self._looked_s < _LOOK_S:
                return
            self._looked_s = time.monotonic()
            while group.begun < group.needs[place] and self._elsewhere(other := group.starts[group.begun]):
                self._begun.add(other)
                self._ended.add(other)
                self._advance(group)
                if other in self._parts:
                    self._parts[other].over(other)

    def give_up(self, step: int) -> None:
        """Wait no more for what the exchange has waited for, here or for any other."""
        group, place = self._places[step]
        with self._lock:
            self._begun.update(group.starts[group.begun : group.needs[place]])
            self._ended.update(group.ends[group.ended : place])
            self._advance(group)

    def _come(self, step: int, come: set[int]) -> None:
        if step in self._places:
            with self._lock:
                come.add(step)
                self._advance(self._places[step][0])

    def _advance(self, group: _Group) -> None:
        """Count on from where it was left, so that all of it takes as many steps as there are exchanges."""
        # The garbage collector may end one, and so count, within any of these lines.
        group.begun = max(_counted(group.starts, group.begun, self._begun), group.begun)
        group.ended = max(_counted(group.ends, group.ended, self._ended), group.ended)
        may_end = group.may_end
        while may_end < len(group.ends) and may_end <= group.ended and group.needs[may_end] <= group.begun:
            may_end += 1
        before, group.may_end = group.may_end, max(may_end, group.may_end)
        for step in group.ends[before:may_end]:
            self._wake(step)

    def _wake(self, step: int) -> None:
        wake = self._waiting.pop(step, None)
        if wake is not None:
            with suppress(RuntimeError):  # its event loop is closed
                wake()


@dataclass(slots=True)
class _Group:
    """Exchanges that overlap one another, or others that do."""

    starts: list[int]
    """The steps as they began."""
    ends: list[int]
    """The steps as they ended."""
    needs: list[int]
    """For each of `ends`, how many had begun by then."""
    begun: int = 0
    """How many, from the first, have begun."""
    ended: int = 0
    """How many, from the first, have ended."""
    may_end: int = 0
    """How many, from the first, may end."""


def _counted(steps: Sequence[int], done: int, come: Collection[int]) -> int:
    while done < len(steps) and steps[done] in come:
        done += 1
    return done


def _end(exchange: Exchange, began: Sequence[int]) -> int:
    """Return when the agent had all of it; `began` are the times at which others of its process did, sorted.

    That is when its end was read, which may be long after the last of it came: a thread waits its turn. Of a
    stream that was broken off, or in which something else was asked for, it is when that came.
    """
    response = exchange.response
    ended = exchange.started_ns if exchange.ended_ns is None else exchange.ended_ns
    if response is None or not response.chunk_offsets_us:
        return ended
    came = exchange.started_ns + response.chunk_offsets_us[-1] * 1000
    if exchange.outcome != "complete":
        return came
    is_stream = "event-stream" in (response.header("content-type") or "")
    return came if is_stream and bisect_right(began, came) < bisect_left(began, ended) else ended


def _groups(exchanges: Sequence[Exchange], steps: Collection[int]) -> Iterator[_Group]:
    """Yield those of each process that were open together, in groups between which nothing was open."""
    began: defaultdict[str, list[int]] = defaultdict(list)
    for exchange in sorted((exchanges[step] for step in steps), key=lambda one: one.started_ns):
        began[exchange.process_id].append(exchange.started_ns)
    ends = {step: _end(exchanges[step], began[exchanges[step].process_id]) for step in steps}
    open_: dict[str, list[int]] = {}
    until: dict[str, int] = {}
    for step in sorted(ends, key=lambda one: exchanges[one].started_ns):
        exchange = exchanges[step]
        process = exchange.process_id
        if process in open_ and until[process] > exchange.started_ns:
            open_[process].append(step)
            until[process] = max(until[process], ends[step])
        else:
            yield from _group(exchanges, ends, open_.get(process, ()))
            open_[process], until[process] = [step], ends[step]
    for last in open_.values():
        yield from _group(exchanges, ends, last)


def _group(exchanges: Sequence[Exchange], ends: dict[int, int], steps: Sequence[int]) -> Iterator[_Group]:
    if len(steps) < 2:
        return
    starts = [exchanges[step].started_ns for step in steps]
    places = {step: place for place, step in enumerate(steps)}
    ordered = sorted(steps, key=lambda one: (ends[one], places[one]))
    needs: list[int] = []
    most = 0
    for step in ordered:
        most = max(most, places[step] + 1, bisect_left(starts, ends[step]))
        needs.append(most)
    yield _Group([*steps], ordered, needs)
