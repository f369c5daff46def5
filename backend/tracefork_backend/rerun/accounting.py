"""What a fork's own records say of it: calls by phase, cost, where it met its parent again, and problems."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.claims import claim_to
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.match import identity
from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of
from tracefork_otel.wire.replies import system_of
from tracefork_otel.wire.rewriting import kin_of

from ..store.prices import NONE_GIVEN, Given, bill
from .estimate import after
from .evidence import Tools
from .records import REFUSED, DriftReport, Records, phase_of, went_live
from .starting import Ended
from .workspace import TrialSpace


class Account:
    """One fork's records beside the tape that it was played from."""

    def __init__(
        self,
        tape: Tape,
        change: Intervention,
        space: TrialSpace,
        *,
        records: Records,
        ended: Ended,
        how: Settings,
        given: Given = NONE_GIVEN,
    ) -> None:
        self.tape = tape
        self.change = change
        self.records = records
        self.ended = ended
        self._how = how
        self._given = given
        self.delivered = space.claims.taken(claim_to("step", change.step))
        """Whether the agent came to the changed step."""
        self.replaced = change.result is None or space.claims.taken(claim_to("change", 0))
        """Whether the tool whose result is changed was called; True of other changes."""
        self.own = [one for one in records.exchanges if one.trace_id == change.fork_id]
        """The exchanges of the fork's own run."""
        self.live = [one for one in records.exchanges if went_live(one)]
        self.misses = records.refused()

    def fields(self) -> dict[str, Any]:
        """Return the fields of a Fork that records decide, but its problem."""
        tools, ended = Tools(self.tape), self.ended
        cost = bill(self.live, self._given)
        taped = [one for one in self.records.exchanges if one.replayed and one.served_span_id is not None]
        return {
            "steps": len(self.own),
            "forked_at": next((at for at, one in enumerate(self.own) if one.intervention is not None), None),
            "reconverged_at": self._reconverged_at(),
            "calls_replayed": sum(phase_of(one) != "memo" for one in taped),
            "calls_live": len(self.live),
            "calls_memo": sum(phase_of(one) == "memo" for one in self.records.exchanges),
            "cost_usd": cost.usd if cost.usd or not cost.unpriced else None,
            # What ran where nobody could look, and is lost, made calls that nobody counted.
            "unpriced": cost.unpriced + (ended.lost is not None),
            **self._held(),
            "last_text": self._last_text(),
            "answers_sha256": self._answers(),
            "drift": self.drift(),
            "leaks": self.records.leaks(),
            "tools": tools.line(self.records),
            "notes": (
                *ended.notes,
                *self.records.at_import(),
                *self._how_changed(),
                *self._prompts_replaced(),
                *tools.remarks(self.records),
                *self.records.written(),
            ),
            "exit_status": ended.exit_status,
            "seconds": ended.seconds,
        }

    def _held(self) -> dict[str, Any]:
        """Return in how many of the fork's requests from the change on it holds, and of how many."""
        change = self.change
        if change.scope is None:
            return {}
        asked = [
            one
            for one in self.own
            if phase_of(one) in ("intervention", "tail", "memo") and one.error_type != REFUSED
        ]
        kin = kin_of(self.tape.exchanges[change.step].request)
        asked = [one for one in asked if one.intervention is not None or kin_of(one.request) == kin]
        whole = sum(one.intervention == change.label for one in asked)
        part = Counter(one.intervention for one in asked if one.intervention not in (None, change.label))
        return {"scope": change.scope, "held_in": whole, "held_of": len(asked), "held_partly": dict(part)}

    def _reconverged_at(self) -> int | None:
        """Return the first own step after the change from which on all requests are of the parent's rest."""
        if self.tape.exchanges[self.change.step].ended_ns is None:
            return None
        rest = Counter(self._identity(one) for one in after(self.tape, self.change.step))
        found: int | None = None
        for at in reversed(range(len(self.own))):
            if phase_of(self.own[at]) not in ("tail", "memo"):
                continue
            key = self._identity(self.own[at])
            if not rest[key] or self.own[at].intervention is not None:
                break
            rest[key] -= 1
            found = at
        return found

    def _identity(self, exchange: Exchange) -> str:
        return identity(exchange.request, match=self._how.match, ignore=self._how.ignore)

    def _last_text(self) -> str | None:
        """Return the text of the last model answer."""
        found = (facts_of(one) for one in reversed(self.own) if one.response is not None)
        return next((facts.text for facts in found if facts is not None), None)

    def _answers(self) -> str:
        """Return a digest of all answers in their order: what a model said without its ids, else the body.

        A call that got no answer is left out: what a client tried again and got then is the same.
        """
        digest = sha256()
        for exchange in self.own:
            response = exchange.response
            if response is None:
                continue
            found = facts_of(exchange)
            said = [[one.role, one.kind, one.name, one.content] for one in found.reply] if found else []
            digest.update(json.dumps(said, default=repr).encode() if said else response.body)
            digest.update(f"|{response.status}\n".encode())
        return digest.hexdigest()

    def _how_changed(self) -> tuple[str, ...]:
        """Say that a tool's result was changed outside of the tool."""
        change = self.change
        if change.tool is None or change.result is not None:
            return ()
        return (
            f"{change.tool} is no @tracefork_otel.tool function: its result was changed in the request that "
            f"carries it, at step {change.step}"
            + (", and in each later one that does" if change.scope == "onward" else ""),
        )

    def _prompts_replaced(self) -> tuple[str, ...]:
        """Say that the requests which have a new system prompt had several, as those of sub-agents do."""
        onward, at = self.change.onward, self.change.step
        if onward is None or not any(part.what == "system" for part in onward.parts):
            return ()
        first: dict[str, int] = {}
        for step, one in enumerate(self.tape.exchanges):
            if step >= at and kin_of(one.request) == onward.kin:
                first.setdefault(system_of(one.request) or "", step)
        if len(first) <= 1:
            return ()
        *steps, last = map(str, first.values())
        return (
            f"in the recorded run the requests from step {at} on have {len(first)} different system prompts "
            f"(first at steps {', '.join(steps)} and {last}), and this one takes the place of each: --once "
            "holds it to the step",
        )

    def drift(self) -> DriftReport | None:
        """Return how the agent left its tape before the change, if it did."""
        first = next((one for one in self.misses if phase_of(one) == "prefix"), None)
        return None if first is None else DriftReport.of(first)
