"""The model of a call is told from its body without parsing it, and never taken from a nested object."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire.hosts import Call, model_of, recognise

NESTED = {
    "input": {"model": "nested", "x": '"model":"quoted"'},
    "text": 'say "model": "spoken", {"model":"s"}',
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "body",
    [
        {"model": "right", "messages": [NESTED]},
        {"max_tokens": 5, "stream": True, "model": "right", "messages": [NESTED]},
        {"messages": [NESTED], "model": "right"},
        {"max_tokens": 9, "messages": [NESTED], "model": "right", "stream": True, "tools": [NESTED, NESTED]},
        {"messages": [NESTED], "model": "right", "metadata": {"model": "nested"}, "system": 'a "model": "b"'},
    ],
)
def test_top_level_model(body: dict[str, object], indent: int | None) -> None:
    """The model is found wherever an SDK puts it, compact or indented."""
    assert model_of(json.dumps(body, indent=indent).encode()) == "right"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [NESTED]},
        {"metadata": {"model": "nested"}},
        {"messages": [NESTED], "model": None},
        {"model": {"model": "nested"}},
        [{"model": "nested"}],
        [],
        "model",
    ],
)
def test_no_top_level_model(body: object) -> None:
    """A body without a top-level model gives none, whatever stands inside."""
    assert model_of(json.dumps(body).encode()) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(['"model":"x"', ',"model"']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_never_another_than_the_top_level_one(value: object) -> None:
    """For any JSON, what is found is the top-level model or nothing."""
    found = model_of(json.dumps(value).encode())
    if found is not None:
        assert isinstance(value, dict)
        assert value["model"] == found


def test_any_bytes_are_looked_at_quickly() -> None:
    """Bodies that are no JSON, made to be slow, cost little."""
    begun = time.perf_counter()
    for body in (
        b'{"model":"' * 200_000,
        b'{"a":' * 200_000,
        b'"\\' * 500_000,
        b',"model":"x"' * 100_000,
        bytes(9**6),
    ):
        model_of(body)
    assert time.perf_counter() - begun < 2


def test_calls_are_told_by_path() -> None:
    """The model APIs' paths are recognised below any prefix; other requests are not."""
    body = b'{"model":"m"}'
    assert recognise("h", "/v1/messages", body) == Call("anthropic", "chat", "m")
    assert recognise("h", "/openai/v1/chat/completions", body) == Call("openai", "chat", "m")
    assert recognise("x.openai.azure.com", "/openai/deployments/d/responses", b"") == Call(
        "azure.ai.openai", "chat", None
    )
    assert recognise("h", "/v1/messages/count_tokens", body) is None
    google = "/v1beta/models/gemini-3-flash"
    assert recognise("h", f"{google}:generateContent", b"") == Call(
        "gcp.gemini", "generate_content", "gemini-3-flash"
    )
    vertex = "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent"
    assert recognise("h", vertex, b"") == Call("gcp.vertex_ai", "generate_content", "g")
    assert recognise("us-central1-aiplatform.googleapis.com", f"{google}:generateContent", b"") == Call(
        "gcp.vertex_ai", "generate_content", "gemini-3-flash"
    )
    assert recognise("generativelanguage.googleapis.com", f"{google}:countTokens", b"") is None
    assert recognise("h", "/v1internal:generateContent", body) is None
    assert recognise("h", "/", body) is None
