"""A request is one call for all who look at it: the seam's span, the proxy's record and the facts in SQL."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from recorded import read_store
from tracefork_backend.network.ledger import Ledger
from tracefork_backend.store import open_store

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.settings import Settings
from tracefork_otel.wire.hosts import HOSTS

PATHS = (
    "/v1/messages?beta=true",
    "/api/v1/messages",
    "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict",
    "/openai/v1/chat/completions",
    "/openai/deployments/mine/chat/completions?api-version=1",
    "/v1/responses",
    "/v1beta/models/gemini-x:generateContent",
    "/v1/projects/p/locations/l/publishers/google/models/gemini-x%3AstreamGenerateContent?alt=sse",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
)
NAMES = [row.name.replace("*", "some", 1) if row.name[0] != "*" else f"some{row.name[1:]}" for row in HOSTS]
URLS = [f"https://{name}{path}" for name in (*NAMES, "gateway.example.org") for path in PATHS]
BODY = b'{"max_tokens": 9, "model": "some-model", "messages": [{"role": "user", "content": "hi"}]}'
ATTRIBUTES = ("gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model")

Seen = tuple[str | None, ...]


def told(exchange: Exchange) -> Seen:
    """Provider, operation and model on the span of an exchange."""
    return tuple(
        None if (value := exchange.attributes.get(name)) is None else str(value) for name in ATTRIBUTES
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Seen, Seen, Seen]]:
    """What the seam, the proxy and SQL say of each URL."""
    own, proxied = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("proxied")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={}))
    TraceforkInstrumentor().instrument(store=own, http_spans=False)
    try:
        with httpx2.Client(transport=transport) as client:
            for url in URLS:
                client.post(url, content=BODY)
    finally:
        TraceforkInstrumentor().uninstrument()
    by_seam = {one.request.url: told(one) for one in read_store(own).exchanges}
    ledger = Ledger(proxied, settings=Settings(store=str(proxied)), name="proxy")
    for url in URLS:
        entry = ledger.begin(Request(method="POST", url=url, headers=(), body=BODY), {})
        entry.finish("no_response")
    ledger.close()
    by_proxy = {one.request.url: told(one) for one in read_store(proxied).exchanges}
    with open_store(own) as store:
        rows = store.sql("SELECT url, provider, operation, model FROM exchanges").fetchall()
    by_sql = {url: (provider, operation, model) for url, provider, operation, model in rows}
    return {url: (by_seam[url], by_proxy[url], by_sql[url]) for url in URLS}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "gateway.example.org"])
def test_span_proxy_and_sql_name_one_provider(name: str, seen: dict[str, tuple[Seen, Seen, Seen]]) -> None:
    """Provider, operation and model are the same on the seam's span, in the proxy's record and in SQL."""
    for path in PATHS:
        by_seam, by_proxy, by_sql = seen[f"https://{name}{path}"]
        assert by_seam == by_proxy == by_sql


def test_every_host_of_the_table_gives_its_provider(seen: dict[str, tuple[Seen, Seen, Seen]]) -> None:
    """A host of the table is told by its row, on every path of a model; elsewhere no model is called."""
    for name, row in zip(NAMES, HOSTS, strict=True):
        providers = {seen[f"https://{name}{path}"][0][0] for path in PATHS[:-2]}
        assert providers == {row.provider}
        assert seen[f"https://{name}{PATHS[-2]}"] == ((None,) * 3,) * 3
        assert seen[f"https://{name}{PATHS[-1]}"] == ((row.provider, "embeddings", "some-model"),) * 3


def test_on_an_unknown_host_the_path_tells(seen: dict[str, tuple[Seen, Seen, Seen]]) -> None:
    """A gateway's calls go by the owner of the form, or by whose API the path is."""
    found = [seen[f"https://gateway.example.org{path}"][0] for path in PATHS]
    assert found == [
        ("anthropic", "chat", "some-model"),
        ("anthropic", "chat", "some-model"),
        ("gcp.vertex_ai", "chat", "claude-x"),
        ("openai", "chat", "some-model"),
        ("openai", "chat", "some-model"),
        ("openai", "chat", "some-model"),
        ("gcp.gemini", "generate_content", "gemini-x"),
        ("gcp.vertex_ai", "generate_content", "gemini-x"),
        (None, None, None),
        ("openai", "embeddings", "some-model"),
    ]


def test_a_model_far_from_both_ends_is_in_sql(tmp_path: Path) -> None:
    """Where a glance does not find the model, the span goes without it and SQL has it from the whole body."""
    tools = [{"name": f"tool_{number}", "description": "x" * 99} for number in range(999)]
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 9999}], "model": "m", "tools": tools})
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={}))
    TraceforkInstrumentor().instrument(store=tmp_path, http_spans=False)
    try:
        with httpx2.Client(transport=transport) as client:
            client.post("http://127.0.0.1:4000/v1/chat/completions", content=body)
    finally:
        TraceforkInstrumentor().uninstrument()
    assert told(read_store(tmp_path).only()) == ("openai", "chat", None)
    with open_store(tmp_path) as store:
        rows = store.sql("SELECT provider, operation, model FROM exchanges").fetchall()
    assert rows == [("openai", "chat", "m")]
