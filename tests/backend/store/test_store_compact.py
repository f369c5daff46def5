"""Segments merged and dropped, alone and while others write, read and die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stored import START, Recorder, answered, asked, record, trace
from tracefork_backend import cli
from tracefork_backend.cli import output as cli_output
from tracefork_backend.store import Store, compact, compacting, drop_before, facts, open_store, snapshot
from tracefork_backend.store.compacting import pack
from tracefork_backend.store.removing import planned, remove

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, sealing, segment

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


@pytest.mark.slow
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


@pytest.mark.parametrize("at", ["opening", "asking", "reading"])
def test_what_is_read_while_its_files_go_is_read_again(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose files were replaced and deleted under its hands gives the whole answer."""
    run_id = seal_apart(tmp_path, 3)[1]
    open_store(tmp_path).close()
    holder, name = {
        "opening": (snapshot, "_readable"),
        "asking": (snapshot.Snapshot, "cursor"),
        "reading": (segment, "_chunks"),
    }[at]
    original, packed = getattr(holder, name), []

    def reading(*given: object) -> object:
        made = original(*given) if at == "asking" else None
        if not packed:
            packed.append(1)
            assert pack(tmp_path) == []
        return made or original(*given)

    with open_store(tmp_path) as store:
        if at == "opening":
            store.close()
        monkeypatch.setattr(holder, name, reading)
        assert [one["n"] for one in store.rows("SELECT count(*) AS n FROM bodies")] == [6]
        assert [exchange.damage for exchange in store.exchanges(run_id)] == [None, None]
        assert store.problems == ()
    assert packed


@pytest.mark.slow
def test_the_command_says_what_there_was_and_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What merges and removals left is gone, a damaged segment stays by name, and twice is as once."""
    seal_apart(tmp_path, 4)
    with open_store(tmp_path) as store:
        store.compact()
        seal_apart(tmp_path, 2)
        before = everything(store)
    where = ["--store", str(tmp_path)]
    assert cli._run(["compact", *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    files = [path.stat().st_size for folder in ("wal", "segments") for path in (tmp_path / folder).iterdir()]
    assert told["after"] == {"segments": 1, "files": 4, "bytes": sum(files)}
    assert len(files) == 4
    assert told["before"]["segments"] == 3
    assert told["before"]["files"] > 9
    assert everything(open_store(tmp_path)) == before
    seal_apart(tmp_path, 2)
    chunks = manifest.load(tmp_path).segments[1].file(tmp_path, "chunks")
    chunks.write_bytes(chunks.read_bytes()[:-9])
    assert cli._run(["compact", *where, "--json"]) == cli_output.FINDING
    assert str(chunks) in json.loads(capsys.readouterr().out)["left"][0]
    assert cli._run(["compact", *where]) == cli_output.FINDING
    out, err = capsys.readouterr()
    assert f"left as it is: {chunks}" in err
    assert "2 segments" in out
    assert cli._run(["compact", "--store", str(tmp_path / "none")]) == cli.USAGE
    assert "there is no store" in capsys.readouterr().err
    for verb in ["compact"], ["doctor"], ["doctor", "--repair"], ["rm", "last"], ["ls"]:
        assert cli._run([*verb, "--store", str(chunks)]) == cli.USAGE
        assert str(chunks) in capsys.readouterr().err


def test_compact_makes_no_segment_larger_than_is_merged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments of one time go together, as many as stay within the bound."""
    seal_apart(tmp_path, 5)
    sizes = [entry.bytes for entry in manifest.load(tmp_path).segments]
    monkeypatch.setattr(compacting, "BOUND", max(sizes) * 2 + 10)
    assert pack(tmp_path) == []
    assert [entry.exchanges for entry in manifest.load(tmp_path).segments] == [2, 4, 4]


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", ["exchanges", "chunks"])
def test_a_segment_that_cannot_be_read_is_left_out(tmp_path: Path, kind: str) -> None:
    """A merge leaves a corrupt segment where it is and merges the others."""
    seal_apart(tmp_path, 3)
    open_store(tmp_path).close()
    broken = manifest.load(tmp_path).segments[1]
    path = broken.file(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:-20])
    assert compact(tmp_path)
    assert broken.id in {entry.id for entry in manifest.load(tmp_path).segments}
    with open_store(tmp_path) as store:
        assert len(store.runs()) == 2
        assert any(str(path) in problem for problem in store.problems)


@pytest.mark.slow
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
import random, sys, time
from pathlib import Path
from tracefork_backend.store import compact
from tracefork_backend.store.compacting import pack
from tracefork_otel.store import sealing
store = Path(sys.argv[1])
print("ready", flush=True)
while True:
    sealing.seal_dead(store)
    random.choice((compact, pack))(store)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def merged_and_spoiled(store: Path) -> tuple[str, str]:
    """A run whose merged segment is spoiled and whose replaced ones are still there, and another run."""
    run_id, _ = seal_apart(store, 2)
    with open_store(store) as opened:
        opened.compact()
        (merged,) = manifest.load(store).segments
        other = seal_apart(store, 1)[0]
        opened.runs()
    flip(merged.file(store, "chunks"))
    return run_id, other


@pytest.mark.slow
@pytest.mark.parametrize("what", ["compact", "compact more", "rm"])
def test_the_last_good_copy_stays(tmp_path: Path, what: str) -> None:
    """While a segment is damaged, nothing of what it was merged from goes before its time."""
    run_id, other = merged_and_spoiled(tmp_path)
    if what == "rm":
        with open_store(tmp_path) as store:
            assert remove(store, planned(store, [other]))
        assert on_disk(tmp_path, other) == []
    else:
        if what == "compact more":
            seal_apart(tmp_path, 1)
            open_store(tmp_path).close()
        assert len(pack(tmp_path)) == 1
        assert len(manifest.load(tmp_path).segments) == 2
        # What was merged at that very moment has no more files than it needs.
        assert len(on_disk(tmp_path, other)) == 1
    copies = [item.id for item in manifest.load(tmp_path).retired]
    held = [tmp_path / "segments" / f"{one}.exchanges.parquet" for one in copies]
    assert any(run_id in str(pq.read_table(file).to_pydict()) for file in held if file.exists())


@pytest.mark.slow
def test_a_removed_run_is_in_no_replaced_segment(tmp_path: Path) -> None:
    """What a merge has just left of it goes with it; what it left of others alone stays for its time."""
    first, second = seal_apart(tmp_path, 2)
    with open_store(tmp_path) as store:
        store.compact()
        remove(store, planned(store, [first]))
    assert on_disk(tmp_path, first) == []
    assert len(on_disk(tmp_path, second)) > 1


def test_a_merged_segment_is_read_before_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not give back what was written loses nothing."""
    runs = seal_apart(tmp_path, 2)
    merge = sealing.merge

    def spoils(*given: Any) -> manifest.SegmentEntry:
        entry = merge(*given)
        flip(entry.file(tmp_path, "chunks"))
        return entry

    open_store(tmp_path).close()
    monkeypatch.setattr(sealing, "merge", spoils)
    with pytest.raises(StoreError, match="has changed since it was written"):
        pack(tmp_path)
    with open_store(tmp_path) as store:
        assert {run.run_id for run in store.runs()} == set(runs)
        assert store.problems == ()


def flip(path: Path) -> None:
    """One bit in the middle of the file is another one."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def on_disk(store: Path, run_id: str) -> list[str]:
    """The segments whose exchanges or spans are of the run."""
    files = [*(store / "segments").glob("*.exchanges.parquet"), *(store / "segments").glob("*.spans.parquet")]
    return sorted(
        {file.name.split(".")[0] for file in files if run_id in str(pq.read_table(file).to_pydict())}
    )


def test_facts_of_what_goes_meanwhile_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that works them out while others merge leaves no file that nobody names."""
    seal_apart(tmp_path, 2)
    compute, packed = facts.compute, []

    def meanwhile(store: Path, entry: manifest.SegmentEntry) -> Any:
        found = compute(store, entry)
        if not packed:
            packed.append(entry.id)
            assert pack(store) == []
        return found

    monkeypatch.setattr(facts, "compute", meanwhile)
    facts.ensure(tmp_path)
    assert packed
    assert manifest.strays(tmp_path, manifest.load(tmp_path)) == []


@pytest.mark.slow
def test_facts_alone_are_in_no_removals_way(tmp_path: Path) -> None:
    """They go, for they quote runs; those beside a segment that no manifest names stay."""
    first, second = seal_apart(tmp_path, 2)
    with open_store(tmp_path) as store:
        store.runs()
        (entry, _) = manifest.load(tmp_path).segments
        lone = tmp_path / "segments" / "0000000000001-abcdef.facts.parquet"
        lone.write_bytes(entry.file(tmp_path, "facts").read_bytes())
        assert remove(store, planned(store, [first]))
        assert not lone.exists()
        for kind in "facts", "chunks":
            lone.with_name(f"0000000000001-abcdef.{kind}.parquet").write_bytes(b"")
        with pytest.raises(StoreError, match="nothing was removed"):
            remove(store, planned(store, [second]))
        assert lone.exists()
