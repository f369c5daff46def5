"""What a module asks while it is imported: no part of the run, whose tape is for the call after that."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from ..exchange import Request
from .answers import Answer, Miss
from .player import Player

GUARD = 'put it under `if __name__ == "__main__":`'


class Rehearsal:
    """Stands for a player: answers from the same tape, whose steps stay unused, and counts the requests."""

    def __init__(self, player: Player) -> None:
        self._of = player
        self.asked = 0
        """How many requests there were."""

    @cached_property
    def _beside(self) -> Player:
        # Made for the few modules that ask anything: a tape takes its time.
        of = self._of
        return Player(of.tape, match=of.match, ignore=of.ignore, tools=of.tools.mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._beside, name)

    def answer(self, request: Request) -> Answer:
        """Return what answers the request; a miss says that it is made while the module is imported."""
        self.asked += 1
        found = self._beside.answer(request)
        if not isinstance(found, Miss):
            return found
        advice = f"the agent's module makes this call while it is imported: {GUARD}"
        return replace(found, explanation=replace(found.explanation, advice=advice))

    @property
    def why(self) -> str:
        """What is said of it."""
        calls = "a call" if self.asked == 1 else f"{self.asked} calls"
        return f"its module makes {calls} while it is imported, which is no part of the run: {GUARD}"
