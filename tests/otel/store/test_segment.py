"""A segment gives back what was sealed into it, and says so where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wal_samples import TRACE, bodies, exchange_records, joined, process, write_conversation
from wal_strategies import exchanges, notes, record_lists, spans

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.records import (
    ExchangeEnded,
    ExchangeStarted,
    Note,
    ProcessStarted,
    Record,
    SpanRecord,
)
from tracefork_otel.store.rows import Rows
from tracefork_otel.store.segment import (
    read_records,
    write_segment,
)
from tracefork_otel.store.wal import Wal, wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal


def encode(
    found: Iterable[Exchange],
    some_spans: Iterable[SpanRecord],
    processes: Iterable[ProcessStarted],
    some_notes: Iterable[Note],
) -> Rows:
    """The rows of a segment that holds all of these."""
    rows = Rows()
    for item in found:
        rows.exchange(item)
    rows.others(some_spans, processes, some_notes)
    return rows


def read_exchanges(store: Path, entry: SegmentEntry, **asked: Any) -> list[Exchange]:
    """The exchanges of a segment."""
    return list(segment.read_exchanges(store, entry, **asked))


def order(exchange: Exchange) -> tuple[str, int, str]:
    """The order of rows in a segment."""
    return exchange.trace_id, exchange.started_ns, exchange.span_id


def sealed(store: Path) -> SegmentEntry:
    """The only segment of a store after its WALs were sealed."""
    assert sealing.seal_dead(store) == []
    (entry,) = manifest.load(store).segments
    return entry


def normal(value: object) -> object:
    """JSON knows no infinities: they are text in a segment."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(normal(item) for item in value)
    return value


@given(
    found=st.lists(exchanges(), max_size=6, unique_by=lambda exchange: exchange.span_id),
    some_spans=st.lists(spans(), max_size=3),
    some_notes=st.lists(notes(), max_size=2),
)
def test_anything_comes_back(found: list[Exchange], some_spans: list[SpanRecord], some_notes: list) -> None:
    """Exchanges, spans, processes and notes are read as they were encoded, bodies byte for byte."""
    found = [replace(item, attributes=normal(item.attributes), links=normal(item.links)) for item in found]  # type: ignore[arg-type]
    some_notes = [replace(item, attributes=normal(item.attributes)) for item in some_notes]
    parts = ("attributes", "events", "links")
    some_spans = [
        replace(item, **{name: normal(getattr(item, name)) for name in parts}) for item in some_spans
    ]
    with TemporaryDirectory() as directory:
        store = Path(directory)
        entry = write_segment(store, encode(found, some_spans, [process()], some_notes))
        assert read_exchanges(store, entry) == sorted(found, key=order)
        read = read_records(store, entry)
        trace_ids = {exchange.trace_id for exchange in found}
        for trace_id in trace_ids:
            expected = [exchange for exchange in found if exchange.trace_id == trace_id]
            assert read_exchanges(store, entry, trace_ids=[trace_id]) == sorted(expected, key=order)
            assert entry.may_hold(trace_id)
        assert read_exchanges(store, entry, trace_ids=["e" * 32]) == []
    assert sorted(map(repr, read[0])) == sorted(map(repr, some_spans))
    assert read[1] == [process()]
    assert sorted(map(repr, read[2])) == sorted(map(repr, some_notes))
    assert (entry.exchanges, entry.spans) == (len(found), len(some_spans) + len(some_notes) + 1)


@given(records=record_lists(), streamed=st.booleans())
def test_sealing_is_reading_the_wal(records: list[Record], streamed: bool) -> None:
    """Whatever a process wrote, its segment tells what its WALs told, bodies passing through one by one."""
    with TemporaryDirectory() as directory:
        store = Path(directory)
        wal = Wal(store, process(), rotate_bytes=3000)
        for record in records:
            if streamed and isinstance(record, ExchangeStarted):
                record = replace(record, request=replace(record.request, body=b""), request_complete=False)
            if streamed and isinstance(record, ExchangeEnded):
                record = replace(record, request_body=b"streamed" * 100)
            wal.append(record)
        wal.close()
        found, some_spans, processes, some_notes = exchanges_of([read_wal(path) for path in wal_files(store)])
        sealing.seal_dead(store)
        entries = manifest.load(store).segments
        assert [item for entry in entries for item in read_exchanges(store, entry)] == [
            replace(item, attributes=normal(item.attributes), links=normal(item.links))  # type: ignore[arg-type]
            for item in found
        ]
        read = [read_records(store, entry) for entry in entries]
    assert [len(some_spans), len(some_notes)] == [sum(len(part[at]) for part in read) for at in (0, 2)]
    assert [item for part in read for item in part[1]] == processes


def test_nothing_is_a_segment_too(tmp_path: Path) -> None:
    """A segment without a row is written and read."""
    entry = write_segment(tmp_path, encode([], [], [], []))
    assert (read_exchanges(tmp_path, entry), read_records(tmp_path, entry)) == ([], ([], [], []))


def test_what_is_not_text_becomes_text(tmp_path: Path) -> None:
    """Half a surrogate pair in an error message or an attribute does not cost the segment."""
    start, end = exchange_records(0, b"", b"")
    odd = replace(
        joined(start, end), error_message="\ud800!", attributes={"x": "\ud800", "nan": float("nan")}
    )
    entry = write_segment(tmp_path, encode([odd], [], [], []))
    (read,) = read_exchanges(tmp_path, entry)
    assert (read.error_message, read.attributes) == ("?!", {"x": "\ufffd", "nan": "nan"})


def test_rows_and_chunks_of_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows and chunks than one row group holds are read as if there were one, whatever its size was."""
    monkeypatch.setattr(segment, "ROW_GROUP", {"exchanges": 70, "spans": 10, "chunks": 50})
    made = [
        joined(
            *exchange_records(number, b"%d " % number * 3, b"\xff%d" % number, trace_id=f"{number % 3:032x}")
        )
        for number in range(400)
    ]
    entry = write_segment(tmp_path, encode(made, [], [], []))
    monkeypatch.undo()
    assert pq.ParquetFile(entry.file(tmp_path, "chunks")).metadata.num_row_groups > 1
    assert pq.ParquetFile(entry.file(tmp_path, "exchanges")).metadata.num_row_groups > 1
    assert read_exchanges(tmp_path, entry) == sorted(made, key=order)
    expected = [exchange for exchange in sorted(made, key=order) if exchange.trace_id.endswith("1")]
    assert read_exchanges(tmp_path, entry, trace_ids=[f"{1:032x}"]) == expected


def test_sealing_keeps_every_exchange_and_removes_the_wal(tmp_path: Path) -> None:
    """What a dead process wrote is in one segment, and its WAL is gone; sealing again does nothing."""
    made = write_conversation(tmp_path, 12)
    entry = sealed(tmp_path)
    assert read_exchanges(tmp_path, entry) == sorted(made, key=order)
    assert read_records(tmp_path, entry) == ([], [process()], [])
    assert wal_files(tmp_path) == []
    assert entry.wals == ("4711-0badcafe-0.wal",)
    assert sealing.seal_dead(tmp_path) == []


def test_a_wal_that_the_manifest_names_is_only_removed(tmp_path: Path) -> None:
    """A crash between the commit and the removal of the WAL stores nothing twice."""
    write_conversation(tmp_path, 3)
    (path,) = wal_files(tmp_path)
    data = path.read_bytes()
    entry = sealed(tmp_path)
    path.write_bytes(data)
    assert sealing.seal_dead(tmp_path) == []
    assert (manifest.load(tmp_path).segments, path.exists()) == ((entry,), False)


def test_what_a_crash_left_before_a_manifest_named_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log is sealed again, perhaps with the next; a segment of another log stays, whoever left it."""
    write_conversation(tmp_path, 3)
    other = write_segment(tmp_path, encode([], [], [process()], []), wals=["1-0badcafe-0.wal"])
    unsaid = write_segment(tmp_path, encode([], [], [process()], []))
    with monkeypatch.context() as killed:
        killed.setattr(manifest, "commit", Mock(side_effect=KeyboardInterrupt))
        killed.setattr(manifest, "discard", Mock())
        with pytest.raises(KeyboardInterrupt):
            sealing.seal_dead(tmp_path)
    assert len(list((tmp_path / "segments").glob("*.spans.parquet"))) == 3
    entry = sealed(tmp_path)
    left = {path.name.partition(".")[0] for path in (tmp_path / "segments").glob("*.parquet")}
    assert left == {entry.id, other.id, unsaid.id}
    assert entry.exchanges == 3


@pytest.mark.parametrize("kind", ["spans", "exchanges", "chunks"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: os.truncate(path, 900)])
def test_a_wal_stays_while_its_segment_is_not_whole(
    tmp_path: Path, kind: str, spoil: Callable[[Path], None]
) -> None:
    """A WAL that the manifest calls sealed is the last copy where a file of its segment is not whole."""
    write_conversation(tmp_path, 3)
    (path,) = wal_files(tmp_path)
    data = path.read_bytes()
    entry = sealed(tmp_path)
    path.write_bytes(data)
    spoil(entry.file(tmp_path, kind))
    (problem,) = sealing.seal_dead(tmp_path)
    assert entry.file(tmp_path, kind).name in problem
    assert path.read_bytes() == data


def test_a_live_wal_is_left_alone(tmp_path: Path) -> None:
    """A process that runs keeps its current WAL; the finished ones before it are sealed meanwhile."""
    wal = Wal(tmp_path, process(), rotate_bytes=20_000)
    made: list[Exchange] = []
    for number, (request, response) in enumerate(bodies(10)):
        start, end = exchange_records(number, request, response)
        wal.append(start)
        wal.append(end)
        made.append(joined(start, end))
    assert sealing.seal_dead(tmp_path) == []
    assert wal_files(tmp_path) == [wal.path]
    assert len(manifest.load(tmp_path).segments) > 1
    assert sealing.seal(tmp_path, [wal.path]) is None
    wal.close()
    sealing.seal_dead(tmp_path)
    stored = [item for entry in manifest.load(tmp_path).segments for item in read_exchanges(tmp_path, entry)]
    assert sorted(stored, key=order) == made
    processes = [
        item for entry in manifest.load(tmp_path).segments for item in read_records(tmp_path, entry)[1]
    ]
    assert processes == [process()]


def test_unreadable_wals_do_not_block_the_others(tmp_path: Path) -> None:
    """Foreign files are named and left; what can be read is sealed, even of the same process."""
    made = write_conversation(tmp_path, 2)
    (tmp_path / "wal" / "4711-0badcafe-1.wal").write_bytes(b"PK\x03\x04 something else")
    (tmp_path / "wal" / "9-f-0.wal").write_bytes(b"\0" * 100)
    same, other = sealing.seal_dead(tmp_path)
    assert ["4711-0badcafe-1.wal" in same, "9-f-0.wal" in other] == [True, True]
    assert [path.name for path in wal_files(tmp_path)] == ["4711-0badcafe-1.wal", "9-f-0.wal"]
    (entry,) = manifest.load(tmp_path).segments
    assert read_exchanges(tmp_path, entry) == sorted(made, key=order)


def test_damage_in_a_wal_is_told_by_the_segment(tmp_path: Path) -> None:
    """A record that changed leaves a note, and the exchanges that hung on it say that they are damaged."""
    write_conversation(tmp_path, 6)
    (path,) = wal_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b'"seq":2') + 8] ^= 1
    path.write_bytes(data)
    entry = sealed(tmp_path)
    _, _, (note, end), *_ = read_records(tmp_path, entry)
    assert note.kind == "lost"
    assert path.name in str(note.attributes["why"])
    assert "start record" in str(end.attributes["why"])
    read = read_exchanges(tmp_path, entry)
    assert [exchange.seq for exchange in read] == [0, 1, 3, 4, 5]
    assert [exchange.damage is not None for exchange in read] == [False, False, True, True, True]


def corrupt(path: Path, at: int, data: bytes) -> None:
    """The bytes of the file from `at` on are these."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_changed_byte_in_chunks_is_found(tmp_path: Path) -> None:
    """Every exchange with a body in the changed part says so, naming the file."""
    write_conversation(tmp_path, 5)
    entry = sealed(tmp_path)
    file = entry.file(tmp_path, "chunks")
    whole = file.read_bytes()
    for at in range(200, len(whole) - 400, len(whole) // 12):
        corrupt(file, at, bytes([whole[at] ^ 1]))
        damaged = [exchange.damage for exchange in read_exchanges(tmp_path, entry) if exchange.damage]
        assert damaged
        assert all(file.name in why for why in damaged)
        file.write_bytes(whole)
    assert all(exchange.damage is None for exchange in read_exchanges(tmp_path, entry))


def test_a_body_swapped_for_another_is_found(tmp_path: Path) -> None:
    """A chunks file that is whole but not the one that was written fails the digests."""
    start, end = exchange_records(0, b"the question", b"the answer")
    entry = write_segment(tmp_path, encode([joined(start, end)], [], [], []))
    other = replace(joined(start, end), request=Request(method="POST", url="http://x/", body=b"the quesTion"))
    forged = write_segment(tmp_path, encode([other], [], [], []))
    os.replace(forged.file(tmp_path, "chunks"), entry.file(tmp_path, "chunks"))
    (read,) = read_exchanges(tmp_path, entry)
    assert read.damage == f"the request body does not match its sha256: {entry.id}.chunks.parquet was changed"
    assert read.response == end.response


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"x"), lambda path: os.truncate(path, 900)]
)
def test_a_missing_or_truncated_file_is_named(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Without its chunks an exchange is damaged; without its rows an error names the file."""
    write_conversation(tmp_path, 2)
    entry = sealed(tmp_path)
    spoil(entry.file(tmp_path, "chunks"))
    assert all(f"{entry.id}.chunks.parquet" in str(item.damage) for item in read_exchanges(tmp_path, entry))
    for kind, read in (("exchanges", read_exchanges), ("spans", read_records)):
        spoil(entry.file(tmp_path, kind))
        with pytest.raises(StoreError, match=rf"{entry.id}\.{kind}\.parquet"):
            read(tmp_path, entry)


def test_segments_merge_into_one(tmp_path: Path) -> None:
    """A merged segment holds what its parts held, shares their bodies, and keeps what is known of damage.

    One whose bodies are not those of its digest is none of its parts.
    """
    made: list[Exchange] = []
    for seed in range(4):
        made += write_conversation(tmp_path, 6, process_id=f"{seed}-a", seed=seed)
        assert sealing.seal_dead(tmp_path) == []
    parts = [*manifest.load(tmp_path).segments]
    assert len(parts) == 4
    corrupt(parts[2].file(tmp_path, "chunks"), 300, b"\0\0\0\0")
    with pytest.raises(StoreError, match=rf"{parts[2].id}.chunks.parquet: .* has changed"):
        sealing.merge(tmp_path, parts)
    parts[2] = replace(parts[2], sha256={})  # as segments of before digests are
    before = [exchange for part in parts for exchange in read_exchanges(tmp_path, part)]
    merged = sealing.merge(tmp_path, parts)
    manifest.commit(tmp_path, add=[merged], remove=[part.id for part in parts])
    after = read_exchanges(tmp_path, merged)
    assert after == sorted(before, key=order)
    assert sum(exchange.damage is None for exchange in after) == 18
    assert len(read_records(tmp_path, merged)[1]) == 4
    assert merged.bytes < sum(part.bytes for part in parts)
    assert len(made) == merged.exchanges


@pytest.mark.parametrize("turns", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_size_grows_with_new_text(tmp_path: Path, turns: int) -> None:
    """An exchange of 1.5 KB of new text takes less than 900 bytes, however many came before."""
    write_conversation(tmp_path, turns)
    entry = sealed(tmp_path)
    files = [path.stat().st_size for path in (tmp_path / "segments").iterdir()]
    assert sum(files) == entry.bytes
    assert entry.bytes / turns < 900


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Where a segment cannot be written, the error says so, the WAL stays, and no file is left over."""
    write_conversation(tmp_path, 2)
    (tmp_path / "segments").write_bytes(b"in the way")
    assert "segments" in sealing.seal_dead(tmp_path)[0]
    assert manifest.load(tmp_path).segments == ()
    assert len(wal_files(tmp_path)) == 1
    (tmp_path / "segments").unlink()
    assert sealed(tmp_path).exchanges == 2


def test_leftovers_of_a_crash_go(tmp_path: Path) -> None:
    """Half-written files are removed once they are old; those that may still be in the making stay."""
    write_conversation(tmp_path, 2)
    entry = sealed(tmp_path)
    names = (".MANIFEST.json.1.tmp", "segments/.2-y.spans.parquet.0badcafe.tmp", "wal/.3-z-0.wal.tmp")
    left = [tmp_path / name for name in names]
    for path in left:
        path.touch()
    sealing.seal_dead(tmp_path)
    assert all(path.exists() for path in left)
    for path in [*left, *(entry.file(tmp_path, kind) for kind in ("spans", "exchanges", "chunks"))]:
        os.utime(path, (1, 1))
    sealing.seal_dead(tmp_path)
    assert not any(path.exists() for path in left)
    assert read_exchanges(tmp_path, entry)


@pytest.mark.parametrize("manifest_is", ["lost", "older"])
def test_a_segment_stays_that_no_manifest_names(tmp_path: Path, manifest_is: str) -> None:
    """However old its files are, and whatever is sealed after: the manifest may be what is wrong."""
    path = tmp_path / "MANIFEST.json"
    write_conversation(tmp_path, 2)
    sealed(tmp_path)
    before = path.read_bytes()
    write_conversation(tmp_path, 3, process_id="4712-0badcafe")
    sealing.seal_dead(tmp_path)
    kept = sorted((tmp_path / "segments").iterdir())
    for file in kept:
        os.utime(file, (1, 1))
    if manifest_is == "lost":
        path.unlink()
    else:
        path.write_bytes(before)
    write_conversation(tmp_path, 1, process_id="4713-0badcafe")
    assert sealing.seal_dead(tmp_path) == []
    assert set(kept) < set((tmp_path / "segments").iterdir())


def test_neither_pyarrow_at_import_nor_pandas_ever(tmp_path: Path) -> None:
    """Importing the module leaves pyarrow alone, and sealing, reading and merging leave pandas alone."""
    write_conversation(tmp_path / "store", 3)
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text("raise SystemExit('pandas was imported')")
    code = """
import sys
from pathlib import Path
from tracefork_otel.store import manifest, sealing, segment
assert "pyarrow" not in sys.modules
store = Path(sys.argv[1])
sealing.seal_dead(store)
(entry,) = manifest.load(store).segments
assert len(list(segment.read_exchanges(store, entry))) == 3
assert len(segment.read_records(store, entry)[1]) == 1
assert sealing.merge(store, [entry]).exchanges == 3
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    subprocess.run(command, check=True, env=environment)


def test_trace_ids_are_listed_while_they_are_few(tmp_path: Path) -> None:
    """The entry tells which runs are in the segment, up to a number of them."""
    few = [
        joined(*exchange_records(0, b"", b"", trace_id=f"{n:032x}", span_id=f"{n:016x}")) for n in range(3)
    ]
    many = [
        joined(*exchange_records(0, b"", b"", trace_id=f"{n:032x}", span_id=f"{n:016x}")) for n in range(100)
    ]
    assert write_segment(tmp_path, encode(few, [], [], [])).traces == ("0" * 12,)
    many = [replace(item, trace_id=item.trace_id[::-1]) for item in many]
    assert write_segment(tmp_path, encode(many, [], [], [])).traces is None
    assert write_segment(tmp_path, encode([], [], [process()], [])).traces == (TRACE[:12],)
