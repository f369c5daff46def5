"""A glance at bodies of a conversation sees what a glance at each of them alone would."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracefork_otel.exchange import Request, request_of
from tracefork_otel.redaction.glance import Looked, offers_keys
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.pieces import Pieces, Stored

NAMES = [
    '"authorization"',
    '"Proxy-authorization"',
    '"authorization_token"',
    '"headers"',
    "authorization",
    "q",
]


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=8
    )
)
@example([("q", 0, 0), ('"authorization_token"', 0, 20), ('"authorization_token"', 0, 21)])
def test_what_goes_on_is_looked_at_where_it_is_new(turns: list[tuple[str, int, int]]) -> None:
    """Also where a name begins in one body and ends in the next, and where a body leaves the one before."""
    looked, body = Looked(), ""
    for name, kept, end in turns:
        body = body[: len(body) - kept] + name[:end]
        assert looked.offers_keys(body.encode()) == offers_keys(body.encode())


def stored(body: bytes) -> Request:
    """A request whose body is put together each time it is asked for."""
    chunks = Pieces.of("tape", [body[:10], body[10:]])
    return request_of(method="POST", url="https://a.test/mcp", body=Stored(chunks, (0, 1)))


@pytest.mark.parametrize("looked", [None, Looked()])
def test_a_stored_request_is_another_one_only_where_a_key_goes(looked: Looked | None) -> None:
    """Those without a key are not held in memory, and a player does not take them for others."""
    plain = stored(b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}')
    assert Redactor().as_today(plain, looked) is plain
    server = {"type": "url", "url": "https://mcp.test", "authorization_token": "very-secret"}
    offered = stored(json.dumps({"model": "m", "messages": [], "mcp_servers": [server]}).encode())
    today = Redactor().as_today(offered, looked)
    assert b"very-secret" not in today.body
    assert b"authorization_token" in today.body
