"""What an exchange cost, by the price list that the `genai-prices` package carries; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracefork_otel.wire.registry import price_name

if TYPE_CHECKING:
    from datetime import datetime


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
