"""Whatever happens to the processes and the disk, what was acknowledged is stored once and whole."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wal_samples import bodies, exchange_records, joined, process, write_conversation

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.wal import Wal, is_live, wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

ACK = struct.Struct("<16s32s32s")
"""Span id and both digests: what a writer knows to be safe."""

WRITER = """
import os, random, sys, threading
from hashlib import sha256
from pathlib import Path
from wal_samples import bodies, exchange_records, process
from tracefork_otel.store import manifest, sealing
from tracefork_otel.errors import StoreError
from tracefork_otel.store.wal import Wal

store, seed, rotate, turns = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)

def on_rotated(path):
    # As the background thread of an agent does, and now and then as a compaction does.
    sealing.seal(store, [path])
    if rng.random() < 0.4:
        parts = manifest.load(store).segments[:4]
        if len(parts) > 2:
            try:
                manifest.commit(store, add=[sealing.merge(store, parts)], remove=[part.id for part in parts])
            except StoreError:
                pass  # Another process replaced them first.

wal = Wal(store, process(f"{os.getpid()}-{seed:08x}"), rotate_bytes=rotate, on_rotated=on_rotated)
trace = f"{seed:032x}"
os.write(1, b"\\n")
number = 0
while number < turns:
    for request, response in bodies(10, seed=seed * 1000 + number, tools=2000, turn=500):
        start, end = exchange_records(number, request, response, trace_id=trace)
        wal.append(start)
        wal.append(end)
        os.write(1, start.span_id.encode() + sha256(request).digest() + sha256(response).digest())
        number += 1
wal.close()
"""


def writer(store: Path, seed: int, *, rotate: int, turns: int = 1 << 30) -> subprocess.Popen[bytes]:
    """A process that appends, rotates, seals and merges, and says what it was told to be safe."""
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", WRITER, str(store), str(seed), str(rotate), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": tests})


def digests(exchange: Exchange) -> tuple[bytes, bytes]:
    """The digests of both bodies, computed from them."""
    assert exchange.response is not None
    return (
        hashlib.sha256(exchange.request.body).digest(),
        hashlib.sha256(exchange.response.body).digest(),
    )


def stored(store: Path) -> list[Exchange]:
    """All exchanges in all live segments."""
    return [item for entry in manifest.load(store).segments for item in segment.read_exchanges(store, entry)]


class Acknowledged:
    """What writers said is safe."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[bytes, bytes]] = {}

    def add(self, data: bytes) -> None:
        """The whole acknowledgements among the bytes are known."""
        for at in range(0, len(data) // ACK.size * ACK.size, ACK.size):
            span_id, request, response = ACK.unpack_from(data, at)
            self.known[span_id.decode()] = (request, response)

    def check(self, exchanges: list[Exchange]) -> None:
        """All of it is there, once, and byte for byte; and what is there besides is whole as well."""
        found = {exchange.span_id: exchange for exchange in exchanges}
        assert len(found) == len(exchanges), "an exchange is stored twice"
        assert self.known.keys() <= found.keys(), "an acknowledged exchange is lost"
        assert all(digests(found[span_id]) == expected for span_id, expected in self.known.items())
        assert [exchange.damage for exchange in exchanges if exchange.damage] == []


@pytest.mark.parametrize("kills", [6, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_kill_9_loses_nothing(tmp_path: Path, kills: int) -> None:
    """Killed while it appends, rotates, seals or merges, a process loses and doubles nothing acknowledged."""
    acknowledged, rng = Acknowledged(), random.Random(kills)
    for seed in range(kills):
        child = writer(tmp_path, seed, rotate=rng.choice([8_000, 30_000, 10**9]))
        assert child.stdout is not None
        assert child.stdout.read(1) == b"\n"
        os.set_blocking(child.stdout.fileno(), False)
        heard, until = bytearray(), time.monotonic() + rng.uniform(0.005, 0.25)
        while (left := until - time.monotonic()) > 0:
            if select.select([child.stdout], [], [], left)[0]:
                heard += child.stdout.read() or b""
        child.send_signal(signal.SIGKILL)
        child.wait()
        heard += child.stdout.read() or b""
        child.stdout.close()
        acknowledged.add(bytes(heard))
        if seed % 4 == 0:
            assert sealing.seal_dead(tmp_path) == []
    assert sealing.seal_dead(tmp_path) == []
    assert wal_files(tmp_path) == []
    assert len(acknowledged.known) > kills
    exchanges = stored(tmp_path)
    acknowledged.check([exchange for exchange in exchanges if exchange.outcome != "in_flight"])
    assert sum(exchange.outcome == "in_flight" for exchange in exchanges) <= kills
    processes = [
        item
        for entry in manifest.load(tmp_path).segments
        for item in segment.read_records(tmp_path, entry)[1]
    ]
    assert len(processes) == len({item.process_id for item in processes})
    assert {item.process_id for item in processes} >= {exchange.process_id for exchange in exchanges}


@pytest.mark.slow
def test_writers_a_sealer_and_a_reader_at_once(tmp_path: Path) -> None:
    """Three processes write and seal while this one seals and reads: nothing fails, is lost or doubled."""
    children = [writer(tmp_path, seed, rotate=20_000, turns=60) for seed in (1, 2, 3)]
    seen = 0
    while any(child.poll() is None for child in children):
        assert sealing.seal_dead(tmp_path) == []
        exchanges = stored(tmp_path)
        assert len({exchange.span_id for exchange in exchanges}) == len(exchanges) >= seen
        seen = len(exchanges)
    acknowledged = Acknowledged()
    for child in children:
        assert child.stdout is not None
        acknowledged.add(child.stdout.read()[1:])
        child.stdout.close()
        assert child.wait() == 0
    sealing.seal_dead(tmp_path)
    assert len(acknowledged.known) == 180
    acknowledged.check(stored(tmp_path))
    assert len(stored(tmp_path)) == 180


@pytest.mark.slow
def test_several_sealers_seal_once(tmp_path: Path) -> None:
    """Of processes that all find the same dead WALs, each WAL is sealed by one."""
    made = [
        exchange
        for seed in range(6)
        for exchange in write_conversation(tmp_path, 8, process_id=f"{seed}-a", seed=seed)
    ]
    code = """
import sys
from pathlib import Path
from tracefork_otel.store.sealing import seal_dead
print(seal_dead(Path(sys.argv[1])))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [child.communicate()[0].strip() for child in children] == ["[]"] * 4
    sealing.seal_dead(tmp_path)
    exchanges = stored(tmp_path)
    assert {exchange.span_id for exchange in exchanges} == {exchange.span_id for exchange in made}
    assert len(exchanges) == 48


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond the size: writes fail or fall short as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so that a write fails with EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_what_comes_after(tmp_path: Path) -> None:
    """What was accepted stays readable, the rest raises StoreError; with room it goes on."""
    wal = Wal(tmp_path, process())
    accepted: list[Exchange] = []
    refused = 0
    pairs = [exchange_records(number, *body) for number, body in enumerate(bodies(60, tools=2000))]
    for number, (start, end) in enumerate(pairs):
        with file_limit(60_000 if 20 <= number < 50 else resource.RLIM_INFINITY):
            try:
                wal.append(start)
                wal.append(end)
                accepted.append(joined(start, end))
            except StoreError:
                refused += 1
    wal.close()
    assert len(accepted) + refused == 60
    assert refused > 10
    contents = read_wal(wal.path)
    assert (contents.damage, contents.torn_bytes) == ((), 0)
    whole = [exchange for exchange in exchanges_of([contents])[0] if exchange.outcome != "in_flight"]
    assert whole == accepted
    assert [exchange.seq for exchange in accepted[-10:]] == list(range(50, 60))


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    """A WAL that cannot even be made raises StoreError, leaves nothing behind, and works when it can."""
    wal = Wal(tmp_path, process())
    start, end = exchange_records(0, b"question", b"answer")
    with file_limit(100):
        for _ in range(2):
            with pytest.raises(StoreError):
                wal.append(start)
    assert list((tmp_path / "wal").iterdir()) == []
    wal.append(start)
    wal.append(end)
    wal.close()
    assert exchanges_of([read_wal(wal.path)])[0] == [joined(start, end)]


def test_no_room_to_rotate(tmp_path: Path) -> None:
    """Where a new file cannot be made the old one goes on, and nothing is lost."""
    wal = Wal(tmp_path, process(), rotate_bytes=10_000)
    blocked = tmp_path / "wal" / ".4711-0badcafe-1.wal.tmp"
    blocked.parent.mkdir(mode=0o700)
    blocked.touch()
    made: list[Exchange] = []
    for number, body in enumerate(bodies(20, tools=2000)):
        start, end = exchange_records(number, *body)
        wal.append(start)
        wal.append(end)
        made.append(joined(start, end))
    wal.close()
    assert exchanges_of([read_wal(path) for path in wal_files(tmp_path)])[0] == made


def test_no_room_to_seal(tmp_path: Path) -> None:
    """Sealing on a full disk raises StoreError and keeps the WAL; with room it succeeds."""
    made = write_conversation(tmp_path, 20)
    (path,) = wal_files(tmp_path)
    for limit in (0, 2000):
        with file_limit(limit), pytest.raises(StoreError):
            sealing.seal(tmp_path, [path])
        assert wal_files(tmp_path) == [path]
        assert [item for item in (tmp_path / "segments").iterdir() if item.suffix == ".parquet"] == []
    assert sealing.seal(tmp_path, [path]) is not None
    assert len(stored(tmp_path)) == len(made)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody who may not write")
def test_a_store_that_is_read_only(tmp_path: Path) -> None:
    """Whoever may read but not write gets the records, and an error that keeps the WAL when sealing."""
    store = tmp_path / "store"
    made = write_conversation(store, 2)
    for path in [store, *store.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    code = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from tracefork_otel.store import manifest, sealing, wal, wal_reading
os.chdir(sys.argv[1])
os.setuid(65534)
store = Path(".")
problems = sealing.seal_dead(store)
exchanges = wal_reading.exchanges_of([wal_reading.read_wal(path) for path in wal.wal_files(store)])[0]
print(len(problems), manifest.load(store).segments, len(exchanges))
"""
    output = subprocess.run(
        [sys.executable, "-c", code, str(store)], check=True, capture_output=True, text=True
    )
    assert output.stdout.split() == ["1", "()", str(len(made))]
    assert len(wal_files(store)) == 1


def test_parent_and_child_each_write_their_own(tmp_path: Path) -> None:
    """A forked child cannot write into its parent's WAL, makes its own, and neither loses a record."""
    wal = Wal(tmp_path, process("1-parent"))
    first, second, third = (exchange_records(number, b"q" * 200, b"a") for number in range(3))
    wal.append(first[0])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                wal.append(first[1])
            except StoreError:
                own = Wal(tmp_path, process("2-child"))
                own.append(second[0])
                own.append(second[1])
                status = 0
        finally:
            os._exit(status)
    wal.append(first[1])
    wal.append(third[0])
    assert os.waitpid(child, 0)[1] == 0
    assert is_live(wal.path)
    wal.append(third[1])
    wal.close()
    assert sealing.seal_dead(tmp_path) == []
    expected = [joined(*first, "1-parent"), joined(*second, "2-child"), joined(*third, "1-parent")]
    assert sorted(stored(tmp_path), key=lambda exchange: exchange.seq) == expected


def test_a_child_does_not_keep_its_parents_wal_alive(tmp_path: Path) -> None:
    """When the parent is killed its WAL can be sealed, although a child that it forked lives on."""
    code = """
import os, sys, time
from pathlib import Path
from wal_samples import exchange_records, process
from tracefork_otel.store.wal import Wal
wal = Wal(Path(sys.argv[1]), process("1-parent"))
start, end = exchange_records(0, b"question", b"answer")
wal.append(start)
if os.fork() == 0:
    own = Wal(Path(sys.argv[1]), process("2-child"))
    own.append(start)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
time.sleep(60)
"""
    tests = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert sealing.seal_dead(tmp_path) == []
        assert [path.name for path in wal_files(tmp_path)] == ["1-parent-0.wal", "2-child-0.wal"]
        parent.kill()
        parent.wait()
        assert sealing.seal_dead(tmp_path) == []
        assert [path.name for path in wal_files(tmp_path)] == ["2-child-0.wal"]
        assert [exchange.process_id for exchange in stored(tmp_path)] == ["1-parent"]
    finally:
        os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.wait()
        parent.stdout.close()
    until = time.monotonic() + 10
    while is_live(tmp_path / "wal" / "2-child-0.wal") and time.monotonic() < until:
        time.sleep(0.01)
    assert sealing.seal_dead(tmp_path) == []
    assert len(manifest.load(tmp_path).segments) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_while_other_threads_append_and_seal(tmp_path: Path) -> None:
    """A fork at any moment leaves parent and child able to write, and no lock with the child."""
    import threading

    stop = threading.Event()
    wal = Wal(
        tmp_path,
        process("1-parent"),
        rotate_bytes=5_000,
        on_rotated=lambda path: sealing.seal(tmp_path, [path]) and None,
    )
    appended = 0

    def work() -> None:
        nonlocal appended
        for number, body in enumerate(bodies(400, tools=500, turn=100)):
            if stop.is_set():
                break
            start, end = exchange_records(number, *body, trace_id="1" * 32)
            wal.append(start)
            wal.append(end)
            appended += 1

    thread = threading.Thread(target=work)
    thread.start()
    ends: list[int] = []
    try:
        for number in range(8):
            reading, writing = os.pipe()
            if os.fork() == 0:
                status = 1
                try:
                    os.close(writing)
                    own = Wal(tmp_path, process(f"2-{number}"))
                    for record in exchange_records(number, b"child", b"x", trace_id="2" * 32):
                        own.append(record)
                    os.read(reading, 1)
                    status = 0
                finally:
                    os._exit(status)
            os.close(reading)
            ends.append(writing)
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join()
    wal.close()
    # The children live and have forgotten all that was the parent's.
    assert not any(is_live(path) for path in wal_files(tmp_path) if path.name.startswith("1-parent"))
    for writing in ends:
        os.close(writing)
    assert [os.wait()[1] for _ in ends] == [0] * 8
    sealing.seal_dead(tmp_path)
    exchanges = stored(tmp_path)
    assert len({exchange.span_id for exchange in exchanges}) == len(exchanges) == appended + 8
