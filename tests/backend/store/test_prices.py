"""Prices: the arithmetic of the public price list, offline."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from tracefork_backend.store.prices import usage_price

from tracefork_otel.wire.messages import Usage

LATE_2025 = datetime(2025, 12, 1, tzinfo=UTC)


def cost_usd(provider: str, model: str, *, at: datetime | None, **counts: int) -> float | None:
    """The price of these counts."""
    return usage_price(provider, [model], Usage(**counts), at=at).usd


def test_cached_input_costs_its_own_rate() -> None:
    """Of all input, the cached and the written tokens cost their own rates and the rest the plain one."""
    cost = cost_usd(
        "anthropic",
        "claude-sonnet-4-5-20250929",
        input_tokens=1000,
        output_tokens=100,
        cached_tokens=400,
        cache_write_tokens=100,
        at=LATE_2025,
    )
    # USD per million: 3 in, 0.30 read, 3.75 written, 15 out.
    assert cost == pytest.approx((500 * 3 + 400 * 0.3 + 100 * 3.75 + 100 * 15) / 1e6)


def test_writes_for_an_hour_cost_more() -> None:
    """Cache writes that live an hour cost twice the input's price."""
    cost = cost_usd(
        "anthropic",
        "claude-sonnet-4-5",
        input_tokens=100,
        output_tokens=0,
        cache_write_tokens=100,
        cache_write_1h_tokens=60,
        at=LATE_2025,
    )
    assert cost == pytest.approx((40 * 3.75 + 60 * 6) / 1e6)


@pytest.mark.parametrize(
    ("provider", "model", "usd"),
    [
        ("openai", "gpt-4o-2024-08-06", 2.5 + 10),
        ("azure.ai.openai", "gpt-4o-2024-08-06", 2.5 + 10),
        ("mistral_ai", "mistral-small-latest", None),
        ("x_ai", "grok-3", None),
        ("gcp.gemini", "gemini-2.5-flash", None),
        ("gcp.vertex_ai", "claude-sonnet-4-5", None),
        ("groq", "llama-3.3-70b-versatile", None),
        ("deepseek", "deepseek-chat", None),
    ],
)
def test_otel_provider_names_find_their_price_list(provider: str, model: str, usd: float | None) -> None:
    """A provider's OTel name leads to its prices, with no translation by the caller."""
    cost = cost_usd(provider, model, input_tokens=10**6, output_tokens=10**6, at=LATE_2025)
    assert cost is not None
    assert cost > 0
    if usd is not None:
        assert cost == pytest.approx(usd)


@pytest.mark.parametrize(
    ("provider", "model", "tokens", "cached"),
    [
        ("openai", "no-such-model", 10, 0),
        ("no-such-provider", "gpt-4o", 10, 0),
        ("openai", "", 10, 0),
        ("openai", "gpt-4o", 10, 11),
        ("openai", "gpt-4o", -1, 0),
    ],
)
def test_what_is_not_known_has_no_price(provider: str, model: str, tokens: int, cached: int) -> None:
    """An unknown model or provider, or counts that contradict themselves, give None and never a guess."""
    cost = cost_usd(provider, model, input_tokens=tokens, output_tokens=1, cached_tokens=cached, at=LATE_2025)
    assert cost is None


def test_the_price_of_the_day_is_taken() -> None:
    """A model whose price fell costs the old price on an old date; a time without a zone is UTC."""
    old, new = datetime(2025, 6, 1), datetime(2025, 7, 1)
    costs = [cost_usd("openai", "o3", input_tokens=10**6, output_tokens=0, at=at) for at in (old, new)]
    assert costs == [pytest.approx(10), pytest.approx(2)]
    assert costs[0] == cost_usd(
        "openai", "o3", input_tokens=10**6, output_tokens=0, at=old.replace(tzinfo=UTC)
    )


def test_tokens_cost_what_the_list_says() -> None:
    """Of every model, at every way of counting, the price is the one that the list itself computes."""
    from genai_prices import Usage as Counts
    from genai_prices import calc_price
    from genai_prices.data_snapshot import get_snapshot

    told = {
        "input_tokens": 123_457,
        "output_tokens": 1_003,
        "cached_tokens": 17,
        "cache_write_tokens": 101,
        "cache_write_1h_tokens": 7,
        "thinking_tokens": 5,
    }
    named = {"cached_tokens": "cache_read_tokens", "thinking_tokens": "output_reasoning_tokens"}
    rows = [
        row for row in get_snapshot().providers if row.id in ("anthropic", "openai", "google", "deepseek")
    ]
    tried = 0
    for provider, model in [(row.id, model.id) for row in rows for model in row.models][::5]:
        for size in (2, 3, 6):
            counts = dict(list(told.items())[:size])
            cost = cost_usd(provider, model, at=LATE_2025, **counts)
            if cost is None:  # it has no price for tokens
                continue
            asked = Counts(**{named.get(name, name): count for name, count in counts.items()})
            whole = calc_price(asked, model, provider_id=provider, genai_request_timestamp=LATE_2025)
            assert cost == float(whole.total_price), (provider, model, counts)
            tried += 1
    assert tried > 50


def test_a_price_in_tiers_is_that_of_its_tier() -> None:
    """Where a long prompt costs more for each token, it does here."""
    costs = [
        cost_usd("google", "gemini-2.5-pro", input_tokens=tokens, output_tokens=0, at=LATE_2025)
        for tokens in (100_000, 400_000)
    ]
    assert costs == [pytest.approx(0.125), pytest.approx(1.0)]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pricing works where no socket can be opened, and today's price needs no date."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert cost_usd("openai", "gpt-4o", input_tokens=10, output_tokens=10, at=None) is not None


def test_the_price_list_is_loaded_only_when_priced() -> None:
    """Importing the module loads neither the price list nor its HTTP client."""
    code = "import sys, tracefork_backend.store.prices\n"
    code += "print(sorted({'genai_prices', 'httpx2'} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("provider", "model", "costs"),
    [
        ("openai", "claude-opus-4-8", True),
        ("openai", "gemini-2.5-pro", True),
        ("openai", "gateway/claude-of-tomorrow", None),
        ("openai", "llama3.2", False),
        ("openai", "deepseek-r1:8b", False),
        ("ollama", "my-own-model", False),
    ],
)
def test_on_this_machine_only_what_can_run_here_costs_nothing(
    provider: str, model: str, costs: bool | None
) -> None:
    """A gateway on loopback that is asked for a model of Anthropic's or Google's is paid for."""
    used = Usage(input_tokens=1000, output_tokens=1000)
    price = usage_price(provider, [model], used, at=None, url="http://127.0.0.1:4000/v1/chat/completions")
    assert (None if price.usd is None else price.usd > 0) is costs
    assert (price.reason is None) is (costs is not None)
