"""What earlier trials of a replicate were answered: a file beside a fork's intervention names the tapes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..errors import TapeError
from ..exchange import Exchange
from ..tape.tape import Tape
from . import claims
from .claims import Claim

_ENDING = ".memory"


@dataclass(frozen=True, slots=True)
class Remembered:
    """One answered request: its fingerprint, and the tape and step that hold it."""

    request: str
    tape: Path
    step: int


_Numbered: TypeAlias = tuple[int, Remembered]


class Memory:
    """Gives each remembered answer once, to the first request with its fingerprint; called under a lock.

    A tape is read when the first of its answers is wanted: most forks ask for nothing that was asked before.
    """

    def __init__(self, entries: Iterable[Remembered], claim: Claim | None = None) -> None:
        """`claim` is shared by the processes of the fork, so that no answer is given in two of them."""
        self._waiting: dict[str, deque[_Numbered]] = {}
        for number, one in enumerate(entries):
            self._waiting.setdefault(one.request, deque()).append((number, one))
        self._claim = claim
        self._tapes: dict[Path, Tape] = {}

    def __call__(self, fingerprint: str) -> Exchange | None:
        """The next answer to this request, or None if nothing is left of it."""
        waiting = self._waiting.get(fingerprint)
        while waiting:
            number, one = waiting.popleft()
            if self._claim is None or self._claim(claims.memory(number)):
                return self._tape(one.tape).exchanges[one.step]
        return None

    def _tape(self, path: Path) -> Tape:
        found = self._tapes.get(path)
        if found is None:
            found = self._tapes[path] = Tape.load(path)
        return found


def dump(entries: Iterable[Remembered], intervention: Path) -> None:
    """The fork of this intervention remembers these answers."""
    lines = (json.dumps([one.request, str(one.tape), one.step]) + "\n" for one in entries)
    intervention.with_name(intervention.name + _ENDING).write_text("".join(lines))


def memory_beside(intervention: Path, claim: Claim | None = None) -> Memory | None:
    """What the fork of this intervention remembers; None if nothing was given to it."""
    path = intervention.with_name(intervention.name + _ENDING)
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        lines = (json.loads(line) for line in text.splitlines())
        return Memory([Remembered(request, Path(tape), step) for request, tape, step in lines], claim)
    except (ValueError, TypeError) as error:
        raise TapeError(
            f"{path}: is no memory of a fork, or a damaged one ({error}): start the fork anew"
        ) from error
