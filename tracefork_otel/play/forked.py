"""A fork as it is played: what is served before its change, what the change makes, and what comes after."""

from __future__ import annotations

from dataclasses import replace

from ..exchange import Exchange, Request
from ..redaction.glance import KEYS
from ..redaction.redact import ATTRIBUTE as REDACTIONS
from ..tape.tape import Tape
from .answers import Live, Phase, Served
from .claims import OFF_TAPE, Claims, claim_to
from .intervention import Intervention
from .onward import Held
from .retries import made_again


class ForkState:
    """The state of a fork: before its intervention, after it, or off its tape."""

    def __init__(self, tape: Tape, intervention: Intervention, claim: Claims) -> None:
        self._tape = tape
        self._intervention = intervention
        self.tail = intervention.tail
        self._claim = claim
        self._delivered = self._drifted = False
        self.departs = intervention.kind == "agent"
        """Whether the first request that is not on the tape begins the tail."""
        forked = None if self.departs else tape.exchanges[intervention.step]
        self._prefix = frozenset(
            step
            for step, exchange in enumerate(tape.exchanges)
            if step != intervention.step
            and (forked is None or forked.ended_ns is None or exchange.started_ns < forked.ended_ns)
        )
        self.step = intervention.step
        self.recorded = self._prefix if self.departs else self._prefix | {intervention.step}
        self.again = tape.steps
        """Stands for the forked exchange's recorded answer, for a client that tries again afterwards."""
        self._also = {change.step: change for change in intervention.also}
        self._due: tuple[Intervention, ...] = ()
        """Further changes whose call was made."""
        self._place = len(self._prefix) + 1
        """The place of the next call of the tail in the fork's own run."""
        self._early: set[int] = set()
        """Steps after the prefix that were asked for before the change was delivered."""

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
        if self.is_prefix(step):
            return True
        if self.departs:
            return False
        if step == self._intervention.step:
            return not self.drifted
        return not self.drifted and (self.tail != "live" or not self.delivered)

    def is_prefix(self, step: int) -> bool:
        """Return whether this step began before the change was answered, or beside it."""
        return step in self._prefix and not (self.departs and self.delivered)

    def depart(self) -> Live:
        """Let this request, and all that follow it, go over the network."""
        self._delivered = True
        self._claim(claim_to("step", self._intervention.step))
        return Live("intervention", label=self._intervention.label)

    def is_memo(self, step: int) -> bool:
        """Return whether this step may answer what comes after the change."""
        return not self.is_prefix(step) and self.is_open(step)

    def held(self, request: Request) -> Held | None:
        """Return the request with what of the changes holds in it; None where none does."""
        onward = [change.onward for change in self.changes if change.onward is not None]
        if not onward or not self.delivered or self.drifted:
            return None
        found: Held | None = None
        for one in onward:
            held = one.held(request if found is None else found.request)
            if held is not None and found is not None:
                held = replace(held, label=f"{found.label} + {held.label}", path=held.path or found.path)
            found = held or found
        return found

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

    def answer_of_tail(self, request: Request, held: Held | None) -> Served | Live:
        """Return what answers a request of the tail: the network, or a further change that is due there."""
        plain = Live("tail")
        if held is not None:
            plain = Live("tail", held.request.sent, held.label, held.path)
        if not self._also:
            return plain
        place = self._next_place()
        change = self._also.get(place)
        if change is None:
            return plain
        self._due = (*self._due, change)
        if change.result is not None:  # the model answers as it does, the tool that it then calls does not
            return replace(plain, phase="intervention", label=change.label)
        made = self._made(change, place, _edited(request, change))
        if isinstance(made, Served):
            return made
        return replace(made, body=made.body or plain.body, path=made.path or plain.path)

    def _next_place(self) -> int:
        """Take the next place of the fork's run that no other process of the fork took."""
        while True:
            place = self._place
            self._place += 1
            if not self._asked_early(place) and self._claim(claim_to("place", place)):
                return place

    def _asked_early(self, step: int) -> bool:
        """Return whether the call of this place was made before the change was delivered."""
        return step in self._early or self._claim.taken(claim_to("early", step))

    def served(self, step: int, request: Request) -> Served | Live:
        """Return what answers a request that took this step."""
        change = self._intervention
        of_rest = step not in self._prefix and step not in (change.step, self.again)
        if of_rest and not self.delivered:
            return self._served_early(step, request)
        if step in self._prefix and self.tail == "live" and _gives_keys(self._tape.exchanges[step]):
            return Live(
                "prefix", step=step
            )  # what comes after the change is asked with the key that it gives
        if step != change.step:
            recorded = self._tape.exchanges[change.step if step == self.again else step]
            if step not in self._prefix:
                return Served(recorded, step, "memo")
            return Served(recorded, step, "prefix", retried=made_again(self._tape, step, self._prefix))
        try:
            body = _edited(request, change)
        except Exception:
            self._leave()
            raise
        self._delivered = True
        return self._made(change, step, body)

    def _served_early(self, step: int, request: Request) -> Served | Live:
        """Return what answers a request of the rest that is made before the change: the tape as it stands."""
        self._early.add(step)
        self._claim(claim_to("early", step))
        also = self._also.get(step)
        if also is None or also.result is not None:
            return Served(self._tape.exchanges[step], step, "prefix")
        self._due = (*self._due, also)
        return self._made(also, step, _edited(request, also))

    def _made(self, change: Intervention, step: int, body: bytes | None) -> Served | Live:
        """Return the answer that the change makes; `body` is that of the request, if it is changed."""
        if change.goes_live:
            return Live("intervention", body, change.label, change.path, step)
        recorded = self._tape.exchanges[step]
        if change.keeps_exchange:
            return Served(recorded, step, "intervention", change.label)
        return Served(_changed(recorded, change), step, "intervention", change.label, changed=True)


def _gives_keys(recorded: Exchange) -> bool:
    """Return whether the exchange gave the agent a key, which redaction has replaced."""
    replaced = recorded.attributes.get(REDACTIONS)
    if not isinstance(replaced, str) or KEYS not in replaced or recorded.response is None:
        return False
    if "gen_ai.operation.name" in recorded.attributes:
        return False
    from ..redaction.known import gives_keys

    return gives_keys(recorded.response)


def _edited(request: Request, change: Intervention) -> bytes | None:
    if not change.edits:
        return None
    from ..wire.json_edits import edited

    return edited(request.sent, request.header("content-encoding"), change.edits)


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
