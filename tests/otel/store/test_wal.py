"""A WAL gives back what was appended, whatever becomes of its end, of a byte in it, or of the process."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st
from wal_samples import TRACE, bodies, exchange_records, joined, process
from wal_strategies import record_lists

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Request
from tracefork_otel.store import codec, manifest, sealing, segment
from tracefork_otel.store.codec import MAGIC
from tracefork_otel.store.records import ExchangeStarted, Note, ProcessStarted, Record, Rotated, SpanRecord
from tracefork_otel.store.wal import Wal, is_live, wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

ROOT = SpanRecord(
    trace_id=TRACE,
    span_id="00f067aa0ba902b7",
    parent_span_id=None,
    name="run",
    kind="INTERNAL",
    started_ns=10**18,
)


def conversation(turns: int, **options: int) -> list[Record]:
    """The records of a conversation of so many turns."""
    return [
        record
        for number, (request, response) in enumerate(bodies(turns, **options))
        for record in exchange_records(number, request, response)
    ]


def written(store: Path, records: list[Record], **options: int) -> Path:
    """The path of a closed WAL that holds these records."""
    wal = Wal(store, process(), **options)  # type: ignore[arg-type]
    for record in records:
        wal.append(record)
    wal.close()
    return wal.path


@given(record_lists())
def test_any_records_come_back(records: list[Record]) -> None:
    """What was appended is read, in order and byte for byte, after the record of the process itself."""
    with TemporaryDirectory() as directory:
        wal = Wal(Path(directory), process())
        for record in records:
            wal.append(record)
        contents = read_wal(wal.path) if records else None
        wal.close()
    if contents is not None:
        assert contents.records == [process(), *records]
        assert contents.process == process()
        assert (contents.torn_bytes, contents.damage, contents.rotated) == (0, (), None)


def test_a_body_is_written_as_what_is_new_in_it(tmp_path: Path) -> None:
    """Forty requests that repeat their history take the room of their new text."""
    records = conversation(40)
    raw = sum(len(record.request.body) for record in records if isinstance(record, ExchangeStarted))
    path = written(tmp_path, records)
    assert raw > 1_500_000
    assert path.stat().st_size < 250_000
    assert read_wal(path).records[1:] == records


@pytest.mark.slow
def test_a_file_cut_anywhere_keeps_what_was_whole(tmp_path: Path) -> None:
    """Every record before the cut is there, and none after it; the rest is counted as torn, not as damage."""
    records = [*conversation(3, tools=500, turn=100), Note(kind="lost", time_ns=1)]
    wal, ends = Wal(tmp_path, process()), list[int]()
    for record in records:
        wal.append(record)
        ends.append(wal.path.stat().st_size)
    wal.close()
    data = wal.path.read_bytes()
    first = ends[0] - len(data[: ends[0]]) + data[: ends[0]].index(b'{"t":"request"') - 12
    for cut in range(len(data) - 1, -1, -1):
        os.truncate(wal.path, cut)
        contents = read_wal(wal.path)
        whole = sum(end <= cut for end in ends)
        assert contents.records[1:] == records[:whole]
        assert len(contents.records) == (whole + 1 if cut >= first else 0)
        assert (contents.damage == ()) == (cut >= first)  # less than a log begins with is no log
        edges = {0, len(MAGIC), first, *ends}
        assert (contents.torn_bytes == 0) == (cut in edges or cut < first)


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_zeros_at_the_end_are_torn(tmp_path: Path, size: int) -> None:
    """What a loss of power leaves, a file longer than its data, is no damage."""
    path = written(tmp_path, conversation(2))
    with path.open("ab") as file:
        file.write(bytes(size))
    contents = read_wal(path)
    assert (len(contents.records), contents.torn_bytes, contents.damage) == (5, size, ())


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_and_named(at: float, flip: int) -> None:
    """A byte that changes anywhere in a record costs that record alone, and its place is told.

    Requests whose deltas hang on it are told to be damaged, never restored to something else.
    """
    records = [*conversation(6, tools=500, turn=200)]
    with TemporaryDirectory() as directory:
        path = written(Path(directory), records)
        data = bytearray(path.read_bytes())
        last = data.rindex(b'{"t":"') - 12  # A changed length of the last record looks like a torn one.
        place = len(MAGIC) + int(at * (last - len(MAGIC)))
        data[place] ^= flip
        path.write_bytes(data)
        contents = read_wal(path)
    assert len(contents.damage) == 1
    assert path.name in contents.damage[0]
    assert "byte" in contents.damage[0]
    found = [record for record in contents.records if not isinstance(record, ProcessStarted)]
    whole = [record for record in found if record.span_id not in contents.lost_bodies]  # type: ignore[union-attr]
    assert all(record in records for record in whole)
    assert len(contents.records) == len(records)
    exchanges, _, _, notes = exchanges_of([contents])
    assert all(exchange.damage for exchange in exchanges if exchange.span_id in contents.lost_bodies)
    assert any(note.kind == "lost" and note.attributes["why"] == contents.damage[0] for note in notes)


@pytest.mark.parametrize("content", [b"MZ\x90\x00", b"tracefork wal 9\n", b"x"])
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """A file that is no WAL, or has no name of one, raises an error that names it."""
    path = tmp_path / "1-abc-0.wal"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"1-abc-0\.wal"):
        read_wal(path)
    named = tmp_path / "other.wal"
    named.write_bytes(MAGIC)
    with pytest.raises(StoreError, match=r"other\.wal"):
        read_wal(named)
    with pytest.raises(StoreError, match=r"2-abc-0\.wal"):
        read_wal(tmp_path / "2-abc-0.wal")


def test_nothing_is_made_before_the_first_record(tmp_path: Path) -> None:
    """A WAL without a record leaves the disk alone; with one, only its owner can read it."""
    store = tmp_path / "deep" / "store"
    wal = Wal(store, process())
    assert not store.exists()
    wal.append(ROOT)
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert stat.S_IMODE(wal.path.stat().st_mode) == 0o600
    wal.close()


def test_the_lock_tells_who_lives(tmp_path: Path) -> None:
    """A WAL is live while its process holds it, and not when it is closed."""
    wal = Wal(tmp_path, process())
    wal.append(ROOT)
    assert is_live(wal.path)
    assert read_wal(wal.path).records == [process(), ROOT]
    wal.close()
    assert not is_live(wal.path)
    with pytest.raises(StoreError, match="closed"):
        wal.append(ROOT)


def test_rotation_carries_what_is_open(tmp_path: Path) -> None:
    """Each exchange and span is told once, with all its WALs or with those up to any point."""
    rotated: list[Path] = []
    wal = Wal(tmp_path, process(), rotate_bytes=60_000, on_rotated=rotated.append)
    slow_start, slow_end = exchange_records(99, b"slow" * 100, b"answer")
    never, _ = exchange_records(98, b"never ends", b"")
    wal.append(ROOT)
    wal.append(slow_start)
    wal.append(never)
    records = conversation(30)
    for record in records:
        wal.append(record)
    wal.append(slow_end)
    wal.append(replace(ROOT, ended_ns=10**18 + 5))
    wal.close()
    contents = [read_wal(path) for path in wal_files(tmp_path)]
    assert len(contents) == len(rotated) + 1 > 3
    assert [content.path for content in contents[:-1]] == rotated
    for content, after in pairwise(contents):
        assert content.rotated == content.records[-1]
        assert content.rotated.to == after.path.name
        assert set(content.rotated.carried) >= {slow_start.span_id, never.span_id, ROOT.span_id}
        assert after.records[:4] == [process(), ROOT, slow_start, never]
    pairs = zip(records[::2], records[1::2], strict=True)
    expected = [joined(start, end) for start, end in pairs]  # type: ignore[arg-type]
    expected += [joined(slow_start, slow_end), joined(never, None)]
    expected.sort(key=lambda exchange: (exchange.trace_id, exchange.started_ns, exchange.span_id))
    together = exchanges_of(contents)
    assert together[0] == expected
    assert together[1:] == ([replace(ROOT, ended_ns=10**18 + 5, process_id="4711-0badcafe")], [process()], [])
    for cut in range(1, len(contents)):
        parts = [exchanges_of(contents[:cut]), exchanges_of(contents[cut:])]
        exchanges = [exchange for part in parts for exchange in part[0]]
        assert sorted(exchanges, key=lambda exchange: exchange.started_ns) == expected
        assert [len(part[1]) for part in parts] == [0, 1]
        assert [len(part[2]) for part in parts] == [1, 0]


def test_a_carried_copy_mends_a_damaged_start(tmp_path: Path) -> None:
    """A request that hung on a damaged record is whole where the next WAL holds it too."""
    wal = Wal(tmp_path, process())
    first, second = (exchange_records(number, b"question " * 40 + b"!" * number, b"x") for number in range(2))
    wal.append(first[0])
    wal.append(first[1])
    wal.append(second[0])
    wal._rotate_at = 0  # At the next record.
    wal.append(Note(kind="lost", time_ns=1))
    wal.append(second[1])
    wal.close()
    old, new = wal_files(tmp_path)
    data = bytearray(old.read_bytes())
    data[data.index(b'"seq":0') + 6] ^= 1
    old.write_bytes(data)
    contents = [read_wal(old), read_wal(new)]
    assert list(contents[0].lost_bodies) == [second[0].span_id]
    assert exchanges_of(contents)[0] == [joined(*second)]
    assert sealing.seal_dead(tmp_path) == []
    (entry,) = manifest.load(tmp_path).segments
    assert list(segment.read_exchanges(tmp_path, entry)) == [joined(*second)]


def test_an_end_without_its_start_is_told(tmp_path: Path) -> None:
    """An exchange whose start could not be written leaves a note, not an exchange made up."""
    _, end = exchange_records(0, b"", b"answer")
    exchanges, _, _, notes = exchanges_of([read_wal(written(tmp_path, [end]))])
    assert exchanges == []
    assert [(note.kind, note.attributes["span_id"]) for note in notes] == [("lost", end.span_id)]


def test_a_request_that_streams_gets_its_body_at_the_end(tmp_path: Path) -> None:
    """The end brings the body of the request; without it, the exchange says that it is not whole."""
    start, end = exchange_records(0, b"", b"answer")
    start = replace(start, request_complete=False)
    other, _ = exchange_records(1, b"par", b"")
    other = replace(other, request_complete=False)
    path = written(tmp_path, [start, other, replace(end, request_body=b"streamed \xff bytes")])
    first, second = exchanges_of([read_wal(path)])[0]
    assert (first.request.body, first.response, first.damage) == (b"streamed \xff bytes", end.response, None)
    assert second.outcome == "in_flight"
    assert second.damage is not None


def test_threads_share_a_wal(tmp_path: Path) -> None:
    """Eight threads append at once while the file rotates: every record is there once."""
    wal = Wal(tmp_path, process(), rotate_bytes=100_000)
    expected: list[Record] = []

    def work(number: int) -> None:
        for turn, (request, response) in enumerate(bodies(12, seed=number, tools=2000)):
            pair = exchange_records(turn, request, response, trace_id=f"{number:032x}")
            for record in pair:
                wal.append(record)
            expected.extend(pair)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wal.close()
    contents = [read_wal(path) for path in wal_files(tmp_path)]
    assert len(contents) > 1
    exchanges = exchanges_of(contents)[0]
    assert len(exchanges) == 96
    pairs = zip(expected[::2], expected[1::2], strict=True)
    wanted = {start.span_id: joined(start, end) for start, end in pairs}  # type: ignore[arg-type, union-attr]
    assert {exchange.span_id: exchange for exchange in exchanges} == wanted


def test_a_signal_handler_can_append(tmp_path: Path) -> None:
    """A handler that records while its own thread records neither waits for ever nor spoils a delta."""
    records = conversation(60)
    wal = Wal(tmp_path, process())
    handled: list[Record] = []
    going_on = [True]

    def handle(*_: object) -> None:
        start, end = exchange_records(1000 + len(handled), b"from the handler" * 50, b"x")
        handled.extend((start, end))
        wal.append(start)
        wal.append(end)
        if going_on:  # set anew each time: on a busy machine handlers would nest without end
            signal.setitimer(signal.ITIMER_REAL, 0.0002)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        for record in records:
            wal.append(record)
    finally:
        going_on.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wal.close()
    contents = read_wal(wal.path)
    assert handled
    assert contents.damage == ()
    assert [record for record in contents.records[1:] if record in records] == records
    assert len(contents.records) == 1 + len(records) + len(handled)


def test_attributes_that_are_not_json_become_text(tmp_path: Path) -> None:
    """A span's attribute of any type is kept as something readable, never an error."""
    odd = {
        "bytes": b"\xff\x00",
        "set": {1},
        "path": Path("/a"),
        "tuple": (1, 2),
        "nan": float("inf"),
        "half": "\ud800",
    }
    path = written(tmp_path, [replace(ROOT, attributes=odd)])
    read = read_wal(path).records[1]
    assert isinstance(read, SpanRecord)
    expected = {
        "bytes": "\\xff\x00",
        "set": [1],
        "path": "/a",
        "tuple": [1, 2],
        "nan": float("inf"),
        "half": "\ud800",
    }
    assert read.attributes == expected


class Silent:
    """Raises whatever it is asked."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_attributes_that_have_no_json_and_no_text_cost_no_record(tmp_path: Path) -> None:
    """What is nested too deep, holds itself or raises is told of in words; all else is there."""
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    itself: dict[str, object] = {}
    itself |= {"a": itself, "b": itself}
    odd = {"deep": deep, "itself": itself, "silent": Silent(), "long": 10**5000, ("k",): 1, "city": "Osaka"}
    path = written(tmp_path, [replace(ROOT, attributes=odd)])  # type: ignore[arg-type]
    read = read_wal(path).records[1]
    assert isinstance(read, SpanRecord)
    assert "nested too deep" in json.dumps(read.attributes["deep"])
    assert "nested too deep" in json.dumps(read.attributes["itself"])
    assert read.attributes["silent"] == "a Silent that cannot be read: RuntimeError"
    assert read.attributes["long"] == hex(10**5000)
    assert read.attributes["('k',)"] == 1
    assert read.attributes["city"] == "Osaka"
    assert path.stat().st_size < 10**7


def test_a_record_that_cannot_be_written_spoils_nothing(tmp_path: Path) -> None:
    """A body that is none raises StoreError; records before and after are whole."""
    start, _ = exchange_records(0, b"question", b"answer")
    wal = Wal(tmp_path, process())
    wal.append(ROOT)
    with pytest.raises(StoreError, match=r"4711-0badcafe-0\.wal"):
        wal.append(replace(start, request=replace(start.request, body="text")))  # type: ignore[arg-type]
    wal.append(Note(kind="lost", time_ns=1))
    wal.close()
    assert read_wal(wal.path).records == [process(), ROOT, Note(kind="lost", time_ns=1)]


def test_a_store_removed_under_a_process_is_made_again(tmp_path: Path) -> None:
    """After `rm -rf` of the store, what is open and what comes next goes into a new file."""
    start, end = exchange_records(0, b"question", b"answer")
    store = tmp_path / "store"
    wal = Wal(store, process())
    wal.append(start)
    wal.path.unlink()
    wal.path.parent.rmdir()
    wal.append(end)
    wal.close()
    exchanges, _, processes, _ = exchanges_of([read_wal(wal.path)])
    assert exchanges == [joined(start, end)]
    assert processes == [process()]


def held_by(wal: Wal) -> int:
    """The number of the descriptor of the WAL's file."""
    own = wal.path.stat()
    for name in os.listdir("/dev/fd"):
        try:
            found = os.fstat(int(name))
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            return int(name)
    raise AssertionError("nobody holds the file")


@pytest.mark.parametrize("gone", ["closed", "file", "socket", "read only"])
def test_the_number_of_its_descriptor_may_become_the_agents(tmp_path: Path, gone: str) -> None:
    """An agent that closes all descriptors finds no byte of ours in what it opens next; nothing is lost."""
    start, end = exchange_records(0, b"question", b"answer")
    mine, (left, right) = tmp_path / "mine", socket.socketpair()
    mine.write_bytes(b"own")
    wal = Wal(tmp_path / "store", process())
    wal.append(start)
    number = held_by(wal)
    if gone == "closed":
        os.close(number)
    elif gone == "socket":
        os.dup2(left.fileno(), number)
    else:
        other = os.open(mine, os.O_RDONLY if gone == "read only" else os.O_RDWR)
        os.dup2(other, number)
        os.close(other)
    wal.append(end)
    assert is_live(wal.path)
    wal.close()
    right.setblocking(False)
    with pytest.raises(BlockingIOError):
        right.recv(1)
    assert mine.read_bytes() == b"own"
    if gone != "closed":
        os.fstat(number)  # the agent's own is open still
        os.close(number)
    left.close()
    right.close()
    assert wal_files(tmp_path / "store") == [wal.path]
    assert exchanges_of([read_wal(wal.path)])[0] == [joined(start, end)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the file's end cannot be named")
def test_a_socket_may_take_the_number_in_the_middle_of_an_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread's `dup2` between our look at the descriptor and our write costs no byte of either."""
    start, end = exchange_records(0, b"question", b"answer")
    left, right = socket.socketpair()
    wal = Wal(tmp_path, process())
    wal.append(start)
    number, encode = held_by(wal), codec.encode

    def meanwhile(*given: Any) -> list[bytes]:
        monkeypatch.setattr(codec, "encode", encode)
        os.dup2(left.fileno(), number)
        return encode(*given)

    monkeypatch.setattr(codec, "encode", meanwhile)
    wal.append(end)
    left.sendall(b"own")
    assert right.recv(100) == b"own"
    wal.close()
    os.close(number)
    left.close()
    right.close()
    assert exchanges_of([read_wal(wal.path)])[0] == [joined(start, end)]


def test_no_child_inherits_the_descriptor(tmp_path: Path) -> None:
    """A program that is started with all descriptors left open does not have ours, nor its lock."""
    wal = Wal(tmp_path, process())
    wal.append(ROOT)
    code = f"import os; os.fstat({held_by(wal)})"
    done = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, check=False)
    assert b"Bad file descriptor" in done.stderr
    wal.close()
    assert not is_live(wal.path)


@pytest.mark.slow
def test_a_thread_may_fork_while_others_append(tmp_path: Path) -> None:
    """A child of a thread's records into a file of its own, and holds nothing of its parent's."""
    records = conversation(200)
    wal = Wal(tmp_path, process())
    codes: list[int] = []

    def fork() -> None:
        for _ in range(3):
            child = os.fork()
            if not child:
                own = Wal(tmp_path, replace(process(), process_id=f"{os.getpid()}-cafecafe"))
                own.append(ROOT)
                own.close()
                os._exit(0)
            codes.append(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=fork)
    thread.start()
    for record in records:
        wal.append(record)
    thread.join()
    wal.close()
    assert codes == [0, 0, 0]
    assert not is_live(wal.path)
    contents = [read_wal(path) for path in wal_files(tmp_path)]
    assert len(contents) == 4
    assert not any(content.torn_bytes or content.damage for content in contents)
    assert len(exchanges_of(contents)[0]) == 200


def test_a_file_that_was_sealed_meanwhile_is_followed_by_another(tmp_path: Path) -> None:
    """Once its descriptor is closed a sealer may take the file: what comes next is in a new one."""
    wal = Wal(tmp_path, process())
    wal.append(ROOT)
    wal.append(replace(ROOT, ended_ns=10**18 + 1))
    os.close(held_by(wal))
    assert sealing.seal_dead(tmp_path) == []
    assert len(manifest.load(tmp_path).segments) == 1
    note = Note(kind="lost", time_ns=1)
    wal.append(note)
    wal.close()
    assert [path.name for path in wal_files(tmp_path)] == [wal.path.name]
    assert read_wal(wal.path).records == [process(), note]
    assert wal.path.name not in manifest.load(tmp_path).wals


def test_the_directory_of_the_process_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative store stays where it was when the WAL was made."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    wal = Wal(Path("store"), process(), rotate_bytes=1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    wal.append(ROOT)
    wal.append(replace(ROOT, ended_ns=10**18 + 1))
    wal.close()
    assert len(wal_files(tmp_path / "store")) > 1


def test_sync_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `sync="exchange"`, every end of an exchange is followed by one fdatasync, and nothing else is."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for sync, expected in (("never", 0), ("exchange", 3)):
        wal = Wal(tmp_path / sync, process(), sync=sync)  # type: ignore[arg-type]
        for record in conversation(3):
            wal.append(record)
        wal.close()
        assert len(synced) == expected


def test_it_needs_the_standard_library_only() -> None:
    """Importing the WAL brings neither pyarrow nor anything else that is not ours or Python's."""
    code = "import sys, json, tracefork_otel.store.wal\n"
    code += "print(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(output)) - {"tracefork_otel", "site", "sitecustomize"}
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign <= {"distutils_hack"}


def test_an_append_is_cheap(tmp_path: Path) -> None:
    """Both records of a 110 KB request of a growing conversation take a part of a millisecond."""
    records = conversation(60, tools=20_000)
    wal = Wal(tmp_path, process())
    gc.disable()
    try:
        with soon(0.0002 * len(records)):
            for record in records:
                wal.append(record)
    finally:
        gc.enable()
    wal.close()
    assert isinstance(records[-2], ExchangeStarted)
    assert len(records[-2].request.body) > 100_000


def test_rotated_is_no_record_of_a_run(tmp_path: Path) -> None:
    """A rotation that names exchanges nobody started makes none."""
    path = written(tmp_path, [Rotated(to="x-1.wal", carried=("abc",))])
    assert exchanges_of([read_wal(path)]) == ([], [], [process()], [])


def test_an_empty_body_and_a_large_one(tmp_path: Path) -> None:
    """Nothing and ten megabytes are both kept, the same ten megabytes twice at the price of once."""
    large = os.urandom(10_000_000)
    records: list[Record] = []
    for number, body in enumerate((b"", large, large + b"more")):
        start, end = exchange_records(number, body, b"")
        records += [replace(start, request=Request(method="PUT", url="http://x/", body=body)), end]
    path = written(tmp_path, records)
    assert path.stat().st_size < 10_100_000
    assert read_wal(path).records[1:] == records


def test_a_newer_wal_is_refused_by_its_format(tmp_path: Path) -> None:
    """The error names the file, both formats and what to do; the file stays."""
    wal = Wal(tmp_path, process())
    wal.append(exchange_records(0, b"question", b"answer")[0])
    wal.close()
    path = wal.path
    path.write_bytes(path.read_bytes().replace(b"tracefork wal 1\n", b"tracefork wal 12\n", 1))
    wanted = rf"{path.name}: WAL format 12 is newer than 1, .* this version reads; upgrade tracefork-otel"
    with pytest.raises(StoreError, match=wanted):
        read_wal(path)
    assert path.name in sealing.seal_dead(tmp_path)[0]
    assert (manifest.load(tmp_path).segments, path.exists()) == ((), True)


@pytest.mark.parametrize(
    ("parent", "child", "named"),
    [
        ({}, {}, False),
        ({"launch_id": None}, {"launch_id": None}, False),
        ({}, {"ppid": 1}, False),  # its parent ended before it
        ({}, {"launch_id": "b" * 32}, True),
        ({"launch_id": None}, {}, True),
        ({}, {"ppid": 6}, True),
        ({}, {"started_ns": 5}, True),
        ({"attributes": {"host": "one"}}, {"attributes": {"host": "two"}}, True),
        ({}, {"pid": 8}, True),
        ({"attributes": {}}, {"attributes": {}}, False),  # a file of an older version
    ],
)
def test_a_program_that_recorded_after_all(
    parent: dict[str, Any], child: dict[str, Any], named: bool, tmp_path: Path
) -> None:
    """A note of a started program goes where just that process recorded, not where its number came again."""
    own: dict[str, Any] = {"launch_id": "a" * 32, "attributes": {"host": "one"}, "ppid": 1, "started_ns": 10}
    noted = Note(kind="incomplete", time_ns=11, attributes={"why": "not reached", "pid": 7})
    started = process("7-0badcafe", **{**own, "pid": 7, "ppid": 5, "started_ns": 11, **child})
    for one, record in ((process("5-0badcafe", **{**own, "pid": 5, **parent}), noted), (started, ROOT)):
        wal = Wal(tmp_path, one)
        wal.append(record)
        wal.close()
    notes = exchanges_of([read_wal(path) for path in (tmp_path / "wal").glob("*.wal")])[3]
    assert [note.kind for note in notes] == (["incomplete"] if named else [])


def test_a_pipe_is_no_log_that_is_waited_for(tmp_path: Path) -> None:
    """Whether somebody holds a file is told at once, also of a pipe that nobody writes into."""
    os.mkfifo(tmp_path / "owner")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(30)
    try:
        assert not is_live(tmp_path / "owner")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
