"""Stores with something wrong: what still can be read, and what `doctor` says of the rest."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import doctor, facts, open_store

from tracefork_otel import TruncatedBody
from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, sealing, segment


def two_segments(store: Path) -> tuple[str, str]:
    """A run in each of two segments."""
    first = record(store)
    sealing.seal_dead(store)
    second = record(store)
    open_store(store).close()
    return first, second


def entry_of(store: Path, run_id: str) -> manifest.SegmentEntry:
    """The segment that holds the run."""
    return next(entry for entry in manifest.load(store).segments if entry.may_hold(run_id))


def cut(path: Path) -> None:
    """The file lost its end."""
    path.write_bytes(path.read_bytes()[:-30])


def overwrite(path: Path) -> None:
    """The file is something else."""
    path.write_bytes(b"hello, I am no Parquet")


def spoil_footer(path: Path) -> None:
    """The file begins and ends as it should, and its footer is nonsense."""
    data = bytearray(path.read_bytes())
    data[-60:-8] = b"\xff" * 52
    path.write_bytes(bytes(data))


def other_table(path: Path) -> None:
    """The file is somebody else's Parquet."""
    pq.write_table(pa.table({"fruit": ["apple"]}), path)


def remove(path: Path) -> None:
    """The file is gone."""
    path.unlink()


DAMAGES = (cut, overwrite, spoil_footer, other_table, remove)
# Every way with one kind of file, and every kind with one way; the other pairs are slow tests.
BROKEN = [
    pytest.param(damage, kind, marks=() if damage is cut or kind == "spans" else pytest.mark.slow)
    for damage in DAMAGES
    for kind in manifest.RECORDED
]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "kind"), BROKEN)
def test_a_broken_file_is_named_and_the_rest_stays_readable(
    tmp_path: Path, damage: Callable[[Path], None], kind: str
) -> None:
    """With any recorded file of a segment broken in any way, the rest reads and doctor names the file.

    The rest of a segment without its spans is its exchanges.
    """
    whole, broken = two_segments(tmp_path)
    path = entry_of(tmp_path, broken).file(tmp_path, kind)
    damage(path)
    with open_store(tmp_path) as store:
        shown = {whole, broken} if kind == "spans" else {whole}
        assert {run.run_id for run in store.runs()} == shown
        assert [len(store.run(run_id).exchanges) for run_id in shown] == [3] * len(shown)
        assert len(store.rows("FROM messages")) == 12 * len(shown)
        assert [problem for problem in store.problems if str(path) in problem]
    report = doctor(tmp_path)
    assert not report.healthy
    assert [problem.path for problem in report.files if problem.what == "unreadable"] == [str(path)]
    assert any(str(path) in line for line in report.lines())


def test_a_healthy_store_is_said_to_be(tmp_path: Path) -> None:
    """Doctor finds nothing in a sound store, and counts what is there."""
    record(tmp_path, attributes={"tracefork.command": '["python","agent.py"]'})
    live = Recorder(tmp_path)
    live.exchange(trace())
    report = doctor(tmp_path)
    live.close()
    assert report.healthy
    assert (report.runs, report.exchanges, report.segments) == (2, 4, 1)
    assert sorted(wal.state for wal in report.wals) == ["dead", "live"]
    (unfit,) = report.not_replayable
    assert unfit.reasons == ("how it was started was not recorded: give --agent",)
    assert report.lines()[-1].endswith("1 process writing: healthy")


@pytest.mark.slow
def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """A byte changed in a body is told by its run, step and file, and the run is not replayable."""
    recorder, run_id = Recorder(tmp_path), trace()
    for city in ("Paris", "Tokyo"):
        recorder.exchange(run_id, asked(f"a flight to {city}"), answered(f"booked {city}"))
    recorder.close()
    open_store(tmp_path).close()
    path = manifest.load(tmp_path).segments[0].file(tmp_path, "chunks")
    table = pq.read_table(path)
    text = [value and value.replace("booked Tokyo", "booked Kyoto") for value in table["text"].to_pylist()]
    assert text != table["text"].to_pylist()
    pq.write_table(table.set_column(1, "text", pa.array(text, pa.string())), path)
    run = open_store(tmp_path).run(run_id)
    assert run.exchanges[0].damage is None
    assert "sha256" in str(run.exchanges[1].damage)
    assert not run.complete
    assert run.incomplete_reasons[0].startswith("step 1 is damaged")
    report = doctor(tmp_path)
    assert [(one.run_id, one.step) for one in report.damaged] == [(run_id, 1)]
    assert "step 1 is damaged" in report.not_replayable[0].reasons
    assert not report.healthy


@pytest.mark.parametrize("kind", manifest.KINDS)
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_any_flipped_bit_is_found_and_replays_refuse(tmp_path: Path, kind: str, seed: int) -> None:
    """Whichever bit of a segment's files flips, doctor names the file, a replay of its run refuses, and the
    other runs stay readable.
    """
    rng = random.Random(f"{kind} {seed}")
    started = {"tracefork.command": '["false"]', "tracefork.cwd": str(tmp_path)}
    whole = record(tmp_path, attributes=started)
    sealing.seal_dead(tmp_path)
    broken = record(tmp_path, attributes=started)
    open_store(tmp_path).close()
    path = entry_of(tmp_path, broken).file(tmp_path, kind)
    data = bytearray(path.read_bytes())
    # Every other time in the second half, most of which is the footer.
    at = rng.randrange(len(data) // 2 if seed % 2 else 0, len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    report = doctor(tmp_path)
    # Facts are read from the other files, which say everything: so they are made anew, and nothing is lost.
    assert [problem.path for problem in report.files] == ([] if kind == "facts" else [str(path)]), at
    assert report.healthy is (kind == "facts")
    with open_store(tmp_path) as store:
        if kind == "facts":
            assert not facts.changed(tmp_path, [entry.id for entry in store.entries])
            assert store.run(broken).cost_usd
        else:
            with pytest.raises((StoreError, TruncatedBody), match=re.escape(path.name)):
                replay(store.run(broken), store=store)
        assert store.run(whole).complete
        assert len(store.rows("FROM bodies WHERE run_id = $id", {"id": whole})) == 3
        assert reconstruct(store, store.run(whole)).exchanges


@pytest.mark.slow
def test_a_changed_file_is_not_merged(tmp_path: Path) -> None:
    """Compaction leaves a file that has changed as it is, so that it goes on being found."""
    whole = [record(tmp_path)]
    sealing.seal_dead(tmp_path)
    broken = record(tmp_path)
    sealing.seal_dead(tmp_path)
    whole.append(record(tmp_path))
    open_store(tmp_path).close()
    entry = entry_of(tmp_path, broken)
    path = entry.file(tmp_path, "spans")
    table = pq.read_table(path)
    changed = pa.array(["somebody else"] * len(table), pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("name"), "name", changed), path)
    with open_store(tmp_path) as store:
        merged = store.compact()
        assert {kept.id for kept in manifest.load(tmp_path).segments} == {merged, entry.id}
        assert [len(store.run(run_id).exchanges) for run_id in whole] == [3, 3]
    assert [problem.path for problem in doctor(tmp_path).files] == [str(path)]


def test_journals_of_experiments_are_no_foreign_files(tmp_path: Path) -> None:
    """A store that has experiments is healthy."""
    with open_store(tmp_path):
        pass
    (tmp_path / "blame").mkdir()
    (tmp_path / "blame" / "0db90ffa06dd5e44.jsonl").write_text("{}\n")
    assert doctor(tmp_path).healthy


@pytest.mark.slow
def test_foreign_files_are_named(tmp_path: Path) -> None:
    """Files that are not ours are named, and disturb nothing."""
    run_id = record(tmp_path)
    open_store(tmp_path).close()
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / "wal" / "1-0.wal",
        tmp_path / "wal" / "photo.jpg",
        tmp_path / "segments" / "1700000000000-abcdef.spans.parquet",
    ]
    for path in foreign:
        path.write_bytes(b"what?")
    with open_store(tmp_path) as store:
        assert store.run(run_id).complete
    report = doctor(tmp_path)
    assert sorted(problem.path for problem in report.files) == sorted(map(str, foreign))
    assert all(path.exists() for path in foreign)


@pytest.mark.slow
def test_damage_in_a_wal_is_told(tmp_path: Path) -> None:
    """An acknowledged record that changed in a WAL is a loss: told, with the rest of the run intact."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id)
    for turn in range(3):
        recorder.exchange(run_id, asked(f"turn {turn}"), answered(f"reply {turn}"))
    recorder.close()
    path = recorder.wal.path
    data = path.read_bytes()
    assert data.count(b"reply 1") == 1
    path.write_bytes(data.replace(b"reply 1", b"reply 7"))
    report = doctor(tmp_path)
    assert not report.healthy
    assert any(path.name in why for wal in report.wals for why in wal.damage)
    run = open_store(tmp_path).run(run_id)
    assert [e.outcome for e in run.exchanges] == ["complete", "in_flight", "complete"]
    assert not run.complete
    assert report.losses


@pytest.mark.parametrize("left", [0, 5, 16, 60], ids=["nothing", "half a line", "a line", "half a record"])
def test_a_log_that_was_cut_before_its_first_record_is_a_loss(tmp_path: Path, left: int) -> None:
    """A log has its name only once its first record is in it: power was lost, or somebody cut it."""
    recorder = Recorder(tmp_path)
    recorder.exchange(trace())
    recorder.close()
    os.truncate(recorder.wal.path, left)
    for _ in range(2):
        report = doctor(tmp_path)
        assert not report.healthy
        (loss,) = report.losses
        assert f"{recorder.wal.path.name}: {left} bytes are left" in loss


def test_processes_that_could_not_record_are_told(tmp_path: Path) -> None:
    """What a process without the package left behind is in the report."""
    record(tmp_path)
    note = {"argv": ["agent.py"], "executable": "/usr/bin/python3", "why": "No module named tracefork_otel"}
    (tmp_path / "wal" / "7-00000000.absent.json").write_text(json.dumps(note))
    report = doctor(tmp_path)
    assert [(one.argv, one.why) for one in report.absent] == [(("agent.py",), note["why"])]
    assert not report.healthy
    assert "not recorded: agent.py: No module named tracefork_otel" in report.lines()


@pytest.mark.slow
def test_a_process_killed_midway_leaves_a_sound_store(tmp_path: Path) -> None:
    """A killed process is no fault: its run is there, incomplete, and the store is healthy."""
    run_id = trace()
    code = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[3]);"
        "from pathlib import Path; from stored import Recorder, asked;"
        "r = Recorder(Path(sys.argv[1])); r.root(sys.argv[2], end=False); r.exchange(sys.argv[2]);"
        "r.ask(sys.argv[2], asked('open')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [str(tmp_path), run_id, str(Path(__file__).parents[2])]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == -9
    report = doctor(tmp_path)
    assert report.healthy
    run = open_store(tmp_path).run("last")
    assert (run.status, run.steps, run.incomplete_reasons) == (
        "killed", 2, ("step 1 was open when its process ended",)
    )  # fmt: skip


def test_a_store_that_is_not_there_has_nothing_wrong(tmp_path: Path) -> None:
    """Doctor on a folder that does not exist says that it is none, finds nothing and makes nothing."""
    report = doctor(tmp_path / "none")
    assert report.healthy
    assert (report.exists, report.runs, report.segments) == (False, 0, 0)
    assert "there is no store here" in report.lines()[-1]
    assert not (tmp_path / "none").exists()


def test_a_log_that_cannot_be_sealed_is_said_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk what was recorded is read from its log, and the report names what was not written."""
    run_id = record(tmp_path)

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment, "_write_file", full)
    report = doctor(tmp_path)
    assert report.healthy
    assert [one.what for one in report.files] == ["left"]
    assert "could not be written: [Errno 28] No space left on device" in report.lines()[0]
    assert len(open_store(tmp_path).run(run_id).exchanges) == 3
