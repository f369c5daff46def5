"""Replaced values are told apart by keyed digests, and never told."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import Run, open_store

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.redaction import hidden
from tracefork_otel.redaction.hidden import Verdict, compared, digests
from tracefork_otel.redaction.reading import from_json
from tracefork_otel.redaction.redact import Redactor

KEY, OTHER = b"k" * 32, b"o" * 32
RULES = '{"rule": [{"name": "tenant", "json": "tenant", "replace": "TENANT"}]}'


def test_digests_say_nothing_but_whether_values_are_equal() -> None:
    """They follow from key and value; without a key the names stand alone."""
    told = digests([("url token", "contract-2025"), ("body tenant", "acme")], KEY)
    assert told == digests([("url token", "contract-2025"), ("body tenant", "acme")], KEY)
    assert [entry.partition("=")[0] for entry in told] == ["key", "url token", "body tenant"]
    assert not any("contract" in entry or "acme" in entry for entry in told)
    assert set(told).isdisjoint(digests([("url token", "contract-2025")], OTHER))
    assert digests([("url token", "x")], None) == ("key=", "url token=")


def test_credentials_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from a secret variable, a dummy, and what stands for another value prove who asks."""
    monkeypatch.setenv("SEARCH_API_KEY", "a-real-key-of-mine")
    monkeypatch.setenv("CITY", "Osaka")
    for value in ("a-real-key-of-mine", hidden.DUMMY, "REDACTED", ""):
        assert digests([("url key", value)], KEY) == ()
    assert len(digests([("url key", "Osaka")], KEY)) == 2


@pytest.mark.parametrize(
    ("recorded", "got", "verdict"),
    [
        (["a=1"], ["a=1"], Verdict()),
        (["a=1"], ["a=2"], Verdict(other=("a",))),
        (["a=1", "b=2"], ["a=1", "b=3"], Verdict(other=("b",))),
        (["a=1"], [], Verdict()),
        ([], ["a=1"], Verdict(unknown=("a",))),
        (["a=1"], ["a=1", "c=1"], Verdict(unknown=("c",))),
    ],
)
def test_verdicts(recorded: list[str], got: list[str], verdict: Verdict) -> None:
    """Another value of the same name is another; of what only the replay has nothing can be told."""
    told = [("key=1", *one) if one else () for one in (recorded, got)]
    assert compared(told[0], told[1]) == verdict
    if recorded and got:
        names = tuple(sorted({one.partition("=")[0] for one in got}))
        assert compared(("key=2", *recorded), ("key=1", *got)).unknown == names
        assert compared(("key=", *recorded), ("key=", *got)).unknown == names


MAIL = '{"rule": [{"name": "mail", "pattern": "[a-z]+@x.com", "replace": "MAIL"}]}'
BY_PATH = '{"rule": [{"name": "to", "json": "m[*].to", "replace": "MAIL"}]}'


def told(body: bytes, rules: str = MAIL) -> tuple[str, ...]:
    """What is kept of what the rules replace in a request."""
    redactor = Redactor(rules=from_json(rules), key=lambda: KEY)
    request = redactor.request("POST", "https://a.example/", ((b"content-type", b"application/json"),), body)
    assert b"@" not in request.body
    return request.hidden


ORDERS = (
    b'["from alice@x.com to bob@x.com"]',
    b'["from bob@x.com to alice@x.com"]',
    b'["from alice@x.com to alice@x.com"]',
)
OFTEN = (
    b'["alice@x.com", "bob@x.com", "alice@x.com"]',
    b'["alice@x.com", "bob@x.com", "bob@x.com"]',
    b'["bob@x.com", "alice@x.com", "alice@x.com"]',
)
LINES = tuple(b"\n".join(json.dumps({"m": one}).encode() for one in json.loads(text)) for text in OFTEN)
PAIRS = (
    b'{"m":[{"to":"a@x.com"},{"to":"b@x.com"}]}',
    b'{"m":[{"to":"b@x.com"},{"to":"a@x.com"}]}',
)
TEXTS = tuple(json.loads(text)[0].encode() for text in ORDERS)


@pytest.mark.parametrize(
    ("bodies", "rules", "name"),
    [
        (ORDERS, MAIL, "body mail"),
        (OFTEN, MAIL, "body mail"),
        (LINES, MAIL, "body mail"),
        (TEXTS, MAIL, "body mail"),
        (PAIRS, BY_PATH, "body to"),
    ],
)
def test_order_and_number_of_values_count(bodies: tuple[bytes, ...], rules: str, name: str) -> None:
    """Who wrote to whom is told apart, though what is recorded of the bodies is the same."""
    for one, two in product(bodies, bodies):
        verdict = compared(told(one, rules), told(two, rules))
        assert verdict == (Verdict() if one == two else Verdict(other=(name,)))


def test_what_was_served_stands_for_its_values() -> None:
    """A request with what replies and results were served with is the recorded one, if its own values are."""
    whole = told(b'["ann@x.com", "bob@x.com", "ann@x.com", "cy@x.com"]')
    assert compared(whole, told(b'["ann@x.com", "MAIL", "MAIL", "cy@x.com"]')) == Verdict()
    assert compared(whole, told(b'["MAIL", "MAIL", "MAIL", "MAIL"]')) == Verdict()
    for first, last in (("dan", "cy"), ("ann", "dan")):
        another = told(json.dumps([f"{first}@x.com", "MAIL", "MAIL", f"{last}@x.com"]).encode())
        assert compared(whole, another) == Verdict(other=("body mail",))
    moved = told(b'["cy@x.com", "MAIL", "MAIL", "ann@x.com"]')
    assert compared(whole, moved).unknown == ("body mail",)
    more = told(b'["ann@x.com", "bob@x.com"]')
    assert compared(told(b'["MAIL", "bob@x.com"]'), more).unknown == ("body mail",)


def test_very_many_values() -> None:
    """They have one digest together, which is not longer than another."""
    many, other = (told(json.dumps([f"{first}@x.com"] * 9_999).encode()) for first in ("ann", "bob"))
    assert len("".join(many)) < 60
    assert compared(many, many) == Verdict()
    assert compared(many, other) == Verdict(other=("body mail",))
    assert compared(many, told(b'["ann@x.com"]')) == Verdict(unknown=("body mail",))


def test_values_of_keys_in_another_order() -> None:
    """Where the order of keys does not count, nothing says at which key a value stood."""
    recorded, moved, other = (
        told(one)
        for one in (
            b'{"a":"alice@x.com","b":"bob@x.com"}',
            b'{"b":"bob@x.com","a":"alice@x.com"}',
            b'{"a":"alice@x.com","b":"alice@x.com"}',
        )
    )
    assert compared(recorded, moved, any_order=True) == Verdict(unknown=("body mail",))
    assert compared(recorded, moved) == compared(recorded, other, any_order=True)
    assert compared(recorded, moved).other == ("body mail",)


def ask(url: str, documents: list[str], tenant: str) -> list[int]:
    """Documents whose names redaction takes for secrets, and a body with a name that a rule replaces."""
    asked = [httpx2.get(f"{url}/raw/bytes/{len(one)}", params={"token": one}) for one in documents]
    body = {"tenant": tenant, "text": "x"}
    return [len(one.content) for one in (*asked, httpx2.post(f"{url}/raw/echo", json=body))]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, str]:
    """A run that asked for two documents of names as long, and its server's URL; the key is of this test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TRACEFORK_REDACT_RULES", RULES)
    with ModelServer(seed=7) as server:
        TraceforkInstrumentor().instrument(store=tmp_path / "store", http_spans=False)
        try:
            ask(server.url, ["page-1", "page-2"], "acme")
        finally:
            TraceforkInstrumentor().uninstrument()
    return open_store(tmp_path / "store").run("last"), server.url


@pytest.mark.slow
def test_another_document_is_a_drift(recorded: tuple[Run, str]) -> None:
    """Each request gets the answer of its own document, in any order, and none that of another."""
    run, url = recorded
    assert run.exchanges[0].request.url.endswith("token=REDACTED")
    assert b"acme" not in run.exchanges[2].request.body
    for documents in (["page-1", "page-2"], ["page-2", "page-1"]):
        result = replay(run, agent=lambda documents=documents: ask(url, documents, "acme"))
        assert result.passed, result.receipt
        assert result.receipt[-1] == "PASS    bit-exact"
    for documents, tenant, path in (
        (["page-1", "page-3"], "acme", "url token"),
        (["page-1", "page-2"], "b", "body tenant"),
    ):
        result = replay(run, agent=lambda one=documents, two=tenant: ask(url, one, two))
        assert not result.passed
        (drift,) = result.drifts
        assert (drift.path, drift.cause) == (path, "parameter")
        assert "another value" in drift.text


@pytest.mark.slow
def test_on_another_machine_it_is_said(
    recorded: tuple[Run, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the key is missing, or is another, less is compared, and the receipt says what."""
    run, url = recorded
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    result = replay(run, agent=lambda: ask(url, ["page-1", "page-3"], "acme"))
    assert result.passed, result.receipt
    assert "note    not compared: body tenant, url token (2 times)" in "\n".join(result.receipt)
    assert result.receipt[-1] == "PASS    equal in what was compared"


def test_a_redactor_without_a_key() -> None:
    """It makes the same request, of which nothing can be told apart."""
    plain: Any = Redactor().request("GET", "https://a.example/?token=x", (), b"")
    assert (plain.url, plain.hidden) == ("https://a.example/?token=REDACTED", ("key=", "url token="))
