"""What a fork's own records say of it: calls by phase, cost, where it met its parent again, and problems."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.claims import claim_to
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.match import fingerprint
from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of

from .budget import after, cost_of
from .evidence import Tools
from .records import DriftReport, Records, is_error, phase_of, went_live
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
    ) -> None:
        self.tape = tape
        self.change = change
        self.records = records
        self.ended = ended
        self._how = how
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
        priced = [one for one in self.live if one.response is not None and not is_error(one)]
        prices = [cost_of(one) for one in priced if facts_of(one) is not None]
        known = [price for price in prices if price is not None]
        taped = [one for one in self.records.exchanges if one.replayed and one.served_span_id is not None]
        return {
            "steps": len(self.own),
            "forked_at": next((at for at, one in enumerate(self.own) if one.intervention is not None), None),
            "reconverged_at": self._reconverged_at(),
            "calls_replayed": sum(phase_of(one) != "memo" for one in taped),
            "calls_live": len(self.live),
            "calls_memo": sum(phase_of(one) == "memo" for one in self.records.exchanges),
            "cost_usd": sum(known) if known or not prices else None,
            "unpriced": len(prices) - len(known),
            "last_text": self._last_text(),
            "answers_sha256": self._answers(),
            "drift": self.drift(),
            "leaks": self.records.leaks(),
            "tools": tools.line(self.records),
            "notes": (*ended.notes, *self._how_changed(), *tools.remarks(self.records)),
            "exit_status": ended.exit_status,
            "result": ended.result if ended.in_place else self.records.result(),
            "stdout": ended.stdout,
            "stderr": ended.stderr,
            "seconds": ended.seconds,
        }

    def _reconverged_at(self) -> int | None:
        """Return the first own step after the change that repeats a request of the parent's rest."""
        if self.tape.exchanges[self.change.step].ended_ns is None:
            return None
        rest = {self._fingerprint(one) for one in after(self.tape, self.change.step)}
        tail = (at for at, one in enumerate(self.own) if phase_of(one) in ("tail", "memo"))
        return next((at for at in tail if self._fingerprint(self.own[at]) in rest), None)

    def _fingerprint(self, exchange: Exchange) -> str:
        return fingerprint(exchange.request, match=self._how.match, ignore=self._how.ignore)

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
            f"carries it, at step {change.step}",
        )

    def drift(self) -> DriftReport | None:
        """Return how the agent left its tape before the change, if it did."""
        first = next((one for one in self.misses if phase_of(one) == "prefix"), None)
        return None if first is None else DriftReport.of(first)
