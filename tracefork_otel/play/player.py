"""The player of a tape: without I/O and patching, so that the seam, the proxy and the tests share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal, TypeAlias

from ..exchange import Exchange, Request
from ..redaction.redact import Redactor
from ..tape.reads import Draw
from ..tape.tape import Tape
from .claims import OFF_TAPE, Claims, Waiting, claim_to
from .intervention import Intervention
from .match import Candidate, Explanation, MatchMode, explain, fingerprint, parse_paths
from .tools import Placement, ToolPlayer, ToolsMode

Recall: TypeAlias = Callable[[str], Exchange | None]
"""What an earlier trial was answered to a request with this fingerprint; each answer is given once."""

Phase: TypeAlias = Literal[
    "prefix",  # before the intervention, or beside it: from the tape
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
    """What was changed, if this is the forked exchange."""
    changed: bool = False
    """Whether the answer is the intervention's own, not a recorded one."""


@dataclass(frozen=True, slots=True)
class Live:
    """Leave to go over the network, with another body or to another path if one is given."""

    phase: Phase
    body: bytes | None = None
    label: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """No answer: no unused recorded request matches, and nothing may go over the network."""

    explanation: Explanation
    phase: Phase | None = None
    """None in a replay; `prefix` if a fork left its tape before its step, `tail` if its tail is offline."""


Answer: TypeAlias = Served | Live | Miss


class Player:
    """A tape that answers requests: each exchange once, to the first request that matches, from any thread.

    >>> player = Player(Tape.load("run.tape"), match="json")
    >>> answer = player.answer(request)  # a Served, Live or Miss

    With an intervention it plays a fork. What started before the forked exchange ended does not depend on its
    answer: it is the prefix, served from the tape, and nothing else is answered before the intervention was
    delivered. Afterwards the tail decides: from the network, from the tape where the parent made the same
    request, or not at all.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        match: MatchMode = "exact",
        ignore: Sequence[str] = (),
        claim: Claims | None = None,
        intervention: Intervention | None = None,
        tools: ToolsMode | None = None,
        recall: Recall | None = None,
    ) -> None:
        """Load the tape; `tools` says what calls of tools get, `recall` gives answers of earlier trials."""
        self.tape = tape
        self._match: MatchMode = match
        self._ignore = tuple(ignore)
        parse_paths(self._ignore)  # a path that is none is refused before the agent starts
        claim = claim or Claims()
        self._lock = Lock()
        self._misses: dict[str, Explanation] = {}
        self._fork = None if intervention is None else _Fork(tape, intervention, claim)
        self._waiting = Waiting("step", claim)
        redactor = Redactor()
        for step, exchange in enumerate(tape.exchanges):
            # Names that count as secret grow in number: what an earlier version kept is compared as today's.
            asked = replace(exchange.request, url=redactor.url(exchange.request.url))
            key = self._fingerprint(asked)
            self._waiting.add(key, step)
            if self._fork is not None and self._fork.answers_again(step):
                self._waiting.add(key, self._fork.again)
        self._recall = recall
        self.tools = ToolPlayer(
            tape.tools, mode=tools, placement=self._placement, leave=self._leave, claim=claim
        )
        """What answers calls of local tools."""

    def answer(self, request: Request) -> Answer:
        """Return what answers the request, and use that up; explain a miss, once however often it comes."""
        key = self._fingerprint(request)
        fork = self._fork
        with self._lock:
            if fork is None:
                step = self._waiting.take(key)
                if step is not None:
                    return Served(self.tape.exchanges[step], step)
            else:
                step = self._waiting.take(key, fork.is_open)
                if step is not None:
                    return fork.served(step, request)
                if fork.goes_on_live:
                    return self._recalled(key, fork.answer_of_tail(request))
            candidates = tuple(self._candidates())
            phase = None if fork is None else fork.missed()
            known = self._misses.get(key)
        if known is None:
            explanation = explain(request, candidates, match=self._match, ignore=self._ignore)
            with self._lock:
                known = self._misses.setdefault(key, explanation)
        return Miss(known, phase)

    def _recalled(self, key: str, answer: Served | Live) -> Served | Live:
        """Return the remembered answer, where an unchanged request would go over the network."""
        if self._recall is None or answer.phase != "tail":
            return answer
        remembered = self._recall(key)
        return answer if remembered is None else Served(remembered, self.tape.steps, "memo")

    @property
    def draws(self) -> tuple[Draw, ...]:
        """What the recorded agent read from clocks and randomness."""
        return self.tape.draws

    @property
    def watching(self) -> bool:
        """Whether nothing may leave this machine: always in a replay, in a fork up to its intervention."""
        return self._fork is None or not self._fork.delivered

    def _placement(self) -> Placement:
        """Return where this player stands, for its tools."""
        with self._lock:
            step = min(max(self._waiting.used, default=-1), self.tape.steps - 1)
            fork = self._fork
            if fork is None:
                return Placement("replay", step)
            if not fork.delivered or fork.drifted:
                return Placement("prefix", step)
            return Placement("tail", step, fork.tail == "offline", fork.changes)

    def _leave(self) -> None:
        """Let nothing go live any more: a tool was called that the tape does not know there."""
        if self._fork is not None:
            self._fork.missed()

    def _fingerprint(self, request: Request) -> str:
        return fingerprint(request, match=self._match, ignore=self._ignore)

    def _candidates(self) -> Iterator[Candidate]:
        for step, exchange in enumerate(self.tape.exchanges):
            used = step in self._waiting.used
            if used or self._fork is None or self._fork.is_expected(step):
                yield Candidate(step, exchange.request, used)


class _Fork:
    """The state of a fork: before its intervention, after it, or off its tape."""

    def __init__(self, tape: Tape, intervention: Intervention, claim: Claims) -> None:
        self._tape = tape
        self._intervention = intervention
        self.tail = intervention.tail
        self._claim = claim
        self._delivered = self._drifted = False
        forked = tape.exchanges[intervention.step]
        self._prefix = frozenset(
            step
            for step, exchange in enumerate(tape.exchanges)
            if step != intervention.step
            and (forked.ended_ns is None or exchange.started_ns < forked.ended_ns)
        )
        self.again = tape.steps
        """Stands for the forked exchange's recorded answer, for a client that tries again afterwards."""
        self._also = {change.step: change for change in intervention.also}
        self._due: tuple[Intervention, ...] = ()
        """Further changes whose call was made."""
        self._place = len(self._prefix) + 1
        """The place of the next call of the tail in the fork's own run."""

    @property
    def delivered(self) -> bool:
        """Whether the intervention was delivered, in whichever process of the fork."""
        self._delivered = self._delivered or self._claim.taken(claim_to("step", self._intervention.step))
        return self._delivered

    @property
    def drifted(self) -> bool:
        """Whether a request before the intervention was not on the tape: then nothing goes live any more."""
        self._drifted = self._drifted or self._claim.taken(OFF_TAPE)
        return self._drifted

    @property
    def goes_on_live(self) -> bool:
        """Whether a request that the tape does not answer goes over the network."""
        return self.delivered and not self.drifted and self.tail != "offline"

    @property
    def changes(self) -> tuple[Intervention, ...]:
        """The changes that are due once the first was delivered."""
        return (self._intervention, *self._due)

    def is_open(self, step: int) -> bool:
        """Return whether this step may be served now."""
        if step in self._prefix:
            return True
        if step == self._intervention.step:
            return not self.drifted
        return self.tail != "live" and self.delivered and not self.drifted

    def is_expected(self, step: int) -> bool:
        """Return whether a request that nothing answers may have been meant for this step."""
        return step == self._intervention.step or self.is_open(step)

    def answers_again(self, step: int) -> bool:
        """Return whether the recorded answer to this step is still unused once the step is."""
        return step == self._intervention.step and not self._intervention.keeps_exchange

    def missed(self) -> Phase:
        """Return the phase of an unanswered request; a fork that misses in its prefix stays off its tape."""
        if self.delivered:
            return "tail"
        self._leave()
        return "prefix"

    def _leave(self) -> None:
        self._drifted = True
        self._claim(OFF_TAPE)

    def answer_of_tail(self, request: Request) -> Served | Live:
        """Return what answers a request of the tail: the network, or a further change that is due there."""
        if not self._also:
            return Live("tail")
        place = self._next_place()
        change = self._also.get(place)
        if change is None:
            return Live("tail")
        self._due = (*self._due, change)
        if change.result is not None:  # the model answers as it does, the tool that it then calls does not
            return Live("intervention", None, change.label)
        return self._made(change, place, _edited(request, change))

    def _next_place(self) -> int:
        """Take the next place of the fork's run that no other process of the fork took."""
        while True:
            place = self._place
            self._place += 1
            if self._claim(claim_to("place", place)):
                return place

    def served(self, step: int, request: Request) -> Served | Live:
        """Return what answers a request that took this step."""
        change = self._intervention
        if step != change.step:
            recorded = self._tape.exchanges[change.step if step == self.again else step]
            return Served(recorded, step, "prefix" if step in self._prefix else "memo")
        try:
            body = _edited(request, change)
        except Exception:
            self._leave()
            raise
        self._delivered = True
        return self._made(change, step, body)

    def _made(self, change: Intervention, step: int, body: bytes | None) -> Served | Live:
        """Return the answer that the change makes; `body` is that of the request, if it is changed."""
        if change.goes_live:
            return Live("intervention", body, change.label, change.path)
        recorded = self._tape.exchanges[step]
        if change.keeps_exchange:
            return Served(recorded, step, "intervention", change.label)
        return Served(_changed(recorded, change), step, "intervention", change.label, changed=True)


def _edited(request: Request, change: Intervention) -> bytes | None:
    if not change.edits:
        return None
    from ..wire.json_edits import apply_edits

    return apply_edits(request.sent, change.edits)


def _changed(recorded: Exchange, change: Intervention) -> Exchange:
    """Return the recorded exchange with the ending that the intervention wants."""
    part = change.response
    if change.error is None:
        return replace(recorded, response=part, outcome="complete", error_type=None, error_message=None)
    if change.error == "timeout":
        return replace(
            recorded,
            response=None,
            outcome="no_response",
            error_type="httpx2.ReadTimeout",
            error_message="The read operation timed out",
        )
    return replace(
        recorded,
        response=part,
        outcome="no_response" if part is None else "cut",
        error_type="httpx2.RemoteProtocolError",
        error_message="Server disconnected without sending a response."
        if part is None
        else "peer closed connection without sending complete message body (incomplete chunked read)",
    )
