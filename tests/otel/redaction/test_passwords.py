"""Passwords known by what stands round them: on command lines, in URLs, headers, variables and requests."""

from __future__ import annotations

import gzip
import json
import sysconfig
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx2
import pytest
from tracefork_backend import open_store, replay

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.exchange import Request
from tracefork_otel.redaction.names import environment
from tracefork_otel.redaction.passwords import FORMS, compiled, without_secrets
from tracefork_otel.redaction.reading import of_keys
from tracefork_otel.redaction.redact import Redactor

PW = "hunter2"
TEXTS = (
    *(f"{kind}://me:{PW}@h.example/db" for kind in ("postgresql", "mysql+pymysql", "redis", "amqp", "https")),
    f"redis://:{PW}@h:6379/0",
    *(f"Server=tcp:h,1433;Database=d;User Id=me;{name}={PW};" for name in ("Password", "Pwd", "PWD")),
    f"Server=h; Integrated Security=False; Password={PW}; Encrypt=True",
    f"Password={PW};Server=h",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={PW}==;EndpointSuffix=core.windows.net",
    f"Endpoint=sb://h/;SharedAccessKeyName=a;SharedAccessKey={PW}=",
    f"host=h user=me password={PW} dbname=d",
    f"password={PW} host=h",
    f"machine h.example\nlogin me\npassword {PW}\n",
    f"machine h login me account a password {PW}",
    f"default login me password {PW}",
    f"curl -sS -u me:{PW} https://h.example/",
    f"curl \\\n  --user 'me:{PW}' \\\n  https://h.example/",
    f"curl --proxy-user=me:{PW} https://h.example/",
    f"http -a me:{PW} GET https://h.example/",
    f"mysql -h h -u root -p{PW} db",
    f"mysqldump -u root -p '{PW}' db",
    f"cd /x && /usr/bin/mysql -p{PW}",
    f"sshpass -p {PW} ssh me@h",
    f"redis-cli -a {PW} ping",
    f"sqlcmd -S h -U sa -P {PW}",
)
"""Texts with a password in them."""
PLAIN = (
    "docker run -p 8080:80 -u 1000:1000 image",
    "docker run --user app:app -p 5432 postgres",
    "mysql -P 3306 -p 8080",
    "docker run --name mysql -p 3306:3306 -d mysql",
    "docker run --name mysql -p 127.0.0.1:3306:3306/tcp mysql",
    "mysql -u root -p$PW -h h",
    "mkdir -p a/b && ssh -p 22 me@h",
    "claude -p 'what is a password?'",
    "python -m pytest -p no:randomly -u x",
    "rsync -u host:/a b",
    "curl -u me https://h.example/",
    "curl -u $USER:$PASSWORD https://h.example/a:b@c",
    "postgresql://me:${PASSWORD}@h/db and postgresql://me@h/db",
    "http://localhost:8080/a@b https://h.example/x?at=10:30@noon",
    "a password = get(); password=x; token=1; f(password=password)",
    "the default login page asks for a password at once",
    "max_tokens: 500, 12 tokens, password: change it",
    "for (;;) { password=next(); }",
    "see `curl --help`; -u is --user",
    "git@github.com:me/x.git 10:30@noon",
)
"""Texts without one."""


def request(body: bytes, media: str = "application/json", redactor: Redactor | None = None) -> Request:
    """The request as it is recorded."""
    raw = [(b"content-type", media.encode())]
    return (redactor or Redactor()).request("POST", "https://a.example/x", raw, body)


@pytest.mark.parametrize("text", TEXTS)
def test_a_password_is_replaced_wherever_it_stands(text: str) -> None:
    """And nothing else of the text."""
    redactor = Redactor()
    shown = without_secrets(text, "REDACTED")
    assert PW not in shown
    before, after = shown.split("REDACTED")
    assert text.startswith(before)
    assert text.endswith(after)
    assert PW not in redactor.error(f"failed: {text}")
    line = " ".join(text.split())
    headers = redactor.request("GET", "https://h/", [(b"x-note", line.encode())], b"").headers
    assert PW not in headers[0][1]
    assert PW not in " ".join(redactor.command(["bash", "-c", text]))
    assert PW not in " ".join(redactor.command(["agent.py", "--task", text]))
    assert PW not in redactor.url(f"https://h/?q={quote(text, safe='')}")
    assert PW not in json.dumps(environment({"PLAIN": text})[0])
    for asked in (
        {"model": "m", "messages": [{"role": "user", "content": f"do this: {text}"}]},
        {"model": "m", "messages": [{"role": "tool", "content": json.dumps({"said": text})}]},
    ):
        body = json.dumps(asked).encode()
        made = request(body)
        assert PW not in made.body.decode()
        assert made.sent == body
        assert made.hidden[1].startswith("body keys=")
        packed = [(b"content-encoding", b"gzip"), (b"content-type", b"application/json")]
        told = redactor.request("POST", "https://h/", packed, gzip.compress(body))
        assert gzip.decompress(told.body) == made.body
    assert PW.encode() not in request(text.encode(), "text/plain").body
    assert PW.encode() in request(text.encode(), "text/plain", Redactor(known=False)).body
    assert PW.encode() not in request(json.dumps([text]).encode(), redactor=Redactor(rules=of_keys())).body


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    """Ports, places, users, variables, prose and code."""
    redactor = Redactor()
    assert without_secrets(text, "REDACTED") == text
    assert redactor.error(text) == text
    if "password" not in text and "${" not in text:  # a word `password=x` assigns one
        assert redactor.command(["agent.py", text]) == ("agent.py", text)
        assert redactor.command(["agent.py", *text.split()]) == ("agent.py", *text.split())
    body = json.dumps({"messages": [{"content": text}]}).encode()
    assert request(body).body == body


def test_an_option_without_its_password_is_prose() -> None:
    """The next word is none: mysql asks for it then."""
    body = json.dumps({"messages": [{"content": "ask mysql with -p instead of a variable"}]}).encode()
    assert request(body).body == body


@pytest.mark.parametrize(
    "words",
    [
        *(tuple(text.replace("'", "").replace("\\\n", "").split()) for text in TEXTS if text[:6] != "Server"),
        ("agent.py", "-u", f"me:{PW}"),
        ("agent.py", f"--user=me:{PW}"),
        ("curl", f"-ume:{PW}", "h"),
        ("/usr/bin/mysql", f"-p{PW}"),
        ("docker", "run", "x", "mysql", "-p", PW),
    ],
)
def test_arguments_that_are_passwords_are_replaced(words: tuple[str, ...]) -> None:
    """As words of their own, or joined to their option."""
    if "machine" not in words and "default" not in words and not any("password=" in one for one in words):
        assert PW not in " ".join(Redactor().command(("run", *words)))


def test_forms_that_sign_in() -> None:
    """An assertion of SAML, a client's secret and a password go; who that is, and all else, stays."""
    asked = {"SAMLResponse": "PHNhbWw+/=", "client_secret": PW, "password": PW, "username": "me", "q": "a b"}
    made = request(urlencode(asked).encode(), "application/x-www-form-urlencoded")
    assert made.body == (b"SAMLResponse=REDACTED&client_secret=REDACTED&password=REDACTED&username=me&q=a+b")
    assert Redactor().url("https://h/?SAMLResponse=abc&x=1") == "https://h/?SAMLResponse=REDACTED&x=1"


def test_python_and_its_packages_are_left_alone() -> None:
    """Of the library only addresses that are examples of passwords are touched."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(errors="replace") for path in files]
    assert [
        path.name
        for path, text in zip(files, texts, strict=True)
        if "://" not in text and without_secrets(text, "") != text
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["curl -u ", "curl ", "mysql -p1 ", "host=a;", "uid=a;Pwd= ", "://" + "a" * 120, "password=x ",
     "machine a login b ", "curl -u " + "a" * 120 + " ", "user=b="],
)  # fmt: skip
def test_time_grows_with_the_length(unit: str) -> None:
    """What is twice as long takes some twice as long, however hostile."""
    spent: list[float] = []
    for size in (100_000, 400_000):
        text = unit * (size // len(unit)) + " password=; curl mysql machine "
        begun = time.thread_time()
        for form in FORMS:
            compiled(form.pattern).search(text)
        spent.append(time.thread_time() - begun)
    assert spent[1] < 10 * spent[0], spent


# --- runs ---


class _Answers(BaseHTTPRequestHandler):
    """A model that says a connection's text to whoever asks."""

    protocol_version = "HTTP/1.1"
    seen: list[bytes]

    def do_POST(self) -> None:
        """Answer."""
        type(self).seen.append(self.rfile.read(int(self.headers["content-length"])))
        text = json.dumps({"choices": [{"message": {"role": "assistant", "content": f"n{len(self.seen)}"}}]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """The model's URL, and what it was asked."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    seen: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (_Answers,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions", seen
    server.shutdown()
    server.server_close()


def agent(url: str, password: str = PW) -> str:
    """Ask twice, the second time with the first answer, each time with every text."""
    said: list[str] = []
    for _ in range(2):
        texts = [text.replace(PW, password) for text in TEXTS] + said
        asked = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
        said.append(httpx2.post(url, json=asked).json()["choices"][0]["message"]["content"])
    httpx2.post(url, data={"SAMLResponse": password, "password": password, "x": "1"})
    return " ".join(said)


@pytest.mark.slow
def test_run_and_replay(model: tuple[str, list[bytes]], tmp_path: Path) -> None:
    """No file of the store has the password, the model had it; the replay is exact, another one a drift."""
    url, seen = model
    TraceforkInstrumentor().instrument(store=tmp_path / "s", http_spans=False)
    try:
        agent(url)
    finally:
        TraceforkInstrumentor().uninstrument()
    assert all(PW.encode() in body for body in seen)
    run = open_store(tmp_path / "s").run("last")
    assert PW not in repr(run.exchanges)
    result = replay(run, agent=lambda: agent(url))
    assert result.receipt[-1] == "PASS    bit-exact", result.receipt
    assert len(seen) == 3
    (drift,) = replay(run, agent=lambda: agent(url, "another")).drifts[:1]
    assert (drift.path, drift.cause) == ("body keys", "parameter")
