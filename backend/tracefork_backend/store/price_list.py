"""The price list that the `genai-prices` package carries: what it asks for counts; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from tracefork_otel.wire.registry import price_name

if TYPE_CHECKING:
    from tracefork_otel.wire.messages import Usage

_MILLION = 1_000_000
_NUMBERS = re.compile(r"\d+")
_UNITS = MappingProxyType(
    {
        "audio_seconds": ("audio_hours", "its seconds of audio"),
        "code_executions": ("code_executions_kcount", "the programs that it ran"),
        "images": ("", "the images that it made"),
        "input_annotated_document_pages": ("input_annotated_document_kpages", "its annotated pages"),
        "input_audio_seconds": ("input_audio_hours", "its seconds of audio"),
        "input_characters": ("input_mchars", "its characters"),
        "input_document_pages": ("input_document_kpages", "its pages"),
        "maps_searches": ("", "its searches of maps"),
        "rerank_searches": ("rerank_searches_kcount", "its rerankings"),
        "social_searches": ("social_searches_kcount", "its searches of posts"),
        "storage_searches": ("storage_searches_kcount", "its searches of files"),
        "web_searches": ("web_searches_kcount", "its searches of the web"),
    }
)
"""What is no token: the name of its price in the list, and how a person calls it."""


def list_version() -> str:
    """Return the version of the installed list."""
    from importlib.metadata import version

    return version("genai-prices")


def is_newer(version: str, than: str) -> bool:
    """Return whether a list of that version came after the other one."""
    first, second = (tuple(map(int, _NUMBERS.findall(one))) for one in (version, than))
    return first > second


class Price(NamedTuple):
    """What something cost in USD, or why nobody knows; neither where nothing was made that could be paid."""

    usd: float | None
    reason: str | None = None
    """Of a price that is not known; None where it is."""


def listed(provider: str, model: str) -> bool:
    """Return whether the list has the model."""
    from genai_prices import Usage as Counts
    from genai_prices import calc_price

    try:
        calc_price(Counts(), model, provider_id=price_name(provider))
    except (LookupError, ValueError):
        return False
    return True


def list_price(provider: str, model: str, usage: Usage, *, at: datetime | None) -> Price | None:
    """Return the list's price, None where it does not have the model."""
    now = at or datetime.now(UTC)
    plain = None if usage.served or usage.units else _plain_price(provider, model, _counts(usage), now)
    return _asked_price(provider, model, usage, now) if plain is None else plain


def _plain_price(provider: str, model: str, counts: Mapping[str, float], now: datetime) -> Price | None:
    """Return what the list asks for tokens by a rate each; None where that is not all that it asks by."""
    # Imported here: it takes 0.14 s and an HTTP client, which commands that price nothing should not pay.
    from genai_prices.data_snapshot import get_snapshot

    if any(sum(counts.get(one, 0) for one in parts) > counts.get(of, 0) for of, parts in _PARTS.items()):
        return None
    try:
        model_info = get_snapshot().find_provider_model(model, None, price_name(provider), None)[1]
    except LookupError:
        return None
    prices, names = model_info.get_prices(now), tuple(counts)
    known = _known_rates.get((id(prices), names))
    if known is None:
        if len(_known_rates) >= _RATES_KEPT:
            _known_rates.clear()
        known = _known_rates[id(prices), names] = prices, _rates(prices, names)
    rates = known[1]
    if rates is None:
        return None
    return Price(float(sum((rates[name] * Decimal(count) for name, count in counts.items()), Decimal(0))))


_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_tokens": ("cache_read_tokens", "cache_write_tokens"),
        "cache_write_tokens": ("cache_write_1h_tokens",),
        "output_tokens": ("output_reasoning_tokens",),
    }
)
"""Which counts are a part of another one."""
_MILLIONS: Mapping[str, int] = MappingProxyType(
    {
        "input_tokens": 9,
        "output_tokens": 3,
        "cache_read_tokens": 1,
        "cache_write_tokens": 3,
        "cache_write_1h_tokens": 1,
        "output_reasoning_tokens": 1,
    }
)
"""Counts that leave room for another million of each."""
_RATES_KEPT = 4096
_known_rates: dict[tuple[int, tuple[str, ...]], tuple[Any, Mapping[str, Decimal] | None]] = {}
"""By a price of the list and what is counted: the price itself, which keeps its id its own, and the rates."""


def _rates(prices: Any, names: Sequence[str]) -> Mapping[str, Decimal] | None:
    """Return what one token of each kind adds to a price; None where that depends on how many there are."""
    # Asked a few times what many tokens cost, the list tells its rates; to ask it each time takes 0.3 ms.
    from genai_prices import Usage as Counts

    if any(value is not None and not isinstance(value, Decimal) for value in vars(prices).values()):
        return None  # in tiers
    many = {name: _MILLIONS[name] * _MILLION for name in names}
    if _lacking(prices, many) is not None:
        return None
    try:
        whole = prices.calc_price(Counts(**many))["total_price"]
        more = {
            name: prices.calc_price(Counts(**{**many, name: many[name] + _MILLION}))["total_price"]
            for name in names
        }
    except (ValueError, TypeError):
        return None
    rates = {name: (found - whole) / _MILLION for name, found in more.items()}
    return rates if sum(rates[name] * many[name] for name in names) == whole else None


def _asked_price(provider: str, model: str, usage: Usage, now: datetime) -> Price | None:
    """Return what the list says that all of it costs, None where it does not have the model."""
    from genai_prices import Usage as Counts
    from genai_prices import calc_price

    context, counts = dict(usage.served), _counts(usage)
    try:
        tokens = {name: count for name, count in counts.items() if name not in _UNITS or _UNITS[name][0]}
        found = calc_price(
            Counts(**tokens),
            model,
            provider_id=price_name(provider),
            genai_request_timestamp=now,
            price_context=context or None,
        )
    except LookupError:
        return None
    except ValueError as error:
        return Price(None, f"its counts contradict the price list of {model}: {error}")
    except TypeError as error:
        return Price(
            None,
            f"the installed price list does not know all that was counted ({error}): "
            "pip install -U genai-prices",
        )
    lacking = _lacking(found.model_price, counts)
    if lacking is not None:
        return Price(None, f"the price list of {model} has no price for {lacking}")
    for name, value in usage.served:
        if not _applies(found, name, context, now):
            return Price(None, f"the price list of {model} has no price for {name} {value}")
    return Price(float(found.total_price))


def _counts(usage: Usage) -> dict[str, float]:
    """Return all counts by the list's own names."""
    told = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.thinking_tokens,
    }
    return {name: count for name, count in told.items() if count} | dict(usage.units)


def _lacking(prices: Any, counts: Mapping[str, float]) -> str | None:
    """Return what was counted and has no price, None where all of it has one."""
    for name, count in counts.items():
        key, spoken = _UNITS.get(name, (f"{name.removesuffix('_tokens')}_mtok", ""))
        if count and spoken and getattr(prices, key or "-", None) is None:
            return spoken
    for side in ("input", "output"):
        # Of the tokens of one side, those that have no price of their own have that of all.
        priced = [one for one in vars(prices) if one.startswith(side) and one.endswith("_mtok")]
        if counts.get(f"{side}_tokens") and not any(getattr(prices, one) is not None for one in priced):
            return f"its {side} tokens"
    return None


def maker_of(model: str) -> str | None:
    """Return the provider whose own model that is by its name, in the price list's words; None: unknown."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider(model, None, None).id
    except LookupError:
        return None


def window_of(provider: str, model: str | None) -> int | None:
    """Return how many tokens a model takes in and puts out at most; None where the list does not say."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        found = get_snapshot().find_provider_model(model or "", None, price_name(provider), None)
    except LookupError:
        return None
    return found[1].context_window


def models_of(provider: str) -> list[str]:
    """Return the models that the price list has of a provider, in its words."""
    from genai_prices.data_snapshot import get_snapshot

    return [model.id for row in get_snapshot().providers if row.id == provider for model in row.models]


def _applies(found: Any, name: str, context: Mapping[str, str], now: datetime) -> bool:
    """Return whether the list has a price for this way of being served, which it otherwise passes over."""
    if not any(found.model is model for model in found.provider.models):
        return False
    return any(
        name in variant.when
        and variant.when.items() <= context.items()
        and (variant.constraint is None or variant.constraint.active(now))
        for variant in found.model.price_variants or ()
    )
