"""What a player answers to a request: a recorded exchange, leave to go over the network, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..exchange import Exchange, Request
from .match import Explanation

Phase: TypeAlias = Literal[
    "prefix",  # before the intervention, or beside it: from the tape, but for keys, which are asked for anew
    "intervention",  # the forked exchange
    "memo",  # afterwards, the answer that the parent or an earlier trial got to the same request
    "tail",  # afterwards, over the network, or refused
]


@dataclass(frozen=True, slots=True)
class Served:
    """An exchange that answers the request: a recorded one, or the one that a fork puts in its place."""

    exchange: Exchange
    step: int
    """Its step; the number of steps if it is none of the tape's."""
    phase: Phase | None = None
    """None in a replay."""
    label: str | None = None
    """What was changed, if this is the forked exchange or one in which the change holds."""
    changed: bool = False
    """Whether the answer is the intervention's own, not a recorded one."""
    retried: bool = False
    """Whether it is a refusal in a fork after which the tape has the same call again: no client need wait."""
    asked: Request | None = None
    """The request as a fork's changes make it, where the recorded one has them and the agent's has not."""
    uncompared: tuple[str, ...] = ()
    """What redaction replaced and could not be compared with the recorded request's, by name."""


@dataclass(frozen=True, slots=True)
class Live:
    """Leave to go over the network, with another body or to another path if one is given."""

    phase: Phase
    body: bytes | None = None
    label: str | None = None
    path: str | None = None
    step: int | None = None
    """The recorded exchange's in whose place it is: the forked one's, or one's that gave the agent a key."""

    def sent(self, request: Request) -> Request:
        """Return the agent's request as it goes out."""
        url = request.url
        if self.path is not None:
            url = urlsplit(url)._replace(path=self.path).geturl()
        return replace(request, url=url, body=request.body if self.body is None else self.body)


@dataclass(frozen=True, slots=True)
class Miss:
    """No answer: no unused recorded request matches, and nothing may go over the network."""

    explanation: Explanation
    phase: Phase | None = None
    """None in a replay; `prefix` if a fork left its tape before its step, `tail` if its tail is offline."""


Answer: TypeAlias = Served | Live | Miss
