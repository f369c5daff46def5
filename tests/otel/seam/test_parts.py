"""Parts of streams that an event loop reads at once come in the recorded order, as the ends of answers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from otel.seam.test_order import MS, URL, exchange, replaying
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Reply

from tracefork_otel.exchange import Exchange, Outcome
from tracefork_otel.recording.exchange import OpenExchange
from tracefork_otel.seam import staging

EVENTS = (("content-type", "text/event-stream; charset=utf-8"),)


def stream(name: str, at: Iterable[int], *, outcome: Outcome = "complete") -> Exchange:
    """A stream of that name whose parts came at these milliseconds, the first of which it began before."""
    times = [*at]
    one = exchange(name, ord(name[0]) - ord("a"), times[-1] + 1, outcome=outcome, chunks=len(times))
    assert one.response is not None
    offsets = tuple((time * MS - (one.started_ns - 10**18)) // 1000 for time in times)
    return replace(one, response=replace(one.response, headers=EVENTS, chunk_offsets_us=offsets))


async def read(
    client: httpx2.AsyncClient, name: str, into: list[str], *, turns: int = 0, most: int = 99
) -> None:
    """Reads a stream, noting each part once so many turns of the loop are over."""
    async with client.stream("GET", URL + name) as response:
        async for chunk in response.aiter_raw():
            for _ in range(turns):
                await asyncio.sleep(0)
            into.append(chunk.decode().rstrip(";"))
            most -= 1
            if not most:
                break


def in_replay(folder: Path, exchanges: Iterable[Exchange], asked: str, **how: int) -> list[str]:
    """The parts as they were noted by an agent that reads all of these at once."""
    found: list[str] = []

    async def main() -> None:
        async with httpx2.AsyncClient() as client:
            await asyncio.gather(*(read(client, name, found, **how) for name in asked))

    with replaying([*exchanges], folder):
        asyncio.run(main())
    return found


@pytest.mark.parametrize("turns", [0, 7])
@pytest.mark.parametrize("asked", ["ab", "ba"])
def test_parts_interleave_as_they_did(asked: str, turns: int, tmp_path: Path) -> None:
    """Whoever asks first, and whatever the loop does between two of them."""
    both = stream("a", [10, 30, 40, 70]), stream("b", [20, 50, 60, 80, 90])
    assert in_replay(tmp_path, both, asked, turns=turns) == [
        *("a0", "b0", "a1", "a2", "b1", "b2", "a3", "b3", "b4"),
    ]


def test_a_last_part_that_was_read_late_is_not_waited_for(tmp_path: Path) -> None:
    """Its end's turn came after that of a stream which went on beyond it."""
    late = stream("a", [10, 30, 40])
    both = replace(late, ended_ns=10**18 + 200 * MS), stream("b", [20, 50, 60, 80])
    assert in_replay(tmp_path, both, "ab") == ["a0", "b0", "a1", "b1", "b2", "b3", "a2"]


def test_a_stream_that_is_left_holds_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an agent closes earlier than it did, or does not ask for, is waited for once at most."""
    both = stream("a", [10, 30, 40, 70]), stream("b", [20, 50, 60, 80])
    assert in_replay(tmp_path, both, "ab", most=2) == ["a0", "b0", "a1", "b1"]
    monkeypatch.setattr(staging, "GRACE_S", 0.1)
    (tmp_path / "alone").mkdir()
    assert in_replay(tmp_path / "alone", both, "b") == ["b0", "b1", "b2", "b3"]


def test_parts_are_timed_from_the_start(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of an exchange whose own bookkeeping took long, as what is loaded for the first one does."""
    capture.on()
    real = OpenExchange.__init__

    def slow(self: OpenExchange, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.2)
        real(self, *args, **kwargs)

    monkeypatch.setattr(OpenExchange, "__init__", slow)
    with ModelServer(lambda call: Reply(text="hi")) as server:
        asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        httpx2.post(server.url + "/v1/messages", json=asked)
    response = capture.read().only().response
    assert response is not None
    assert response.chunk_offsets_us[0] >= 200_000
