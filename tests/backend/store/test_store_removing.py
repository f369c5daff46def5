"""Runs that are removed: from SQL and from the disk, all of it or nothing, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import Recorder, answered, asked, record, trace
from tracefork_backend import cli
from tracefork_backend.store import Store, open_store
from tracefork_backend.store.diagnosis import doctor
from tracefork_backend.store.keeping import KEPT
from tracefork_backend.store.removing import planned, remove

from tracefork_otel import StoreError, UsageError
from tracefork_otel.store import manifest, sealing, segment


def said(run_id: str) -> str:
    """A word that stands in no other run."""
    return f"word-{run_id}"


def kept(store: Path, **root: Any) -> str:
    """A run of one step that says its own word and one that all runs share, sealed."""
    run_id = trace()
    recorder = Recorder(store)
    recorder.root(run_id, **root)
    recorder.exchange(run_id, asked("shared " * 40, "yes", said(run_id)), answered(said(run_id)))
    recorder.close()
    return run_id


def removed(store: Path, *run_ids: str, forks: bool = False) -> int:
    """The bytes that went with these runs."""
    with open_store(store) as opened:
        return remove(opened, planned(opened, run_ids, forks=forks))


def on_disk(store: Path, text: str) -> list[str]:
    """The files of the store that say the text, packed by Parquet or not."""
    import pyarrow.parquet as pq

    found: list[str] = []
    for path in (path for path in store.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            whole = str(pq.read_table(path).to_pydict())
        else:
            whole = path.read_bytes().decode("utf-8", "replace")
        if text in whole:
            found.append(path.name)
    return found


FULL = """
import os, subprocess, sys
from pathlib import Path
from test_store_removing import kept, open_store, removed, sealing_together
disk = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]).returncode:
    sys.exit(77)
def fill():
    with open(disk / "filler", "ab", buffering=0) as filler:
        try:
            while filler.write(os.urandom(4096)):
                pass
        except OSError:
            pass
store = disk / "store"
first, second = sealing_together(store)
lone = kept(store)
open_store(store).close()
late = kept(store)
fill()
try:
    removed(store, late)
except Exception as error:
    print(type(error).__name__, error)
print(removed(store, lone) > 0)
fill()
try:
    print(removed(store, first) > 0)
except Exception as error:
    print(type(error).__name__, error)
"""


def sealing_together(store: Path) -> tuple[str, str]:
    """Two runs of one segment."""
    runs = trace(), trace()
    recorder = Recorder(store)
    for run_id in runs:
        recorder.root(run_id)
        recorder.exchange(run_id, asked(said(run_id) * 2000), answered(os.urandom(30_000).hex()))
    recorder.close()
    open_store(store).close()
    return runs


@pytest.mark.slow
def test_runs_go_from_a_full_disk(tmp_path: Path) -> None:
    """A segment that goes whole makes room by its facts; where more stays the error says what to do."""
    command = ["unshare", "-rm", sys.executable, "-c", FULL, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here")
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert not done.returncode, done.stderr
    late, lone, shared = done.stdout.splitlines()
    assert late.startswith("StoreError nothing was removed: ")
    assert "No space left" in late
    assert lone == "True"
    assert shared == "True" or ("nothing was removed" in shared and "the disk is full" in shared)


@pytest.mark.slow
def test_a_removed_run_is_nowhere(tmp_path: Path) -> None:
    """SQL and disk no longer have it; another run of the same segment keeps every byte, shared ones too."""
    goes, stays = kept(tmp_path), kept(tmp_path)
    with open_store(tmp_path) as opened:
        opened.compact()
        before = opened.exchanges(stays)
    assert on_disk(tmp_path, said(goes))
    assert removed(tmp_path, goes) > 0
    assert on_disk(tmp_path, said(goes)) == []
    with open_store(tmp_path) as opened:
        assert [run.run_id for run in opened.runs()] == [stays]
        assert opened.exchanges(stays) == before
        for view in ("exchanges", "spans", "messages", "bodies"):
            column = "trace_id" if view == "spans" else "run_id"
            assert opened.rows(f"SELECT DISTINCT {column} AS id FROM {view}") == [{"id": stays}]
        assert opened.losses() == 0
    assert on_disk(tmp_path, goes) == []
    report = doctor(tmp_path)
    assert report.healthy, report.lines()


@pytest.mark.slow
def test_the_last_run_leaves_an_empty_store(tmp_path: Path) -> None:
    """A store whose runs are all gone can be read, and recorded into."""
    removed(tmp_path, kept(tmp_path), kept(tmp_path))
    assert list(tmp_path.glob("segments/*")) == []
    assert open_store(tmp_path).runs() == []
    run_id = kept(tmp_path)
    assert open_store(tmp_path).run("last").run_id == run_id


def _fork(store: Path, parent: str) -> str:
    return kept(store, attributes={"tracefork.parent.run_id": parent, "tracefork.run.kind": "fork"})


@pytest.mark.slow
def test_forks_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    """Forks of a run, and forks of those, are named and stay; with `forks` all go."""
    run_id, other = kept(tmp_path), kept(tmp_path)
    fork = _fork(tmp_path, run_id)
    deeper = _fork(tmp_path, fork)
    with open_store(tmp_path) as opened:
        assert set(planned(opened, [run_id]).made) == {fork, deeper}
        assert {row["run_id"] for row in planned(opened, [run_id], forks=True).runs} == {run_id, fork, deeper}
    removed(tmp_path, run_id)
    assert {run.run_id for run in open_store(tmp_path).runs()} == {other, fork, deeper}
    removed(tmp_path, fork, forks=True)
    assert {run.run_id for run in open_store(tmp_path).runs()} == {other}


@pytest.mark.slow
def test_results_of_experiments_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    """They quote the run: they are named, and go with what was made of it."""
    run_id, experiment = kept(tmp_path), trace()
    told = json.dumps({"experiment_id": "0db90ffa", "run_id": run_id, "forks": 1, "quoted": said(run_id)})
    recorder = Recorder(tmp_path)
    recorder.root(
        experiment, attributes={"tracefork.blame.experiment": told, "tracefork.experiment.id": "0db9"}
    )
    recorder.close()
    with open_store(tmp_path) as opened:
        assert planned(opened, [run_id]).experiments == ("0db90ffa",)
    removed(tmp_path, run_id, forks=True)
    assert on_disk(tmp_path, said(run_id)) == []
    assert open_store(tmp_path).rows("FROM blame_experiments") == []


@pytest.mark.slow
def test_runs_of_one_command_are_parted(tmp_path: Path) -> None:
    """What a command says of itself stays as long as one of its runs does, and then goes with it."""
    launch, first, second = trace(), trace(), trace()
    recorder = Recorder(tmp_path, launch_id=launch)
    recorder.root(launch, "the command")
    for run_id in (first, second):
        recorder.root(run_id)
        recorder.exchange(run_id)
    recorder.note("draws", batch=1, streams=[], values=[])
    recorder.close()
    with open_store(tmp_path) as opened:
        assert planned(opened, [first]).beside == (second,)
    removed(tmp_path, first)
    with open_store(tmp_path) as opened:
        assert opened.run("last").run_id == second
        assert opened.launch_of(second) == launch
        assert len(opened.notes(second)) == 1
    removed(tmp_path, second)
    assert on_disk(tmp_path, launch) == []
    assert on_disk(tmp_path, recorder.process_id) == []


@pytest.mark.slow
def test_a_process_that_is_at_work_keeps_its_runs(tmp_path: Path) -> None:
    """Its log is named, and nothing is removed; a run that it does not write goes all the same."""
    other = kept(tmp_path)
    recorder = Recorder(tmp_path)
    recorder.exchange(run_id := trace())
    with pytest.raises(UsageError, match=rf"{recorder.wal.path.name}: process .* is at work"):
        removed(tmp_path, run_id, other)
    assert {run.run_id for run in open_store(tmp_path).runs()} == {run_id, other}
    removed(tmp_path, other)
    recorder.close()
    removed(tmp_path, run_id)
    assert open_store(tmp_path).runs() == []


def _unnamed(store: Path, run_id: str) -> None:
    (store / manifest.FILE).unlink()
    for path in (store / "segments").iterdir():
        os.utime(path, (0, 0))
    kept(store)


def _unreadable(store: Path, run_id: str) -> None:
    kept(store)
    with open_store(store) as opened:
        opened.compact()
    entry = manifest.load(store).segments[-1]
    entry.file(store, "spans").write_bytes(b"PAR1 nothing PAR1")


def _unreadable_log(store: Path, run_id: str) -> None:
    recorder = Recorder(store)
    recorder.exchange(run_id)
    recorder.close()
    recorder.wal.path.write_bytes(b"no log")


def _flipped(kind: str) -> Callable[[Path, str], None]:
    def flip(store: Path, run_id: str) -> None:
        kept(store)
        with open_store(store) as opened:
            opened.compact()
        path = manifest.load(store).segments[-1].file(store, kind)
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)

    return flip


def _crashed(store: Path, run_id: str) -> None:
    """A segment's files were there a moment ago, and the manifest that names it was not."""
    whole = (store / manifest.FILE).read_bytes()
    kept(store)
    open_store(store).close()
    (store / manifest.FILE).write_bytes(whole)


def _half_sealed(store: Path, run_id: str) -> None:
    (entry,) = manifest.load(store).segments
    whole = entry.file(store, "chunks")
    lone = whole.with_name("0000000000001-abcdef.chunks.parquet")
    lone.write_bytes(whole.read_bytes())


def _half_written(store: Path, run_id: str) -> None:
    _half_sealed(store, run_id)
    lone = store / "segments" / "0000000000001-abcdef.chunks.parquet"
    lone.rename(lone.with_name(f".{lone.name}.0badcafe.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [
        _flipped("chunks"),
        _flipped("spans"),
        _crashed,
        _half_sealed,
        _half_written,
        _unnamed,
        _unreadable,
        _unreadable_log,
    ],
)
def test_nothing_is_removed_where_more_of_it_may_be_hidden(
    tmp_path: Path, harm: Callable[[Path, str], None]
) -> None:
    """What cannot be read may hold the run too: it is named, and every file stays as it is."""
    run_id = kept(tmp_path)
    open_store(tmp_path).close()
    harm(tmp_path, run_id)
    with open_store(tmp_path) as opened:
        removal = planned(opened, [run_id])
        files = {path for path in tmp_path.rglob("*.*") if path.is_file()}
        with pytest.raises(StoreError, match="nothing was removed"):
            remove(opened, removal)
    assert files <= {path for path in tmp_path.rglob("*.*") if path.is_file()}


@pytest.mark.slow
def test_a_damaged_segment_goes_with_its_runs(tmp_path: Path) -> None:
    """Of a segment that holds nothing else no file has to be read."""
    goes, stays = kept(tmp_path), ""
    open_store(tmp_path).close()
    entry = manifest.load(tmp_path).segments[0]
    stays = kept(tmp_path)
    entry.file(tmp_path, "chunks").write_bytes(b"PAR1 nothing PAR1")
    removed(tmp_path, goes)
    assert [run.run_id for run in open_store(tmp_path).runs()] == [stays]
    assert doctor(tmp_path).healthy


@pytest.mark.slow
def test_copies_that_a_repair_kept_go_too(tmp_path: Path) -> None:
    """What `doctor --repair` took in stands in `kept` as well."""
    from tracefork_backend.store.repairing import repair

    run_id = kept(tmp_path)
    open_store(tmp_path).close()
    _unnamed(tmp_path, run_id)
    repair(tmp_path)
    assert len(on_disk(tmp_path, said(run_id))) > 2
    removed(tmp_path, run_id)
    assert on_disk(tmp_path, said(run_id)) == []


def _kept_together(store: Path) -> list[Path]:
    """A file each of a segment in `kept` that holds what all live ones hold."""
    merged = sealing.merge(store, manifest.load(store).segments)
    (store / KEPT).mkdir()
    files = [merged.file(store, kind) for kind in manifest.RECORDED]
    found = [file.rename(store / KEPT / file.name) for file in files]
    for _ in range(2):
        manifest.commit(store, at_once=True)  # nobody is making it any more
    return found


def _kept_is_whole(store: Path, run_id: str) -> None:
    """What is kept can be put back, and is the run."""
    files = [path.rename(store / "segments" / path.name) for path in (store / KEPT).iterdir()]
    whole = manifest.SegmentEntry(
        id=files[0].name.partition(".")[0], exchanges=0, spans=0, bytes=0, started_ns=0, ended_ns=0
    )
    (exchange,) = segment.read_exchanges(store, whole)
    assert (exchange.trace_id, exchange.damage) == (run_id, None)
    assert said(run_id).encode() in exchange.request.body


@pytest.mark.slow
def test_a_kept_copy_that_was_half_made_is_in_nobodys_way(tmp_path: Path) -> None:
    """A removal that was killed as it moved what stays of a kept segment is done again from the whole one."""
    goes, stays = kept(tmp_path), kept(tmp_path)
    open_store(tmp_path).close()
    copies = _kept_together(tmp_path)
    manifest.commit(tmp_path, making="0000000000001-abcdef")
    half = copies[0].with_name("0000000000001-abcdef.chunks.parquet")
    half.write_bytes(copies[-1].read_bytes())
    manifest.commit(
        tmp_path, remove=[one.id for one in manifest.load(tmp_path).segments if one.may_hold(stays)]
    )
    removed(tmp_path, goes)
    assert not half.exists()
    assert on_disk(tmp_path, said(goes)) == []
    _kept_is_whole(tmp_path, stays)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["none", "digest", "old", "gone", "kept", "lone"])
def test_the_only_good_copy_of_another_run_stays(tmp_path: Path, harm: str) -> None:
    """What a repair kept of the run goes; what it holds of others, not intact in the store, stays there."""
    goes = kept(tmp_path)
    open_store(tmp_path).close()  # so that each run has a segment of its own
    stays = kept(tmp_path)
    open_store(tmp_path).close()
    copies = _kept_together(tmp_path)
    entry = next(entry for entry in manifest.load(tmp_path).segments if entry.may_hold(stays))
    chunks = entry.file(tmp_path, "chunks")
    if harm in ("digest", "old"):
        data = bytearray(chunks.read_bytes())
        data[len(data) // 3] ^= 1
        chunks.write_bytes(data)
    if harm == "old":
        path = tmp_path / manifest.FILE
        told = json.loads(path.read_bytes())
        for one in told["segments"]:
            one["sha256"] = {}
        path.write_text(json.dumps(told))
    if harm == "gone":
        manifest.commit(tmp_path, remove=[entry.id])
    if harm == "kept":
        copies[0].write_bytes(b"PAR1 nothing PAR1")
    if harm == "lone":
        copies[0].unlink()
    before = {path: path.read_bytes() for path in copies if path.exists()}
    if harm not in ("kept", "lone"):
        removed(tmp_path, goes)
        assert not any(path.exists() for path in copies)
        assert on_disk(tmp_path / KEPT, said(goes)) == []
        assert not open_store(tmp_path).has_run(goes)
        left = {path.name.split(".")[1] for path in (tmp_path / KEPT).iterdir()}
        assert left == (set() if harm == "none" else set(manifest.RECORDED))
        if harm != "none":
            _kept_is_whole(tmp_path, stays)
        return
    with pytest.raises(StoreError, match=r"nothing was removed: .*/kept/.*: mv .*/kept/.*"):
        removed(tmp_path, goes)
    assert {path: path.read_bytes() for path in copies if path.exists()} == before
    assert open_store(tmp_path).has_run(goes)
    left = {path for entry in manifest.load(tmp_path).segments for path in [entry.id]}
    assert {path.name.partition(".")[0] for path in (tmp_path / "segments").iterdir()} <= left | {entry.id}


def test_a_kept_copy_stays_where_nothing_is_removed(tmp_path: Path) -> None:
    """It goes last: what keeps the runs in the store keeps their copies too."""
    goes = kept(tmp_path)
    kept(tmp_path)
    with open_store(tmp_path) as opened:
        opened.compact()
    copies = _kept_together(tmp_path)
    (entry,) = manifest.load(tmp_path).segments
    entry.file(tmp_path, "chunks").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(StoreError, match="nothing was removed"):
        removed(tmp_path, goes)
    assert all(path.exists() for path in copies)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked_for", "goes"),
    [
        (["{0}", "{2}"], {0, 2}),
        (["--before", "2026-01-02"], {0}),
        (["--before", "2026-01-02T01:30:00+02:00"], {0}),
        (["--where", "name = 'b' -- all of these"], {1}),
        (["--where", "steps > 7"], set()),
    ],
)
def test_the_command_shows_and_then_does_it(
    tmp_path: Path, asked_for: list[str], goes: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes nothing goes; with it, what was shown, and nothing else."""
    days = [1_767_225_600 + day * 86_400 for day in (0, 1, 2)]
    runs = [record(tmp_path, name="abc"[at], at=day * 10**9, steps=1) for at, day in enumerate(days)]
    words = [word.format(*runs) for word in asked_for]
    for yes, left in ([], set(runs)), (["--yes"], {run for at, run in enumerate(runs) if at not in goes}):
        assert cli._run(["rm", *words, *yes, "--store", str(tmp_path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert {row["run_id"] for row in told["runs"]} == {runs[at] for at in goes}
        assert (told["steps"], told["removed"]) == (len(goes), bool(yes))
        assert {run.run_id for run in open_store(tmp_path).runs()} == left


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [], ["last", "--before", "2026-01-01"], ["--before", "tomorrow"], ["--where", "1) or (drop table"],
        ["--where", "name ="], ["ffffffff"], ["last@1"],
    ],
)  # fmt: skip
def test_what_says_no_runs_removes_none(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A way to name runs that names none is refused in a line, also with --yes."""
    record(tmp_path)
    assert cli._run(["rm", *words, "--yes", "--store", str(tmp_path)]) == cli.USAGE
    assert capsys.readouterr().err.startswith("error: ")
    assert len(Store(tmp_path).runs()) == 1


def _tape_in(folder: Path, run_id: str, *, owner: bool) -> Path:
    folder.mkdir()
    tape = folder / "run.tape.jsonl"
    tape.write_text(said(run_id))
    if owner:
        (folder / "owner").touch()
    return tape


@pytest.mark.slow
def test_tapes_of_killed_forks_go_too(tmp_path: Path) -> None:
    """A director that was killed left the run's tape in its folder."""
    run_id = kept(tmp_path)
    _tape_in(tmp_path / ".fork-abc", run_id, owner=True)
    assert cli._run(["rm", run_id, "--yes", "--store", str(tmp_path)]) == 0
    assert on_disk(tmp_path, said(run_id)) == []


@pytest.mark.parametrize("name", [".fork-abc", ".replay-abc"])
@pytest.mark.parametrize("owner", [True, False])
def test_a_tape_that_may_be_in_use_keeps_the_runs(
    tmp_path: Path, name: str, owner: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a fork at work is named, and so is one of which nobody knows; nothing is removed."""
    run_id = kept(tmp_path)
    tape = _tape_in(tmp_path / name, run_id, owner=owner)
    with (tape.parent / ("owner" if owner else tape.name)).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cli._run(["rm", run_id, "--yes", "--store", str(tmp_path)]) == cli.USAGE
    assert f"nothing was removed: {tape.parent}" in capsys.readouterr().err
    assert tape.exists()
    assert open_store(tmp_path).has_run(run_id)


@pytest.mark.slow
def test_a_short_answer_says_so_and_chooses_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a file that cannot be read the plan has `incomplete`; --where and --before remove nothing then."""
    runs: list[str] = []
    for _ in range(2):
        runs.append(kept(tmp_path))
        open_store(tmp_path).close()
    hidden = manifest.load(tmp_path).segments[0]
    hidden.file(tmp_path, "exchanges").write_bytes(b"PAR1 nothing PAR1")
    end = ["--store", str(tmp_path), "--json"]
    assert cli._run(["rm", "--where", "true", *end]) == 0
    (why,) = json.loads(capsys.readouterr().out)["incomplete"]
    assert hidden.id in why
    for chosen in (["--where", "true"], ["--before", "2030-01-01"]):
        assert cli._run(["rm", *chosen, "--yes", *end]) == cli.USAGE
        assert hidden.id in capsys.readouterr().err
    assert [run.run_id for run in open_store(tmp_path).runs()] == [runs[1]]
    assert cli._run(["rm", runs[1], "--yes", *end]) == 0
    assert json.loads(capsys.readouterr().out)["incomplete"] == [why]
