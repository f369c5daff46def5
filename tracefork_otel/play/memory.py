"""Answers that earlier trials of a replicate got: a file beside a fork's intervention names their tapes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import shapes
from ..errors import TapeError
from ..exchange import Exchange
from ..files import write_whole
from ..tape.tape import Tape
from .claims import Claims, Waiting

_ENDING = ".memory"


@dataclass(frozen=True, slots=True)
class Remembered:
    """One answered request: its fingerprint, and the tape and step that hold it."""

    request: str
    tape: Path
    step: int


class Memory:
    """Remembered answers, each given once to the first request with its fingerprint; called under a lock.

    A tape is read when the first of its answers is wanted: most forks ask for nothing that was asked before.
    """

    def __init__(self, entries: Iterable[Remembered], claim: Claims) -> None:
        """Keep the entries; `claim` lets no two processes of the fork give the same answer."""
        self._entries = tuple(entries)
        self._waiting = Waiting("memory", claim)
        for number, entry in enumerate(self._entries):
            self._waiting.add(entry.request, number)
        self._tapes: dict[Path, Tape] = {}

    def __call__(self, fingerprint: str) -> Exchange | None:
        """Return the next answer to a request with this fingerprint, or None if none is left."""
        number = self._waiting.take(fingerprint)
        if number is None:
            return None
        entry = self._entries[number]
        if entry.tape not in self._tapes:
            self._tapes[entry.tape] = Tape.load(entry.tape)
        return self._tapes[entry.tape].exchanges[entry.step]


def dump(entries: Iterable[Remembered], intervention: Path) -> None:
    """Write the answers that the fork of this intervention is to remember."""
    # By their way from here: the files may be carried to another machine together.
    folder = intervention.parent
    lines = (
        json.dumps([entry.request, os.path.relpath(entry.tape, folder), entry.step]) + "\n"
        for entry in entries
    )
    write_whole(intervention.with_name(intervention.name + _ENDING), "".join(lines).encode())


def memory_beside(intervention: Path, claim: Claims) -> Memory | None:
    """Return what the fork of this intervention remembers, or None if it was given nothing."""
    entries = _entries(intervention)
    return None if entries is None else Memory(entries, claim)


def tapes_beside(intervention: Path) -> list[Path]:
    """Return the tapes that what the fork of this intervention remembers stands on, each once."""
    return list(dict.fromkeys(entry.tape for entry in _entries(intervention) or ()))


def _entries(intervention: Path) -> list[Remembered] | None:
    path = intervention.with_name(intervention.name + _ENDING)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return [_remembered(shapes.parsed(line), path.parent) for line in data.splitlines()]
    except (ValueError, TypeError) as error:
        raise TapeError(
            f"{path}: is no memory of a fork, or a damaged one ({error}): start the fork anew"
        ) from error


def _remembered(told: list[object], folder: Path) -> Remembered:
    request, tape, step = told
    return Remembered(_TEXT(request), folder / _TEXT(tape), _STEP(step))


_TEXT, _STEP = shapes.text(), shapes.number()
