"""What one call can cost at most, by its own request and the price list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.counted import paid_of
from tracefork_otel.wire.json_values import loads, mapping
from tracefork_otel.wire.limits import Most, most_of, most_read
from tracefork_otel.wire.messages import Usage, billed, served_by

from ..store.price_list import window_of
from ..store.prices import NONE_GIVEN, Given, price_of

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.wire.messages import Facts

SEARCHES = 10
"""Searches of the web that are set aside for a call whose request says no limit, or twice those it made."""
_BY_REQUEST = frozenset({"embeddings", "moderation", "rerank"})
"""Calls that are no conversation, and are paid by what is asked."""


def most_usd(
    exchange: Exchange,
    found: Facts,
    *,
    model: str | None = None,
    given: Given = NONE_GIVEN,
    longer: float = 1.0,
) -> float | None:
    """Return what such a call can cost at most, None where neither its request nor a price list tells.

    `longer` is how many times as much as the request has a later one like it may have. What a provider runs
    beside searches, programs say, is not in it.
    """
    asked = exchange.request
    body = plain_request(asked)
    limits = most_of(body)

    def price(used: Usage) -> float | None:
        return price_of(found, models=[model], usage=used, at=None, url=asked.url, given=given).usd

    window = window_of(found.provider, model or found.response_model or found.model)
    read, said = most_read(asked.method, asked.url, body), limits.output_tokens
    read = window if read is None else int(read * longer)
    if not found.form:
        said = 0 if found.operation in _BY_REQUEST else None
    elif said is None and window is not None:
        said = window * limits.choices
    if read is None or said is None:
        one = price(Usage(input_tokens=1, output_tokens=1))
        return 0.0 if one == 0 else None  # a model of this machine may take what it likes
    if window is not None:
        read = min(read, window)
    ways = _dearest(found, body, limits, read * limits.rounds, said)
    return max((one for one in map(price, ways) if one is not None), default=None)


def most_of_open(exchange: Exchange, *, given: Given = NONE_GIVEN) -> float | None:
    """Return what a call can cost at most that has not ended, None where nothing tells."""
    found = paid_of(exchange)
    return None if found is None else most_usd(exchange, found, given=given)


def _dearest(found: Facts, body: bytes, limits: Most, read: int, said: int) -> Iterator[Usage]:
    """Yield what is counted of so many tokens, in each way in which they may be counted."""
    request = mapping(loads(body))
    searches = SEARCHES if limits.searches is None else limits.searches
    units = billed(web_searches=searches, maps_searches=1 if limits.maps else 0)
    plain = Usage(input_tokens=read, output_tokens=said, units=units)
    ways: list[dict[str, Any]] = [{}]
    if b"cache" in body:
        ways.append({"cache_write_tokens": read})
    if b'"1h"' in body:
        ways.append({"cache_write_tokens": read, "cache_write_1h_tokens": read})
    if b"audio" in body.lower():
        ways.append({"units": (*units, ("input_audio_tokens", read), ("output_audio_tokens", said))})
    asked = served_by(**{name: request.get(name) for name in ("service_tier", "speed")})
    for served in {found.usage.served, asked, ()}:
        for way in ways:
            yield replace(plain, served=served, **way)
