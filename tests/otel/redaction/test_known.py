"""Keys in the places that providers' formats and OAuth have for them are replaced without a rule."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import httpx2
import pytest
from tracefork_backend import fork, open_store, replay, text
from tracefork_backend.cli.refs import tape_of
from tracefork_backend.rerun.importing import import_tape

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.exchange import Request, Response
from tracefork_otel.redaction.reading import of_keys, parse
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.tape.tape import Tape

KEY = "KEY-of-ours"
JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
SIGNED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


def request(
    body: bytes, headers: tuple[tuple[str, str], ...] = JSON, redactor: Redactor | None = None
) -> Request:
    """The request as it is recorded."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return (redactor or Redactor()).request("POST", "https://a.example/x", raw, body)


def response(body: bytes, headers: tuple[tuple[str, str], ...] = JSON) -> bytes:
    """The response's body as it is recorded."""
    made, why = Redactor().response(Response(status=200, headers=headers, body=body), Counter())
    assert why is None
    return made.body


@pytest.mark.parametrize(
    "body",
    [
        {"mcp_servers": [{"url": "https://x", "authorization_token": KEY}, {"headers": {"X-Any": KEY}}]},
        {"tools": [{"type": "mcp", "authorization": KEY}, {"type": "mcp", "headers": {"A": KEY, "B": KEY}}]},
        {"tools": [{"mcpServers": [{"streamableHttpTransport": {"headers": {"A": KEY}}}]}]},
        {"requests": [{"custom_id": "1", "params": {"mcp_servers": [{"authorization_token": KEY}]}}]},
        {"grant_type": "refresh_token", "refresh_token": KEY, "client_secret": KEY},
        {"grant_type": "authorization_code", "code": KEY, "code_verifier": KEY},
        {"grant_type": "password", "username": "me", "password": KEY},
        {"grant_type": "x", "client_assertion": KEY, "assertion": KEY, "subject_token": KEY},
    ],
)
def test_known_places_of_requests(body: dict[str, object]) -> None:
    """Each key is replaced, whatever is round it, in a large body and a packed one; all other bytes stay."""
    times = json.dumps(body).count(KEY)
    expected = json.dumps(body).replace(KEY, "REDACTED").encode()
    assert request(json.dumps(body).encode()).body == expected
    made = request(json.dumps(body, indent=1).encode())
    assert json.loads(made.body) == json.loads(expected)
    assert made.hidden[1].startswith("body keys=")
    assert vars_of(made)["counts"] == {"keys": times}
    assert made.sent == json.dumps(body, indent=1).encode()
    packed = request(gzip.compress(json.dumps(body).encode()), (*JSON, ("content-encoding", "gzip")))
    assert gzip.decompress(packed.body) == expected
    if "grant_type" not in body:
        long = {**body, "messages": [{"role": "user", "content": 'say "headers" ' * 30_000}]}
        assert KEY.encode() not in request(json.dumps(long).encode()).body


def vars_of(made: Request) -> Mapping[str, Any]:
    """The request's fields by name."""
    return {name: getattr(made, name) for name in type(made).__dataclass_fields__}


@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token", "authorization_code"])
def test_forms_of_oauth(grant: str) -> None:
    """What proves who asks is replaced, who that is stays."""
    asked = {
        "grant_type": grant, "client_id": "me", "client_secret": "KEY/+ =", "refresh_token": KEY, "code": KEY,
        "redirect_uri": "https://x.example/?code=1", "assertion": KEY, "scope": "a b",
    }  # fmt: skip
    made = request(urlencode(asked).encode(), FORM)
    kept = {name: "REDACTED" if "KEY" in value else value for name, value in asked.items()}
    assert made.body == urlencode(kept).encode()
    assert dict(made.headers)["content-type"] == FORM[0][1]


def test_answers_of_oauth() -> None:
    """Tokens are replaced in JSON, packed or not, and in forms; of an id token the claims stay."""
    told = {"access_token": KEY, "token_type": "Bearer", "expires_in": 3600, "refresh_token": None}
    expected = {**told, "access_token": "REDACTED"}
    assert json.loads(response(json.dumps(told).encode())) == expected
    packed = response(gzip.compress(json.dumps(told).encode()), (*JSON, ("content-encoding", "gzip")))
    assert json.loads(gzip.decompress(packed)) == expected
    assert response(f"access_token={KEY}&scope=".encode(), FORM) == b"access_token=REDACTED&scope="
    signed = json.loads(response(json.dumps({"id_token": SIGNED, "access_token": SIGNED}).encode()))
    assert signed == {"id_token": SIGNED.rpartition(".")[0] + ".REDACTED", "access_token": "REDACTED"}
    assert b"ek_" not in response(b'{"client_secret":{"value":"ek_1","expires_at":1},"id":"sess_1"}')


@pytest.mark.parametrize(
    "body",
    [
        {
            "messages": [
                {"content": [{"type": "tool_use", "input": {"access_token": "x", "headers": {"a": "b"}}}]}
            ]
        },
        {"messages": [{"content": '{"tools":[{"headers":{"a":"b"}}],"client_secret":"x"}'}]},
        {"tools": [{"input_schema": {"properties": {"headers": {"type": "object"}, "authorization": {}}}}]},
        {"tools": [{"type": "mcp", "headers": None, "authorization": None}], "access_token": None},
        {"tools": [{"type": "mcp", "headers": {"a": ""}}], "refresh_token": ""},
        {"code": "print(1)", "password": "of a form without a grant"},
        {"mcp_servers": "none", "tools": {"authorization": "no list"}},
        {"tools": []},
    ],
)
def test_what_is_elsewhere_stays(body: dict[str, object]) -> None:
    """Arguments of tools, texts and schemas are no such place, nor is what is no text."""
    for given in (json.dumps(body).encode(), json.dumps([body]).encode()):
        assert request(given).body == given
        assert response(given) == given


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"access_token": what', JSON),
        (b'{"client_secret"}, "tools', JSON),
        (b"{" * 3000 + b'"client_secret"', JSON),
        (b'\xff\xfe{"access_token":1}', JSON),
        (b'{"access_token":"\xff"', JSON),
        (b"\x1f\x8bno gzip", (*JSON, ("content-encoding", "gzip"))),
        (b"anything", (*JSON, ("content-encoding", "zippy"))),
        (b"client_secret", FORM),
        (b"\x00" * 70_000, FORM),
        (b'--x\r\n\r\n{"client_secret":"of a file"}\r\n--x--', (("content-type", "multipart/form-data"),)),
        (b" " * 100 + b'{"client_secret":"behind many blanks"}', JSON),
    ],
)
def test_nothing_is_withheld(body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    """What cannot be looked into stays as it is: nobody asked for it to be looked into."""
    made = request(body, headers)
    assert len(made.body) > 0
    assert getattr(made, "withheld", None) is None
    response(body, headers)


def test_a_broken_answer() -> None:
    """A token in an answer that breaks off is replaced, be it whole or not."""
    for cut in ('{"access_token":"KEY-of-ou', '{"access_token":"KEY-of-ours","token_ty'):
        assert b"KEY" not in response(cut.encode())


def test_beside_rules_of_the_users() -> None:
    """What a rule has replaced stays as that leaves it; the switch leaves these places alone."""
    body = json.dumps({"client_secret": KEY, "mail": "a@b.example"}).encode()
    for rule, made in (
        ({"json": "client_secret", "replace": "MINE"}, b'"MINE"'),
        ({"json": "client_secret", "digest": True}, b'"redacted-'),
        ({"json": "mail"}, b'"client_secret": "REDACTED", "mail": "REDACTED"'),
    ):
        rules = parse({"rule": [rule]}, "rules")
        kept = request(body, redactor=Redactor(rules=rules)).body
        assert made in kept
        assert KEY.encode() not in kept
    assert b'"redacted-' in request(body, redactor=Redactor(rules=of_keys())).body
    assert request(body, redactor=Redactor(known=False)).body == body
    assert request(
        body, redactor=Redactor(rules=parse({"rule": [{"json": "mail"}]}, ""), known=False)
    ).body == (body.replace(b"a@b.example", b"REDACTED"))


def test_spans_of_others() -> None:
    """Whole requests that other instrumentation puts on its spans are looked into as well."""
    asked = json.dumps({"model": "m", "tools": [{"type": "mcp", "authorization": KEY}], "x": "é"})
    kept = Redactor().attributes(
        {"input.value": asked, "n": 1, "text": '{headers"', "odd": '{\ud83d headers"'}
    )
    assert kept == {
        "input.value": asked.replace(KEY, "REDACTED"), "n": 1, "text": "{headers\"",
        "odd": "{\ud83d headers\"",
    }  # fmt: skip


# --- runs ---


class _Provider(BaseHTTPRequestHandler):
    """A provider that gives a token to whoever has the secret, and answers whoever has the token."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).seen.append((self.path, self.headers["authorization"], body))
        if self.path == "/oauth/token":
            told: dict[str, object] = {"access_token": KEY, "refresh_token": KEY + "-2", "id_token": SIGNED}
            status = 200
        else:
            status = 200 if self.headers["authorization"] == f"Bearer {KEY}" else 401
            told = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
                    "stop_reason": "end_turn", "stop_sequence": None,
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                    "content": [{"type": "text", "text": f"answer {len(type(self).seen)}"}]}  # fmt: skip
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Provider: TypeAlias = tuple[str, list[tuple[str, str | None, bytes]]]
"""Its URL, and of each request that came: the path, what it was authorized by, the body."""


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """The provider's URL, and what it was asked."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    seen: list[tuple[str, str | None, bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (_Provider,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


def agent(url: str, secret: str = KEY, server_key: str = KEY) -> str:
    """Ask for a token, then a model twice, offering it a server with a key."""
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": secret}
    token = httpx2.post(f"{url}/oauth/token", data=form).json()["access_token"]
    texts: list[str] = []
    for _ in range(2):
        asked = {
            "model": "claude-haiku-4-5", "max_tokens": 9,
            "messages": [{"role": "user", "content": " ".join(texts) or "go"}],
            "mcp_servers": [{"type": "url", "url": "https://m.example", "authorization_token": server_key}],
        }  # fmt: skip
        answer = httpx2.post(f"{url}/v1/messages", json=asked, headers={"authorization": f"Bearer {token}"})
        answer.raise_for_status()
        texts.append(answer.json()["content"][0]["text"])
    return " / ".join(texts)


def recorded(store: Path, url: str) -> str:
    """The id of a run of the agent."""
    TraceforkInstrumentor().instrument(store=store, http_spans=False)
    try:
        agent(url)
    finally:
        TraceforkInstrumentor().uninstrument()
    return open_store(store).run("last").run_id


def stored(store: Path) -> str:
    """All that the store's exchanges hold."""
    return "".join(repr(one) for one in open_store(store).run("last").exchanges)


@pytest.mark.slow
def test_run_and_replay(provider: Provider, tmp_path: Path) -> None:
    """The store has no key, the provider had them all; the replay is exact, and another key a drift."""
    url, seen = provider
    recorded(tmp_path / "s", url)
    assert all(KEY.encode() in body or KEY in (sent or "") for _, sent, body in seen)
    assert KEY not in stored(tmp_path / "s")
    run = open_store(tmp_path / "s").run("last")
    result = replay(run, agent=lambda: agent(url))
    assert result.passed, result.receipt
    assert result.receipt[-1] == "PASS    bit-exact"
    assert len(seen) == 3
    for asked in ({"secret": "another"}, {"server_key": "another"}):
        (drift,) = replay(run, agent=lambda asked=asked: agent(url, **asked)).drifts[:1]
        assert (drift.path, drift.cause) == ("body keys", "parameter")


@pytest.mark.slow
def test_keys_of_the_environment_are_not_compared(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key from a secret variable is another one in a replay elsewhere, also behind `Bearer`."""
    url, _ = provider
    monkeypatch.setenv("MY_MCP_TOKEN", "of-here")

    def asks() -> int:
        key = __import__("os").environ["MY_MCP_TOKEN"]
        tools = [{"type": "mcp", "headers": {"authorization": f"Bearer {key}"}}]
        return httpx2.post(f"{url}/v1/responses", json={"tools": tools, "input": "q"}).status_code

    TraceforkInstrumentor().instrument(store=tmp_path / "s", http_spans=False)
    try:
        asks()
    finally:
        TraceforkInstrumentor().uninstrument()
    monkeypatch.setenv("MY_MCP_TOKEN", "of-elsewhere")
    result = replay(open_store(tmp_path / "s").run("last"), agent=asks)
    assert result.receipt[-1] == "PASS    bit-exact", result.receipt


@pytest.mark.slow
def test_recordings_that_have_them(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording with keys in its bodies, as they were made before, replays; an import takes them out."""
    url, _ = provider
    with monkeypatch.context() as patched:
        patched.setenv("TRACEFORK_REDACT_BODIES", "0")
        recorded(tmp_path / "s", url)
    assert KEY in stored(tmp_path / "s")
    run = open_store(tmp_path / "s").run("last")
    tape = tape_of(tmp_path / "s", run.run_id)
    environment = {**tape.start.environment}
    environment.pop("TRACEFORK_REDACT_BODIES", None)
    replace(tape, start=replace(tape.start, environment=environment)).dump(tmp_path / "old.jsonl")
    result = replay(Tape.load(tmp_path / "old.jsonl"), agent=lambda: agent(url))
    assert result.passed, result.receipt
    assert result.receipt[-1] == "PASS    equal in what was compared"
    for _ in range(2):  # the second time all is there
        import_tape(tmp_path / "other", tmp_path / "old.jsonl")
    assert KEY not in stored(tmp_path / "other")
    assert replay(open_store(tmp_path / "other").run("last"), agent=lambda: agent(url)).passed
    assert replay(run, agent=lambda: agent(url)).receipt[-1] == "PASS    bit-exact"


@pytest.mark.slow
def test_a_fork_asks_with_real_keys(provider: Provider, tmp_path: Path) -> None:
    """What goes live in a fork has the agent's own keys in its body, and a token that is asked for anew."""
    url, seen = provider
    recorded(tmp_path / "s", url)
    del seen[:]
    made = fork(open_store(tmp_path / "s").run("last"), at=1, edit=text("changed"), agent=lambda: agent(url))
    assert made.problem is None
    assert [path for path, _, _ in seen] == ["/oauth/token", "/v1/messages"]
    assert KEY.encode() in seen[1][2]
    assert seen[1][1] == f"Bearer {KEY}"
    assert KEY not in stored(tmp_path / "s")
