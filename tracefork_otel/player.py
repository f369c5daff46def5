"""Answers requests from a tape: no I/O, no patching, so the seam, the proxy and the tests share it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from .exchange import Exchange, Request
from .match import Candidate, Explanation, MatchMode, explain, fingerprint, parse_paths
from .tape import Tape

Claim: TypeAlias = Callable[[int], bool]
"""Whether this step is still free for the caller; True at most once among all processes of a replay."""


@dataclass(frozen=True, slots=True)
class Served:
    """The recorded exchange that answers the request."""

    exchange: Exchange
    step: int


@dataclass(frozen=True, slots=True)
class Miss:
    """No unused recorded request matches; nothing may go over the network."""

    explanation: Explanation
    repeated: bool = False
    """True if the same request already missed, as when an SDK tries again."""


Answer: TypeAlias = Served | Miss


class Player:
    """Serves each recorded exchange once, to the first request that matches it, from any thread."""

    def __init__(
        self,
        tape: Tape,
        *,
        match: MatchMode = "exact",
        ignore: Sequence[str] = (),
        claim: Claim | None = None,
    ) -> None:
        self.tape = tape
        self._match: MatchMode = match
        self._ignore = tuple(ignore)
        parse_paths(self._ignore)  # a path that is none is refused before the agent starts
        self._claim = claim
        self._lock = Lock()
        self._used: set[int] = set()
        self._misses: dict[str, Explanation] = {}
        self._waiting: dict[str, deque[int]] = {}
        for step, exchange in enumerate(tape.exchanges):
            self._waiting.setdefault(self._fingerprint(exchange.request), deque()).append(step)

    def answer(self, request: Request) -> Answer:
        """The first unused exchange with that request, now used; or a Miss, which `misses` holds once."""
        key = self._fingerprint(request)
        with self._lock:
            waiting = self._waiting.get(key)
            while waiting:
                step = waiting.popleft()
                self._used.add(step)
                if self._claim is None or self._claim(step):
                    return Served(self.tape.exchanges[step], step)
            known = self._misses.get(key)
            if known is not None:
                return Miss(known, repeated=True)
            candidates = tuple(self._candidates())
        explanation = explain(request, candidates, match=self._match, ignore=self._ignore)
        with self._lock:
            known = self._misses.setdefault(key, explanation)
        return Miss(known, repeated=known is not explanation)

    def remaining(self) -> tuple[int, ...]:
        """The steps that no request has asked for yet, in order."""
        with self._lock:
            return tuple(step for step in range(self.tape.steps) if step not in self._used)

    @property
    def misses(self) -> tuple[Explanation, ...]:
        """The requests that matched nothing, each once, in the order in which they came."""
        with self._lock:
            return tuple(self._misses.values())

    def _fingerprint(self, request: Request) -> str:
        return fingerprint(request, match=self._match, ignore=self._ignore)

    def _candidates(self) -> Iterator[Candidate]:
        for step, exchange in enumerate(self.tape.exchanges):
            yield Candidate(step, exchange.request, step in self._used)


def claims_beside(tape: Path) -> Claim | None:
    """Claims that all processes of one replay share, if its director made the folder `<tape>.claims`.

    Each claim is a file that only one process can create, so two processes that send equal requests get
    the two recorded answers, not the first one twice.
    """
    folder = tape.with_name(tape.name + ".claims")
    if not folder.is_dir():
        return None

    def claim(step: int) -> bool:
        try:
            os.close(os.open(folder / str(step), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:  # the folder went away: each process keeps its own count
            return True
        return True

    return claim
