"""What a fork's own records say of it: calls by phase, cost, where it met its parent again, and problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.match import MatchMode, fingerprint
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of

from .budget import cost_of
from .evidence import Tools
from .records import DriftReport, Records, phase_of, went_live
from .result import Fork
from .starting import Ended

# The model did not answer such a call, so there is nothing to price.
_REFUSED = 400


class Account:
    """One fork's records beside the tape that it was played from."""

    def __init__(
        self,
        tape: Tape,
        change: Intervention,
        records: Records,
        ended: Ended,
        *,
        run_id: str,
        delivered: bool,
        replaced: bool = True,
        match: MatchMode,
        ignore: Sequence[str],
    ) -> None:
        self.tape = tape
        self.change = change
        self.records = records
        self.ended = ended
        self.delivered = delivered
        self.replaced = replaced
        """Whether the tool whose result is changed was called; True of other changes."""
        self._match: MatchMode = match
        self._ignore = tuple(ignore)
        self.own = [one for one in records.exchanges if one.trace_id == run_id]
        self.live = [one for one in records.exchanges if went_live(one)]
        self.misses = records.refused()

    def fields(self) -> dict[str, Any]:
        """Return the fields of a Fork that records decide, but its problem."""
        tools = Tools(self.tape)
        prices = [self._price(one) for one in self.live]
        known = [price for price in prices if isinstance(price, float)]
        unpriced = prices.count(None)
        return {
            "steps": len(self.own),
            "forked_at": self._forked_at(),
            "reconverged_at": self._reconverged_at(),
            "calls_replayed": sum(one.replayed and self._from_tape(one) for one in self.records.exchanges),
            "calls_live": len(self.live),
            "calls_memo": sum(phase_of(one) == "memo" for one in self.records.exchanges),
            "cost_usd": None if unpriced and not known else sum(known),
            "unpriced": unpriced,
            "last_text": self._last_text(),
            "answers_sha256": self._answers(),
            "drift": self.drift(),
            "leaks": self.records.leaks(),
            "tools": tools.line(self.records),
            "notes": (*self.ended.notes, *self._how_changed(), *tools.remarks(self.records)),
            "exit_status": self.ended.exit_status,
            "result": self.ended.result if self.ended.in_place else self.records.result(),
            "stdout": self.ended.stdout,
            "stderr": self.ended.stderr,
            "seconds": self.ended.seconds,
        }

    @staticmethod
    def _from_tape(exchange: Exchange) -> bool:
        return exchange.served_span_id is not None and phase_of(exchange) != "memo"

    def _forked_at(self) -> int | None:
        return next((at for at, one in enumerate(self.own) if one.intervention is not None), None)

    def _reconverged_at(self) -> int | None:
        forked = self.tape.exchanges[self.change.step]
        rest = {
            self._fingerprint(one)
            for step, one in enumerate(self.tape.exchanges)
            if step > self.change.step and forked.ended_ns is not None and one.started_ns >= forked.ended_ns
        }
        return next(
            (
                at
                for at, one in enumerate(self.own)
                if phase_of(one) in ("tail", "memo") and self._fingerprint(one) in rest
            ),
            None,
        )

    def _fingerprint(self, exchange: Exchange) -> str:
        return fingerprint(exchange.request, match=self._match, ignore=self._ignore)

    def _price(self, exchange: Exchange) -> float | str | None:
        """The price of a live call; "" if it is no model call that was answered, None if it is not known."""
        facts, response = facts_of(exchange), exchange.response
        if facts is None or response is None or response.status >= _REFUSED:
            return ""
        return cost_of(exchange)

    def _last_text(self) -> str | None:
        for exchange in reversed(self.own):
            response = exchange.response
            if response is None:
                continue
            found = facts_of(exchange)
            if found is not None:
                return found.text
        return None

    def _answers(self) -> str:
        """A digest of all answers in their order: what a model said without its ids, else the body.

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
        """That a tool's result was changed outside of the tool."""
        change = self.change
        if change.tool is None or change.result is not None:
            return ()
        return (
            f"{change.tool} is no @tracefork_otel.tool function: its result was changed in the request that "
            f"carries it, at step {change.step}",
        )

    def drift(self) -> DriftReport | None:
        """How the agent left its tape before the change, if it did."""
        first = next((one for one in self.misses if phase_of(one) == "prefix"), None)
        return None if first is None else DriftReport.of(first)


def root_attributes(fork: Fork) -> dict[str, object]:
    """What a fork's root span says of how it went."""
    problem = fork.problem
    return {
        "tracefork.exit_status": fork.exit_status,
        "tracefork.fork.forked_at": fork.forked_at,
        "tracefork.fork.reconverged_at": fork.reconverged_at,
        "tracefork.fork.cost_usd": fork.cost_usd,
        "tracefork.fork.problem": None if problem is None else problem.kind,
        "tracefork.fork.problem.text": None if problem is None else problem.text,
    }
