"""What an exchange cost, by the price list that the `genai-prices` package carries; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracefork_otel.wire.registry import price_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tracefork_otel.wire.messages import Facts


def cost_usd(
    provider: str,
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    cache_write_1h_tokens: int = 0,
    at: datetime | None,
) -> float | None:
    """Return the price in USD at that time (None: now), None where the model or the counts are not known.

    `input_tokens` is all input, the cached tokens and the cache writes among them, as in `Facts`; a time
    without a zone is UTC.
    """
    # Imported here: it takes 0.14 s and an HTTP client, which commands that price nothing should not pay.
    from genai_prices import Usage, calc_price

    counts = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_tokens": cached_tokens,
        "cache_write_tokens": cache_write_tokens,
        "cache_write_1h_tokens": cache_write_1h_tokens,
    }
    try:
        price = calc_price(
            Usage(**{name: tokens for name, tokens in counts.items() if tokens}),
            model,
            provider_id=price_name(provider),
            genai_request_timestamp=at,
        )
    except (LookupError, ValueError):
        return None
    return float(price.total_price)


def cost_of(
    facts: Facts, *, models: Sequence[str | None] | None = None, asked_tokens: int | None, at: datetime | None
) -> float | None:
    """Return what a call cost by its facts, None where nobody knows.

    The price is that of the first of `models` that the list has, by default of the model that answered and of
    the one asked for, which comes first where it is the answering one's name and more: Bedrock bills
    `global.anthropic.claude-…` by another price than its regions' `claude-…`. `asked_tokens` counts the input
    where the wire did not.
    """
    asked = asked_tokens if facts.input_tokens is None else facts.input_tokens
    if asked is None:
        return None
    told = (facts.response_model, facts.model)
    if facts.response_model and facts.model and facts.response_model in facts.model:
        told = (facts.model, facts.response_model)
    for model in models or told:
        cost = model and cost_usd(
            facts.provider,
            model,
            input_tokens=asked,
            output_tokens=facts.output_tokens or 0,
            cached_tokens=facts.cached_tokens or 0,
            cache_write_tokens=facts.cache_write_tokens or 0,
            cache_write_1h_tokens=facts.cache_write_1h_tokens or 0,
            at=at,
        )
        if isinstance(cost, float):
            return cost
    return None
