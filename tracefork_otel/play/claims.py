"""Claims that all processes of a replay or fork share: who took which part of it, as files of a folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

Part: TypeAlias = Literal[
    "step",  # a recorded exchange; the number of steps stands for the forked one's answer, served afterwards
    "place",  # a place in a fork's own run
    "early",  # an exchange of a fork's rest that was asked for before the change
    "tool",  # a recorded call of a tool
    "change",  # a result that a fork replaces, in the order of its changes
    "draws",  # the draws of a recorded process
    "memory",  # an answer that an earlier trial got
]

_open = os.open
"""As it was at import: where an agent works on copies, one of each of its own files is looked for first."""

OFF_TAPE = "off-tape"
"""Taken by a fork whose prefix left its tape."""
DRIFTED = "drifted"
"""Taken by the first request that the tape has no answer to, with what is to be said of it."""


def claim_to(part: Part, number: int) -> str:
    """Return the name of the claim to one of the parts of a replay."""
    return f"{part}-{number}"


def result_of(span_id: str) -> str:
    """Return the name under which the whole result of the call with this span stands, if it is a long one."""
    return f"result-{span_id}"


class Claims:
    """Claims as files, each of which only one process can create; without a folder each is free.

    So two processes that send equal requests get the two recorded answers, not the first one twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def __call__(self, name: str, said: str = "") -> bool:
        """Claim what is named; return whether nobody did before. What is `said` then stands there."""
        try:
            if self._folder is not None:
                file = _open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                try:
                    if said:
                        os.write(file, said.encode("utf-8", "backslashreplace"))
                finally:
                    os.close(file)
        except FileExistsError:
            return False
        except OSError:  # the folder went away: each process keeps its own count
            return True
        return True

    def taken(self, name: str) -> bool:
        """Return whether somebody claimed what is named."""
        return self._folder is not None and (self._folder / name).exists()

    def said(self, name: str) -> str:
        """Return what was said by whoever claimed what is named; nothing where nobody did."""
        with suppress(OSError):
            if self._folder is not None:
                return (self._folder / name).read_text(encoding="utf-8")
        return ""

    def __len__(self) -> int:
        """Return how much is claimed: it grows with whatever the tape gives."""
        with suppress(OSError):
            return 0 if self._folder is None else len(os.listdir(self._folder))
        return 0


class Waiting:
    """Recorded parts by what they answer to, each given once, also among the processes that share claims."""

    def __init__(self, part: Part, claim: Claims) -> None:
        self._part: Part = part
        self._claim = claim
        self._numbers: dict[str, deque[int]] = {}
        self.used: set[int] = set()
        """The numbers that were taken, here or by others."""
        self._lost: set[int] = set()
        """Those of them that others had taken."""

    def add(self, key: str, number: int) -> None:
        """Let the part of that number answer to the key, after those that do already."""
        self._numbers.setdefault(key, deque()).append(number)

    def take(self, key: str, is_open: Callable[[int], bool] = lambda number: True) -> int | None:
        """Use up the first open number under the key that nobody took and return it; None if none is left."""
        numbers = self._numbers.get(key)
        while numbers:
            number = next((one for one in numbers if is_open(one)), None)
            if number is None:
                return None
            numbers.remove(number)
            if number not in self.used:
                self.used.add(number)
                if self._claim(claim_to(self._part, number)):
                    return number
                self._lost.add(number)
        return None

    def first(self, key: str, is_open: Callable[[int], bool] = lambda number: True) -> int | None:
        """Return the first open number under the key, as far as this process knows; None if none is left."""
        waiting = self._numbers.get(key, ())
        return next((one for one in waiting if one not in self.used and is_open(one)), None)

    def is_elsewhere(self, number: int) -> bool:
        """Return whether another process took the part."""
        if number in self._lost:
            return True
        # In this order: what this process takes is among the used before it is claimed.
        return self._claim.taken(claim_to(self._part, number)) and number not in self.used

    def has(self, key: str) -> bool:
        """Return whether a number under the key is left, as far as this process knows."""
        return any(number not in self.used for number in self._numbers.get(key, ()))


def claims_beside(path: Path) -> Claims:
    """Return the claims of a replay, shared by its processes if its director made the folder `<path>.claims`.

    The path is that of the tape in a replay, that of the intervention in a fork.
    """
    folder = path.with_name(path.name + ".claims")
    return Claims(folder if folder.is_dir() else None)
