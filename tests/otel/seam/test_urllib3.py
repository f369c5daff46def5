"""urllib3, and requests on it: one exchange per attempt, byte-exact, and given back without a network."""

from __future__ import annotations

import gc
import gzip
import io
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from conftest import Capture
from e2e.command import here
from hypothesis import given
from hypothesis import strategies as st
from otel.seam.test_serve import replaying
from recorded import read_store
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

from tracefork_otel.exchange import Response
from tracefork_otel.seam import pooled
from tracefork_otel.seam.http1 import Framing, Played, wire

ENCODED = {"accept-encoding": "gzip, br, zstd"}


def by_requests(method: str, url: str, body: Any = None, *, cuts: bool = False, **more: Any) -> Any:
    """What an application sees of a response, by a fresh session of requests."""
    with requests.Session() as session:
        session.headers["accept-encoding"] = more.pop("encoding", "identity")
        got = session.request(method, url, data=body, stream=cuts, timeout=5, **more)
        read = list(got.iter_content(None)) if cuts else got.content
        return got.status_code, got.reason, list(got.headers.items()), read


def by_urllib3(method: str, url: str, body: Any = None, *, cuts: bool = False, **more: Any) -> Any:
    """The same by a fresh pool manager."""
    with urllib3.PoolManager() as pools:
        headers = {"accept-encoding": more.pop("encoding", "identity")}
        got = pools.request(
            method, url, body=body, headers=headers, preload_content=not cuts, timeout=5, retries=4, **more
        )
        read = list(got.stream(None)) if cuts else got.data
        return got.status, got.reason, list(got.headers.items()), read


CLIENTS = pytest.mark.parametrize("ask", [by_requests, by_urllib3], ids=["requests", "urllib3"])


@CLIENTS
@pytest.mark.parametrize(
    "path",
    [
        "encoded/gzip",
        "encoded/zstd",
        "bytes/5000",
        "empty",
        "204",
        "status/404",
        "status/503",
        "sse?events=3",
    ],
)
def test_a_body_is_recorded_and_given_back(
    ask: Callable[..., Any], path: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """What is recorded is what came over the wire; a replay shows the same, with no server."""
    url = f"{raw}/{path}"
    plain = ask("GET", url, encoding=ENCODED["accept-encoding"])
    capture.on()
    seen = ask("GET", url, encoding=ENCODED["accept-encoding"])
    recorded = capture.read()
    exchange = recorded.only()
    assert (seen[0], seen[1], seen[3]) == (plain[0], plain[1], plain[3])
    assert exchange.outcome == "complete"
    assert exchange.response is not None
    assert (exchange.response.status, exchange.response.reason_phrase) == (seen[0], seen[1])
    assert exchange.response.headers == tuple(seen[2])
    assert exchange.request.url == url
    if path == "encoded/gzip":
        assert gzip.decompress(exchange.response.body) == seen[3]
    with replaying(recorded, tmp_path / "r") as store:
        assert ask("GET", url, encoding=ENCODED["accept-encoding"]) == seen
    again = read_store(store).only()
    assert again.replayed
    assert again.served_span_id == exchange.span_id
    assert again.response is not None
    assert again.response.body == exchange.response.body


@CLIENTS
def test_chunks_come_as_they_were_sent(
    ask: Callable[..., Any], capture: Capture, raw: str, tmp_path: Path
) -> None:
    """A stream is held back neither while it is recorded nor in a replay; its cuts are the server's."""
    url = f"{raw}/sse?events=5&delay_ms=20"
    capture.on()
    seen = ask("GET", url, cuts=True)
    recorded = capture.read()
    response = recorded.only().response
    assert response is not None
    assert list(response.chunks()) == seen[3]
    assert len(seen[3]) >= 5
    assert response.chunk_offsets_us[-1] - response.chunk_offsets_us[0] >= 60_000
    with replaying(recorded, tmp_path / "r"):
        assert ask("GET", url, cuts=True) == seen


def test_a_stream_is_read_as_it_comes(capture: Capture, raw: str) -> None:
    """The first event is there long before the last was sent."""
    capture.on()
    with requests.get(f"{raw}/sse?events=4&delay_ms=150", stream=True, timeout=5) as got:
        lines = got.iter_lines(chunk_size=1024)
        started = time.monotonic()
        next(lines)
        assert time.monotonic() - started < 0.3
        assert len(list(lines)) > 3


@CLIENTS
def test_bodies_that_are_sent(ask: Callable[..., Any], capture: Capture, raw: str, tmp_path: Path) -> None:
    """Text, bytes, files and generators arrive as without us, and are recorded as the server got them."""
    parts = [b"one,", b"two,", bytes(100_000), b"three"]
    file = tmp_path / "sent.bin"
    file.write_bytes(b"\xff\x00file" * 2000)
    bodies: list[tuple[Callable[[], Any], bytes]] = [
        (lambda: "text \u00e9", "text \u00e9".encode("utf-8" if urllib3.__version__ >= "2" else "latin-1")),
        (lambda: bytes(range(256)) * 4000, bytes(range(256)) * 4000),
        (lambda: iter(parts), b"".join(parts)),
        (lambda: file.open("rb"), file.read_bytes()),
        (lambda: io.BytesIO(b"memory"), b"memory"),
    ]
    capture.on()
    for make, expected in bodies:
        assert ask("POST", f"{raw}/echo", make())[3] == expected
    recorded = capture.read()
    assert [one.request.body for one in recorded.in_order()] == [expected for _, expected in bodies]
    with replaying(recorded, tmp_path / "r"):
        for make, expected in bodies:
            assert ask("POST", f"{raw}/echo", make())[3] == expected


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        piece = super().read(size)
        self.given += len(piece)
        return piece


@CLIENTS
def test_a_file_is_read_once(ask: Callable[..., Any], capture: Capture, raw: str, tmp_path: Path) -> None:
    """What is uploaded of a file is kept as it is sent: it may be larger than the memory, or slow."""
    content = b"\xff\x00file" * 50_000
    capture.on()
    file = Counted(content)
    assert ask("POST", f"{raw}/echo", file)[3] == content
    assert file.given == len(content)
    recorded = capture.read()
    assert recorded.only().request.body == content
    with replaying(recorded, tmp_path / "r"):
        assert ask("POST", f"{raw}/echo", Counted(content))[3] == content


def test_redirects_and_retries_are_exchanges(capture: Capture, raw: str, tmp_path: Path) -> None:
    """Each hop and each attempt is an exchange of its own, in a replay too."""
    retry = urllib3.Retry(total=2, status_forcelist=[503], backoff_factor=0)

    def ask() -> list[Any]:
        with urllib3.PoolManager(retries=retry) as pools:
            one = pools.request("GET", f"{raw}/redirect?to=/raw/empty")
            with pytest.raises(urllib3.exceptions.MaxRetryError):
                pools.request("GET", f"{raw}/status/503")
        return [one.status, one.data]

    capture.on()
    seen = ask()
    recorded = capture.read()
    told = [one.response and one.response.status for one in recorded.in_order()]
    assert told == [307, 200, 503, 503, 503]
    with replaying(recorded, tmp_path / "r"):
        assert ask() == seen


@CLIENTS
def test_what_breaks_breaks_again(
    ask: Callable[..., Any], capture: Capture, raw: str, tmp_path: Path
) -> None:
    """A connection that is refused, breaks in mid-body or is too slow ends alike in a replay."""

    def ends(url: str, **more: Any) -> tuple[str, str]:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ask("GET", url, cuts=True, **more)
        return type(caught.value).__name__, type(getattr(caught.value, "reason", None)).__name__

    urls = ["http://127.0.0.1:9/nobody", f"{raw}/cut?after=3"]
    capture.on()
    seen = [ends(url) for url in urls]
    recorded = capture.read()
    refused, cut = recorded.in_order()[0], recorded.in_order()[-1]
    assert refused.outcome == "no_response"
    assert refused.error_type == "urllib3.exceptions.NewConnectionError"
    assert cut.outcome == "cut"
    assert cut.response is not None
    assert cut.response.body.count(b"event: tick") == 3
    with replaying(recorded, tmp_path / "r"):
        assert [ends(url) for url in urls] == seen


def test_a_timeout_is_kept_and_raised_again(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A read that takes too long is `failed`, and a replay fails alike, and at once."""

    def ask() -> list[bytes]:
        got: list[bytes] = []
        response = requests.get(f"{raw}/sse?events=9&delay_ms=900", stream=True, timeout=0.4)
        with pytest.raises(requests.exceptions.ConnectionError, match="timed out"):
            got.extend(response.iter_content(None))
        return got

    capture.on()
    seen = ask()
    assert seen
    recorded = capture.read()
    assert recorded.only().outcome == "failed"
    with replaying(recorded, tmp_path / "r"):
        assert ask() == seen


def test_streams_that_are_left(capture: Capture, raw: str, tmp_path: Path) -> None:
    """One that is closed early is `closed`, one that is dropped is `abandoned` once another call is made."""
    url = f"{raw}/sse?events=400"

    def ask() -> bytes:
        pools = urllib3.PoolManager()
        left: Any = pools.request("GET", url, preload_content=False)
        first = left.read(9)
        left.close()
        dropped: Any = pools.request("GET", url, preload_content=False)
        dropped.read(9)
        dropped.itself = dropped  # only the collector can free it
        del dropped
        gc.collect()
        pools.request("GET", f"{raw}/empty")
        return first

    capture.on()
    seen = ask()
    recorded = capture.read()
    assert [one.outcome for one in recorded.in_order()] == ["closed", "abandoned", "complete"]
    with replaying(recorded, tmp_path / "r"):
        assert ask() == seen


def test_clients_made_before_and_threads(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A session that was there before is recorded, from many threads at once; keys are in no record."""
    session = requests.Session()
    session.headers["authorization"] = "Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"

    def ask(number: int) -> bytes:
        return session.post(f"{raw}/echo", data=f"number {number}", timeout=5).content

    def all_at_once() -> list[bytes]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(ask, range(24)))

    ask(0)
    capture.on()
    seen = all_at_once()
    recorded = capture.read()
    assert len(recorded.exchanges) == 24
    assert "abcdefghij" not in repr(recorded)
    with replaying(recorded, tmp_path / "r") as store:
        assert all_at_once() == seen
    assert len(read_store(store).exchanges) == 24
    session.close()


def test_nothing_of_a_replay_reaches_the_network(capture: Capture, raw: str, tmp_path: Path) -> None:
    """By a proxy too, over TLS, or where the tape has no answer: the connection is refused."""
    capture.on()
    requests.get(f"{raw}/empty", timeout=5)
    recorded = capture.read()
    asked: list[object] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        replaying(recorded, tmp_path / "r"),
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(socket.socket, "connect", lambda *args: asked.append(args))
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for url, proxies in (
            (f"{raw}/other", {}),
            ("https://127.0.0.1:9/", {}),
            ("https://model.test/v1", {"https": proxy}),
        ):
            with pytest.raises(requests.exceptions.ConnectionError, match="tracefork replay"):
                requests.get(url, proxies=proxies, timeout=5)
        assert requests.get(f"{raw}/empty", timeout=5).content == b""
    assert asked == []


def test_by_way_of_a_proxy(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A request through a proxy is recorded under the URL that was asked for, and given back."""
    proxies = {"http": raw.removesuffix("/raw")}
    capture.on()
    seen = requests.get("http://nowhere.test/raw/bytes/9", proxies=proxies, timeout=5).content
    recorded = capture.read()
    assert recorded.only().request.url == "http://nowhere.test/raw/bytes/9"
    with replaying(recorded, tmp_path / "r"):
        assert requests.get("http://nowhere.test/raw/bytes/9", proxies=proxies, timeout=5).content == seen


def test_exporters_are_not_recorded(capture: Capture, raw: str) -> None:
    """What OpenTelemetry's exporter sends by requests is no exchange."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    capture.on()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{raw}/echo")))
    provider.get_tracer("a").start_span("b").end()
    provider.shutdown()
    assert capture.read().exchanges == []


def test_all_is_taken_back(capture: Capture, raw: str) -> None:
    """After `uninstrument()` nothing of urllib3 is ours."""
    before = urllib3.HTTPConnectionPool._make_request
    capture.on()
    assert urllib3.HTTPConnectionPool._make_request is not before
    capture.off()
    assert urllib3.HTTPConnectionPool._make_request is before
    assert not pooled.is_captured()


def test_a_version_that_does_not_fit_is_left_alone(capture: Capture) -> None:
    """Pools without what is wrapped are named in the log and the store, and stay as they are."""
    pools = SimpleNamespace(
        HTTPConnectionPool=type("HTTPConnectionPool", (), {}), HTTPSConnectionPool=type("S", (), {})
    )
    module: Any = SimpleNamespace(__name__="urllib9", __version__="9.1")
    capture.on()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "urllib9.connectionpool", pools)
        pooled.install(module)
    (note,) = capture.read().notes
    assert "urllib9 9.1 is not captured: it has no HTTPConnectionPool._make_request" in str(note.attributes)


PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(
    pieces=PIECES, cuts=st.lists(st.integers(1, 30), max_size=40), chunked=st.booleans(), length=st.booleans()
)
def test_any_cuts_of_any_framing_give_the_body(
    pieces: list[bytes], cuts: list[int], chunked: bool, length: bool
) -> None:
    """However a connection's bytes are read, the body is what was sent, and its end is seen."""
    body = b"".join(pieces)
    told = (("transfer-encoding", "chunked"),) if chunked else (("content-length", str(len(body))),) * length
    recorded = Response(status=200, headers=told, body=body, chunk_sizes=tuple(map(len, pieces)))
    sent = b"".join(wire(recorded, pieces, method="GET", whole=True))
    after = sent[sent.index(b"\r\n\r\n") + 4 :]
    framing = Framing(chunked=chunked, length=len(body) if length and not chunked else None)
    found: list[bytes] = []
    at = 0
    for size in [*cuts, len(after)]:
        found += framing.take(after[at : at + size])
        at += size
    assert b"".join(found) == body
    assert framing.complete or framing.ends_with_connection
    file = Played(iter([sent])).makefile("rb")
    assert file.read() == sent


def test_what_is_no_chunk_is_an_error_of_the_recorder_alone() -> None:
    """A server that does not keep to the framing is told by ValueError, not by wrong bytes."""
    with pytest.raises(ValueError, match="invalid literal"):
        list(Framing(chunked=True, length=None).take(b"no number\r\n"))
    with pytest.raises(ValueError, match="no chunk begins"):
        list(Framing(chunked=True, length=None).take(b"1" * 70_000))


AGENT = """
import os
import requests

said, told = [], ""
for turn in ("one", "two", "three"):
    said.append({"role": "user", "content": turn})
    answer = requests.post(
        os.environ["MODEL_URL"] + "/chat/completions",
        json={"model": "gpt-4o", "messages": said},
        headers={"authorization": "Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"},
        timeout=9,
    )
    said.append(answer.json()["choices"][0]["message"])
print(said[-1]["content"])
"""


@pytest.mark.slow
def test_an_agent_on_requests(tmp_path: Path) -> None:
    """By the commands: recorded whole, replayed to its output, forked by an answer and by another model."""
    (tmp_path / "agent.py").write_text(AGENT)
    with ModelServer(lambda call: Reply(text=f"{call.model}: {len(call.messages)}")) as server:
        env = {"MODEL_URL": server.openai_url}
        assert here("run", "--", sys.executable, "agent.py", cwd=tmp_path, **env).status == 0
        arrived = len(server.requests)
        replayed = here("replay", "last", cwd=tmp_path, **env)
        assert len(server.requests) == arrived == 3
        forked = here("fork", "last@1", "--text", "other", cwd=tmp_path, **env)
        other = here("fork", "last~1@1", "--model", "gpt-4o-mini", cwd=tmp_path, **env)
        asked = [request.body for request in server.requests[arrived:]]
        late = here("fork", "last~2@1", "--fault", "timeout", cwd=tmp_path, **env)
    assert "PASS" in replayed.out
    assert "1 served, 1 edited, 1 live" in forked.out
    assert "requests.exceptions.ReadTimeout" in late.out + late.err
    assert "held in 2 of 2 requests" in other.out
    assert b"other" in asked[0]
    assert [b"gpt-4o-mini" in body for body in asked] == [False, True, True]
    with open_store(tmp_path / ".tracefork") as store:
        run = store.run("last~3")
        assert run.complete
        assert not run.unseen
        rows = store.sql("select provider, model, operation from exchanges where run_id = ?", [run.run_id])
        assert set(rows.fetchall()) == {("openai", "gpt-4o", "chat")}
        assert not any("abcdefghij" in repr(exchange) for exchange in run.exchanges)
