"""What holds of every client that is captured: one exchange per attempt, byte-exact, given back as it was."""

from __future__ import annotations

import gc
import gzip
import io
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Capture
from otel.seam.clients import ASYNC, CLIENTS, Call, Client, Seen
from otel.seam.servers import saying
from otel.seam.staged import replayed, replaying
from recorded import read_store
from tracefork_backend.simulate import ModelServer

from tracefork_otel.session import current

ENCODED = {"accept-encoding": "gzip, br, zstd"}
OK = b"HTTP/1.1 200 OK\r\n"
PATHS = (
    *("encoded/gzip", "encoded/br", "encoded/zstd", "encoded/deflate", "bytes/5000", "bytes/300000?pieces=9"),
    *("empty", "204", "status/404", "status/503", "sse?events=3", "redirect?to=/raw/bytes/9"),
)


def without_date(seen: Seen) -> tuple[Any, ...]:
    """What of it is the same a second later."""
    return seen.status, seen.reason, seen.hops, seen.body, seen.error


@CLIENTS
def test_a_body_is_recorded_and_given_back(
    client: Client, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """What is recorded is what came over the wire; a replay shows the same, with no server."""

    def agent() -> list[Seen]:
        with client.open() as session:
            got = [session.ask("GET", f"{raw}/{path}", headers=ENCODED) for path in PATHS]
            return [*got, session.ask("HEAD", f"{raw}/bytes/500")]

    plain = agent()
    capture.on()
    seen = agent()
    recorded = capture.read()
    assert [without_date(one) for one in seen] == [without_date(one) for one in plain]
    last = {one.request.url: one for one in recorded.in_order()}
    for path, one in zip(PATHS, seen, strict=False):
        if one.error:
            continue  # a coding that the client cannot read, as without us
        exchange = last[f"{raw}/{path}" if not one.hops else f"{raw}/bytes/9"]
        assert exchange.outcome == "complete"
        assert exchange.response is not None
        assert (exchange.response.status, exchange.response.reason_phrase) == (one.status, one.reason)
        assert exchange.response.headers == one.headers
        assert exchange.span_status == ("ERROR" if one.status >= 400 else "UNSET")
        unpack = {"encoded/gzip": gzip.decompress, "encoded/deflate": zlib.decompress}.get(path)
        if unpack is not None and client.decodes:
            assert unpack(exchange.response.body) == one.body
        elif not path.startswith("encoded/"):
            assert exchange.response.body == one.body
    assert len(recorded.exchanges) == len(PATHS) + 1 + sum(len(one.hops) for one in seen)
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
def test_ten_megabytes_are_recorded_whole(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """A body of 10 MB, sent and received, is recorded byte for byte."""
    sent = bytes(range(256)) * 40_000
    capture.on()
    assert client.ask("POST", f"{raw}/echo", sent).body == sent
    recorded = capture.read()
    exchange = recorded.only()
    assert exchange.request.body == sent
    assert exchange.response is not None
    assert exchange.response.body == sent
    with replaying(recorded, tmp_path / "r"):
        assert client.ask("POST", f"{raw}/echo", sent).body == sent


@CLIENTS
def test_chunks_come_as_they_were_sent(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """A stream is held back neither while it is recorded nor in a replay; its cuts are the server's."""
    url = f"{raw}/sse?events=5&delay_ms=40"
    capture.on()
    seen = client.ask("GET", url, cuts=True)
    recorded = capture.read()
    response = recorded.only().response
    assert response is not None
    assert response.chunks() == seen.pieces
    assert len(seen.pieces) >= 5
    assert response.chunk_offsets_us[-1] - response.chunk_offsets_us[0] >= 100_000
    began = time.monotonic()
    assert replayed(recorded, tmp_path / "r", lambda: client.ask("GET", url, cuts=True)) == seen
    quick = time.monotonic() - began
    with replaying(recorded, tmp_path / "paced", timing="recorded") as store:
        assert client.ask("GET", url, cuts=True) == seen
    paced = read_store(store).only().response
    assert paced is not None
    assert all(
        now >= then for now, then in zip(paced.chunk_offsets_us, response.chunk_offsets_us, strict=True)
    )
    assert quick < 5


@CLIENTS
def test_a_stream_is_read_as_it_comes(client: Client, capture: Capture, raw: str) -> None:
    """The first event is there, and left, long before the last would be sent."""
    capture.on()
    began = time.monotonic()
    seen = client.ask("GET", f"{raw}/sse?events=4&delay_ms=4000", cuts=True, take=1)
    assert time.monotonic() - began < 4
    assert len(seen.pieces) == 1
    assert capture.read().only().outcome == "closed"


PARTS = [b"one,", b"two,", bytes(100_000), b"three"]


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        piece = super().read(size)
        self.given += len(piece)
        return piece


@CLIENTS
def test_bodies_that_are_sent(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """Text, bytes, files and generators arrive as without us, and are recorded as the server got them."""
    file = tmp_path / "sent.bin"
    file.write_bytes(b"\xff\x00file" * 20_000)

    def agent() -> list[Seen]:
        with client.open() as session, file.open("rb") as opened:
            bodies: list[Any] = [
                "text é",
                bytes(range(256)) * 4000,
                iter(PARTS),
                opened,
                io.BytesIO(b"x"),
            ]
            return [session.ask("POST", f"{raw}/echo", body) for body in bodies]

    wanted = [
        "text é".encode(client.encoding),
        bytes(range(256)) * 4000,
        b"".join(PARTS),
        file.read_bytes(),
        b"x",
    ]
    capture.on()
    seen = agent()
    recorded = capture.read()
    assert [one.body for one in seen] == wanted
    assert [one.request.body for one in recorded.in_order()] == wanted
    assert not any(one.damage for one in recorded.in_order())
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
def test_a_file_is_read_once(client: Client, capture: Capture, raw: str) -> None:
    """What is uploaded of a file is kept as it is sent: it may be larger than the memory, or slow."""
    capture.on()
    sent = b"\xff\x00file" * 50_000
    file = Counted(sent)  # some clients close it
    assert client.ask("POST", f"{raw}/echo", file).body == sent
    assert file.given == len(sent)
    assert capture.read().only().request.body == sent


@CLIENTS
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_form_is_recorded_as_it_was_sent(
    client: Client, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """An upload is recorded with its boundaries; a replay knows it by what stands between them."""
    if not client.has_forms:
        pytest.skip("it sends none")
    file = tmp_path / "upload.bin"
    file.write_bytes(b"\xff\x00upload" * 2000)

    def agent() -> Seen:
        with file.open("rb") as opened:
            return client.ask("POST", f"{raw}/echo", form={"name": "x", "file": opened})

    capture.on()
    seen = agent()
    recorded = capture.read()
    exchange = recorded.only()
    assert exchange.request.body == seen.body
    assert b"\xff\x00upload" in seen.body
    with replaying(recorded, tmp_path / "r"):
        assert agent().body == seen.body


@CLIENTS
def test_redirects_are_exchanges(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """Each hop is an exchange of its own, the body of a 307 in both; so it is in a replay."""
    if not client.follows:
        pytest.skip("it follows none")

    def agent() -> list[Seen]:
        with client.open() as session:
            return [
                session.ask("POST", f"{raw}/redirect", "again"),
                session.ask("POST", f"{raw}/redirect?code=303&to=/raw/bytes/9", "once"),
                session.ask("POST", f"{raw}/redirect", "left", follow=False),
            ]

    capture.on()
    seen = agent()
    recorded = capture.read()
    assert [(one.hops, one.status) for one in seen] == [((307,), 200), ((303,), 200), ((), 307)]
    sent = [(one.request.method, one.request.body) for one in recorded.in_order()]
    assert sent == [("POST", b"again")] * 2 + [("POST", b"once"), ("GET", b""), ("POST", b"left")]
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
def test_retries_are_exchanges(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """Each attempt is an exchange of its own, the client's own as those of its application."""

    def agent() -> list[Seen]:
        with client.open(retries=2) as session:
            return [session.ask("GET", f"{raw}/status/503") for _ in range(1 if client.retries else 3)]

    capture.on()
    seen = agent()
    recorded = capture.read()
    assert [one.response and one.response.status for one in recorded.in_order()] == [503] * 3
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
@pytest.mark.parametrize(
    ("said", "wait", "outcome"),
    [
        ((), 0, "no_response"),
        ((b"nonsense\r\n\r\n",), 0, "no_response"),
        ((OK + b"Content-Length: 9\r\n\r\n", b"four"), 0, "cut"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",), 0, "cut"),
        ((), 9, "no_response"),
        ((OK + b"Content-Length: 9\r\n\r\n", b"four"), 9, "failed"),
    ],
    ids=["nothing", "nonsense", "cut", "cut between chunks", "late", "late in its body"],
)
def test_each_error_is_recorded_and_given_back(
    client: Client, said: tuple[bytes, ...], wait: float, outcome: str, capture: Capture, tmp_path: Path
) -> None:
    """By its class and words, as the application gets it, after what had come."""

    def agent() -> Seen:
        with client.open(timeout=0.3 if wait else 5) as session:
            return session.ask("POST", url, b"asked", cuts=True)

    with saying(*said, wait=wait) as url:
        plain = agent()
        capture.on()
        seen = agent()
        recorded = capture.read()
    exchange = recorded.in_order()[-1]
    assert seen == plain
    assert seen.error
    named = {"cut": client.cut, "no_response": client.late if wait else client.silent}
    assert seen.error == named.get(outcome, seen.error) or b"nonsense" in b"".join(said)
    assert (exchange.outcome, exchange.request.body) == (outcome, b"asked")
    had = exchange.response and exchange.response.body
    assert had in ((b"four", seen.body) if b"200 OK" in b"".join(said) else (None,))
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
def test_nobody_listens(client: Client, capture: Capture, tmp_path: Path) -> None:
    """A request that nobody answers is recorded with its error, which a replay raises too."""
    agent = lambda: client.ask("POST", "http://127.0.0.1:9/nobody", b"asked")  # noqa: E731
    plain = agent()
    capture.on()
    seen = agent()
    recorded = capture.read()
    exchange = recorded.only()
    assert seen == plain
    assert seen.error == client.refused
    assert (exchange.outcome, exchange.response, exchange.request.body) == ("no_response", None, b"asked")
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
@pytest.mark.parametrize(
    ("said", "body"),
    [
        ((OK + b"\r\n", b"until ", b"the end"), b"until the end"),
        ((b"HTTP/1.0 200 OK\r\n\r\n", b"old"), b"old"),
        ((b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",), b"ok"),
        ((OK[:5], OK[5:] + b"Content-", b"Length: 2\r\n\r", b"\nok"), b"ok"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n3", b"\r\none\r\n0\r\nA: b\r\n\r\n"), b"one"),
        ((b"HTTP/1.1 404 NOT FOUND\r\nContent-Length: 2\r\n\r\nok",), b"ok"),
        ((b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",), b"ok"),
        ((b"HTTP/1.1 429 caf\xe9 closed\r\nContent-Length: 2\r\n\r\nok",), b"ok"),
    ],
    ids=["until the end", "1.0", "early", "head in parts", "trailer", "own words", "no words", "latin words"],
)
def test_each_framing_is_recorded_and_given_back(
    client: Client, said: tuple[bytes, ...], body: bytes, capture: Capture, tmp_path: Path
) -> None:
    """However a server says where its body ends, and what it says of its status."""
    with saying(*said) as url:
        plain = client.ask("GET", url)
        capture.on()
        seen = client.ask("GET", url)
        recorded = capture.read()
    exchange = recorded.only()
    assert seen == plain
    assert exchange.response is not None
    assert (exchange.outcome, exchange.response.body) == ("complete", seen.body)
    assert seen.body == body or (seen.status, seen.body) == (103, b"")  # as http.client reads it
    assert replayed(recorded, tmp_path / "r", lambda: client.ask("GET", url)) == seen


@CLIENTS
def test_a_stream_left_early_is_closed(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """It is no error, and is left again in a replay; who reads on there is told that the recording ends."""
    url = f"{raw}/sse?events=40&delay_ms=2"
    capture.on()
    seen = client.ask("GET", url, cuts=True, take=3)
    recorded = capture.read()
    exchange = recorded.only()
    assert (exchange.outcome, exchange.span_status, exchange.error_type) == ("closed", "UNSET", None)
    assert exchange.response is not None
    assert exchange.response.body.startswith(seen.body)
    with replaying(recorded, tmp_path / "r") as store:
        again = client.ask("GET", url, cuts=True, take=3)
    assert again.body.startswith(seen.body) or seen.body.startswith(again.body)
    assert read_store(store).only().outcome == "closed"
    with replaying(recorded, tmp_path / "more"):
        told = client.ask("GET", url, cuts=True)
    assert "recording of this exchange ends here (closed)" in told.message
    assert exchange.response.body == told.body


@ASYNC
@pytest.mark.parametrize("path", ["sse?events=900&delay_ms=20", "slow?ms=9000"], ids=["body", "head"])
def test_a_cancelled_task_is_cancelled(
    client: Client, path: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """It leaves `cancelled` and what had come; a replay waits to be cancelled."""

    def agent(far_enough: Callable[[bytes], bool]) -> bytes:
        with client.open() as session:
            session.ask("GET", f"{raw}/empty")
            return session.cancelled(Call("GET", f"{raw}/{path}", cuts=True), far_enough)

    def is_asked(came: bytes) -> bool:
        return current.session is not None and bool(current.session.open)

    capture.on()
    seen = agent(is_asked if path.startswith("slow") else bool)
    recorded = capture.read()
    exchange = recorded.in_order()[-1]
    assert exchange.outcome == "cancelled"
    assert (exchange.response is None) == path.startswith("slow")
    whole = b"" if exchange.response is None else exchange.response.body
    assert whole.startswith(seen)
    again = replayed(recorded, tmp_path / "r", lambda: agent(lambda came: is_asked(came) and came == whole))
    assert again == whole


@CLIENTS
def test_a_dropped_response_is_abandoned(client: Client, capture: Capture, raw: str) -> None:
    """A response that nobody has any more is ended once it is found."""
    capture.on()
    with client.open() as session:
        session.drop(f"{raw}/sse?events=400&delay_ms=5")
        session.ask("GET", f"{raw}/empty")
    gc.collect()  # aiohttp's loop has it until it is closed
    outcomes = [one.outcome for one in capture.read().in_order()]
    assert outcomes == ["abandoned", "complete"]


@CLIENTS
def test_clients_made_before(client: Client, capture: Capture, raw: str) -> None:
    """A session with a kept connection is recorded from then on, and no longer once the recorder is off."""
    with client.open() as session:
        session.ask("GET", f"{raw}/empty")
        capture.on()
        session.ask("GET", f"{raw}/bytes/3")
        capture.off()
        session.ask("GET", f"{raw}/bytes/4")
    assert capture.read().only().request.url.endswith("/bytes/3")


@CLIENTS
def test_many_at_once(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """Each response has its own bytes, by threads or tasks, in whatever order a replay asks."""

    def agent(order: list[int]) -> dict[int, Seen]:
        calls = [Call("POST", f"{raw}/echo", f"number {number}") for number in order]
        with client.open() as session:
            return dict(zip(order, session.together(calls), strict=True))

    capture.on()
    seen = agent(list(range(8)))
    recorded = capture.read()
    assert {one.request.body for one in recorded.exchanges} == {b"number %d" % n for n in range(8)}
    with replaying(recorded, tmp_path / "r") as store:
        assert agent([5, 3, 7, 0, 1, 6, 2, 4]) == seen
    assert all(one.replayed for one in read_store(store).exchanges)


@CLIENTS
def test_what_was_not_recorded_is_a_drift(client: Client, capture: Capture, tmp_path: Path) -> None:
    """It is a connection that cannot be made, which says what differs; nothing reaches the network."""
    with ModelServer() as server:
        url = f"{server.url}/raw/echo"
        capture.on()
        client.ask("POST", url, b'{"city": "Tokyo"}')
        recorded = capture.read()
        with replaying(recorded, tmp_path / "r") as store:
            seen = client.ask("POST", url, b'{"city": "Kyoto"}')
        assert len(server.requests) == 1
    assert seen.error == client.refused
    assert "tracefork replay: " in seen.message
    assert "Kyoto" in seen.message
    exchange = read_store(store).only()
    assert (exchange.outcome, exchange.error_type) == ("no_response", "tracefork_otel.Drift")
    assert not exchange.replayed
    assert '"path":"city"' in str(exchange.attributes["tracefork.drift"]).replace(" ", "")


@CLIENTS
def test_keys_are_not_recorded(client: Client, capture: Capture, raw: str, tmp_path: Path) -> None:
    """Neither in headers nor in addresses; a replay of another key finds the same exchange."""

    def agent(key: str) -> Seen:
        head = {"authorization": f"Bearer {key}", "x-api-key": key}
        return client.ask("GET", f"{raw}/redirect?api_key=very-secret", headers=head, follow=False)

    capture.on()
    agent("very-secret")
    recorded = capture.read()
    assert "very-secret" not in repr(recorded.only())
    with replaying(recorded, tmp_path / "r") as store:
        assert agent("other-secret").status == 307
    assert "other-secret" not in repr(read_store(store).only())


@CLIENTS
def test_nothing_of_ours_goes_over_the_wire(client: Client, capture: Capture) -> None:
    """A request has the same head as without us."""
    with ModelServer() as server:
        client.ask("POST", f"{server.url}/raw/echo", b"x")
        capture.on()
        client.ask("POST", f"{server.url}/raw/echo", b"x")
        bare, captured = server.requests
    assert captured.headers == bare.headers
    assert capture.read().only()


@CLIENTS
def test_an_error_of_ours_never_reaches_the_application(
    client: Client,
    capture: Capture,
    raw: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A failure inside the recorder costs the record, not the response; each is counted, and logged once."""
    from tracefork_otel.seam import recording
    from tracefork_otel.seam.exchange import SeamExchange

    capture.on()
    for owner, name in ((SeamExchange, "_response"), (SeamExchange, "answered"), (recording, "value_of")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, lambda *args, **more: 1 / 0)
            for _ in range(2):
                assert client.ask("GET", f"{raw}/bytes/5000").status == 200
    lost = [note for note in capture.read().notes if note.kind == "lost"]
    assert sum(int(str(note.attributes["count"])) for note in lost) == 6
    assert all("ZeroDivisionError" in str(note.attributes["why"]) for note in lost)
    warned = [record.getMessage() for record in caplog.records if record.name == "tracefork_otel"]
    assert len(warned) == len(set(warned)) == 3
