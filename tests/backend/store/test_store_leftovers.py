"""What doctor says of files that crashes left: what they are, what is lost with them, what may be done."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from stored import Recorder, record, trace
from tracefork_backend import cli
from tracefork_backend.store import doctor, open_store

from tracefork_otel.store import manifest, sealing

OTHER = "1700000000000-abcdef"


def sealed(store: Path) -> str:
    """A run in a segment of its own, an hour old."""
    run_id = record(store, attributes={"tracefork.command": '["python","agent.py"]'})
    assert sealing.seal_dead(store) == []
    aged(store)
    return run_id


def aged(store: Path) -> None:
    """Nothing in the store is of this moment."""
    for file in (store / "segments").iterdir():
        os.utime(file, (1, 1))


def copied(store: Path, kinds: Sequence[str]) -> None:
    """Files of a segment that the manifest does not name, which hold what another one holds."""
    entry = manifest.load(store).segments[0]
    for kind in kinds:
        file = entry.file(store, kind)
        file.with_name(file.name.replace(entry.id, OTHER)).write_bytes(file.read_bytes())
    aged(store)


def said(store: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    """How `doctor` ends, and what it prints."""
    status = cli._run(["doctor", *flags, "--store", str(store)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize(
    "kinds", [["chunks"], ["chunks", "exchanges"], ["chunks", "exchanges", "spans"], ["facts"]]
)
def test_what_a_crash_left_of_a_segment_is_no_loss(
    tmp_path: Path, kinds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are written one after the other, and then named: what is half done is ours, and no loss."""
    sealed(tmp_path)
    open_store(tmp_path).close()
    copied(tmp_path, kinds)
    status, out, _ = said(tmp_path, capsys)
    assert status == 0, out
    assert f"left: {tmp_path}/segments/{OTHER}." in out
    assert "foreign" not in out
    assert out.rstrip().endswith("healthy")


@pytest.mark.parametrize("gone", [["chunks"], ["exchanges"], ["spans"], ["chunks", "exchanges"]])
def test_a_segment_of_which_files_are_gone_is_named(
    tmp_path: Path, gone: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody named it and no other holds what is left of it, it says which files there are."""
    sealed(tmp_path)
    (tmp_path / manifest.FILE).unlink()
    for kind in gone:
        (file,) = (tmp_path / "segments").glob(f"*.{kind}.parquet")
        file.unlink()
    status, out, _ = said(tmp_path, capsys)
    assert status == 1
    assert "partial: " in out
    assert f"not {', '.join(kind for kind in manifest.RECORDED if kind in gone)}" in out
    assert "foreign" not in out


def test_a_lost_manifest_is_told_by_what_it_hides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The segment is named once, with what only it holds and what brings it back; then all is well."""
    sealed(tmp_path)
    (tmp_path / manifest.FILE).unlink()
    status, out, _ = said(tmp_path, capsys)
    assert status == 1
    assert out.count("unnamed: ") == 1
    assert "records that no other does, which are not shown; `doctor --repair` takes them in" in out
    status, out, err = said(tmp_path, capsys, "--repair")
    assert status == 0
    assert err.startswith("repaired: segment ")


def test_what_a_repair_leaves_is_not_called_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A segment that cannot be read, and a log that is none, stay: the lines say so."""
    sealed(tmp_path)
    (spans,) = (tmp_path / "segments").glob("*.spans.parquet")
    spans.write_bytes(b"PAR1 no PAR1")
    (tmp_path / manifest.FILE).unlink()
    aged(tmp_path)
    recorder = Recorder(tmp_path)
    recorder.exchange(trace())
    recorder.close()
    recorder.wal.path.write_bytes(b"no log")
    status, _, err = said(tmp_path, capsys, "--repair")
    assert status == 1
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left as it is"] * 2


def test_a_manifest_that_cannot_be_read_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Doctor does not send to doctor: it says what it can do about it."""
    sealed(tmp_path)
    (tmp_path / manifest.FILE).write_bytes(b"{}")
    status, out, _ = said(tmp_path, capsys)
    assert status == 1
    assert "`doctor --repair` makes it anew" in out
    assert said(tmp_path, capsys, "--repair")[0] == 0


@pytest.mark.slow
def test_folders_of_forks_are_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is at work is nothing to speak of; one that was killed is named, and taken in."""
    sealed(tmp_path)
    folder = tmp_path / ".fork-abc"
    folder.mkdir()
    (folder / "owner").touch()
    with (folder / "owner").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        status, out, _ = said(tmp_path, capsys)
        assert (status, "fork-abc" in out) == (0, False)
    run_id = record(folder / "0" / "store")
    status, out, _ = said(tmp_path, capsys)
    assert (status, f"left: {folder}: what a fork or replay that was killed left" in out) == (0, True)
    assert said(tmp_path, capsys, "--repair")[0] == 0
    assert not folder.exists()
    assert open_store(tmp_path).has_run(run_id)


def test_half_written_files_are_ours(tmp_path: Path) -> None:
    """What a crash left under a temporary name is removed in time, and is no news."""
    sealed(tmp_path)
    for name in (
        ".MANIFEST.json.0a1b2c3d.tmp",
        f"segments/.{OTHER}.spans.parquet.0a1b2c3d.tmp",
        "wal/.1-a-0.wal.tmp",
    ):
        (tmp_path / name).write_bytes(b"half")
    report = doctor(tmp_path)
    assert (report.healthy, report.files) == (True, ())


def test_a_kill_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What happened, what was done about it, and that nothing is lost: exit 0."""
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[3]); from pathlib import Path; from stored import *;"
        "r = Recorder(Path(sys.argv[1])); r.root(sys.argv[2], end=False); r.exchange(sys.argv[2]);"
        "r.ask(sys.argv[2], asked('open')); os.write(r.wal._fd, b'half a record'); os.kill(os.getpid(), 9)"
    )
    words = [str(tmp_path), run_id := trace(), str(Path(__file__).parents[2])]
    assert subprocess.run([sys.executable, "-c", code, *words], check=False).returncode == -9
    status, out, _ = said(tmp_path, capsys)
    assert status == 0, out
    assert "torn: " in out
    assert "what was written before it is whole" in out
    assert "sealed: " in out
    assert f"killed: run {run_id[:8]} agent: its process was killed while step 1 was open" in out
