"""What many processes left is sealed together, and where one of them cannot be, the others are."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
from wal_samples import process, write_conversation

from tracefork_otel.exchange import Exchange
from tracefork_otel.store import manifest, rows, sealing, segment, wal
from tracefork_otel.store.wal import wal_files


def left_by(store: Path, processes: int) -> dict[str, list[Exchange]]:
    """What so many processes that are gone left, by the process."""
    names = [f"{number}-a" for number in range(processes)]
    return {name: write_conversation(store, 2, process_id=name, seed=seed) for seed, name in enumerate(names)}


def kept(store: Path) -> list[Exchange]:
    """The exchanges of all segments, in order."""
    entries = manifest.load(store).segments
    return sorted(
        (one for entry in entries for one in segment.read_exchanges(store, entry)), key=with_process
    )


def with_process(exchange: Exchange) -> tuple[str, str, int]:
    """An order of exchanges of several processes, whose ids may be the same."""
    return exchange.process_id, exchange.trace_id, exchange.started_ns


def test_what_many_processes_left_is_sealed_together(tmp_path: Path) -> None:
    """A segment for each of two hundred would take seconds, and each of them every query three files more."""
    made = left_by(tmp_path, 70)
    assert sealing.seal_dead(tmp_path) == []
    assert wal_files(tmp_path) == []
    assert sorted(len(entry.wals) for entry in manifest.load(tmp_path).segments) == [6, 64]
    assert kept(tmp_path) == sorted(chain.from_iterable(made.values()), key=with_process)


def test_a_process_that_cannot_be_sealed_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of that one is named and stays; those beside it are sealed, but for one that somebody seals."""
    made = left_by(tmp_path, 9)
    storing = rows.Storing.read

    def read(self: rows.Storing, path: Path) -> object:
        if path.name == "3-a-0.wal":
            raise MemoryError
        return storing(self, path)

    monkeypatch.setattr(rows.Storing, "read", read)
    taken = wal.take(tmp_path / "wal" / "6-a-0.wal")
    assert taken is not None
    try:
        (problem,) = sealing.seal_dead(tmp_path)
    finally:
        wal.let_go(taken)
    assert "3-a-0.wal could not be sealed" in problem
    assert [path.name for path in wal_files(tmp_path)] == ["3-a-0.wal", "6-a-0.wal"]
    sealed = [one for name, found in made.items() if name not in ("3-a", "6-a") for one in found]
    assert kept(tmp_path) == sorted(sealed, key=with_process)


def test_what_a_crash_left_of_many_logs_goes_whatever_they_are_sealed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half of them is sealed with others, and then the other half: only then nothing hangs on it."""
    made = left_by(tmp_path, 4)
    with monkeypatch.context() as killed:
        killed.setattr(manifest, "commit", Mock(side_effect=KeyboardInterrupt))
        killed.setattr(manifest, "discard", Mock())
        with pytest.raises(KeyboardInterrupt):
            sealing.seal_dead(tmp_path)
    (left,) = (tmp_path / "segments").glob("*.spans.parquet")
    assert sealing.seal(tmp_path, wal_files(tmp_path)[:2])
    assert left.exists()
    assert sealing.seal(tmp_path, wal_files(tmp_path))
    assert not left.exists()
    assert kept(tmp_path) == sorted(chain.from_iterable(made.values()), key=with_process)


def test_a_segment_is_the_same_in_however_many_parts_it_was_laid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row group is one, so that a trace of a million spans is not in memory once more as columns."""
    told: list[tuple[object, ...]] = []
    for part in (1, 3, 10_000):
        left_by(store := tmp_path / str(part), 5)
        for kind in segment.ROW_GROUP:
            monkeypatch.setitem(segment.ROW_GROUP, kind, part)
        assert sealing.seal_dead(store) == []
        (entry,) = manifest.load(store).segments
        with pq.ParquetFile(entry.file(store, "spans")) as file:
            assert file.metadata.num_row_groups == -(-5 // part)
        found = entry.exchanges, entry.spans, entry.started_ns, entry.ended_ns, entry.traces, entry.wals
        told.append((*found, kept(store), segment.read_records(store, entry)))
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(("spans", "parts"), [(0, [0]), (4, [4]), (9, [4, 4, 1])])
def test_spans_are_laid_out_a_part_at_a_time(spans: int, parts: list[int]) -> None:
    """No part has more rows than asked for, and nothing is one empty part, for it has a file too."""
    made = rows.Rows()
    made.others([], [process(f"{number}-a") for number in range(spans)], [])
    found = dict(made.parts(dict.fromkeys(segment.ROW_GROUP, 4)))
    assert list(found) == ["chunks", "exchanges", "spans"]
    assert [len(one["process_id"]) for one in found["spans"]] == parts
