"""The player of a tape: without I/O and patching, so that the seam, the proxy and the tests share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import TypeAlias
from urllib.parse import urlsplit

from ..exchange import Exchange, RedactedRequest, Request
from ..redaction.glance import KEYS
from ..redaction.hidden import SAME, Verdict, compared
from ..redaction.redact import Redactor
from ..tape.reads import Draw
from ..tape.tape import Tape
from .answers import Answer, Live, Miss, Served
from .changed import changed_by, held_by
from .claims import DRIFTED, Claims, Waiting
from .forked import ForkState
from .intervention import Intervention, changes_of
from .leave import Leave
from .match import Candidate, Explanation, MatchMode, explain, fingerprint, in_any_order, parse_paths
from .order import Order
from .tools import Placement, ToolPlayer, ToolsMode

Recall: TypeAlias = Callable[[str], Exchange | None]
"""What an earlier trial was answered to a request with this fingerprint; each answer is given once."""

_EXPLAINED = 8
"""Ways in which a request may be meant of which the nearest is explained: each is compared with the tape."""


class Player:
    """A tape that answers requests: each exchange once, to the first request that matches, from any thread.

    >>> player = Player(Tape.load("run.tape"), match="json")
    >>> answer = player.answer(request)  # a Served, Live or Miss

    With an intervention it plays a fork. What started before the forked exchange ended does not depend on its
    answer: it is the prefix, served from the tape. What else is asked before the intervention was delivered
    cannot depend on it either, as a worker that is free earlier may ask what was later in the recording: that
    is served from the tape too. Afterwards the tail decides: from the network, from the tape where the parent
    made the same request, or not at all.
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
        leave: Leave | None = None,
    ) -> None:
        """Load the tape; `tools` says what calls of tools get, `recall` gives answers of earlier trials."""
        self.leave = Leave() if leave is None else leave
        """What is asked before anything goes over the network."""
        self.tape = tape
        self.match: MatchMode = match
        self.ignore = tuple(ignore)
        parse_paths(self.ignore)  # a path that is none is refused before the agent starts
        claim = Claims() if claim is None else claim
        self._claim = claim
        self._lock = Lock()
        self._misses: dict[str, Explanation] = {}
        self._fork = None if intervention is None else ForkState(tape, intervention, claim)
        self._waiting = Waiting("step", claim)
        self._redactor = Redactor()
        self._asked = [exchange.request for exchange in tape.exchanges]
        """What the tape's requests are."""
        self._as_today = False
        """Whether in their bodies, too, is replaced what today counts as secret."""
        for step, asked in enumerate(self._asked):
            # Names that count as secret grow in number: what an earlier version kept is compared as today's.
            url = self._redactor.url(asked.url)
            self._await(step, asked if url == asked.url else replace(asked, url=url))
        among = range(tape.steps) if self._fork is None else self._fork.recorded
        self.order = Order(tape.exchanges, among, self._waiting.is_elsewhere)
        """In which order answers end."""
        self._recall = recall
        self._changes = changes_of(tape.start.changes)
        """What the tape's requests have, and its agent does not ask for itself."""
        self.tools = ToolPlayer(
            tape.tools, mode=tools, placement=self._placement, leave=self._leave, claim=claim
        )
        """What answers calls of local tools."""

    def answer(self, request: Request) -> Answer:
        """Return what answers the request, and use that up; explain a miss, once however often it comes."""
        key = self._fingerprint(request)
        fork = self._fork
        with self._lock:
            if not self._as_today and isinstance(request, RedactedRequest) and KEYS in request.counts:
                self._look_as_today()
            if fork is None:
                found = self._take_changed(key, request)
                if found is not None:
                    step, asked = found
                    served = self._told(Served(self.tape.exchanges[step], step), step, asked)
                    # Of a recording with keys in bodies the replay has them too, or it would be another one.
                    return _asked(served, request, self._as_kept(step, asked))
            else:
                answer = self._forked(fork, key, request)
                if answer is not None:
                    return answer
            candidates = tuple(self._candidates())
            phase = None if fork is None else fork.missed()
            known = self._misses.get(_identity(key, request))
        if known is None:
            explanation = self._explained(request, candidates)
            with self._lock:
                known = self._misses.setdefault(_identity(key, request), explanation)
        return Miss(known, phase)

    def _await(self, step: int, asked: Request) -> None:
        """Let the step answer that request."""
        key = self._fingerprint(asked)
        self._waiting.add(key, step)
        if self._fork is not None and self._fork.answers_again(step):
            self._waiting.add(key, self._fork.again)

    def _look_as_today(self) -> None:
        """Let steps answer requests that are as they would be recorded today, keys in bodies replaced."""
        self._as_today = True  # once, and only for those who need it: all bodies are read
        for step, asked in enumerate(self._asked):
            today = self._redactor.as_today(asked)
            if today is not asked:
                self._asked[step] = today
                self._await(step, today)

    def _as_kept(self, step: int, asked: Request) -> Request:
        """Return the request as the tape has it, where today less of it would be kept."""
        kept = self.tape.exchanges[step].request
        return asked if self._asked[step] is kept else kept

    def _explained(self, request: Request, candidates: Sequence[Candidate]) -> Explanation:
        """Explain the miss of the request as it is, or as a fork's changes make it where that is nearer."""
        ways = changed_by(self._changes, request)[:_EXPLAINED]
        found = (explain(one, candidates, match=self.match, ignore=self.ignore) for one in ways)
        # One without a near request comes last.
        return min(found, key=lambda one: (one.nearest is None, one.differences))

    def _forked(self, fork: ForkState, key: str, request: Request) -> Served | Live | None:
        """Return what a fork answers; None where the request has no answer."""
        base = held_by(self._changes, request)  # a fork of a fork goes on as that would
        held = fork.held(base)
        # What began beside the change is served as it is asked; in all else the change holds.
        found = self._take_changed(key, request, fork.is_open if held is None else fork.is_prefix)
        if found is not None:
            step, asked = found
            return _asked(self._told(fork.served(step, asked), step, asked), request, asked)
        out = base if held is None else held.request
        if out is not request:
            key = self._fingerprint(out)
        if held is not None:
            step = self._take(key, out, fork.is_memo)
            if step is not None:
                memo = self._told(fork.served(step, out), step, out)
                return replace(memo, label=held.label)
        if not fork.goes_on_live:
            return self._departing(fork, request) if fork.departs and not fork.drifted else None
        answer = self._recalled(_identity(key, out), fork.answer_of_tail(out, held))
        if held is None:
            return _asked(answer, request, base)
        return answer if answer.phase != "memo" else replace(answer, label=held.label)

    def _departing(self, fork: ForkState, request: Request) -> Live:
        """Return leave to go live from here on, and say where that is."""
        self._claim(DRIFTED, self._explained(request, tuple(self._candidates())).difference())
        return fork.depart()

    def _take_changed(
        self, key: str, request: Request, is_open: Callable[[int], bool] = lambda number: True
    ) -> tuple[int, Request] | None:
        """Use up the first step that answers the request, be it as it is or as a fork's changes make it."""
        if not self._changes:
            step = self._take(key, request, is_open)
            return None if step is None else (step, request)
        ways = [(self._fingerprint(one), one) for one in changed_by(self._changes, request)]
        first = {at: self._waiting.first(own, is_open) for at, (own, _) in enumerate(ways)}
        for _, at in sorted((step, at) for at, step in first.items() if step is not None):
            step = self._take(*ways[at], is_open)
            if step is not None:
                return step, ways[at][1]
        return None

    def _take(
        self, key: str, request: Request, is_open: Callable[[int], bool] = lambda number: True
    ) -> int | None:
        """Use up the first step that answers the request: one whose replaced values are known to be the same,
        else one of which none is known to be another.
        """
        if not request.hidden:
            return self._waiting.take(key, is_open)

        found = self._waiting.take(key, lambda step: is_open(step) and self._compared(step, request) == SAME)
        if found is not None:
            return found
        return self._waiting.take(key, lambda step: is_open(step) and not self._compared(step, request).other)

    def _compared(self, step: int, request: Request) -> Verdict:
        any_order = in_any_order(self.match, self.ignore)
        return compared(self._hidden(step), request.hidden, self.ignore, any_order=any_order)

    def _hidden(self, step: int) -> tuple[str, ...]:
        if self._fork is not None and step == self._fork.again:
            step = self._fork.step
        return self.tape.exchanges[step].request.hidden

    def _told(self, answer: Served | Live, step: int, request: Request) -> Served | Live:
        """Return the answer, with what could not be compared."""
        if isinstance(answer, Live) or not (self._hidden(step) or request.hidden):
            return answer
        unknown = self._compared(step, request).unknown
        return replace(answer, uncompared=unknown) if unknown else answer

    def tell(self, explanation: Explanation) -> None:
        """Let whoever started the agent know of the first request that has no answer, as it is made."""
        self._claim(DRIFTED, explanation.text())

    def keep(self, name: str, text: str) -> None:
        """Let whoever started the agent have this text, which is too long for a span."""
        self._claim(name, text)

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
    def drew(self) -> bool:
        """Whether it was recorded with draws, even if there were none."""
        return self.tape.start.environment.get("TRACEFORK_DRAWS", "0") == "1"

    @property
    def watching(self) -> bool:
        """Whether nothing may leave this machine: always, but in a fork after its change if its tail may."""
        fork = self._fork
        return fork is None or fork.tail == "offline" or not fork.delivered

    def _placement(self) -> Placement:
        """Return where this player stands, for its tools."""
        with self._lock:
            step = min(max(self._waiting.used, default=-1), self.tape.steps - 1)
            fork = self._fork
            if fork is None:
                return Placement("replay", step)
            # What a tool gets that is not on the tape is for the request to tell that carries it.
            if not fork.departs and (not fork.delivered or fork.drifted):
                return Placement("prefix", step)
            return Placement("tail", step, fork.tail == "offline", fork.changes)

    def _leave(self) -> None:
        """Let nothing go live any more: a tool was called that the tape does not know there."""
        if self._fork is not None:
            self._fork.missed()

    def _fingerprint(self, request: Request) -> str:
        return fingerprint(request, match=self.match, ignore=self.ignore)

    def _candidates(self) -> Iterator[Candidate]:
        for step, asked in enumerate(self._asked):
            used = step in self._waiting.used
            if used or self._fork is None or self._fork.is_expected(step):
                yield Candidate(step, asked, used)


def _asked(answer: Served | Live, request: Request, asked: Request) -> Served | Live:
    """Return the answer to a request that stands on the tape with a fork's changes."""
    if asked is request:
        return answer
    if isinstance(answer, Served):
        return replace(answer, asked=asked)
    path = urlsplit(asked.url).path if asked.url != request.url else None
    return replace(answer, body=answer.body or asked.sent, path=answer.path or path)


def _identity(key: str, request: Request) -> str:
    return "/".join((key, *request.hidden)) if request.hidden else key
