"""What recording costs the application: no delay of a stream, no second body, little time per call."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import httpx2
import pytest
from conftest import Capture
from recorded import read_store, run_python

from tracefork_otel.store import manifest


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The awkward routes in a process of their own: client and server share no interpreter lock."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.simulate"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip().removeprefix("listening on ")
    yield f"{url}/raw"
    process.terminate()
    process.wait(10)


class Pairs:
    """Times of the same thing without us and with us, taken by turns, so that other load meets both alike."""

    def __init__(self, capture: Capture, timed: Callable[[], float]) -> None:
        self.capture, self.timed = capture, timed
        self.bare: list[float] = []
        self.captured: list[float] = []

    def within(self, limit: float, *, each: int, rounds: int) -> bool:
        """Whether the medians differ by less than the limit, once enough was measured for them to settle."""
        for _ in range(rounds):
            for _ in range(each):
                self.bare.append(self.timed())
                self.capture.on()
                self.captured.append(self.timed())
                self.capture.off()
            if self.difference < limit:
                return True
        return False

    @property
    def difference(self) -> float:
        """Of the medians; positive where we cost time."""
        return median(self.captured) - median(self.bare)


def test_the_first_byte_of_a_stream_is_not_delayed(capture: Capture, elsewhere: str) -> None:
    """The first of 44 events, 20 ms apart, arrives about when it would without us; so does the last."""
    with httpx2.Client() as client:

        def timed(*, whole: bool) -> float:
            begun = time.perf_counter()
            with client.stream("GET", f"{elsewhere}/sse?events=44&delay_ms=20") as response:
                chunks = response.iter_raw()
                next(chunks)
                if whole:
                    assert sum(1 for _ in chunks) == 43
                return time.perf_counter() - begun

        first = Pairs(capture, lambda: timed(whole=False))
        last = Pairs(capture, lambda: timed(whole=True))
        # The whole stream takes 0.86 s: whoever waits for it, or for a part, is far beyond these.
        assert first.within(0.1, each=3, rounds=6), first.difference
        assert last.within(0.2, each=1, rounds=6), last.difference
    assert len(read_store(capture.store).exchanges) == len(first.captured) + len(last.captured)


def test_an_ended_exchange_holds_no_body(capture: Capture, raw: str) -> None:
    """A response that the application keeps does not keep a second copy of its body in us."""
    from tracefork_otel.session import current

    capture.on()
    with httpx2.Client() as client:
        kept = [client.get(f"{raw}/bytes/100000") for _ in range(3)]
        for response in kept:
            exchange = response.stream._exchange  # type: ignore[attr-defined]
            assert exchange.done
            assert not exchange.chunks
    assert current.session is not None
    assert not current.session.open


def test_an_exchange_that_was_given_up_collects_nothing_more(capture: Capture, raw: str) -> None:
    """What comes of a stream that cannot be recorded goes to the application alone."""
    capture.on()
    with httpx2.Client() as client, client.stream("GET", f"{raw}/bytes/1000000") as response:
        exchange = response.stream._exchange  # type: ignore[attr-defined]
        exchange.give_up("chunk of a response", OSError("no space"))
        assert len(b"".join(response.iter_raw())) == 1_000_000
        assert not exchange.chunks
        assert not exchange.offsets
    assert capture.read().only().outcome == "in_flight"


@pytest.mark.slow
def test_full_wals_are_sealed_in_the_background(tmp_path: Path, raw: str) -> None:
    """A process that outgrows its WAL goes on in another, and the full ones become segments while it runs."""
    code = f"""
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import httpx2, os, pathlib, time
with httpx2.Client() as client:
    for number in range(12):
        client.post("{raw}/echo", content=os.urandom(20_000))
store = pathlib.Path(os.environ["TRACEFORK_STORE"])
deadline = time.monotonic() + 30
while len(list((store / "wal").glob("*.wal"))) > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
"""
    run_python(code, store=tmp_path, TRACEFORK_ROTATE_BYTES="100000", TRACEFORK_SEAL="1")
    sealed = manifest.load(tmp_path).segments
    left = read_store(tmp_path).exchanges
    assert len(sealed) >= 2
    assert sum(segment.exchanges for segment in sealed) + len(left) == 12


@pytest.mark.slow
def test_a_slow_machine_still_leaves(tmp_path: Path, raw: str) -> None:
    """A process that ends right after a rotation ends well, and nothing of it is lost."""
    code = f"""
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import httpx2, os
with httpx2.Client() as client:
    for number in range(12):
        client.post("{raw}/echo", content=os.urandom(20_000))
"""
    done = run_python(code, store=tmp_path, TRACEFORK_ROTATE_BYTES="100000", TRACEFORK_SEAL="1")
    assert done.stderr == ""
    sealed = manifest.load(tmp_path).segments
    assert sum(segment.exchanges for segment in sealed) + len(read_store(tmp_path).exchanges) == 12
