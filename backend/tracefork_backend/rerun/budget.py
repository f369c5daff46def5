"""What live calls will cost, estimated from the tape, and a limit that trials reserve from beforehand."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.facts import facts, facts_of
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import Facts

from ..spelling import counted
from .edits import KINDS
from .records import is_error

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.play.intervention import Intervention
    from tracefork_otel.tape.tape import Tape

WORST = 2.0
"""What is reserved for a trial, as a multiple of its estimate: a tail may be longer than its parent's."""

_ROUNDING = 1e-9
"""Dollars by which sums of floats may be off."""
_BYTES_PER_TOKEN = 4
"""A usual ratio for text, where the wire did not tell the tokens."""


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
        more = f" and what {', '.join(self.unknown)} costs, whose price is not known" if self.unknown else ""
        return f"{counted(self.calls, 'live call')}, ${self.cost_usd:.4f}{more}"


def estimate(tape: Tape, change: Intervention) -> Estimate:
    """Return what a fork with this change is likely to take, by what the tape's own calls took.

    Of a `recorded` tail it says the most: answers from memory are not foreseen, unless nothing is changed.
    """
    same = not (change.goes_live or KINDS[change.kind].edited)
    follows = change.tail == "live" or (change.tail == "recorded" and not same)
    later = list(after(tape, change.step)) if follows else []
    if not change.goes_live:
        return again(later)
    forked = tape.exchanges[change.step]
    return again([forked, *later], first_model=_other_model(forked, change))


def again(calls: Iterable[Exchange], *, first_model: str | None = None) -> Estimate:
    """Return what it takes to make these calls again, the first of them perhaps for another model."""
    count, total, unknown = 0, 0.0, dict[str, None]()
    for count, exchange in enumerate(calls, 1):
        model = first_model if count == 1 else None
        found = facts_of(exchange)
        if found is None or (found.input_tokens is None and is_error(exchange)):
            continue  # no provider charges for an error
        cost = _price(exchange, found, model)
        if cost is None:
            unknown.setdefault(str(model or found.model or found.provider))
        else:
            total += cost
    return Estimate(calls=count, cost_usd=total, unknown=tuple(unknown))


def after(tape: Tape, step: int) -> Iterator[Exchange]:
    """Return the exchanges that can depend on a step's answer: those that began once it was there."""
    forked = tape.exchanges[step]
    ended = forked.ended_ns if forked.ended_ns is not None else forked.started_ns
    return (
        exchange for exchange in tape.exchanges if exchange is not forked and exchange.started_ns >= ended
    )


def cost_of(exchange: Exchange) -> float | None:
    """Return what the exchange cost: nothing if a tape answered it, None where nobody knows."""
    if exchange.replayed:
        return 0.0
    found = facts_of(exchange)
    return None if found is None or found.input_tokens is None else _price(exchange, found, None)


def _other_model(exchange: Exchange, change: Intervention) -> str | None:
    """Return the model that the changed request asks for, None where it is the recorded one's."""
    asked = exchange.request
    path = urlsplit(asked.url).path if change.path is None else change.path
    url = urlsplit(asked.url)._replace(path=path).geturl()
    recorded, changed = (
        facts(asked.method, where, request=body, response=None, content_type=None)
        for where, body in ((asked.url, asked.body), (url, apply_edits(asked.body, list(change.edits))))
    )
    if recorded is None or changed is None or changed.model == recorded.model:
        return None
    return changed.model


def _price(exchange: Exchange, found: Facts, model: str | None) -> float | None:
    from ..store.prices import cost_of

    asked = len(exchange.request.body) // _BYTES_PER_TOKEN
    return cost_of(found, models=[model] if model else None, asked_tokens=asked, at=None)


class Budget:
    """A limit in dollars that no trial is started beyond; any thread may reserve and settle."""

    def __init__(self, limit_usd: float | None = None) -> None:
        if limit_usd is not None and not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise UsageError(f"a budget of {limit_usd} is none: give dollars, such as 2.00")
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        """What settled trials cost, as far as prices are known."""
        self.reserved_usd = 0.0
        """What is set aside for trials that run."""
        self.exhausted = False
        """Whether a trial was refused."""
        self._settled = threading.Condition()
        self._closed = False
        self._running = 0

    def reserve(self, usd: float, *, wait: bool = False) -> bool:
        """Set that much aside and return True; False where what is spent and reserved leaves no room for it.

        With `wait` it is only refused once nothing else is reserved that could be settled for less.
        """
        with self._settled:
            while not self._fits(usd):
                if self._closed or not wait or not self._running:
                    self.exhausted = not self._closed or self.exhausted
                    return False
                self._settled.wait()
            if self._closed:
                return False
            self._running += 1
            self.reserved_usd += usd
            return True

    def _fits(self, usd: float) -> bool:
        if self.limit_usd is None or usd <= 0:
            return True
        return self.spent_usd + self.reserved_usd + usd <= self.limit_usd + _ROUNDING

    def settle(self, reserved_usd: float, spent_usd: float | None) -> None:
        """Free what was reserved, and book what the trial cost; None if nobody knows."""
        with self._settled:
            self._running -= 1
            self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd) if self._running else 0.0
            self.spent_usd += spent_usd or 0.0
            self._settled.notify_all()

    def close(self) -> None:
        """Set nothing more aside, and let nobody wait for it."""
        with self._settled:
            self._closed = True
            self._settled.notify_all()


def total(estimates: Iterable[tuple[Estimate, int]]) -> Estimate:
    """Return what so many trials of each are likely to take together."""
    calls, cost, unknown = 0, 0.0, dict[str, None]()
    for trial, times in estimates:
        calls += trial.calls * times
        cost += trial.cost_usd * times
        unknown |= dict.fromkeys(trial.unknown)
    return Estimate(calls=calls, cost_usd=cost, unknown=tuple(unknown))
