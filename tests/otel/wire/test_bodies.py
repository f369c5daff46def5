"""Bodies under every format: events, the search for a key, and which module reads which URL."""

from __future__ import annotations

import httpx2
import pytest
from conversations import request_messages
from hypothesis import example, given
from hypothesis import strategies as st

from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.sse import sse_events

PIECES = st.lists(
    st.sampled_from(
        "data|event|id|retry|:|\n|\r|\r\n|\n\n|x|é|7| |data: a\n|event: e\r\n|data: \n|id: 1\n".split("|")  # noqa: SIM905
    ),
    max_size=25,
).map("".join)


def seen_by_client(body: bytes) -> list[tuple[str, str]]:
    """The events that the HTTP client's own parser reads."""
    answer = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=body,
        request=httpx2.Request("GET", "http://localhost/"),
    )
    return [(e.event, e.data) for e in httpx2.EventSource(answer)]


@example("data: a\r\n\r\ndata: b\r\rdata: c\n\n")
@example("event: x\n\ndata: a\n\n")
@example("data: a\ndata:  b\ndata\n\n")
@given(PIECES)
def test_events_are_those_that_the_http_client_reads(text: str) -> None:
    """Any text splits into the same events as in the HTTP client's parser, but those without data."""
    # At the very end that parser takes a bare CR for two line ends, which no other parser does.
    body = text.rstrip("\r").encode()
    ours = [(name or "message", data.decode()) for name, data in sse_events(body) if data]
    assert ours == [(name, data) for name, data in seen_by_client(body) if data]


@given(st.binary(max_size=60))
def test_any_bytes_are_events_or_not(body: bytes) -> None:
    """No bytes make the event parser raise, and what it yields is a prefix as the body grows."""
    whole = list(sse_events(body))
    parts = [list(sse_events(body[:end])) for end in range(len(body) + 1)]
    assert all(whole[: len(part)] == part for part in parts)


@pytest.mark.parametrize(
    ("method", "url", "form", "provider"),
    [
        ("POST", "https://api.anthropic.com/v1/messages?beta=true", "anthropic", "anthropic"),
        ("post", "http://127.0.0.1:8080/v1/messages/", "anthropic", "anthropic"),
        ("POST", "https://api.anthropic.com/v1/chat/completions", "openai_chat", "anthropic"),
        ("POST", "https://api.openai.com/v1/responses", "openai_responses", "openai"),
        ("POST", "https://eu.api.openai.com/v1/responses", "openai_responses", "openai"),
        ("POST", "http://localhost:11434/v1/chat/completions", "openai_chat", "openai"),
        ("POST", "https://x.openai.azure.com/openai/v1/responses", "openai_responses", "azure.ai.openai"),
        ("POST", "https://openrouter.ai/api/v1/chat/completions", "openai_chat", "openrouter"),
        ("POST", "https://api.groq.com/openai/v1/chat/completions", "openai_chat", "groq"),
        ("POST", "https://gw.example.org/v1/acc/gw/openai/chat/completions", "openai_chat", "openai"),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens", None, None),
        ("POST", "https://api.anthropic.com/v1/messages/batches", None, None),
        ("GET", "https://api.anthropic.com/v1/models", None, None),
        ("GET", "https://api.openai.com/v1/responses/resp_1", "openai_responses", "openai"),
        ("POST", "https://api.openai.com/v1/embeddings", None, None),
        ("GET", "https://openrouter.ai/api/v1/models", None, None),
        ("GET", "http://localhost:11434/v1/chat/completions", None, None),
        ("POST", "https://notapi.openai.com.example.org/v1/models", None, None),
        ("GET", "https://example.org/", None, None),
        ("POST", "http://[broken/v1/messages", None, None),
        ("POST", "", None, None),
    ],
)
def test_paths_and_hosts_lead_to_form_and_provider(
    method: str, url: str, form: str | None, provider: str | None
) -> None:
    """The path leads to the form, the host to the provider's name; what generates nothing has no facts."""
    found = facts(method, url, request=b'{"model":"m"}', response=None, content_type=None)
    assert ((found.form, found.provider) if found else (None, None)) == (form, provider)
    if found:
        assert (found.operation, found.model, found.streamed, found.reply) == ("chat", "m", False, ())


@pytest.mark.parametrize(
    "request_body", [b"", b"name=x", b'{"survey": {"model": "m"}}', b'["model"]', b"\xff\xfe"]
)
def test_a_path_of_another_service_is_not_a_provider(request_body: bytes) -> None:
    """On an unknown host a path that only looks like a provider's counts for nothing without a model."""
    for path in ("v1/messages", "surveys/12/responses"):
        url = f"https://forms.example.org/{path}"
        assert facts("POST", url, request=request_body, response=b"{}", content_type=None) is None


@given(
    st.binary(max_size=80),
    st.binary(max_size=80),
    st.sampled_from(["messages", "chat/completions", "responses"]),
    st.sampled_from([None, "application/json", "text/event-stream", "text/plain; charset=latin-1"]),
)
def test_no_bytes_make_facts_raise(
    request_body: bytes, body: bytes, path: str, content_type: str | None
) -> None:
    """Whatever bytes a known endpoint took and gave, there are facts and messages, and nothing raises."""
    url = f"https://api.openai.com/v1/{path}"
    if path == "messages":
        url = "https://api.anthropic.com/v1/messages"
    for response in (body, b"data: " + body + b"\n\n", b'{"content":' + body):
        found = facts("POST", url, request=request_body, response=response, content_type=content_type)
        assert found is not None
    assert isinstance(request_messages(found.form, request_body), tuple)


def test_deep_nesting_is_not_understood_and_does_not_raise() -> None:
    """JSON nested deeper than the interpreter goes is no message, in a request and in a response."""
    deep = b'{"model":"m","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for url in ("https://api.anthropic.com/v1/messages", "https://api.openai.com/v1/responses"):
        found = facts("POST", url, request=deep, response=deep, content_type="application/json")
        assert found is not None
        assert (found.model, found.reply) == ("m", ())
    assert request_messages("anthropic", deep) == ()
