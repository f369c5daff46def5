"""A replay gives the agent what the recording saw, bytes, cuts, headers and errors, with no network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from conftest import Capture
from recorded import Recorded, fetch, launched, read_store, run_python, stream
from tracefork_backend.simulate import ModelServer, Reply

from tracefork_otel import Tape, launch
from tracefork_otel.settings import Settings

BOTH = pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@contextmanager
def replaying(recorded: Recorded, folder: Path, **settings: Any) -> Iterator[Path]:
    """Inside the block this process replays what was recorded, into the store that is given."""
    folder.mkdir()
    tape = folder / "run.tape"
    Tape(run_id="0" * 32, exchanges=tuple(recorded.in_order())).dump(tape)
    chosen = Settings(mode="replay", tape=tape, store=folder / "replay", seal=False, **settings)
    with launch.playing(chosen):
        yield folder / "replay"


def told(response: Any) -> tuple[Any, ...]:
    """What an application can see of a response."""
    return response.status_code, response.headers.multi_items(), response.content, response.http_version


@pytest.mark.slow
@BOTH
@KINDS
def test_responses_are_given_back(
    module: ModuleType, kind: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """Status, headers, body and version are the recorded ones, encoded and empty bodies and redirects too."""
    paths = [
        "encoded/gzip",
        "encoded/zstd",
        "bytes/3000",
        "empty",
        "204",
        "status/503",
        "redirect?to=/raw/empty%3Fsig=s3cret",
    ]
    client = {"follow_redirects": True}
    capture.on()
    seen = [told(fetch(module, kind, "GET", f"{raw}/{path}", client=client)) for path in paths]
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        again = [fetch(module, kind, "GET", f"{raw}/{path}", client=client) for path in paths]
        assert [told(response) for response in again] == seen
        assert again[0].elapsed.total_seconds() >= 0
    replay = read_store(store).in_order()
    assert all(exchange.replayed for exchange in replay)
    assert [e.served_span_id for e in replay] == [e.span_id for e in recorded.in_order()]
    assert [e.response and e.response.sha256 for e in replay] == [
        e.response and e.response.sha256 for e in recorded.in_order()
    ]


@pytest.fixture
def in_own_words() -> Iterator[str]:
    """The URL of a server that says of each status what it likes."""
    lines = {b"/404": b"404 NOT FOUND", b"/200": b"200 ", b"/429": b"429 caf\xe9 closed"}

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    path = peer.recv(65536).split(b" ", 2)[1]
                    peer.sendall(
                        b"HTTP/1.1 " + lines[path] + b"\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
                    )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@BOTH
@KINDS
def test_reasons_are_given_back(
    module: ModuleType, kind: str, capture: Capture, in_own_words: str, tmp_path: Path
) -> None:
    """The words after a status are the server's, which an agent reads in the client's errors."""

    def seen() -> list[object]:
        answers = [fetch(module, kind, "GET", f"{in_own_words}/{status}") for status in (404, 200, 429)]
        with pytest.raises(module.HTTPStatusError) as raised:
            answers[0].raise_for_status()
        return [*(one.extensions["reason_phrase"] for one in answers), str(raised.value)]

    capture.on()
    first = seen()
    assert first[:3] == [b"NOT FOUND", b"", b"caf\xe9 closed"]
    assert "404 NOT FOUND" in str(first[3])
    with replaying(capture.read(), tmp_path / "r"):
        assert seen() == first


@BOTH
@KINDS
def test_streams_keep_their_cuts(
    module: ModuleType, kind: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """A stream comes in the recorded cuts at once, or at the recorded pace if that is asked for."""
    url = f"{raw}/sse?events=8&delay_ms=40"
    capture.on()
    chunks = stream(module, kind, url)
    recorded = capture.read()
    offsets: dict[str, tuple[int, ...]] = {}
    for timing in ("none", "recorded"):
        with replaying(recorded, tmp_path / timing, timing=timing) as store:
            assert stream(module, kind, url) == chunks
        replay = read_store(store).only().response
        assert replay is not None
        assert replay.chunk_sizes == tuple(map(len, chunks))
        offsets[timing] = replay.chunk_offsets_us
    assert offsets["none"][-1] - offsets["none"][0] < 200_000
    original = recorded.only().response
    assert original is not None
    assert all(now >= then for now, then in zip(offsets["recorded"], original.chunk_offsets_us, strict=True))


@BOTH
@KINDS
def test_errors_are_raised_again(
    module: ModuleType, kind: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """A refused connection and a cut stream fail in the replay as they did, after the same chunks."""
    capture.on()
    with pytest.raises(module.ConnectError) as refused:
        fetch(module, kind, "GET", "http://127.0.0.1:9/")
    with pytest.raises(module.RemoteProtocolError) as cut:
        stream(module, kind, f"{raw}/cut?after=3")
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        with pytest.raises(module.ConnectError) as refused_again:
            fetch(module, kind, "GET", "http://127.0.0.1:9/")
        with pytest.raises(module.RemoteProtocolError) as cut_again:
            stream(module, kind, f"{raw}/cut?after=3")
    assert (str(refused_again.value), str(cut_again.value)) == (str(refused.value), str(cut.value))
    assert refused_again.value.request.url == "http://127.0.0.1:9/"
    replay = read_store(store).in_order()
    assert [exchange.outcome for exchange in replay] == ["no_response", "cut"]
    assert replay[1].response is not None
    assert replay[1].response.body == (recorded.in_order()[1].response or replay[1].response).body


@BOTH
@KINDS
def test_a_stream_left_early_is_left_again(
    module: ModuleType, kind: str, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """What was left early serves the same chunks; reading on is an error: the recording ends there."""
    url = f"{raw}/sse?events=40&delay_ms=2"
    capture.on()
    chunks = stream(module, kind, url, take=3)
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r"):
        assert stream(module, kind, url, take=3) == chunks
    with (
        replaying(recorded, tmp_path / "more"),
        pytest.raises(module.ReadError, match=r"recording of this exchange ends here \(closed\)"),
    ):
        stream(module, kind, url)


@BOTH
def test_a_stream_is_read_on_and_not_from_its_beginning(
    module: ModuleType, capture: Capture, raw: str, tmp_path: Path
) -> None:
    """An SDK that stops at the last event and then drains the connection gets each byte once."""
    url = f"{raw}/sse?events=6&delay_ms=1"

    def drained() -> list[bytes]:
        with module.Client() as client, client.stream("GET", url) as response:
            events = iter(response.stream)
            return [next(events), *response.stream]

    capture.on()
    chunks = drained()
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        assert drained() == chunks
    replay, original = read_store(store).only().response, recorded.only().response
    assert replay is not None
    assert original is not None
    assert replay.body == original.body == b"".join(chunks)


def test_a_cancelled_call_is_cancelled_again(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A call that timed out in the agent's own code times out in the replay: nothing answers it too early."""

    async def call() -> str:
        async with httpx2.AsyncClient() as client:
            try:
                async with asyncio.timeout(0.2):
                    return (await client.get(f"{raw}/slow?ms=3000")).text
            except TimeoutError:
                return "timed out"

    capture.on()
    assert asyncio.run(call()) == "timed out"
    recorded = capture.read()
    assert recorded.only().outcome == "cancelled"
    with replaying(recorded, tmp_path / "r") as store:
        assert asyncio.run(call()) == "timed out"
    assert read_store(store).only().outcome == "cancelled"


@KINDS
def test_streaming_requests_match(kind: str, capture: Capture, raw: str, tmp_path: Path) -> None:
    """A request body from a generator is read whole before it is matched."""

    def sync_parts() -> Any:
        yield b"one "
        yield b"two"

    async def async_parts() -> Any:
        yield b"one "
        yield b"two"

    def call() -> bytes:
        content = sync_parts() if kind == "sync" else async_parts()
        return fetch(httpx2, kind, "POST", f"{raw}/echo", content=content).content

    capture.on()
    call()
    recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        assert call() == b"one two"
    assert read_store(store).only().request.body == b"one two"


@BOTH
@KINDS
def test_a_miss_never_reaches_the_network(
    module: ModuleType, kind: str, capture: Capture, tmp_path: Path
) -> None:
    """A request that is not on the tape fails as a connection does, says the drift, and is recorded so."""
    with ModelServer() as server:
        capture.on()
        fetch(module, kind, "POST", f"{server.url}/raw/echo", json={"city": "Tokyo"})
        recorded = capture.read()
        arrived = len(server.requests)
        with replaying(recorded, tmp_path / "r") as store, pytest.raises(module.ConnectError) as caught:
            fetch(module, kind, "POST", f"{server.url}/raw/echo", json={"city": "Kyoto"})
        assert len(server.requests) == arrived
    assert "Kyoto" in str(caught.value)
    exchange = read_store(store).only()
    assert exchange.outcome == "no_response"
    assert exchange.error_type == "tracefork_otel.Drift"
    assert not exchange.replayed
    assert json.loads(str(exchange.attributes["tracefork.drift"]))["path"] == "city"


def test_an_sdk_meets_its_retries_and_its_drift(capture: Capture, tmp_path: Path) -> None:
    """The SDK's retry after a 429 is replayed; a drift reaches the agent as the SDK's connection error."""

    def ask(client: anthropic.Anthropic, text: str) -> str:
        with client.messages.stream(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": text}]
        ) as events:
            return events.get_final_text()

    with ModelServer(
        lambda call: (
            Reply(status=429, retry_after=0.01) if call.index == 0 else Reply(text="a streamed answer")
        )
    ) as server:
        client = anthropic.Anthropic(api_key="sk-ant-test-000000000000", base_url=server.url)
        capture.on()
        assert ask(client, "hi") == "a streamed answer"
        recorded = capture.read()
    with replaying(recorded, tmp_path / "r") as store:
        assert ask(client, "hi") == "a streamed answer"
        with pytest.raises(anthropic.APIConnectionError):
            ask(client.with_options(max_retries=1), "something else")
    replay = read_store(store).in_order()
    assert [exchange.response and exchange.response.status for exchange in replay] == [429, 200, None, None]
    assert len({str(exchange.attributes.get("tracefork.drift")) for exchange in replay[2:]}) == 1


def test_a_tape_that_cannot_be_read_answers_nothing(raw: str, tmp_path: Path) -> None:
    """Without a readable tape every request fails with the reason, and none goes out."""
    tape = tmp_path / "broken.tape"
    tape.write_text("not a tape\n")
    code = f"""
import httpx2
try:
    httpx2.get("{raw}/empty")
except httpx2.ConnectError as error:
    print("failed:", error)
"""
    env = launched(TRACEFORK_MODE="replay", TRACEFORK_TAPE=str(tape))
    done = run_python(code, store=tmp_path / "store", **env)
    assert done.stdout.startswith("failed: tracefork replay: the tape gave no answer")
    assert "broken.tape" in done.stderr
    recorded = read_store(tmp_path / "store")
    assert recorded.only().outcome == "no_response"
    assert [note.kind for note in recorded.notes] == ["lost"]


def test_a_block_of_replay_gives_the_recorder_back(capture: Capture, raw: str, tmp_path: Path) -> None:
    """After a replay in this process, recording goes on into its own store."""
    capture.on()
    fetch(httpx2, "sync", "GET", f"{raw}/status/200")
    before = read_store(capture.store)
    with replaying(before, tmp_path / "r") as store:
        fetch(httpx2, "sync", "GET", f"{raw}/status/200")
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert len(read_store(store).exchanges) == 1
    assert [exchange.replayed for exchange in capture.read().exchanges] == [False, False]


def test_concurrent_calls_are_served_each_its_own(capture: Capture, raw: str, tmp_path: Path) -> None:
    """A fan-out is served by content, whatever order the tasks come in."""

    async def fan(numbers: list[int]) -> list[str]:
        async with httpx2.AsyncClient() as client:
            answers = await asyncio.gather(
                *(client.post(f"{raw}/echo", content=f"question {number}") for number in numbers)
            )
        return [answer.text for answer in answers]

    capture.on()
    asyncio.run(fan(list(range(12))))
    recorded = capture.read()
    order = [5, 3, 11, 0, 1, 7, 2, 10, 4, 9, 6, 8]
    with replaying(recorded, tmp_path / "r"):
        assert asyncio.run(fan(order)) == [f"question {number}" for number in order]
