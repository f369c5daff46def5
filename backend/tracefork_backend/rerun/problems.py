"""Why a fork is not what was asked for: the first cause, with what to do about it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.wire.facts import facts_of

from .accounting import Account
from .records import REFUSED, DriftReport, last_line, phase_of
from .result import Problem

_SIGNALLED = 128
_TRACEBACK = "Traceback (most recent call last)"
_FAILED = "no_response"
# Of a provider, these mean that the model did not answer; any other call may be meant to end so.
_REFUSED = 400


class Diagnosis:
    """Looks for what went wrong in a fork's account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ended = account.ended
        self._step = account.change.step

    def first(self) -> Problem | None:
        """The first cause; what follows from it is not told."""
        for find in (
            self._left_tape,
            self._not_started,
            self._leaked,
            self._not_applied,
            self._timed_out,
            self._not_reached,
            self._not_called,
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
        if self._ended.not_started is not None:
            return Problem(kind="not_started", text=self._ended.not_started)
        return None

    def _left_tape(self) -> Problem | None:
        drift = self._account.drift()
        if drift is None:
            return None
        return Problem(
            kind="drift",
            text=f"the agent left its tape before step {self._step}: {drift.text}",
        )

    def _leaked(self) -> Problem | None:
        leaks = self._account.records.leaks()
        if not leaks:
            return None
        first = leaks[0]
        more = f" and {len(leaks) - 1} more" if len(leaks) > 1 else ""
        return Problem(
            kind="leak",
            text=f"before step {self._step} the agent connected to {first.host}:{first.port}{more} "
            f"round the tape (by {first.caller}); if that is meant: --allow-host {first.host}",
        )

    def _not_applied(self) -> Problem | None:
        for one in self._account.records.exchanges:
            if one.error_type == REFUSED and "tracefork.drift" not in one.attributes:
                return Problem(
                    kind="not_applied", text=f"{one.request.method} {one.request.url}: {one.error_message}"
                )
        return None

    def _timed_out(self) -> Problem | None:
        if self._ended.stopped:
            return Problem(kind="stopped", text=f"{self._ended.name} was ended before it was done")
        if self._ended.timed_out is None:
            return None
        open_ = next((at for at, one in enumerate(self._account.own) if one.outcome == "in_flight"), None)
        where = (
            f" while step {open_} was open" if open_ is not None else f" after {len(self._account.own)} calls"
        )
        return Problem(
            kind="timeout",
            text=f"{self._ended.name} did not end within {self._ended.timed_out:g} s and was ended{where}; "
            "raise --timeout if it needs longer",
        )

    def _not_reached(self) -> Problem | None:
        if self._account.delivered:
            return None
        made = len(self._account.own)
        calls = "1 call" if made == 1 else f"{made} calls"
        return Problem(
            kind="not_reached",
            text=f"{self._ended.name} ended before step {self._step}, after {calls}, "
            f"with status {self._ended.exit_status}{self._last_words()}: nothing was changed",
        )

    def _not_called(self) -> Problem | None:
        if self._account.replaced:
            return None
        return Problem(
            kind="not_reached",
            text=f"after the answer of step {self._step} {self._ended.name} did not call the tool "
            f"{self._account.change.tool} again: nothing was changed",
        )

    def _offline(self) -> Problem | None:
        first = next((one for one in self._account.misses if phase_of(one) == "tail"), None)
        if first is None:
            return None
        return Problem(
            kind="offline",
            text=f"after the change the agent made a call that its parent had not made, and the tail is "
            f"{self._account.change.tail}: {DriftReport.of(first).text}; use the tail live or recorded",
        )

    def _live_call(self) -> Problem | None:
        last: dict[str, Exchange] = {urlsplit(one.request.url).netloc: one for one in self._account.live}
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
        return facts_of(exchange) is not None

    def _keys(self, status: int) -> str:
        unset = [name for name in self._account.tape.start.withheld if not os.environ.get(name)]
        if status in (401, 403):
            names = " and ".join(unset) or "the provider's key"
            return f": set {names} in this environment, or use the tail offline"
        return self._last_words()

    def _ended_otherwise(self) -> Problem | None:
        status, known = self._ended.exit_status, self._account.tape.start.exit_status
        if not status or status == known:
            return None
        recorded = "" if known is None else f", recorded {known}"
        text = f"{self._ended.name} ended with status {status}{recorded}{self._last_words()}"
        crashed = status > _SIGNALLED or _TRACEBACK in self._ended.stderr
        return Problem(kind="crash" if crashed else "exit_status", text=text)

    def _incomplete(self) -> Problem | None:
        for why in self._account.records.losses():
            return Problem(kind="incomplete", text=f"the fork was not recorded whole: {why}")
        return None

    def _last_words(self) -> str:
        words = last_line(self._ended.stderr)
        return f" ({words})" if words else ""
