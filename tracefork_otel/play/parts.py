"""The order in which the parts of streams came that were open together.

They come one after the other as they did. A stream's last part waits for its end's turn, too: nothing waits
for it where a later part is of a stream that ended before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import RLock

from ..exchange import Exchange

_STREAMS = ("event-stream", "eventstream", "ndjson", "jsonl", "json-seq")
"""In the content types of answers that are read part by part."""


class Parts:
    """What of some overlapping streams was given; any thread may ask."""

    def __init__(self, exchanges: Sequence[Exchange], ends: Sequence[int]) -> None:
        """`ends` are the steps in the order in which they end."""
        came = {step: times for step in ends if (times := _came(exchanges[step]))}
        waited_for: list[tuple[int, int, int, int]] = []
        latest = 0
        for place, (step, times) in enumerate(came.items()):
            parts = times if times[-1] > latest else times[:-1]
            waited_for += [(at, place, step, number) for number, at in enumerate(parts)]
            latest = max(latest, times[-1])
        self._order = sorted(waited_for)
        self._places = {
            (step, number): bisect_left(self._order, (at, place, step, number))
            for place, (step, times) in enumerate(came.items())
            for number, at in enumerate(times)
        }
        self._streams = len(came)
        self._lock = RLock()  # the garbage collector may end one anywhere
        self._next = 0
        self._given: set[tuple[int, int]] = set()
        self._over: set[int] = set()
        self._waiting: dict[tuple[int, int], Callable[[], object]] = {}
        self._free = False

    @property
    def matter(self) -> bool:
        """Whether there is more than one stream."""
        return self._streams > 1

    def may_come(self, step: int, number: int) -> bool:
        """Return whether nothing that came before this part is missing."""
        return self._free or self._next >= self._places.get((step, number), 0)

    def follows_another(self, step: int, number: int) -> bool:
        """Return whether the part before it was another stream's."""
        place = self._places.get((step, number), 0)
        return place > 0 and self._order[place - 1][2] != step

    def came(self, step: int, number: int) -> None:
        """Note that the part is given."""
        with self._lock:
            self._given.add((step, number))
            self._advance()

    def over(self, step: int) -> None:
        """Note that no more of the stream is given."""
        with self._lock:
            self._over.add(step)
            self._advance()

    def free(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            self._free = True
            self._advance()

    @contextmanager
    def waking(self, step: int, number: int, wake: Callable[[], object]) -> Iterator[None]:
        """Within the block, call this as soon as the part may come: at once if it may."""
        with self._lock:
            self._waiting[step, number] = wake
            self._advance()
        try:
            yield
        finally:
            self._waiting.pop((step, number), None)

    def _advance(self) -> None:
        at = self._next
        while at < len(self._order):
            _, _, step, number = self._order[at]
            if step not in self._over and (step, number) not in self._given:
                break
            at += 1
        self._next = max(at, self._next)
        for step, number in [one for one in self._waiting if self.may_come(*one)]:
            wake = self._waiting.pop((step, number), None)
            if wake is not None:
                with suppress(RuntimeError):  # its event loop is closed
                    wake()


def _came(exchange: Exchange) -> list[int]:
    """Return when each part of a stream came; nothing of what is no stream, or was left before its end."""
    response = exchange.response
    if response is None or exchange.outcome != "complete":
        return []
    kind = response.header("content-type") or ""
    offsets = response.chunk_offsets_us
    if not any(name in kind for name in _STREAMS) or len(offsets) != len(response.chunk_sizes):
        return []
    return [exchange.started_ns + offset * 1000 for offset in offsets]
