"""Secrets are replaced in headers, URLs, command lines and environments, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from conftest import Capture
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recorded import fetch, run_python

from tracefork_otel.exchange import Headers
from tracefork_otel.redaction.names import REDACTED, arguments, environment
from tracefork_otel.redaction.redact import Redactor


def sent(redactor: Redactor, raw: list[tuple[bytes, bytes]]) -> Headers:
    """The header lines of a request as they are recorded."""
    return redactor.request("GET", "https://h/", raw, b"").headers


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "X-API-Key",
        "api-key",
        "x-goog-api-key",
        "Cookie",
        "x-my-secret",
        "x-session-token",
        "x_access_key",
        "Ocp-Apim-Subscription-Key",
        "x-db-password",
        "helicone-auth",
        "x-rapidapi-key",
        "x-litellm-key",
        "Cookie2",
        "X-AppKey",
        "xApiKey",
        "AccessToken",
        "x-session-id",
        "x-jwt-assertion",
        "x-vault-token",
        "x-oauth-token",
    ],
)
def test_secret_request_headers(name: str) -> None:
    """The value of a header whose name says that it is secret is replaced, the name stays as written."""
    lines = sent(Redactor(), [(name.encode(), b"s3cret"), (b"Accept", b"*/*")])
    assert lines == ((name, REDACTED), ("Accept", "*/*"))


@pytest.mark.parametrize(
    "name",
    [
        "anthropic-ratelimit-tokens-remaining",
        "x-ratelimit-limit-tokens",
        "idempotency-key",
        "sec-websocket-key",
        "anthropic-version",
        "www-authenticate",
        "request-id",
        "retry-after",
        "x-idempotency-key",
        "surrogate-key",
        "x-cache-key",
        "x-token-count",
        "x-author",
        "x-monkey",
        "sec-fetch-site",
    ],
)
def test_harmless_headers_stay(name: str) -> None:
    """Headers that merely sound alike keep their values, in both directions."""
    raw = [(name.encode(), b"7")]
    assert sent(Redactor(), raw) == Redactor().response_headers(raw) == ((name, "7"),)


@pytest.mark.parametrize(
    "value", ["Bearer s3cret", "basic czNjcmV0", "sk-" + "a1b2" * 6, "x ghp_" + "a" * 20]
)
def test_a_header_whose_value_is_a_key(value: str) -> None:
    """Whatever its name, what proves who asks is replaced; a challenge of the server's is kept."""
    ((_, shown),) = sent(Redactor(), [(b"x-extra", value.encode())])
    assert shown in (REDACTED, f"x {REDACTED}")
    challenge = ((b"www-authenticate", b"Bearer realm=api"),)
    assert Redactor().response_headers(challenge) == (("www-authenticate", "Bearer realm=api"),)


def test_a_responses_page_token_stays() -> None:
    """A response header that steers the agent is kept, since a replay gives it back; a cookie is not."""
    raw = [(b"x-next-page-token", b"p2"), (b"set-cookie", b"session=1")]
    assert Redactor().response_headers(raw) == (("x-next-page-token", "p2"), ("set-cookie", REDACTED))


def test_a_received_url_leads_on() -> None:
    """What an agent takes out of a redirect and sends back is kept, for a replay must give it."""
    kept = "https://h/cb?code=abc&sessionId=1&page_key=2"
    assert Redactor().response_headers([(b"location", kept.encode())]) == (("location", kept),)
    assert sent(Redactor(), [(b"referer", kept.encode())]) == (
        ("referer", "https://h/cb?code=REDACTED&sessionId=REDACTED&page_key=2"),
    )


def test_the_verdict_on_a_name_does_not_hang_on_what_came_before() -> None:
    """Names that differ in case are names of their own."""
    redactor = Redactor()
    for name, shown in (("mytoken", "1"), ("myToken", REDACTED), ("mytoken", "1")):
        assert redactor.url(f"https://h/p?{name}=1") == f"https://h/p?{name}={shown}"


def test_urls_in_headers() -> None:
    """A redirect to a signed URL does not give the signature away."""
    raw = [(b"Location", b"https://h/p?sig=s3cret&a=1"), (b"x-note", b"sig=kept?sig=kept")]
    kept = (("Location", "https://h/p?sig=REDACTED&a=1"), ("x-note", "sig=kept?sig=kept"))
    assert Redactor().response_headers(raw) == kept


def test_headers_of_the_user() -> None:
    """Header names and parameters that the user names are secret too."""
    redactor = Redactor(headers=["X-Tenant"], params=["Ticket"])
    assert sent(redactor, [(b"x-tenant", b"a")]) == (("x-tenant", REDACTED),)
    assert redactor.url("https://h/p?ticket=1&q=2") == "https://h/p?ticket=REDACTED&q=2"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://h/p?key=AIza1", "https://h/p?key=REDACTED"),
        ("https://h/p?a=1&api_key=x&b=2", "https://h/p?a=1&api_key=REDACTED&b=2"),
        ("https://h/p?API-Key=x#access_token=y", "https://h/p?API-Key=REDACTED#access_token=REDACTED"),
        ("https://h/p?X-Amz-Signature=x;sig=1", "https://h/p?X-Amz-Signature=REDACTED;sig=REDACTED"),
        ("https://h/p?acc%65ss_token=x", "https://h/p?acc%65ss_token=REDACTED"),
        ("https://user:pass@h:8/p", "https://REDACTED@h:8/p"),
        ("https://user@h/p?m=a@b", "https://REDACTED@h/p?m=a@b"),
        ("https://h/p@q?monkey=1&tokens=2&keyword=3", "https://h/p@q?monkey=1&tokens=2&keyword=3"),
        ("https://h/p?next=/a?key=1", "https://h/p?next=/a?key=REDACTED"),
        ("https://h/p?access-token=1&x-api-key=2", "https://h/p?access-token=REDACTED&x-api-key=REDACTED"),
        (
            "https://h/p?sas=1&code=2&accessToken=3",
            "https://h/p?sas=REDACTED&code=REDACTED&accessToken=REDACTED",
        ),
        (
            "https://h/p?pageToken=1&page_token=2&max_tokens=3",
            "https://h/p?pageToken=1&page_token=2&max_tokens=3",
        ),
        ("https://h/bot/ghp_aaaaaaaaaaaaaaaaaaaa/send", "https://h/bot/REDACTED/send"),
        ("https://h/sk-ant-api03-AbCdEfGhIjKlMnOpQr_-x/a", "https://h/REDACTED/a"),
        *(
            (kept, kept)
            for kept in (
                "https://skyvern-gateway.example.com/v1",
                "https://my-hf-endpoint.us-east-1.aws.endpoints.huggingface.cloud/v1",
                "http://localhost:8080?u=me@x.com",
                "https://h/v1/skills/skill_01JAbcDefGhiJklMno/versions",
                "https://h/deployments/sk-team-gpt-4o-mini-prod/chat",
            )
        ),
    ],
)
def test_urls(url: str, kept: str) -> None:
    """User information and secret parameters are replaced, the rest of the URL is as it was."""
    assert Redactor().url(url) == kept
    assert Redactor().url(kept) == kept


def test_environment_leaves_secrets_out() -> None:
    """Variables that look secret by name or by value are withheld by name; the others are kept."""
    kept, withheld = environment(
        {
            "HOME": "/home/a",
            "OPENAI_API_KEY": "x",
            "DB_PASSWORD": "x",
            "GITHUB_TOKEN": "x",
            "PLAIN": "sk-" + "a1b2" * 6,
            "DATABASE_URL": "postgres://user:pass@db/x",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=x",
        }
    )
    assert kept == {"HOME": "/home/a"}
    assert "HOME" not in withheld
    assert len(withheld) == 6


@pytest.mark.parametrize("name", ["X-PassPhrase", "X-Pass-Word", "hapikey"])
def test_words_apart_or_together_are_the_same(name: str) -> None:
    """A secret word may be written as two, and joined with another."""
    assert sent(Redactor(), [(name.encode(), b"v")]) == ((name, REDACTED),)
    assert Redactor().url(f"https://h/?{name}=v") == f"https://h/?{name}={REDACTED}"


@pytest.mark.parametrize("name", ["nexttoken", "pagetoken", "sortkey", "x-monkey", "hotkey"])
def test_a_joined_word_that_says_otherwise_is_kept(name: str) -> None:
    """What pages, sorts or repeats is given back by a replay."""
    assert sent(Redactor(), [(name.encode(), b"v")]) == ((name, "v"),)
    assert Redactor().url(f"https://h/?{name}=v") == f"https://h/?{name}=v"


def test_arguments_leave_secrets_out() -> None:
    """Values of secret options, and words that look like keys, are replaced on a command line."""
    argv = ["a.py", "--api-key", "v", "--token=v", "--city", "Tokyo", "sk-" + "a1b2" * 6]
    assert arguments(argv) == (
        "a.py",
        "--api-key",
        REDACTED,
        f"--token={REDACTED}",
        "--city",
        "Tokyo",
        REDACTED,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--max-tokens", "500"),
        ("--max-token", "4096"),
        ("--tokenizer", "cl100k_base"),
        ("--token-budget", "1e4"),
        ("--keywords", "flights,hotels"),
        ("--keyboard", "qwerty"),
        ("--sort-key", "price"),
        ("--sortkey", "price"),
        ("--idempotency-key", "k-1"),
        ("--page-token", "p-2"),
        ("--secretary", "Ada"),
        ("--author", "Ada"),
        ("--session-id", "demo"),
        ("--credentials-file", "/etc/x.json"),
        ("--use-token", "Osaka"),
        ("--use-api-key", "--verbose"),
        ("--auth", "true"),
        ("max_tokens=500",),
        ("Token: what is one?",),
        ("-c", "token=f(); key='a'; print(token, key)"),
        ('{"max_tokens": "500", "city": "Osaka"}',),
        ("https://h.example/x?city=Osaka&page=2",),
    ],
)
def test_arguments_of_names_that_only_hold_such_words_are_kept(words: tuple[str, ...]) -> None:
    """What a count, a switch, a file or a word merely called so is set to stays: a replay starts with it."""
    assert Redactor().command(("agent.py", *words)) == ("agent.py", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--api-key", "hunter2"),
        ("--openai_api_keys", "hunter2"),
        ("--password", "-hunter2"),
        ("--db-pass", "hunter2"),
        ("--passPhrase", "hunter2"),
        ("--auth", "me:hunter2"),
        ("--jwt", "hunter2"),
        ("--bearer=hunter2",),
        ("--github-pat=hunter2",),
        ("API_KEY=hunter2",),
        ("model.api_key=hunter2",),
        ("-e", "OPENAI_API_KEY=hunter2"),
        ("-H", "x-api-key: hunter2"),
        ("-HAuthorization: Bearer hunter2",),
        ("--header=Cookie: a=hunter2",),
        ("--config", '{"api_key": "hunter2", "n": 1}'),
        ("https://h.example/x?api_key=hunter2",),
        ("https://me:hunter2@h.example/x",),
        ("--url=redis://:hunter2@h.example:6379/0",),
        ("--database", "Server=h.example;User=me;Password=hunter2"),
    ],
)
def test_arguments_that_are_secret_by_their_name_are_replaced(words: tuple[str, ...]) -> None:
    """However an option, assignment, header, member, URL or connection's text is written that holds it."""
    recorded = " ".join(Redactor().command(("agent.py", *words)))
    assert "hunter2" not in recorded
    assert REDACTED in recorded


def test_environment_goes_by_words_and_not_by_what_they_hold() -> None:
    """Limits, paths and words that hold one of ours are given back by a replay; what is secret is not."""
    plain = {
        "MAX_TOKENS": "500",
        "TOKEN": "500",
        "TOKENIZERS_PARALLELISM": "false",
        "KEYBOARD": "us",
        "MONKEY": "1",
        "SSH_AUTH_SOCK": "/run/x",
        "TLS_KEY_FILE": "/etc/x.pem",
        "PWD": "/home/a",
        "SESSION_MANAGER": "local/x",
    }
    secret = {
        "DB_PASS": "hunter2",
        "MYSQL_PWD": "hunter2",
        "PGPASSWORD": "123456",
        "BOT_TOKEN": "5829104736",
        "JWT": "hunter2",
        "BASIC_AUTH": "me:hunter2",
        "OPENAIKEY": "hunter2",
        "GITHUB_PAT": "hunter2",
        "REDIS_URL": "redis://:hunter2@h.example:6379",
        "HOOK": "https://h.example/x?access_token=hunter2",
        "JAVA_OPTS": "-Xmx1g -Ddb.password=hunter2",
        "DATABASE": "host=h.example password=hunter2",
        "CONFIG": '{"client_secret": "hunter2"}',
    }
    assert environment(plain | secret) == (plain, tuple(sorted(secret)))


def test_nothing_secret_leaves_the_process(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str
) -> None:
    """Neither the store's bytes nor the user's exporter get the secrets of a request; the server does."""
    capture.on(tracer_provider=provider, http_spans=True, redact_headers=["x-tenant"])
    secrets = ["s3cret-header", "s3cret-key", "s3cret-param", "s3cret-user", "s3cret-tenant", "s3cret-cookie"]
    url = raw.replace("http://", "http://s3cret-user:s3cret-user@")
    fetch(
        httpx2,
        "sync",
        "POST",
        f"{url}/echo?key=s3cret-param&q=seen",
        content=b"body",
        headers={
            "authorization": "Bearer s3cret-header",
            "x-api-key": "s3cret-key",
            "x-tenant": "s3cret-tenant",
            "cookie": "a=s3cret-cookie",
        },
    )
    recorded = capture.read()
    written = b"".join(path.read_bytes() for path in capture.store.rglob("*") if path.is_file())
    ours = [
        span for span in exported.get_finished_spans() if (span.attributes or {}).get("tracefork.exchange")
    ]
    shown = " ".join(span.to_json() for span in ours)
    assert [secret for secret in secrets if secret.encode() in written or secret in shown] == []
    assert recorded.only().request.url.endswith("/raw/echo?key=REDACTED&q=seen")
    assert "q=seen" in shown


RULES = """
[[rule]]
name = "numbers"
pattern = 'nr-\\d+'
digest = true

[[rule]]
header = "x-tenant"
replace = "SOMEBODY"

[[rule]]
param = "who"

[[rule]]
json = "user.id"
replace = "ID"
"""


def test_rules_reach_all_that_is_recorded(
    capture: Capture, provider: TracerProvider, exported: InMemorySpanExporter, raw: str, tmp_path: Path
) -> None:
    """Store and spans hold what the rules left, and say which did what; the wire had everything."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    capture.on(tracer_provider=provider, redact=path)
    body = b'{"user": {"id": "secret-id", "n": 1.0}, "text": "call nr-4711 now"}'
    response = fetch(
        httpx2,
        "sync",
        "POST",
        f"{raw}/echo?who=secret-who&q=nr-4711",
        content=body,
        headers={"content-type": "application/json", "x-tenant": "secret-tenant"},
    )
    assert response.content == body
    exchange = capture.read().only()
    shown = " ".join(span.to_json() for span in exported.get_finished_spans())
    written = repr(exchange) + shown
    assert [word for word in ("secret-", "nr-4711") if word in written] == []
    assert exchange.request.url.startswith(f"{raw}/echo?who=REDACTED&q=redacted-")
    assert dict(exchange.request.headers)["x-tenant"] == "SOMEBODY"
    assert exchange.request.body.startswith(b'{"user": {"id": "ID", "n": 1.0}, "text": "call redacted-')
    assert exchange.response is not None
    assert exchange.response.body == exchange.request.body
    assert exchange.response.header("content-length") == str(len(exchange.response.body))
    assert json.loads(str(exchange.attributes["tracefork.redacted"])) == {
        "request": {"header x-tenant": 1, "json user.id": 1, "numbers": 2, "param who": 1},
        "response": {"json user.id": 1, "numbers": 1},
    }


def test_a_body_sent_in_pieces_is_redacted(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A streaming request, known only at its end, is recorded as its rules want it."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    capture.on(redact=path)
    fetch(httpx2, "sync", "POST", f"{raw}/echo", content=iter([b"call nr-", b"4711"]))
    exchange = capture.read().only()
    assert exchange.request.body.startswith(b"call redacted-")
    assert "numbers" in str(exchange.attributes["tracefork.redacted"])


def test_without_their_rules_bodies_are_not_recorded(
    capture: Capture, raw: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the rules cannot be read the application goes on, and nothing that they might mean is kept."""
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\nheder = 'x'\n")
    with caplog.at_level("ERROR"):
        capture.on(redact=path)
    assert "unknown key 'heder'" in caplog.text
    response = fetch(
        httpx2, "sync", "POST", f"{raw}/echo?q=secret", content=b"secret", headers={"x-any": "secret"}
    )
    assert response.content == b"secret"
    recorded = capture.read()
    exchange = recorded.only()
    assert "secret" not in repr(exchange)
    assert (exchange.request.body, exchange.outcome) == (b"", "complete")
    assert "heder" in str(exchange.attributes["tracefork.withheld"])
    assert [note.kind for note in recorded.notes] == ["incomplete"]


def test_no_rules_load_nothing(tmp_path: Path) -> None:
    """Who has no rules does not pay for them: their modules are not even loaded."""
    code = (
        "import sys, tracefork_otel; from tracefork_otel import TraceforkInstrumentor as T; import httpx2\n"
        "transport = httpx2.MockTransport(lambda request: httpx2.Response(200))\n"
        "T().instrument(); httpx2.Client(transport=transport).get('http://x')\n"
        "rules = ['tracefork_otel.redaction.' + name for name in ('rules', 'reading', 'bodies', 'texts')]\n"
        "assert not {*rules, 'tomllib'} & {*sys.modules}"
    )
    run_python(code, store=tmp_path)
