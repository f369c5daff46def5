"""Slow, huge, endless, half and hostile requests are refused within bounds, and a good one is answered."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tracefork_backend.network import connections, otlp
from tracefork_backend.network import proxy as proxying
from tracefork_backend.network import receiver as receiving
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.proxy import Proxy, Upstream
from tracefork_backend.network.receiver import Receiver
from tracefork_backend.simulate import ModelServer

from tracefork_otel.settings import Settings

HEAD = b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n"
MB = 1024 * 1024


def receiver(store: Path, **bounds: Any) -> Receiver:
    """A receiver that is not started yet."""
    return Receiver(bind("127.0.0.1", 0), store=store, **bounds)


def connected(port: int, sent: bytes = b"") -> socket.socket:
    """A connection that has sent so much."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=10)
    opened.sendall(sent)
    return opened


def answered(port: int, sent: bytes) -> bytes:
    """What comes back until the connection is closed, or nothing more comes for a while."""
    with connected(port, sent) as opened:
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := opened.recv(65536):
                got += part
                opened.settimeout(0.2)
        return got


def is_closed(opened: socket.socket) -> bool:
    """Whether the other side closes the connection."""
    try:
        return opened.recv(1) == b""
    except ConnectionError:
        return True


def takes_spans(port: int) -> bool:
    """Whether a good request is answered 200."""
    answer = httpx2.post(
        f"http://127.0.0.1:{port}/v1/traces", content=b"", headers={"content-type": "application/x-protobuf"}
    )
    return answer.status_code == 200


def until(ready: Any) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_half_sent_bodies_count(tmp_path: Path) -> None:
    """Bodies of which a half came take room like whole ones; the room is free again when their senders go."""
    with receiver(tmp_path / "s", max_waiting=100_000) as served:
        half = HEAD + b"content-length: 80000\r\n\r\n" + b"x" * 40_000
        opened = [connected(served.port, half) for _ in range(2)]
        until(lambda: served._room.held == 80_000)
        assert answered(served.port, half).startswith(b"HTTP/1.1 429")
        assert served._room.held == 80_000
        for one in opened:
            one.close()
        until(lambda: not served._room.held)
        assert takes_spans(served.port)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/tr",
        HEAD,
        HEAD + b"content-length: 10\r\n\r\n12345",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n123",
        HEAD + b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n",
        HEAD + b"content-length: 0\r\n\r\n",
    ],
    ids=["nothing", "line", "head", "body", "chunk", "expects", "second"],
)
def test_a_request_has_to_arrive(tmp_path: Path, sent: bytes) -> None:
    """What comes by half is waited for so long and no longer."""
    served = receiver(tmp_path / "s")
    served.connections.arrival_s = 0.2
    with served, connected(served.port, sent) as opened:
        if sent.endswith(b"length: 0\r\n\r\n"):
            assert opened.recv(65536).startswith(b"HTTP/1.1 200")
            opened.sendall(b"POST /v1/tr")
        if b"expect" in sent:
            assert opened.recv(65536).startswith(b"HTTP/1.1 100")
        assert is_closed(opened)
        until(lambda: not served.connections.transports)
        assert not served.connections.waiting
        assert takes_spans(served.port)


def test_a_byte_now_and_then_gives_no_more_time(tmp_path: Path) -> None:
    """Whoever sends on slowly is closed like one who sends nothing."""
    served = receiver(tmp_path / "s")
    served.connections.arrival_s = 0.3
    with served, connected(served.port, HEAD + b"content-length: 1000\r\n\r\n") as opened:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 60:
                opened.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() < began + 55


def test_a_large_body_that_goes_on_has_the_time_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that comes faster than the slowest rate is waited for beyond the limit."""
    monkeypatch.setattr(connections, "SLOWEST", 1000)
    served = receiver(tmp_path / "s")
    served.connections.arrival_s = 0.1
    with served, connected(served.port, HEAD + b"content-length: 4000\r\n\r\n") as opened:
        for _ in range(8):
            opened.sendall(b"\xff" * 500)
            time.sleep(0.05)
        assert opened.recv(65536).startswith(b"HTTP/1.1 400")


def test_a_refused_body_that_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was refused gets the answer, may go on sending for a moment, and then is closed."""
    monkeypatch.setattr(connections, "LINGER_S", 0.2)
    with (
        receiver(tmp_path / "s", max_compressed=1000) as served,
        connected(served.port, HEAD + b"transfer-encoding: chunked\r\n\r\n") as opened,
    ):
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 60:
                opened.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert time.monotonic() < began + 55
        assert takes_spans(served.port)


def test_who_waited_longest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more half-open connections than are kept, the oldest goes; a good request is answered."""
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    monkeypatch.setattr(connections, "PATIENCE_S", 0)
    with receiver(tmp_path / "s") as served, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connected(served.port, b"POST ")) for _ in range(30)]
        until(lambda: len(served.connections.transports) == 20)
        assert all(is_closed(one) for one in opened[:10])
        assert takes_spans(served.port)


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process may open two files for each of a thousand connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != before[1] < 4096:
        pytest.skip("the machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def all_at_once(served: Receiver) -> Iterator[None]:
    """What is sent in the block is taken from the backlog together, after it."""
    sent = threading.Event()
    assert served._loop
    served._loop.call_soon_threadsafe(sent.wait, 20)
    yield
    sent.set()


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_a_burst_of_honest_requests_is_answered(tmp_path: Path) -> None:
    """Of 700 that connect and ask at the same moment each gets its answer, and another one."""
    request = HEAD + b"content-length: 0\r\n\r\n"
    with receiver(tmp_path / "s") as served, contextlib.ExitStack() as stack:
        with all_at_once(served):
            opened = [stack.enter_context(connected(served.port, request)) for _ in range(700)]
        until(lambda: len(served.connections.idle) == 700)
        with all_at_once(served):
            for one in opened:
                assert one.recv(65536).startswith(b"HTTP/1.1 200")
                one.sendall(request)
        assert {one.recv(12) for one in opened} == {b"HTTP/1.1 200"}


def test_an_idle_connection_makes_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were answered and ask nothing more go before those whose request is on its way."""
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    monkeypatch.setattr(connections, "PATIENCE_S", 0)
    with receiver(tmp_path / "s") as served, contextlib.ExitStack() as stack:
        half = [stack.enter_context(connected(served.port, b"POST ")) for _ in range(10)]
        until(lambda: len(served.connections.waiting) == 10)
        idle = [
            stack.enter_context(connected(served.port, HEAD + b"content-length: 0\r\n\r\n"))
            for _ in range(10)
        ]
        until(lambda: len(served.connections.idle) == 10)
        more = [stack.enter_context(connected(served.port, b"POST ")) for _ in range(10)]
        until(lambda: len(served.connections.waiting) == 20)
        assert not served.connections.idle
        for one in idle:
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
        assert all(is_closed(one) for one in idle)
        for one in half + more:
            one.sendall(HEAD[5:] + b"content-length: 0\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 200"


def test_where_files_are_scarce_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the process has files for go at once, oldest first, however short they waited."""
    monkeypatch.setattr(connections, "MOST_WAITING", 5)
    with receiver(tmp_path / "s") as served, contextlib.ExitStack() as stack:
        served.connections.most_at_once = 20
        opened = [stack.enter_context(connected(served.port, b"POST ")) for _ in range(30)]
        until(lambda: len(served.connections.transports) == 20)
        assert all(is_closed(one) for one in opened[:10])
        assert takes_spans(served.port)


@contextlib.contextmanager
def proxy(tmp_path: Path) -> Iterator[tuple[Proxy, ModelServer]]:
    """A proxy in front of a server."""
    with ModelServer() as upstream:
        one = Upstream(socket=bind(), origin=upstream.url)
        with Proxy([one], settings=Settings(store=tmp_path / "proxied")) as served:
            yield served, upstream


@contextlib.contextmanager
def both(tmp_path: Path) -> Iterator[tuple[int, int, ModelServer]]:
    """The ports of a receiver and of a proxy, and the proxy's upstream."""
    with receiver(tmp_path / "received") as served, proxy(tmp_path) as (proxied, upstream):
        yield served.port, next(iter(proxied.upstreams)), upstream


def test_requests_beyond_the_files_there_are_ask_again(tmp_path: Path) -> None:
    """Who asks while as many requests go on as there is room for gets 429 or 503, and is answered later."""
    with receiver(tmp_path / "s") as served, proxy(tmp_path) as (proxied, upstream):
        for one, port, status in ((served, served.port, 429), (proxied, next(iter(proxied.upstreams)), 503)):
            one._room.most_requests = 3
            with contextlib.ExitStack() as stack:
                half = [
                    stack.enter_context(connected(port, HEAD + b"content-length: 2\r\n\r\n{"))
                    for _ in range(3)
                ]
                until(lambda one=one: one._room.requests == 3)
                assert re.match(b"HTTP/1.1 %d " % status, answered(port, HEAD + b"content-length: 0\r\n\r\n"))
                for connection in half:
                    connection.close()
                until(lambda one=one: one._room.requests == 0)
        assert takes_spans(served.port)
        assert not upstream.requests


def test_few_connections_are_accepted_before_the_first_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a burst beyond the files there are the oldest go while it is accepted: never are all of it open."""
    opened_files: list[int] = []
    original = connections.Connections.make_room

    def make_room(self: connections.Connections, now: float) -> None:
        original(self, now)
        opened_files.append(len(os.listdir("/dev/fd")))

    with receiver(tmp_path / "s") as served, contextlib.ExitStack() as stack:
        served.connections.most_at_once = 10
        with all_at_once(served):
            opened = [stack.enter_context(connected(served.port, b"POST ")) for _ in range(200)]
            before = len(os.listdir("/dev/fd"))
            monkeypatch.setattr(connections.Connections, "make_room", make_room)
        until(lambda: len(opened_files) == 200 and is_closed(opened[189]))
        assert max(opened_files) < before + 100
        assert takes_spans(served.port)


TWO_LENGTHS = [
    b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    b"content-length: -1\r\n\r\n",
    b"content-length: 1e3\r\n\r\n",
    b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\nfffffffffffffffffffffffff\r\nx",
]


def test_a_request_that_ends_in_two_ways_is_refused(tmp_path: Path) -> None:
    """Length and chunks at once, two lengths, or lengths that are none: 400, and nothing goes on."""
    with both(tmp_path) as (receives, proxies, upstream):
        for port in (receives, proxies):
            for framing in TWO_LENGTHS:
                got = answered(port, HEAD + framing)
                assert re.match(rb"HTTP/1.1 (400|501) ", got), (framing, got)
        assert not upstream.requests
        assert takes_spans(receives)


BROKEN_BODIES = (
    b"5;" + b"a" * 200_000 + b"\r\n",
    b"0\r\n" + b"x: a\r\n" * 50_000 + b"\r\n",
    b"1\r\nab\r\n0\r\n\r\n",
    b"no length\r\n",
)


def test_a_body_that_breaks_is_refused_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever breaks it, and whether the application waits for it or has refused the request before."""
    with both(tmp_path) as (receives, proxies, upstream):
        for port in (receives, proxies):
            for body in BROKEN_BODIES:
                for head in (HEAD, b"POST /nothing HTTP/1.1\r\nhost: evil.example\r\n"):
                    got = answered(port, head + b"transfer-encoding: chunked\r\n\r\n" + body)
                    assert got[:11] in (b"HTTP/1.1 40", b""), (body[:20], got)
        assert takes_spans(receives)
        assert not upstream.requests
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


FOREIGN = (
    "[::1]evil.example",
    "[::1]:1@evil.example",
    "127.0.0.1:x@evil.example",
    "127.0.0.1:80@evil.example",
    "localhost:80:evil.example",
    "localhost/evil.example",
    "localhost#evil.example",
    "[::1",
    "[127.0.0.1",
    "localhost..",
    "evil.example",
    "127.0.0.1.evil.example",
    "",
)
OWN = (
    "localhost",
    "LOCALHOST.",
    "127.0.0.1:80",
    "[::1]:80",
    "127.8.9.1",
    "localhost:",
    "host.docker.internal:1",
)


def test_only_whole_names_of_this_machine_are_hosts(tmp_path: Path) -> None:
    """A Host that merely begins like this machine's is another's."""
    with both(tmp_path) as (receives, proxies, upstream):
        for port in (receives, proxies):
            for host in FOREIGN:
                got = answered(port, f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                assert got.startswith(b"HTTP/1.1 421"), (host, got)
        assert not upstream.requests
        for host in OWN:
            got = answered(receives, f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            assert got.startswith(b"HTTP/1.1 404"), (host, got)


def test_a_proxy_without_room_asks_to_try_again(tmp_path: Path) -> None:
    """Requests that go on take room, and whoever comes then may come again."""
    with proxy(tmp_path) as (served, upstream):
        served._room.most = 53
        port = next(iter(served.upstreams))
        half = b"POST /raw/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60\r\n\r\n" + b"x" * 50
        with connected(port, half):
            until(lambda: served._room.held == 50)
            answer = httpx2.post(f"http://127.0.0.1:{port}/raw/echo", content=b"x" * 5)
            assert answer.status_code == 503
            assert "x-should-retry" not in answer.headers
            assert answer.json()["error"]["type"] == "tracefork_no_room"
        until(lambda: not served._room.held)
        assert httpx2.post(f"http://127.0.0.1:{port}/raw/empty", content=b"x" * 5).status_code == 200
        assert len(upstream.requests) == 1


def spans(**fields: Any) -> bytes:
    """A JSON request of one span with these fields."""
    span = {"traceId": "a" * 32, "spanId": "b" * 16, "name": "n", **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


ODD_JSON = [
    spans(status={"code": 0}).replace(b'"code": 0', b'"code":11e999'),
    spans(kind=0).replace(b'"kind": 0', b'"kind":-1e999'),
    spans(**{"\ud800": 1}),
    spans(status={"\udfff": [1]}),
    spans(name="\ud800"),
    spans(attributes=[{"key": "\ud83d", "value": {"stringValue": "\ude00"}}]),
    spans(kind="\ud800"),
    spans(startTimeUnixNano="1" * 5000),
    spans(startTimeUnixNano=10**400),
    spans(startTimeUnixNano=True),
    spans(traceId="é" * 32),
    spans(attributes={"key": "a"}),
    spans(attributes=[{"key": "a", "value": {"doubleValue": "1e999"}}] * 2, links=3),
    b'{"resourceSpans":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    b"\xff\xfe{}",
    b"NaN",
]


@pytest.mark.parametrize("body", ODD_JSON, ids=range(len(ODD_JSON)))
def test_odd_json_is_400(body: bytes) -> None:
    """JSON that is no request is refused with a reason that can be sent, whatever protobuf raises for it."""
    with pytest.raises(otlp.Refused) as refused:
        list(otlp.spans_of(otlp.parse(body, "json")))
    assert refused.value.status == 400
    assert otlp.error_of("json", str(refused.value))
    assert otlp.error_of("protobuf", str(refused.value))


def nested(depth: int) -> bytes:
    """Lists in lists, as protobuf."""
    value = b""
    for _ in range(depth):
        value = (
            b"\x2a" + varint(len(value) + 1 + len(varint(len(value)))) + b"\x0a" + varint(len(value)) + value
        )
    return value


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


DENSE = {
    "resources": (b"\x0a\x00" * 3_000, "protobuf"),
    "spans": (b"\x0a" + varint(6_003) + b"\x12" + varint(6_000) + b"\x12\x00" * 3_000, "protobuf"),
    "objects": (b'{"resourceSpans":[' + b"{}," * 2_000 + b"{}]}", "json"),
    "unknown": (b'{"x":[' + b"[]," * 2_000 + b"[]]}", "json"),
    "numbers": (b'{"x":[' + b"1," * 2_500 + b"1]}", "json"),
    "texts": (b'{"x":[' + b'"",' * 2_500 + b'""]}', "json"),
}


@pytest.mark.parametrize("case", DENSE)
def test_many_items_in_few_bytes_are_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of more items than memory is meant for is refused before one of them is made."""
    body, form = DENSE[case]
    monkeypatch.setattr(otlp, "MAX_ITEMS", 2_000)
    with pytest.raises(otlp.Refused, match="more than 2000 ") as refused:
        otlp.parse(body, form)  # type: ignore[arg-type]
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "cut", [b"", b"\x0a", b"\x12\xff", b"\x0a\xff\xff\xff\xff\x7f", b"\x0b", nested(300)]
)
def test_what_cannot_be_counted_is_left_to_the_reader(cut: bytes) -> None:
    """A body that is cut or nested too deep is not too large; what reads it says what is wrong."""
    body = b"\x0a\x00" * 1000 + cut
    found = list(otlp._messages_in(body, ExportTraceServiceRequest.DESCRIPTOR))
    assert 1000 <= len(found) <= 1200


def test_large_texts_are_not_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a text does not count, however much of it looks like JSON."""
    monkeypatch.setattr(otlp, "MAX_ITEMS", 2_000)
    body = spans(name='{"a": [1, 2, {"b": "\\"}]}' * 3_000)
    assert len(otlp.parse(body, "json").resource_spans) == 1


@contextlib.contextmanager
def serving(store: Path, *command: str) -> Iterator[tuple[int, int]]:
    """The process id and port of a server of its own."""
    port = ["--no-page", "--otlp-port", "0"] if command[0] == "serve" else ["--port", "0"]
    words = [sys.executable, "-m", "tracefork_backend.cli", *command, *port, "--store", str(store)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield process.pid, int(line.split("127.0.0.1:")[1].split()[0].strip(",;"))
        finally:
            process.kill()


def peak_mb(pid: int) -> float:
    """The most memory that a process has held."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def held_by_hostile(port: int, path: str) -> None:
    """Half-open connections, half-sent and endless bodies; they are closed again."""
    head = HEAD.replace(b"/v1/traces", path.encode())
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(port, head))
        for _ in range(60):
            with contextlib.suppress(ConnectionError):
                stack.enter_context(
                    connected(port, head + b"content-length: 30000000\r\n\r\n" + b"x" * 20 * MB)
                )
        with contextlib.suppress(ConnectionError):
            opened = stack.enter_context(connected(port, head + b"transfer-encoding: chunked\r\n\r\n"))
            for _ in range(2000):
                opened.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak from /proc")
def test_the_receiver_holds_hostile_requests_within_its_memory(tmp_path: Path) -> None:
    """1.2 GB half-sent, an endless body, bombs of bytes and of items: at most 1.5 GB (docs/limits.md)."""
    with serving(tmp_path / "s", "serve") as (pid, port):
        before = peak_mb(pid)
        held_by_hostile(port, "/v1/traces")
        bodies = peak_mb(pid)
        url = f"http://127.0.0.1:{port}/v1/traces"
        bombs = {
            "bytes": (gzip.compress(b"\0" * 1024 * MB, 1), "application/x-protobuf"),
            "protobuf": (gzip.compress(b"\x0a\x00" * 60 * MB, 1), "application/x-protobuf"),
            "json": (gzip.compress(b'{"x":[' + b"[]," * 40 * MB + b"1]}", 1), "application/json"),
            "widest": (gzip.compress(spans(name="😀" + "x" * 120 * MB), 1), "application/json"),
            "densest": (b'{"resourceSpans":[' + b"{}," * 1_300_000 + b"{}]}", "application/json"),
        }
        peaks = {}
        for name, (body, kind) in bombs.items():
            coding = {} if name == "densest" else {"content-encoding": "gzip"}
            answer = httpx2.post(url, content=body, headers={"content-type": kind, **coding}, timeout=100)
            assert answer.status_code == (200 if name in ("densest", "widest") else 413)
            peaks[name] = round(peak_mb(pid))
        print(f"receiver: {before:.0f} MB before, {bodies:.0f} with half-sent bodies, then {peaks}")
        assert bodies < before + 250
        assert max(peaks.values()) < 1536
        assert takes_spans(port)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak from /proc")
def test_the_proxy_holds_hostile_requests_within_its_memory(tmp_path: Path) -> None:
    """1.2 GB half-sent and an endless body: at most 1.5 GB at its peak (docs/limits.md)."""
    with (
        ModelServer() as upstream,
        serving(tmp_path / "s", "proxy", "--upstream", upstream.url) as (pid, port),
    ):
        before = peak_mb(pid)
        held_by_hostile(port, "/raw/echo")
        print(f"proxy: {before:.0f} MB before, {peak_mb(pid):.0f} with half-sent bodies")
        assert peak_mb(pid) < 1536
        assert httpx2.get(f"http://127.0.0.1:{port}/raw/empty").status_code == 200


def test_servers_begin_with_the_bounds_of_the_documentation() -> None:
    """The limits that docs/limits.md states are those of each server."""
    assert (connections.ARRIVAL_S, connections.SLOWEST, connections.MOST_WAITING) == (60, 65536, 512)
    assert connections.PATIENCE_S == 5
    assert (otlp.MAX_ITEMS, receiving.MAX_WAITING, proxying.MAX_HELD) == (2_000_000, 64 * MB, 512 * MB)
