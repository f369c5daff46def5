"""kill -9 at any moment of an instrumented agent costs nothing that the agent had got back."""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.command import environment
from tracefork_backend.store import open_store

from tracefork_otel.store import manifest, segment
from tracefork_otel.store.wal import wal_files

ACK = struct.Struct("<32s32s")
"""Digests of the request and of the response that an agent has got back whole."""

AGENTS = """
import hashlib, os, random, sys, threading
from pathlib import Path

import httpx2
import pyarrow.parquet
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.store import sealing, wal

SCHEMAS = ["tool %d: %s" % (at, hashlib.sha256(b"%d" % at).hexdigest() * 4) for at in range(20)]

def agent(seed, url, fifo):
    rng = random.Random(seed)
    acknowledged = os.open(fifo, os.O_WRONLY)
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    TraceforkInstrumentor().instrument()
    tracer = trace.get_tracer("agent")

    def converse(worker):
        said = list(SCHEMAS)
        with httpx2.Client() as client:
            for turn in range(1 << 30):
                said.append("seed %d worker %d turn %d " % (seed, worker, turn) + rng.randbytes(300).hex())
                request = "\\n".join(said).encode()
                with tracer.start_as_current_span("turn"):
                    if turn % 5 == 4:
                        with client.stream("POST", url + "/raw/echo", content=request) as response:
                            body = b"".join(response.iter_raw())
                    else:
                        body = client.post(url + "/raw/echo", content=request).content
                os.write(
                    acknowledged, hashlib.sha256(request).digest() + hashlib.sha256(body).digest()
                )

    for worker in range(1, 2):
        threading.Thread(target=converse, args=(worker,)).start()
    converse(0)

for line in sys.stdin:
    seed, url, fifo, rotate = line.split()
    os.environ["TRACEFORK_ROTATE_BYTES"] = rotate
    child = os.fork()
    if child == 0:
        try:
            agent(int(seed), url, fifo)
        finally:
            os._exit(1)
    print(child, flush=True)
    # Only then, so that nobody else is given the number while it may be killed.
    assert sys.stdin.readline() == "dead\\n"
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""A process that has imported what an agent needs, and becomes an agent as often as it is told to."""


class Agents:
    """Real agents, one after the other, each started in milliseconds and each killed."""

    def __init__(self, store: Path, folder: Path, url: str) -> None:
        self.folder, self.url, self.seed = folder, url, 0
        self.got_back: dict[bytes, bytes] = {}
        """Digest of each acknowledged request, and of its response."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", AGENTS],
            env=environment(TRACEFORK_STORE=str(store)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def _tell(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        return self._process.stdout.readline().strip()

    def kill_one(self, *, rotate: int, after: float) -> None:
        """An agent was killed so long after its first answer, and all that it got back is known."""
        self.seed += 1
        fifo = self.folder / f"{self.seed}.fifo"
        os.mkfifo(fifo)
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            pid = int(self._tell(f"{self.seed} {self.url} {fifo} {rotate}"))
            heard = bytearray()
            while not heard:
                assert select.select([reading], [], [], 60)[0], "the agent never got an answer"
                heard += os.read(reading, 1 << 20)
            until = time.monotonic() + after
            while (left := until - time.monotonic()) > 0:
                if select.select([reading], [], [], left)[0]:
                    heard += os.read(reading, 1 << 20)
            os.kill(pid, signal.SIGKILL)
            assert int(self._tell("dead")) == signal.SIGKILL
            while more := os.read(reading, 1 << 20):
                heard += more
        finally:
            os.close(reading)
            fifo.unlink()
        assert len(heard) % ACK.size == 0
        self.got_back.update(ACK.iter_unpack(heard))

    def close(self) -> None:
        """The process that made the agents has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def compacting(store: Path) -> Iterator[list[BaseException]]:
    """Meanwhile a thread opens the store, which seals, reads it and merges its segments; its errors."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            try:
                with open_store(store) as opened:
                    assert opened.problems == ()
                    opened.compact()
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join()


@contextmanager
def model() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tracefork_backend.simulate"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().removeprefix("listening on ")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])])
def test_a_killed_agent_loses_nothing_that_it_got_back(tmp_path: Path, kills: int) -> None:
    """What it got back is stored once and whole, what was open is in flight, whoever seals and merges."""
    store, rng = tmp_path / "store", random.Random(kills)
    with model() as url:
        agents = Agents(store, tmp_path, url)
        try:
            with compacting(store) as errors:
                for _ in range(kills):
                    agents.kill_one(
                        rotate=rng.choice([20_000, 100_000, 10**9]),
                        after=rng.choice([0.02, 0.25]) * rng.random(),
                    )
        finally:
            agents.close()
    assert errors == []
    with open_store(store) as opened:
        assert opened.problems == ()
        in_flight = opened.rows("select count(*) n from exchanges where outcome = 'in_flight'")[0]["n"]
        rows = opened.rows("select count(*) n from exchanges")[0]["n"]
    assert wal_files(store) == []
    exchanges = [
        exchange
        for entry in manifest.load(store).segments
        for exchange in segment.read_exchanges(store, entry)
    ]
    assert len(exchanges) == rows
    assert len({exchange.span_id for exchange in exchanges}) == rows, "an exchange is stored twice"
    assert [exchange.damage for exchange in exchanges if exchange.damage] == []
    ended = {
        hashlib.sha256(exchange.request.body).digest(): hashlib.sha256(exchange.response.body).digest()
        for exchange in exchanges
        if exchange.response is not None
    }
    assert len(agents.got_back) > 2 * kills
    assert {request: ended.get(request) for request in agents.got_back} == agents.got_back
    # Two threads of an agent each have at most one open, and one that ended unacknowledged.
    assert kills / 4 < in_flight <= 2 * kills
    assert rows - in_flight - len(agents.got_back) <= 2 * kills
