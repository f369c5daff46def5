"""The model of a call is told from its body without parsing it, and never taken from a nested object."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from types import ModuleType
from typing import NamedTuple

import pytest
from conversations import request_messages
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import UsageError
from tracefork_otel.wire import registry
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.registry import Call, model_of, recognise

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
    bodies = (
        b'{"model":"' * 200_000,
        b'{"a":' * 200_000,
        b'"\\' * 500_000,
        b',"model":"x"' * 100_000,
        bytes(9**6),
    )
    with soon(0.2):
        for body in bodies:
            model_of(body)


def test_calls_are_told_by_path() -> None:
    """The model APIs' paths are recognised below any prefix; other requests are not."""

    def call(url: str, body: bytes = b'{"model":"m"}', method: str = "POST") -> Call | None:
        return recognise(method, f"https://{url}", body)

    assert call("h/v1/messages") == Call("anthropic", "anthropic", "chat", "m")
    assert call("h/openai/v1/chat/completions/") == Call("openai_chat", "openai", "chat", "m")
    azure = "x.openai.azure.com/openai/deployments/d/responses"
    assert call(azure, b"") == Call("openai_responses", "azure.ai.openai", "chat", "d")
    assert call(azure) == Call("openai_responses", "azure.ai.openai", "chat", "m")
    assert call("h/v1/messages/count_tokens") is None
    google = "v1beta/models/gemini-3-flash"
    found = Call("gemini", "gcp.gemini", "generate_content", "gemini-3-flash")
    assert call(f"h/{google}:generateContent", b"") == found
    vertex = "h/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent"
    assert call(vertex, b"") == Call("gemini", "gcp.vertex_ai", "generate_content", "g")
    own = f"us-central1-aiplatform.googleapis.com/{google}:generateContent"
    assert call(own, b"") == found._replace(provider="gcp.vertex_ai")
    assert call(f"generativelanguage.googleapis.com/{google}:countTokens") is None
    anthropic = "h/v1/projects/p/publishers/anthropic/models"
    assert call(f"{anthropic}/c:rawPredict", b"{}") == Call("anthropic", "gcp.vertex_ai", "chat", "c")
    assert call(f"{anthropic}/count-tokens:rawPredict", b"{}") is None
    assert call("h/v1internal:generateContent") is None
    assert call("h/") is None
    assert call("h/v1/messages", method="GET") is None
    assert recognise("POST", "http://[broken/v1/messages", b"") is None


class _Plugin:
    """A package that brings a host and a form."""

    HOSTS = (("llm.example.org", "example"),)
    FORMS = (("example", "example.form", ((r"/v9/talk/(?P<model>[^/]+)", "example", "chat"),)),)


class _Clash:
    FORMS = (("gemini", "example.form", ()),)


class _Same:
    HOSTS = (("api.openai.com", "somebody"),)


class _Entry(NamedTuple):
    name: str
    value: str
    plugin: type | None

    def load(self) -> object:
        if self.plugin is None:
            raise ImportError("no module named example")
        return self.plugin


def test_packages_bring_forms_and_hosts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin's host and form count like ours; one that fails or clashes is warned of once and left out."""
    plugins = (("good", _Plugin), ("form", _Clash), ("host", _Same), ("broken", None))
    entries = [_Entry(name, f"{name}:PLUGIN", plugin) for name, plugin in plugins]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: entries)
    caches = (registry.registered, registry.placed, registry.host_of)
    for cache in caches:
        cache.cache_clear()
    try:
        call = recognise("POST", "https://llm.example.org/v9/talk/m-1", b"{}")
        assert call == Call("example", "example", "chat", "m-1")
        assert recognise("POST", "https://api.openai.com/v1/responses", b"{}") is not None
        assert [name for name, _ in registry.registered().refused] == ["form", "host", "broken"]
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 3
        assert "the form gemini is known already" in told[0]
        assert "the host api.openai.com is known already" in told[1]
        assert "ImportError: no module named example" in told[2]
    finally:
        for cache in caches:
            cache.cache_clear()


class _Capitals:
    HOSTS = (("API.Anthropic.com", "mine"),)


class _Twice:
    HOSTS = (("a.example.org", "mine"), ("a.example.org", "mine"))


class _NoText:
    HOSTS = ((None, "mine"),)


class _NoModule:
    FORMS = (("mine", "no.such.module", ((r"/v1/mine", "mine", "chat"),)),)


class _Raising:
    FORMS = (("raising", "raising_form", ((r"/v1/raising", "mine", "chat"),)),)


class _Leaving(_Entry):
    def load(self) -> object:
        raise SystemExit("I leave at import")


def test_what_a_plugin_does_wrong_is_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that are none, modules that are missing, raise or leave: each is named and left out, no more."""
    plugins = (
        ("capitals", _Capitals),
        ("twice", _Twice),
        ("none", _NoText),
        ("lost", _NoModule),
        ("raising", _Raising),
    )
    entries = [_Entry(name, f"{name}:PLUGIN", plugin) for name, plugin in plugins]
    entries.append(_Leaving("leaving", "leaving:PLUGIN", None))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: entries)
    monkeypatch.setattr(registry, "_failed", {})
    form = ModuleType("raising_form")

    def fail(*_: object) -> object:
        raise RuntimeError("this form reads nothing")

    form.FRAMINGS, form.read_request, form.read_reply = (), fail, fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raising_form", form)
    caches = (registry.registered, registry.placed, registry.host_of)
    for cache in caches:
        cache.cache_clear()
    try:
        told = dict(registry.registered().refused)
        assert sorted(told) == ["capitals", "leaving", "none", "twice"]
        assert "api.anthropic.com is known already" in told["capitals"]
        assert "a.example.org is known already" in told["twice"]
        assert "no row of a host" in told["none"]
        assert "SystemExit: I leave at import" in told["leaving"]
        for path in ("mine", "raising"):
            for _ in range(2):
                url = f"https://h/v1/{path}"
                assert recognise("POST", url, b'{"model":"m"}') is not None
                found = facts(
                    "POST", url, request=b'{"model":"m"}', response=b"{}", content_type="application/json"
                )
                assert found is None
        assert request_messages("raising", b"{}") == ()
        assert {"mine", "raising"} <= dict(registry.refused()).keys()
        said = [record for record in caplog.records if "are recorded, but not read" in record.getMessage()]
        assert len(said) == 2
        with pytest.raises(UsageError, match=r"no\.such|mine"):
            registry.load("mine")
    finally:
        for cache in caches:
            cache.cache_clear()
