"""The proxy in front of a real server: what passes is what was sent, and is recorded byte for byte."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import httpx2
import pytest
from proxied import proxying
from recorded import read_store
from tracefork_backend.network import ledger
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.proxy import Proxy, Upstream, based
from tracefork_backend.rerun.edits import request
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.settings import Settings
from tracefork_otel.wire.registry import root_of

KEY = "sk-ant-very-secret-key-0123456789"
DEADLINE_S = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store's directory."""
    return tmp_path / "store"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ModelServer]:
    """A model server, one for the module."""
    with ModelServer() as server:
        yield server


def exchanges(store: Path) -> list[Exchange]:
    """What the store holds, by start."""
    return sorted(read_store(store).exchanges, key=lambda one: one.started_ns)


def until(ready: Callable[[], object]) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def raw_upstream(
    answer: bytes, *, then: str = "close", seen: list[bytes] | None = None
) -> tuple[str, Callable[[], None]]:
    """A server that answers every connection with these bytes and closes or resets it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            got = connection.recv(65536)
            if seen is not None:
                seen.append(got)
            connection.sendall(answer)
            if then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def end() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)

    return f"http://127.0.0.1:{listener.getsockname()[1]}", end


@pytest.mark.parametrize(
    "path", ["/raw/bytes/100000?pieces=7", "/raw/encoded/gzip", "/raw/encoded/zstd", "/raw/204", "/raw/empty"]
)
def test_passes_what_the_upstream_sends(store: Path, upstream: ModelServer, path: str) -> None:
    """Status, headers and body bytes are those of a direct request, and the same stand in the store."""
    with httpx2.Client() as client:
        with client.stream("GET", upstream.url + path) as direct:
            expected = b"".join(direct.iter_raw())
        with proxying(upstream.url, store=store) as (url, _), client.stream("GET", url + path) as passed:
            body = b"".join(passed.iter_raw())
    assert (passed.status_code, body) == (direct.status_code, expected)
    kept = {"content-type", "content-encoding", "content-length"}
    assert {k: v for k, v in passed.headers.items() if k in kept} == {
        k: v for k, v in direct.headers.items() if k in kept
    }
    (found,) = exchanges(store)
    assert found.outcome == "complete"
    assert found.request.url == upstream.url + path
    assert found.response is not None
    assert found.response.body == expected


def test_forwards_the_key(store: Path) -> None:
    """The upstream gets the credentials and nothing of the connection's own headers."""
    got: list[bytes] = []
    origin, end = raw_upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", seen=got)
    try:
        with proxying(origin, store=store) as (url, _):
            headers = {"x-api-key": KEY, "te": "trailers", "connection": "keep-alive, x-hop", "x-hop": "1"}
            assert httpx2.post(url + "/v1/messages?key=abc", headers=headers, content=b"{}").text == "ok"
    finally:
        end()
    sent = got[0].lower()
    assert b"x-api-key: " + KEY.encode() in sent
    assert b"x-hop" not in sent
    assert b"\r\nte:" not in sent
    (found,) = exchanges(store)
    assert found.request.url == origin + "/v1/messages?key=REDACTED"


def test_never_stores_the_key(store: Path, upstream: ModelServer) -> None:
    """No file of the store holds the key; the calls of a real SDK are one run."""
    with proxying(upstream.url, store=store) as (url, _):
        client = anthropic.Anthropic(api_key=KEY, base_url=url)
        client.messages.create(
            model="claude-opus-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )
        with client.messages.stream(
            model="claude-opus-5", max_tokens=9, messages=[{"role": "user", "content": "two"}]
        ) as stream:
            assert stream.get_final_text() == "two"
    first, second = exchanges(store)
    assert "REDACTED" in dict(first.request.headers).values(), first.request.headers
    assert first.request.body == upstream.requests[-2].body
    assert second.response is not None
    assert len(second.response.chunk_sizes) > 1
    assert first.trace_id == second.trace_id
    for path in store.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_streams_through_unbuffered(store: Path, upstream: ModelServer) -> None:
    """The first event is with the client long before the upstream has sent the last."""
    with (
        proxying(upstream.url, store=store) as (url, _),
        httpx2.Client() as client,
        client.stream("GET", url + "/raw/sse?events=20&delay_ms=50") as response,
    ):
        arrivals = []
        for _ in response.iter_raw():
            arrivals.append(time.monotonic())
    assert arrivals[-1] - arrivals[0] > 0.5


def test_client_that_leaves_is_recorded_as_closed(store: Path, upstream: ModelServer) -> None:
    """What the client got before it left is in the store, the outcome is `closed`."""
    with proxying(upstream.url, store=store) as (url, proxy):
        stream = httpx2.stream("GET", url + "/raw/sse?events=200&delay_ms=20")
        with stream as response:
            first = next(response.iter_raw())
        until(lambda: not proxy.server_state.tasks)
    (found,) = exchanges(store)
    assert found.outcome == "closed"
    assert found.response is not None
    assert found.response.body.startswith(first)


def test_upstream_that_is_down_is_a_502(store: Path) -> None:
    """The client gets a 502 that says so and need not be tried again; recorded is that no response came."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        with proxying(nobody, store=store) as (url, _):
            response = httpx2.post(url + "/v1/messages", json={})
    assert response.status_code == 502
    assert "gave no answer" in response.json()["error"]["message"]
    (found,) = exchanges(store)
    assert found.outcome == "no_response"
    assert found.error_type == "httpx2.ConnectError"


@pytest.mark.parametrize("then", ["close", "reset"])
def test_upstream_that_breaks_off_cuts_the_client_off_too(store: Path, then: str) -> None:
    """The client sees a broken body, not a whole one; recorded is `cut` with the bytes that came."""
    origin, end = raw_upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfive!", then=then)
    try:
        with proxying(origin, store=store) as (url, _), pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(url)
    finally:
        end()
    (found,) = exchanges(store)
    assert found.outcome == "cut"
    assert found.response is not None
    assert found.response.body == b"five!"


def test_foreign_host_is_refused(store: Path, upstream: ModelServer) -> None:
    """A page that was made to resolve to loopback is answered 421, nothing is passed on or stored."""
    before = len(upstream.requests)
    with proxying(upstream.url, store=store) as (url, _):
        response = httpx2.get(url, headers={"host": "evil.example"})
        connect = httpx2.request("CONNECT", url)
    assert (response.status_code, connect.status_code) == (421, 405)
    assert len(upstream.requests) == before
    assert not store.exists() or not exchanges(store)


def test_use_as_https_proxy_is_answered_in_words(store: Path, upstream: ModelServer) -> None:
    """A client that tunnels through it, or names another host in its request line, is told why it may not."""
    with proxying(upstream.url, store=store) as (url, _):
        place = urlsplit(url)
        for line in ("CONNECT api.anthropic.com:443", "GET http://api.anthropic.com/v1/models"):
            with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as asking:
                asking.sendall(f"{line} HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\r\n".encode())
                asking.shutdown(socket.SHUT_WR)
                said = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
            assert " 405 " in said.partition("\r\n")[0]
            for part in ("not as HTTPS_PROXY", "base URL", "encrypted for the provider", "certificate"):
                assert part in said


@pytest.mark.slow
def test_runs_by_header(store: Path, upstream: ModelServer) -> None:
    """`x-tracefork-run` names a run, a traceparent gives its trace; the header stays here."""
    trace, span = "a" * 32, "b" * 16
    with proxying(upstream.url, store=store) as (url, _), httpx2.Client() as client:
        for name in ("one", "two", "one"):
            client.post(url + "/raw/echo", content=name.encode(), headers={"x-tracefork-run": name})
        client.post(url + "/raw/echo", content=b"x", headers={"traceparent": f"00-{trace}-{span}-01"})
    assert all(one.header("x-tracefork-run") is None for one in upstream.requests)
    found = exchanges(store)
    assert found[0].trace_id == found[2].trace_id != found[1].trace_id
    assert (found[3].trace_id, found[3].parent_span_id) == (trace, span)
    with open_store(store) as opened:
        assert sorted(run.name for run in opened.runs())[-2:] == ["one", "two"]


def test_many_runs_by_header_are_held_within_bounds(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more runs than are open at once the one that was asked for least recently ends; names are short."""
    monkeypatch.setattr(ledger, "MOST_RUNS", 3)
    book = ledger.Ledger(store, settings=Settings(), name="proxy")
    asked = Request(method="GET", url="https://example.test/")
    for name in ("a", "b", "a", "c", "d" * 60_000, "a"):
        book.begin(asked, {ledger.RUN_HEADER: name}).finish("no_response")
        assert len(book.run_ids) <= 3
    book.close()
    with open_store(store) as opened:
        runs = {run.name: (run.steps, run.status) for run in opened.runs()}
    assert {name: steps for name, (steps, _) in runs.items()} == {"a": 3, "b": 1, "c": 1, "d" * 200: 1}
    assert {status for _, status in runs.values()} == {"ok"}


def played(store: Path, tmp_path: Path, origin: str, ref: str = "last", change: Path | None = None) -> Proxy:
    """A proxy that plays a run of the store, or forks it with a change, writing into a store of its own."""
    tape = tmp_path / "run.tape.jsonl"
    with open_store(store) as opened:
        reconstruct(opened, opened.run(ref)).dump(tape)
    settings = replace(Settings(), mode="replay", store=tmp_path / "replays", tape=tape)
    if change is not None:
        settings = replace(settings, mode="fork", intervention=change)
    return Proxy([Upstream(socket=bind("127.0.0.1", 0), origin=origin)], settings=settings)


@pytest.mark.slow
def test_replays_without_the_upstream(store: Path, tmp_path: Path, upstream: ModelServer) -> None:
    """A tape answers with the recorded bytes and cuts; another request is a drift and goes nowhere."""
    with proxying(upstream.url, store=store) as (url, _), httpx2.Client() as client:
        whole = client.get(url + "/raw/sse?events=3").content
        with pytest.raises(httpx2.RemoteProtocolError):
            client.get(url + "/raw/cut?after=3")
    asked = len(upstream.requests)
    recorded = exchanges(store)
    with played(store, tmp_path, upstream.url) as proxy, httpx2.Client() as client:
        (port,) = proxy.upstreams
        again = f"http://127.0.0.1:{port}"
        assert client.get(again + "/raw/sse?events=3").content == whole
        with pytest.raises(httpx2.RemoteProtocolError):
            client.get(again + "/raw/cut?after=3")
        drifted = client.get(again + "/raw/sse?events=4")
    assert (drifted.status_code, drifted.headers["x-should-retry"]) == (502, "false")
    assert drifted.json()["error"]["type"] == "tracefork_drift"
    assert len(upstream.requests) == asked
    replayed = exchanges(tmp_path / "replays")
    assert [one.served_span_id for one in replayed] == [recorded[0].span_id, recorded[1].span_id, None]
    assert [one.outcome for one in replayed] == ["complete", "cut", "no_response"]
    assert replayed[0].response is not None
    assert recorded[0].response is not None
    assert replayed[0].response.chunk_sizes == recorded[0].response.chunk_sizes


@pytest.mark.slow
def test_a_fork_asks_another_model_where_the_url_names_it(
    store: Path, tmp_path: Path, upstream: ModelServer
) -> None:
    """With another model the recorded request goes to that model's path, its query and its key kept."""
    path = "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
    asked = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    headers = {"x-goog-api-key": KEY}
    with proxying(upstream.url, store=store) as (url, _), httpx2.Client(headers=headers) as client:
        client.post(url + path, json=asked).raise_for_status()
    with open_store(store) as opened:
        tape = reconstruct(opened, opened.run("last"))
    request(model="gemini-3-pro").bind(tape, 0).dump(tmp_path / "change.json")
    with played(store, tmp_path, upstream.url, change=tmp_path / "change.json") as proxy:
        (port,) = proxy.upstreams
        with httpx2.Client(headers=headers) as client:
            client.post(f"http://127.0.0.1:{port}{path}", json=asked).raise_for_status()
    sent = upstream.requests[-1]
    assert sent.path == path.replace("flash", "pro")
    assert (sent.header("x-goog-api-key"), sent.json()) == (KEY, asked)
    (forked,) = exchanges(tmp_path / "replays")
    assert "gemini-3-pro" in forked.request.url


@pytest.mark.slow
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_saved_whatever_way_it_is_stopped(store: Path, upstream: ModelServer, signal_name: str) -> None:
    """After Ctrl-C, SIGTERM and kill -9 the finished exchange is whole and the store opens."""
    import signal

    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    command = [sys.executable, "-m", "tracefork_backend.cli", "proxy", "--upstream", upstream.url]
    command += ["--port", "0", "--store", str(store)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[1]
        body = httpx2.get(url + "/raw/sse?events=3", timeout=DEADLINE_S).content
        process.send_signal(getattr(signal, signal_name))
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    if signal_name != "SIGKILL":
        assert process.returncode == (130 if signal_name == "SIGINT" else 0)
        assert "1 step: tracefork-otel show" in said
    with open_store(store) as opened:
        (run,) = opened.runs()
        assert run.status == ("killed" if signal_name == "SIGKILL" else "ok")
        (found,) = run.exchanges
    assert found.response is not None
    assert found.response.body == body


def talk(url: str) -> list[str]:
    """What an agent is told that knows nothing of us, in two turns."""
    messages: list[dict[str, str]] = []
    for turn in range(2):
        messages.append({"role": "user", "content": f"turn {turn}"})
        asked = {"model": "claude-opus-5", "max_tokens": 9, "messages": messages}
        said = httpx2.post(url + "/v1/messages", json=asked, timeout=DEADLINE_S).json()
        messages.append({"role": "assistant", "content": said["content"][0]["text"]})
    return [one["content"] for one in messages if one["role"] == "assistant"]


@pytest.mark.slow
def test_forks_an_agent_that_the_user_starts(store: Path, upstream: ModelServer) -> None:
    """`proxy --fork` serves up to the step, changes it, goes on live; it says if it never came there."""
    with proxying(upstream.url, store=store) as (url, _):
        assert talk(url) == ["turn 0", "turn 1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    command = [
        sys.executable,
        "-m",
        "tracefork_backend.cli",
        "proxy",
        "--upstream",
        upstream.url,
        "--port",
        "0",
    ]
    command += ["--store", str(store), "--text", "other words", "--fork"]
    with open_store(store) as opened:
        (recorded,) = opened.runs()
    asked = len(upstream.requests)
    for step, told, status in ((0, ["other words", "turn 1"], 130), (1, None, 3)):
        forked = [*command, f"{recorded.run_id}@{step}"]
        process = subprocess.Popen(forked, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[1]
            if told is not None:
                assert talk(url) == told
            process.send_signal(2)
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == status, said
    assert "never came to" in said
    assert len(upstream.requests) == asked + 1
    with open_store(store) as opened:
        (row,) = opened.rows("select parent_run_id, step, intervention, calls_live from forks")
    assert row == {"parent_run_id": recorded.run_id, "step": 0, "intervention": "text", "calls_live": 1}


def test_full_store_does_not_stop_the_agent(tmp_path: Path, upstream: ModelServer) -> None:
    """Where nothing can be written requests still pass, and the loss is counted."""
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    with proxying(upstream.url, store=blocked) as (url, proxy):
        response = httpx2.post(url + "/raw/echo", content=json.dumps({"a": 1}).encode())
    assert response.json() == {"a": 1}
    assert proxy.ledger.lost > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "/raw/echo/./a/../b",
        "/raw/echo?",
        '/raw/echo?q="a"&b=[1]{2}|^`',
        "/raw/echo//double///slashes",
        "/raw/echo?a=1?b=2&c=%7Bx%7d%2F",
        "/raw/echo/;p=1,2/~u/'x'!$*()",
        "/raw/echo/%zz%",
        "/raw/echo?&&==",
    ],
)
def test_a_path_is_passed_on_byte_for_byte(
    store: Path, tmp_path: Path, upstream: ModelServer, target: str
) -> None:
    """However odd it is spelled: so it reaches the upstream, so it is recorded, and so it is replayed."""

    def ask(port: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("GET", target)
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    with proxying(upstream.url, store=store) as (_, proxy):
        (port,) = proxy.upstreams
        status = ask(port)
    assert upstream.requests[-1].path == target
    (one,) = exchanges(store)
    assert one.request.url == upstream.url + target
    asked = len(upstream.requests)
    with played(store, tmp_path, upstream.url) as proxy:
        (port,) = proxy.upstreams
        assert ask(port) == status
    assert len(upstream.requests) == asked
    assert exchanges(tmp_path / "replays")[0].replayed


@pytest.mark.parametrize(
    "asked", ["/v1/messages", "/messages", "/v1/v1/messages", "/messages/count_tokens?beta=true"]
)
def test_base_urls_with_and_without_their_version(store: Path, upstream: ModelServer, asked: str) -> None:
    """Whether an SDK adds `/v1` to the base URL, or wants it there: the provider's own path is called."""
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    one = Upstream(socket=bind("127.0.0.1", 0), origin=upstream.url, base="/v1")
    with Proxy([one], settings=replace(Settings(), store=store)):
        httpx2.post(f"http://127.0.0.1:{one.port}{asked}", json=body)
    assert upstream.requests[-1].path == "/v1/messages" + asked.partition("messages")[2]
    assert exchanges(store)[0].request.url == upstream.url + upstream.requests[-1].path


@pytest.mark.parametrize(
    "path",
    [
        "/api/event_logging/batch",
        "/api/oauth/profile?beta=true",
        "/v1",
        "/",
        "/v1/v1/files",
        "/api/v1/messages",
        "/oauth/completions",
        "/v1x/messages",
        "/%6Dessages",
        "//messages",
    ],
)
def test_what_is_no_call_of_a_model_keeps_its_path(path: str) -> None:
    """Agents ask a provider's host for more than its API."""
    assert based(path, "/v1") == path


@pytest.mark.parametrize(
    "path", ["/messages", "/messages/batches/one/results", "/chat/completions?a=/v1/", "/responses/resp_1"]
)
def test_a_call_of_a_model_has_its_version(path: str) -> None:
    """And what is below such a path; where nothing is known of a host, nothing is put before."""
    assert [based(one, "/v1") for one in (path, "/v1" + path, "/v1/v1" + path)] == ["/v1" + path] * 3
    assert based(path, "") == path


def test_which_hosts_have_a_version_in_their_paths() -> None:
    """Those whose SDKs read a variable: elsewhere (a gateway) a path is nobody's but the user's."""
    hosts = (
        "api.anthropic.com",
        "api.openai.com",
        "generativelanguage.googleapis.com",
        "gateway.example.com",
    )
    assert [root_of(host) for host in hosts] == ["/v1", "/v1", "", ""]


def test_an_upgrade_that_is_not_made_is_no_warning(
    store: Path, upstream: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that offers HTTP/2 in plain text is answered, and the agent's terminal has no word of it."""
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    with proxying(upstream.url, store=store) as (url, _):
        assert httpx2.get(url + "/raw/empty", headers=offer).is_success
    assert caplog.records == []
