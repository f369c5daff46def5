"""What live calls will cost, estimated from the tape, and a limit that trials reserve from beforehand."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.facts import Facts, facts_of

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.play.intervention import Tail
    from tracefork_otel.tape.tape import Tape

    from .edits import Edit

WORST = 2.0
"""What is reserved for a trial, as a multiple of its estimate: a tail may be longer than its parent's."""

_ROUNDING = 1e-9
"""Dollars by which sums of floats may be off."""
_BYTES_PER_TOKEN = 4
"""A usual ratio for text, where the wire did not tell the tokens."""
_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one trial is likely to take: the live calls that its parent made from there on."""

    calls: int
    cost_usd: float
    """The price of those calls whose price is known."""
    unknown: tuple[str, ...] = ()
    """The models whose price is not."""

    @property
    def worst_usd(self) -> float:
        """What is reserved for the trial."""
        return self.cost_usd * WORST

    def __str__(self) -> str:
        calls = f"{self.calls} live call{'' if self.calls == 1 else 's'}"
        more = f" and what {', '.join(self.unknown)} costs, whose price is not known" if self.unknown else ""
        return f"{calls}, ${self.cost_usd:.4f}{more}"


def estimate(tape: Tape, step: int, edit: Edit, *, tail: Tail = "live") -> Estimate:
    """What a fork of the tape at that step is likely to take, by what the tape's own calls took.

    Of a `recorded` tail it says the most: answers from memory are not foreseen, unless nothing is changed.
    """
    calls: list[tuple[Exchange, str | None]] = []
    live = edit.kind in ("request", "resample")
    if edit.kind == "tool_result":
        from .tool_results import bind

        bound = bind(edit, tape, step)
        step, live = bound.step, bound.goes_live
    forked = tape.exchanges[step]
    if live:
        calls.append((forked, edit.model or _set_model(edit)))
    if tail == "live" or (tail == "recorded" and edit.kind != "noop"):
        calls += [(exchange, None) for exchange in after(tape, step)]
    total, unknown = 0.0, dict[str, None]()
    for exchange, model in calls:
        facts = facts_of(exchange)
        if facts is None or _refused(exchange, facts):
            continue
        cost = _price(exchange, facts, model)
        if cost is None:
            unknown.setdefault(str(model or facts.model or facts.provider))
        else:
            total += cost
    return Estimate(calls=len(calls), cost_usd=total, unknown=tuple(unknown))


def after(tape: Tape, step: int) -> Iterator[Exchange]:
    """The exchanges that can depend on a step's answer: those that began once it was there."""
    forked = tape.exchanges[step]
    ended = forked.ended_ns if forked.ended_ns is not None else forked.started_ns
    return (
        exchange for exchange in tape.exchanges if exchange is not forked and exchange.started_ns >= ended
    )


def cost_of(exchange: Exchange) -> float | None:
    """What the exchange cost: nothing if a tape answered it, None where its model's price is not known."""
    if exchange.replayed:
        return 0.0
    facts = facts_of(exchange)
    return None if facts is None or facts.input_tokens is None else _price(exchange, facts, None)


def _set_model(edit: Edit) -> str | None:
    return next((value for path, value in edit.changes if path == "model" and isinstance(value, str)), None)


def _refused(exchange: Exchange, facts: Facts) -> bool:
    """Whether the call was answered by an error, for which no provider charges."""
    response = exchange.response
    return facts.input_tokens is None and response is not None and response.status >= _ERROR_STATUS


def _price(exchange: Exchange, facts: Facts, model: str | None) -> float | None:
    from ..store.prices import cost_usd

    asked = len(exchange.request.body) // _BYTES_PER_TOKEN
    for name in (model,) if model else (facts.response_model, facts.model):
        if name is None:
            continue
        cost = cost_usd(
            facts.provider,
            name,
            input_tokens=asked if facts.input_tokens is None else facts.input_tokens,
            output_tokens=facts.output_tokens or 0,
            cached_tokens=facts.cached_tokens or 0,
            cache_write_tokens=facts.cache_write_tokens or 0,
            cache_write_1h_tokens=facts.cache_write_1h_tokens or 0,
            at=None,
        )
        if cost is not None:
            return cost
    return None


class Budget:
    """A limit in dollars that no trial is started beyond; any thread may reserve and settle."""

    def __init__(self, limit_usd: float | None = None) -> None:
        if limit_usd is not None and not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise UsageError(f"a budget of {limit_usd} is none: give dollars, such as 2.00")
        self.limit_usd = limit_usd
        self._settled = threading.Condition()
        self._closed = False
        self._spent = 0.0
        self._reserved = 0.0
        self._running = 0
        self._unknown = 0
        self._refused = False

    @property
    def spent_usd(self) -> float:
        """What settled trials cost, as far as prices are known."""
        return self._spent

    @property
    def reserved_usd(self) -> float:
        """What is set aside for trials that run."""
        return self._reserved

    @property
    def unknown_calls(self) -> int:
        """Calls of settled trials whose price is not known."""
        return self._unknown

    @property
    def exhausted(self) -> bool:
        """Whether a trial was refused."""
        return self._refused

    def reserve(self, usd: float, *, wait: bool = False) -> bool:
        """Whether that much is set aside now; if not, what is spent and reserved leaves no room for it.

        With `wait` it is only refused once nothing else is reserved that could be settled for less.
        """
        with self._settled:
            while not self._fits(usd):
                if self._closed or not wait or not self._running:
                    self._refused = not self._closed or self._refused
                    return False
                self._settled.wait()
            if self._closed:
                return False
            self._running += 1
            self._reserved += usd
            return True

    def _fits(self, usd: float) -> bool:
        if self.limit_usd is None or usd <= 0:
            return True
        return self._spent + self._reserved + usd <= self.limit_usd + _ROUNDING

    def settle(self, reserved_usd: float, spent_usd: float | None, *, unknown_calls: int = 0) -> None:
        """What was reserved is free again, and what the trial cost is spent; None if nobody knows."""
        with self._settled:
            self._running -= 1
            self._reserved = max(0.0, self._reserved - reserved_usd) if self._running else 0.0
            self._spent += spent_usd or 0.0
            self._unknown += unknown_calls
            self._settled.notify_all()

    def close(self) -> None:
        """Nothing more is set aside, and nobody waits for it."""
        with self._settled:
            self._closed = True
            self._settled.notify_all()


def total(estimates: Iterable[tuple[Estimate, int]]) -> Estimate:
    """What so many trials of each are likely to take together."""
    calls, cost, unknown = 0, 0.0, dict[str, None]()
    for one, times in estimates:
        calls += one.calls * times
        cost += one.cost_usd * times
        unknown |= dict.fromkeys(one.unknown)
    return Estimate(calls=calls, cost_usd=cost, unknown=tuple(unknown))
