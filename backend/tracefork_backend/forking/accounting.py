"""What a fork's own records say of it: calls by phase, cost, where it met its parent again, and problems."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.intervention import Intervention
from tracefork_otel.match import Explanation, MatchMode, fingerprint
from tracefork_otel.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.tape import Tape

from .. import providers
from ..receipt import DriftReport, Leak, last_line
from ..store import facts_of
from .result import Fork, Problem

_SIGNALLED = 128
_TRACEBACK = "Traceback (most recent call last)"
_FAILED = "no_response"
_DRIFT = "tracefork_otel.Drift"
"""The error type of a request that was refused here."""
# Of a provider, these mean that the model did not answer; any other call may be meant to end so.
_REFUSED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the agent of a fork ended."""

    exit_status: int | None
    name: str
    """The agent, as a person calls it."""
    stdout: str = ""
    stderr: str = ""
    result: object = None
    seconds: float = 0.0
    in_place: bool = False
    timed_out: float | None = None
    stopped: bool = False
    """Whether it was ended from here."""
    not_started: str | None = None
    """Why the agent was never at work."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the processes of a fork recorded."""

    exchanges: Sequence[Exchange]
    """In order of their start."""
    spans: Sequence[SpanRecord]
    processes: Sequence[ProcessStarted]
    notes: Sequence[Note]


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
        match: MatchMode,
        ignore: Sequence[str],
    ) -> None:
        self.tape = tape
        self.change = change
        self.records = records
        self.ended = ended
        self.delivered = delivered
        self._match: MatchMode = match
        self._ignore = tuple(ignore)
        self.own = [one for one in records.exchanges if one.trace_id == run_id]
        self.live = [one for one in records.exchanges if _went_live(one)]
        self.misses = [one for one in records.exchanges if "tracefork.drift" in one.attributes]

    def fields(self) -> dict[str, Any]:
        """The fields of a Fork that records decide."""
        prices = [self._price(one) for one in self.live]
        known = [price for price in prices if isinstance(price, float)]
        unpriced = prices.count(None)
        return {
            "steps": len(self.own),
            "forked_at": self._forked_at(),
            "reconverged_at": self._reconverged_at(),
            "calls_replayed": sum(one.replayed and self._from_tape(one) for one in self.records.exchanges),
            "calls_live": len(self.live),
            "calls_memo": sum(_phase(one) == "memo" for one in self.records.exchanges),
            "cost_usd": None if unpriced and not known else sum(known),
            "unpriced": unpriced,
            "last_text": self._last_text(),
            "drift": self._drift(),
            "leaks": self._leaks(),
            "problem": self._problem(),
            "notes": self.ended.notes,
            "exit_status": self.ended.exit_status,
            "result": self.ended.result if self.ended.in_place else self._result(),
            "stdout": self.ended.stdout,
            "stderr": self.ended.stderr,
            "seconds": self.ended.seconds,
        }

    @staticmethod
    def _from_tape(exchange: Exchange) -> bool:
        return exchange.served_span_id is not None and _phase(exchange) != "memo"

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
                if _phase(one) in ("tail", "memo") and self._fingerprint(one) in rest
            ),
            None,
        )

    def _fingerprint(self, exchange: Exchange) -> str:
        return fingerprint(exchange.request, match=self._match, ignore=self._ignore)

    def _price(self, exchange: Exchange) -> float | str | None:
        """The price of a live call; "" if it is no model call that was answered, None if it is not known."""
        row = facts_of(exchange)
        if (
            row is None
            or "provider" not in row
            or exchange.response is None
            or exchange.response.status >= _REFUSED
        ):
            return ""
        return row["cost_usd"]

    def _last_text(self) -> str | None:
        for exchange in reversed(self.own):
            response = exchange.response
            if response is None:
                continue
            found = providers.facts(
                exchange.request.method,
                exchange.request.url,
                request=exchange.request.body,
                response=providers.decode_body(response.body, response.header("content-encoding")),
                content_type=response.header("content-type"),
            )
            if found is not None:
                return found.text
        return None

    def _result(self) -> object:
        """What the agent function returned, from the first span of one that says so."""
        found = [span for span in self.records.spans if "tracefork.result" in span.attributes]
        first = min(found, key=lambda span: span.started_ns, default=None)
        return None if first is None else first.attributes["tracefork.result"]

    def _drift(self) -> DriftReport | None:
        first = next((one for one in self.misses if _phase(one) == "prefix"), None)
        return None if first is None else _report(first)

    def _leaks(self) -> tuple[Leak, ...]:
        found: dict[Leak, None] = {}
        for note in self.records.notes:
            if note.kind == "leak":
                port = note.attributes.get("port")
                host, caller = (str(note.attributes.get(name, "?")) for name in ("host", "caller"))
                found.setdefault(Leak(host=host, port=port if isinstance(port, int) else None, caller=caller))
        return tuple(found)

    # --- what went wrong, the first cause first ---

    def _problem(self) -> Problem | None:
        for find in (
            self._left_tape,
            self._not_started,
            self._leaked,
            self._not_applied,
            self._timed_out,
            self._not_reached,
            self._offline,
            self._live_call,
            self._ended_otherwise,
            self._incomplete,
        ):
            problem = find()
            if problem is not None:
                return problem
        return None

    def _not_started(self) -> Problem | None:
        if self.ended.not_started is not None:
            return Problem(kind="not_started", text=self.ended.not_started)
        return None

    def _left_tape(self) -> Problem | None:
        drift = self._drift()
        if drift is None:
            return None
        return Problem(
            kind="drift", text=f"the agent left its tape before step {self.change.step}: {drift.text}"
        )

    def _leaked(self) -> Problem | None:
        leaks = self._leaks()
        if not leaks:
            return None
        first = leaks[0]
        more = f" and {len(leaks) - 1} more" if len(leaks) > 1 else ""
        return Problem(
            kind="leak",
            text=f"before step {self.change.step} the agent connected to {first.host}:{first.port}{more} "
            f"round the tape (by {first.caller}); if that is meant: --allow-host {first.host}",
        )

    def _not_applied(self) -> Problem | None:
        for one in self.records.exchanges:
            if one.error_type == _DRIFT and "tracefork.drift" not in one.attributes:
                return Problem(
                    kind="not_applied", text=f"{one.request.method} {one.request.url}: {one.error_message}"
                )
        return None

    def _timed_out(self) -> Problem | None:
        if self.ended.stopped:
            return Problem(kind="stopped", text=f"{self.ended.name} was ended before it was done")
        if self.ended.timed_out is None:
            return None
        open_ = next((at for at, one in enumerate(self.own) if one.outcome == "in_flight"), None)
        where = f" while step {open_} was open" if open_ is not None else f" after {len(self.own)} calls"
        return Problem(
            kind="timeout",
            text=f"{self.ended.name} did not end within {self.ended.timed_out:g} s and was ended{where}; "
            "raise --timeout if it needs longer",
        )

    def _not_reached(self) -> Problem | None:
        if self.delivered:
            return None
        made = len(self.own)
        calls = "1 call" if made == 1 else f"{made} calls"
        return Problem(
            kind="not_reached",
            text=f"{self.ended.name} ended before step {self.change.step}, after {calls}, "
            f"with status {self.ended.exit_status}{self._last_words()}: nothing was changed",
        )

    def _offline(self) -> Problem | None:
        first = next((one for one in self.misses if _phase(one) == "tail"), None)
        if first is None:
            return None
        return Problem(
            kind="offline",
            text=f"after the change the agent made a call that its parent had not made, and the tail is "
            f"{self.change.tail}: {_report(first).text}; use the tail live or recorded",
        )

    def _live_call(self) -> Problem | None:
        last: dict[str, Exchange] = {urlsplit(one.request.url).netloc: one for one in self.live}
        for exchange in last.values():
            where = f"the live call {exchange.request.method} {exchange.request.url}"
            if exchange.outcome == _FAILED:
                why = f"{exchange.error_type}: {exchange.error_message}".rstrip(": ")
                return Problem(
                    kind="live_call",
                    text=f"{where} got no answer ({why}): is the network there? The tail offline needs none",
                )
            status = exchange.response.status if exchange.response is not None else 0
            if status >= _REFUSED and self._is_model_call(exchange):
                return Problem(
                    kind="live_call", text=f"{where} was answered with status {status}{self._keys(status)}"
                )
        return None

    @staticmethod
    def _is_model_call(exchange: Exchange) -> bool:
        row = facts_of(exchange)
        return row is not None and "provider" in row

    def _keys(self, status: int) -> str:
        unset = [name for name in self.tape.start.withheld if not os.environ.get(name)]
        if status in (401, 403):
            names = " and ".join(unset) or "the provider's key"
            return f": set {names} in this environment, or use the tail offline"
        return self._last_words()

    def _ended_otherwise(self) -> Problem | None:
        status, known = self.ended.exit_status, self.tape.start.exit_status
        if not status or status == known:
            return None
        recorded = "" if known is None else f", recorded {known}"
        text = f"{self.ended.name} ended with status {status}{recorded}{self._last_words()}"
        crashed = status > _SIGNALLED or _TRACEBACK in self.ended.stderr
        return Problem(kind="crash" if crashed else "exit_status", text=text)

    def _incomplete(self) -> Problem | None:
        for note in self.records.notes:
            if note.kind == "lost":
                why = note.attributes.get("why", "unknown")
                return Problem(kind="incomplete", text=f"the fork was not recorded whole: {why}")
        return None

    def _last_words(self) -> str:
        words = last_line(self.ended.stderr)
        return f" ({words})" if words else ""


def _phase(exchange: Exchange) -> Any:
    return exchange.attributes.get("tracefork.phase")


def _went_live(exchange: Exchange) -> bool:
    return not exchange.replayed and exchange.error_type != _DRIFT


def _report(exchange: Exchange) -> DriftReport:
    one = Explanation.from_json(str(exchange.attributes["tracefork.drift"]))
    return DriftReport(
        step=one.step,
        cause=one.cause,
        text=one.text(),
        path=one.path,
        recorded=one.recorded,
        got=one.got,
        nearest=one.nearest,
        differences=one.differences,
    )


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
