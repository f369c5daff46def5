"""The player that a process's settings ask for, read from their files."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from ..errors import TapeError
from ..log import LOG
from ..settings import Settings
from ..tape.reads import Draw
from ..tape.tape import Tape
from .claims import claims_beside
from .intervention import Intervention
from .leave import Leave, leave_beside
from .memory import memory_beside
from .order import Order
from .player import Player


class Unplayable:
    """A stand-in for a player whose tape cannot be read: every request fails, none goes over the network."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.watching = True
        """Nothing may leave this machine."""
        self.order = Order((), ())
        self.leave = Leave()
        self.draws: tuple[Draw, ...] = ()
        self.drew = False
        self.tools = self
        """No tool runs either."""

    def answer(self, request: object, *of_tool: object, live: bool = False) -> Any:
        """Raise what is wrong with the tape."""
        raise TapeError(self.why)

    def tell(self, explanation: object) -> None:
        """Say nothing: whoever asks for the tape itself is told."""

    def keep(self, name: str, text: str) -> None:
        """Keep nothing: nobody grades what has no tape."""


def load_tape(path: Path) -> Tape:
    """Return the tape in a file, read once while the file stays the same: forks of one process share it."""
    status = os.stat(path)
    return _tape(path.absolute(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _tape(path: Path, changed_ns: int, size: int) -> Tape:
    return Tape.load(path)


def load_player(settings: Settings) -> Player | Unplayable:
    """Return the player of the tape that the settings name, or one that refuses every request."""
    try:
        mode = settings.mode
        if settings.tape is None:
            raise ValueError(f"TRACEFORK_MODE={mode} needs TRACEFORK_TAPE, the tape file to play")
        match = "json" if settings.ignore else settings.match
        tape, beside, change = load_tape(settings.tape), settings.tape, None
        if mode == "fork":
            if settings.intervention is None:
                raise ValueError(
                    "TRACEFORK_MODE=fork needs TRACEFORK_INTERVENTION, the file that says what changes"
                )
            beside, change = settings.intervention, Intervention.load(settings.intervention)
        claim = claims_beside(beside)
        return Player(
            tape,
            match=match,
            ignore=settings.ignore,
            claim=claim,
            intervention=change,
            tools=settings.tools,
            recall=None if change is None else memory_beside(beside, claim),
            leave=None if change is None else leave_beside(beside),
        )
    except Exception as error:
        LOG.error("tracefork: no request will be answered: %s", error)
        return Unplayable(str(error))
