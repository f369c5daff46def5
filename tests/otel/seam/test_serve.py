"""What replays do beside what holds of all clients (test_contract.py): SDKs, tapes, blocks of replay."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import anthropic
import httpx
import httpx2
import pytest
from conftest import Capture
from otel.seam.staged import replaying
from recorded import fetch, launched, read_store, run_python
from tracefork_backend.simulate import ModelServer, Reply

BOTH = pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])


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
