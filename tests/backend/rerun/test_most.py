"""What one call can cost at most is no less than what calls like it did cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracefork_backend.rerun.most import most_of_open
from tracefork_backend.store.prices import Rates, bill, rates_given

from tracefork_otel.exchange import Exchange, Request, Response

MESSAGES = "https://api.anthropic.com/v1/messages"
CHAT = "https://api.openai.com/v1/chat/completions"


def call(request: dict[str, Any], *, url: str = MESSAGES) -> Exchange:
    """A call that has not ended."""
    asked = Request(method="POST", url=url, body=json.dumps(request).encode())
    return Exchange(
        trace_id="0" * 32,
        span_id="0" * 16,
        parent_span_id=None,
        process_id="1",
        seq=0,
        started_ns=1_790_000_000_000_000_000,
        ended_ns=None,
        request=asked,
    )


def cost(open_: Exchange, usage: dict[str, Any], given: dict[str, Rates]) -> float:
    """What it cost with these counts."""
    body = {
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-4-5",
        "usage": usage,
    }
    response = Response(
        status=200, body=json.dumps(body).encode(), headers=(("content-type", "application/json"),)
    )
    return bill([replace(open_, response=response, outcome="complete")], given).usd


@given(
    text=st.text(max_size=200),
    limit=st.integers(1, 64_000),
    rates=st.none() | st.builds(Rates, st.floats(0, 100), st.floats(0, 500)),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    hour=st.booleans(),
)
def test_no_answer_costs_more(
    text: str, limit: int, rates: Rates | None, shares: tuple[float, float, float], hour: bool
) -> None:
    """Of as many tokens as its text has bytes, fresh, read or written, and an answer up to its limit."""
    control = {"type": "ephemeral", "ttl": "1h" if hour else "5m"}
    told = [{"type": "text", "text": text, "cache_control": control}]
    open_ = call(
        {"model": "claude-sonnet-4-5", "max_tokens": limit, "messages": [{"role": "user", "content": told}]}
    )
    given = {} if rates is None else {"claude-sonnet-4-5": rates}
    tokens = len(text.encode("utf-8", "replace")) + 100
    written, read, said = (
        int(share * most) for share, most in zip(shares, (tokens, tokens, limit), strict=True)
    )
    written = min(written, tokens - read) if read < tokens else 0
    usage = {
        "input_tokens": tokens - written - read,
        "cache_creation_input_tokens": written,
        "cache_creation": {f"ephemeral_{'1h' if hour else '5m'}_input_tokens": written},
        "cache_read_input_tokens": read,
        "output_tokens": said,
    }
    most = most_of_open(open_, given=given)
    assert most is not None
    assert cost(open_, usage, given) <= most + 1e-9


def test_what_sets_no_limit_takes_the_models_window() -> None:
    """A limit makes it less; a model that no list has tells nothing, and one that is free costs nothing."""
    request = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    open_, limited = call(request, url=CHAT), call({**request, "max_tokens": 100}, url=CHAT)
    most, less = most_of_open(open_), most_of_open(limited)
    assert most == pytest.approx(128_000 * 10 / 1e6, rel=0.01)
    assert less is not None
    assert 100 * 10 / 1e6 < less < 0.01
    other = call({**request, "model": "my-own"}, url=CHAT)
    assert most_of_open(other) is None
    assert most_of_open(other, given=rates_given(["my-own=1/2"])) is None
    assert most_of_open(other, given=rates_given(["my-own=0"])) == 0.0
    assert most_of_open(call(request, url="https://tools.example/x")) is None


def test_searches_and_pictures_are_in_it() -> None:
    """As many searches as the request allows, each of which is read again; a picture may fill the window."""
    request = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "hello"}],
    }
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    plain, searched = most_of_open(call(request)), most_of_open(call({**request, "tools": [search]}))
    picture = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    seen = most_of_open(call({**request, "messages": [{"role": "user", "content": [picture]}]}))
    assert plain is not None
    assert searched is not None
    assert seen is not None
    assert searched > plain + 3 * 0.01
    assert seen > 0.5
