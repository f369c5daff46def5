"""What is asked before the run begins, whose tape is for what comes after: by a module, or at a start."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from ..exchange import Request
from .answers import Answer, Miss
from .player import Player

GUARD = 'put it under `if __name__ == "__main__":`'


STARTING = "ask for it in the first request that needs it, or without a model"


class Rehearsal:
    """Stands for a player: answers from the same tape, whose steps stay unused, and counts the requests."""

    def __init__(self, player: Player, *, serves: bool = False) -> None:
        """`serves` where it is an application that starts; else a module is imported."""
        self._of = player
        self._who, self._when, self._remedy = (
            ("the application", "while it starts", STARTING)
            if serves
            else ("the agent's module", "while it is imported", GUARD)
        )
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
        """Return what answers the request; a miss says when it is made."""
        self.asked += 1
        found = self._beside.answer(request)
        if not isinstance(found, Miss):
            return found
        advice = f"{self._who} makes this call {self._when}: {self._remedy}"
        return replace(found, explanation=replace(found.explanation, advice=advice))

    @property
    def why(self) -> str:
        """What is said of it."""
        calls = "a call" if self.asked == 1 else f"{self.asked} calls"
        who = self._who.replace("the agent's", "its")
        return f"{who} makes {calls} {self._when}, which is no part of the run: {self._remedy}"
