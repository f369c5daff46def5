"""Segments merged and dropped, alone and while others write, read and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stored import START, Recorder, answered, asked, record, trace
from tracefork_backend.store import Store, compact, compacting, drop_before, open_store

from tracefork_otel.store import manifest, sealing

EVERYTHING = (
    "FROM exchanges ORDER BY run_id, step",
    "FROM bodies ORDER BY run_id, step",
    "FROM messages ORDER BY run_id, step, position",
    "FROM spans ORDER BY trace_id, span_id",
    "FROM runs ORDER BY run_id",
    "FROM tools ORDER BY run_id, span_id",
    "SELECT * FROM _spans WHERE kind IN ('process', 'note') ORDER BY ALL",
)
PIECES = 12


def everything(store: Store) -> list[list[dict[str, object]]]:
    """All rows of all views."""
    return [store.rows(query) for query in EVERYTHING]


def seal_apart(store: Path, runs: int) -> list[str]:
    """So many runs, each in a segment of its own."""
    found = []
    for _ in range(runs):
        found.append(record(store, steps=2))
        sealing.seal_dead(store)
    return found


def test_merging_changes_nothing_that_is_read(tmp_path: Path) -> None:
    """After all segments became one, every view has the rows that it had, and digests still match."""
    seal_apart(tmp_path, 3)
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.exchange(run_id, bytes(range(256)) * 50, b"")
    recorder.note("lost", count=1, why="tests")
    recorder.root(run_id, "execute_tool look")
    recorder.ask(run_id, asked("never answered"))
    recorder.close()
    with open_store(tmp_path) as store:
        before = everything(store)
        assert len(manifest.load(tmp_path).segments) == 4
        merged = store.compact()
        (entry,) = manifest.load(tmp_path).segments
        assert entry.id == merged
        assert entry.facts is not None
        assert everything(store) == before
        assert [exchange.damage for exchange in store.run(run_id).exchanges] == [None, None]
        assert store.compact() is None
    assert everything(open_store(tmp_path)) == before


def test_a_reader_of_the_old_segments_reads_on(tmp_path: Path) -> None:
    """An answer that was begun before a merge is read to its end after it."""
    seal_apart(tmp_path, 3)
    store = open_store(tmp_path)
    relation = store.sql("SELECT run_id, request FROM bodies")
    assert compact(tmp_path)
    assert len(relation.fetchall()) == 6


def test_opening_merges_what_has_become_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with more segments than the limit has fewer after it was opened; large ones are left."""
    seal_apart(tmp_path, 5)
    large = record(tmp_path, steps=30)
    sealing.seal_dead(tmp_path)
    monkeypatch.setattr(compacting, "LIMIT", 6)
    open_store(tmp_path).close()
    assert len(manifest.load(tmp_path).segments) == 6
    monkeypatch.setattr(compacting, "LIMIT", 5)
    small = sorted(entry.bytes for entry in manifest.load(tmp_path).segments)[:5]
    monkeypatch.setattr(compacting, "BOUND", sum(small) + 1)
    with open_store(tmp_path) as store:
        assert len(store.runs()) == 6
        assert len(store.run(large).exchanges) == 30
    assert sorted(entry.exchanges for entry in manifest.load(tmp_path).segments) == [10, 30]


def test_a_segment_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """A merge leaves a corrupt segment where it is and merges the others."""
    seal_apart(tmp_path, 3)
    open_store(tmp_path).close()
    broken = manifest.load(tmp_path).segments[1]
    path = broken.file(tmp_path, "exchanges")
    path.write_bytes(path.read_bytes()[:-20])
    assert compact(tmp_path)
    assert broken.id in {entry.id for entry in manifest.load(tmp_path).segments}
    with open_store(tmp_path) as store:
        assert len(store.runs()) == 2
        assert any(str(path) in problem for problem in store.problems)


def test_old_segments_are_dropped_whole(tmp_path: Path) -> None:
    """Dropping what ended before a time leaves the rest, and the dropped runs do not come back."""
    now = datetime.now(UTC)
    old = record(tmp_path, at=START)
    sealing.seal_dead(tmp_path)
    new = record(tmp_path, at=int(now.timestamp() * 1e9))
    sealing.seal_dead(tmp_path)
    store = open_store(tmp_path)
    assert len(drop_before(tmp_path, now - timedelta(days=1))) == 1
    assert [run.run_id for run in store.runs()] == [new]
    assert not store.has_run(old)
    assert drop_before(tmp_path, datetime(2020, 1, 1)) == ()
    assert [run.run_id for run in open_store(tmp_path).runs()] == [new]


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from stored import Recorder, answered, asked, trace
run_id, pieces = sys.argv[2], int(sys.argv[4])
for piece in range(pieces):
    recorder = Recorder(Path(sys.argv[1]), rotate_bytes=4000)
    recorder.now += piece * 10**10
    for turn in range(5):
        name = f"{run_id} {piece} {turn}"
        recorder.exchange(run_id, asked(name + " x" * 300), answered(name))
        print(name, flush=True)
    recorder.close()
"""
COMPACTOR = """
import sys, time
from pathlib import Path
from tracefork_backend.store import compact
from tracefork_otel.store import sealing
store = Path(sys.argv[1])
print("ready", flush=True)
while True:
    sealing.seal_dead(store)
    compact(store)
    time.sleep(0.005)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs the code."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def writers(store: Path, runs: list[str]) -> list[subprocess.Popen[str]]:
    """A process for each run, which writes it piece by piece."""
    return [start(WRITER, store, run_id, Path(__file__).parents[2], PIECES) for run_id in runs]


def check_whole(store: Path, runs: list[str]) -> None:
    """Each exchange of each run is in the store once, byte for byte."""
    with open_store(store) as opened:
        assert opened.problems == ()
        for run_id in runs:
            names = [f"{run_id} {piece} {turn}" for piece in range(PIECES) for turn in range(5)]
            exchanges = opened.run(run_id).exchanges
            assert [exchange.request.body for exchange in exchanges] == [
                asked(name + " x" * 300) for name in names
            ]
            assert [exchange.response and exchange.response.body for exchange in exchanges] == [
                answered(name) for name in names
            ]
            assert [exchange.damage for exchange in exchanges] == [None] * len(names)


def test_three_writers_a_merger_and_a_reader_at_once(tmp_path: Path) -> None:
    """While three processes write and one merges, no reading fails, repeats a row or loses one."""
    runs = [trace() for _ in range(3)]
    merger = start(COMPACTOR, tmp_path)
    running = writers(tmp_path, runs)
    seen: dict[str, int] = {}
    readings = 0
    try:
        store = open_store(tmp_path)
        while any(writer.poll() is None for writer in running) or not readings:
            found = store.rows(
                "SELECT run_id, count(*) AS n, count(DISTINCT span_id) AS d, sum(input_tokens) AS t "
                "FROM exchanges GROUP BY run_id"
            )
            for row in found:
                assert row["n"] == row["d"], "a row twice"
                assert row["n"] >= seen.get(row["run_id"], 0), "a row that was there is gone"
                assert row["t"] in (1000 * row["n"], 1000 * (row["n"] - 1)), "facts are missing"
                seen[row["run_id"]] = row["n"]
            bodies = store.rows("SELECT count(*) AS n FROM bodies WHERE request_bytes IS NULL")
            assert bodies == [{"n": 0}]
            readings += 1
        assert merger.poll() is None, "the merger failed"
    finally:
        merger.kill()
        for process in (*running, merger):
            process.wait()
            if process.stdout:
                process.stdout.close()
    assert [writer.returncode for writer in running] == [0, 0, 0]
    check_whole(tmp_path, runs)


def test_a_merger_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Mergers killed -9 while they merge leave a store in which everything is there once."""
    runs = [trace()]
    running = writers(tmp_path, runs)
    deadline = time.monotonic() + 60
    kills = 0
    while time.monotonic() < deadline and (kills < 4 or running[0].poll() is None):
        merger = start(COMPACTOR, tmp_path)
        assert merger.stdout
        merger.stdout.readline()
        time.sleep(0.04 * (kills % 7))
        os.kill(merger.pid, signal.SIGKILL)
        merger.wait()
        merger.stdout.close()
        kills += 1
    assert running[0].wait() == 0
    assert running[0].stdout
    running[0].stdout.close()
    check_whole(tmp_path, runs)


def test_a_merge_that_fails_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the merged segment cannot be committed its files are gone and the old ones stay."""
    seal_apart(tmp_path, 2)
    open_store(tmp_path).close()
    before = sorted(path.name for path in (tmp_path / "segments").iterdir())

    def refuse(*args: object, **more: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(manifest, "_write", refuse)
    with pytest.raises(Exception, match="no space left"):
        compact(tmp_path)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == before
    assert len(open_store(tmp_path).runs()) == 2


def test_two_mergers_do_not_merge_the_same(tmp_path: Path) -> None:
    """While one merges, another one leaves it alone."""
    seal_apart(tmp_path, 2)
    open_store(tmp_path).close()
    with compacting.alone(tmp_path) as alone:
        assert alone
        assert compact(tmp_path) is None
    assert compact(tmp_path) is not None
