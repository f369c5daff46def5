"""What an exchange cost: what a person says, what its provider says, or the price list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.counted import paid_of
from tracefork_otel.wire.hosts import is_loopback

from ..spelling import named
from .price_list import Price, list_price, listed, maker_of

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.wire.messages import Facts, Usage

PENDING = "its answer is still being made: it is counted where it is fetched"
"""The reason of a response in the background, which a later exchange of its run answers."""

_HOSTED_ALONE = frozenset({"anthropic", "google", "x-ai"})
"""Makers whose models nobody runs at home: on loopback a gateway asks for them, which is paid for."""
_UNCOUNTED = "no tokens were counted"
_RUNS = "it has not ended"
_ERROR = 400
_MILLION = 1e6
_REFUSED = "tracefork_otel.Drift"
# Errors after which nothing was ever sent.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError")


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices that a person gave for a model, in USD for a million tokens; nothing else of it costs."""

    input_usd: float
    output_usd: float

    def of(self, usage: Usage) -> Price:
        """Return what these tokens cost."""
        if usage.input_tokens is None and (self.input_usd or self.output_usd):
            return Price(None, _UNCOUNTED)
        asked, said = usage.input_tokens or 0, usage.output_tokens or 0
        return Price((asked * self.input_usd + said * self.output_usd) / _MILLION)


Given = Mapping[str, Rates]
"""Prices that a person gave, by model."""
NONE_GIVEN: Given = MappingProxyType({})


def rates_given(texts: Iterable[str]) -> Given:
    """Return what `MODEL=IN/OUT` or `MODEL=0` say; raise UsageError where one says no price."""
    found: dict[str, Rates] = {}
    for text in texts:
        model, equals, told = text.rpartition("=")
        asked, slash, said = told.partition("/")
        try:
            rates = Rates(float(asked), float(said if slash else asked))
        except ValueError:
            rates = Rates(-1.0, -1.0)
        both = (rates.input_usd, rates.output_usd)
        if not (model and equals and (slash or both == (0, 0)) and all(0 <= one < math.inf for one in both)):
            raise UsageError(
                f"--price {text} is no price: write MODEL=IN/OUT, in dollars for a million tokens of input "
                "and of output, such as my-model=0.5/2, or MODEL=0 for one that costs nothing"
            )
        found[model] = rates
    return MappingProxyType(found)


def prices_told(given: Given) -> list[str]:
    """Return the prices as they are given: `MODEL=IN/OUT`."""
    return [f"{model}={rates.input_usd:g}/{rates.output_usd:g}" for model, rates in given.items()]


def price_of(
    facts: Facts,
    *,
    at: datetime | None,
    url: str = "",
    models: Iterable[str | None] = (),
    usage: Usage | None = None,
    given: Given = NONE_GIVEN,
) -> Price:
    """Return what a call cost by its facts at that time (None: now).

    The price is that of the first of `models` that the list has, by default of the model that answered and of
    the one asked for, which comes first where it is the answering one's name and more: Bedrock bills
    `global.anthropic.claude-…` by another price than its regions' `claude-…`. `usage` stands in for what was
    counted. A model that no list has costs nothing at a loopback `url`: it runs on this machine. One that
    only its maker runs is asked for through a gateway there, and costs what the maker asks.
    """
    told = [model for model in models if model] or _names(facts)
    used = facts.usage if usage is None else usage
    return usage_price(facts.provider, told, used, at=at, url=url, given=given)


def usage_price(
    provider: str,
    models: Sequence[str],
    used: Usage,
    *,
    at: datetime | None,
    url: str = "",
    given: Given = NONE_GIVEN,
) -> Price:
    """Return what this usage of the first of these models that has a price costs."""
    model = next((model for model in models if model in given), None)
    if model is not None:
        price = given[model].of(used)
        return price if price.reason is None else Price(None, f"no tokens of {named(model)} were counted")
    if used.told_usd is not None:
        return Price(used.told_usd)
    if used.pending:
        return Price(None, PENDING)
    local = is_loopback(urlsplit(url).hostname or "") if url else False
    if not used.is_counted:
        free = local and not any(listed(provider, model) or _asked_elsewhere(model) for model in models)
        return Price(0.0) if free else Price(None, _UNCOUNTED)
    total = 0.0
    parts = [
        replace(part, served=part.served or used.served, of_model=part.of_model or used.of_model)
        for part in used.parts or (used,)
    ]
    if used.parts and used.units:
        parts.append(replace(used, parts=(), **_NO_TOKENS))  # what was counted for all of them together
    for part in parts:
        names = [part.of_model] if part.of_model else models
        price = _part_price(provider, names, part, at=at, local=local)
        if price.usd is None:
            return price
        total += price.usd
    return Price(total)


_NO_TOKENS: Mapping[str, Any] = MappingProxyType(
    dict.fromkeys(
        (
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "cache_write_tokens",
            "cache_write_1h_tokens",
            "thinking_tokens",
        )
    )
)


def exchange_price(exchange: Exchange, facts: Facts, *, given: Given = NONE_GIVEN) -> Price:
    """Return what an exchange cost when it was made: nothing if a tape answered it."""
    if exchange.replayed:
        return Price(0.0)
    if exchange.outcome == "in_flight":
        return Price(None, _RUNS)
    response, used = exchange.response, facts.usage
    if response is None:
        sent = not (exchange.error_type or "").endswith((*_NEVER_SENT, _REFUSED))
        return Price(None, "no answer came, which may have been made all the same" if sent else None)
    if response.status >= _ERROR and not used.is_counted:
        return Price(None)  # no provider charges for an error
    at = datetime.fromtimestamp(exchange.started_ns / 1e9, UTC)
    price = price_of(facts, at=at, url=exchange.request.url, given=given)
    # A client may close a stream at its last word, of which nothing is lost: then none came.
    cut = exchange.outcome not in ("complete", None) and facts.finish_reason is None
    if cut and not used.is_counted and price.reason:
        return Price(None, "its answer was cut before its tokens were counted")
    return price


def _names(facts: Facts) -> list[str]:
    told = [facts.response_model, facts.model]
    if facts.response_model and facts.model and facts.response_model in facts.model:
        told.reverse()
    return list(dict.fromkeys(model for model in told if model))


def _part_price(
    provider: str, models: Iterable[str], usage: Usage, *, at: datetime | None, local: bool
) -> Price:
    """Return the price by the first of these models that the list has."""
    why = Price(None, "its model is not told")
    for model in models:
        elsewhere = _asked_elsewhere(model) if local else None
        for known_to in filter(None, (provider, elsewhere)):
            price = list_price(known_to, model, usage, at=at)
            if price is not None:
                return price
        free = local and elsewhere is None
        why = Price(0.0) if free else Price(None, f"the price of {named(model)} is not known")
    return why


def _asked_elsewhere(model: str) -> str | None:
    """Return the maker of a model that runs on no machine of its user's, None of any other."""
    maker = maker_of(model)
    return maker if maker in _HOSTED_ALONE else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What some exchanges cost together."""

    usd: float
    """The sum of the prices that are known."""
    unpriced: int = 0
    """So many of the calls have none."""
    running: int = 0
    """So many of these are still being answered."""
    dearest_usd: float = 0.0
    """The highest of the prices that are known."""
    reasons: tuple[str, ...] = ()
    """Why, each reason once."""


class Till:
    """What exchanges cost, added one by one; what a provider keeps is paid once, as `_billed` has it."""

    def __init__(self, given: Given = NONE_GIVEN) -> None:
        self._given = given
        self._prices: list[Price] = []
        self._kept: dict[tuple[str, str], Price] = {}

    def add(self, exchange: Exchange) -> None:
        """Add what an exchange cost, if it is one that is paid for."""
        found = paid_of(exchange)
        if found is None:
            return
        price = exchange_price(exchange, found, given=self._given)
        if found.stored_id is None:
            self._prices.append(price)
            return
        key = (exchange.trace_id, found.stored_id)
        known = self._kept.get(key)
        if known is None or known.reason is not None or (not known.usd and price.usd):
            self._kept[key] = price

    def bill(self) -> Bill:
        """Return what they cost together."""
        prices = [*self._prices, *self._kept.values()]
        known = [price.usd for price in prices if price.usd is not None]
        reasons = [price.reason for price in prices if price.reason is not None]
        return Bill(
            usd=sum(known),
            unpriced=len(reasons),
            running=reasons.count(_RUNS) + reasons.count(PENDING),
            dearest_usd=max(known, default=0.0),
            reasons=tuple(dict.fromkeys(reasons)),
        )


def bill(exchanges: Iterable[Exchange], given: Given = NONE_GIVEN) -> Bill:
    """Return what the exchanges cost."""
    till = Till(given)
    for exchange in exchanges:
        till.add(exchange)
    return till.bill()
