"""Recordings that no manifest names are named by every command, and taken in again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tracefork_backend import cli
from tracefork_backend.store import compacting, doctor, open_store
from wal_samples import write_conversation

from tracefork_otel.store import manifest, sealing


def recorded(store: Path, number: int) -> None:
    """One more run is in a segment of its own, an hour old."""
    write_conversation(store, number + 1, process_id=f"471{number}-0badcafe", seed=number)
    assert sealing.seal_dead(store) == []
    aged(store)


def aged(store: Path) -> None:
    """Nothing in the store is of this moment."""
    for file in (store / "segments").iterdir():
        os.utime(file, (1, 1))


def held(store: Path) -> set[tuple[str, int]]:
    """The runs of a store, and how many exchanges each has."""
    with open_store(store) as opened:
        return {(run.run_id, len(run.exchanges)) for run in opened.runs()}


@pytest.mark.slow
@pytest.mark.parametrize("manifest_is", ["lost", "damaged", "older"])
def test_what_no_manifest_names_is_taken_in(
    tmp_path: Path, manifest_is: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `doctor --repair` every run is there, once, whatever was recorded meanwhile."""
    path = tmp_path / "MANIFEST.json"
    recorded(tmp_path, 0)
    before = path.read_bytes()
    recorded(tmp_path, 1)
    whole = held(tmp_path)
    if manifest_is == "lost":
        path.unlink()
    else:
        path.write_bytes(before if manifest_is == "older" else b"{")
    if manifest_is != "damaged":
        assert cli._run(["ls", "--store", str(tmp_path)]) == 0
        said = capsys.readouterr().err
        assert "doctor --repair" in said
        recorded(tmp_path, 2)
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == 0
    assert "taken in" in capsys.readouterr().err
    assert whole <= held(tmp_path)
    assert len(held(tmp_path)) == (2 if manifest_is == "damaged" else 3)
    assert doctor(tmp_path).healthy
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == 0
    assert "repaired" not in capsys.readouterr().err
    if manifest_is == "damaged":
        (kept,) = (tmp_path / "kept").glob("MANIFEST.json.*")
        assert kept.read_bytes() == b"{"


@pytest.mark.slow
def test_a_manifest_from_before_a_merge(tmp_path: Path) -> None:
    """All of what its segments held is in the merged one, of which each is made anew."""
    path = tmp_path / "MANIFEST.json"
    for number in range(2):
        recorded(tmp_path, number)
    before, whole = path.read_bytes(), held(tmp_path)
    parts = manifest.load(tmp_path).segments
    with open_store(tmp_path) as opened:
        opened.compact()
    aged(tmp_path)
    path.write_bytes(before)
    for entry in parts:
        for kind in manifest.KINDS:
            entry.file(tmp_path, kind).unlink()
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == 0
    assert held(tmp_path) == whole
    assert doctor(tmp_path).files == ()


@pytest.mark.parametrize("kind", ["exchanges", "spans", "chunks"])
def test_a_damaged_segment_stays_as_it_is(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a file of it cannot be read nothing is taken for the whole, and nothing is moved."""
    recorded(tmp_path, 0)
    (entry,) = manifest.load(tmp_path).segments
    entry.file(tmp_path, kind).write_bytes(b"PAR1 no, PAR1")
    (tmp_path / "MANIFEST.json").unlink()
    aged(tmp_path)
    before = {file: file.read_bytes() for file in (tmp_path / "segments").iterdir()}
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == 1
    assert f"segment {entry.id} stays as it is" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in (tmp_path / "segments").iterdir()} == before


def test_repair_waits_for_a_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is being merged is named in a moment: until then it is nobody's loss."""
    recorded(tmp_path, 0)
    with compacting.alone(tmp_path):
        assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == cli.USAGE
    assert "being merged" in capsys.readouterr().err


@pytest.mark.slow
def test_what_others_hold_is_not_taken_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A segment of a crash before the manifest named it: its log was sealed again, and it goes."""
    recorded(tmp_path, 0)
    (entry,) = manifest.load(tmp_path).segments
    for kind in manifest.RECORDED:
        file = entry.file(tmp_path, kind)
        copy = file.with_name(file.name.replace(entry.id, "0000000000001-abcdef"))
        copy.write_bytes(file.read_bytes())
    aged(tmp_path)
    whole = held(tmp_path)
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == 0
    assert "all that it holds is in other segments" in capsys.readouterr().err
    assert held(tmp_path) == whole
    names = {file.name for file in (tmp_path / "kept").iterdir()}
    assert names == {f"0000000000001-abcdef.{kind}.parquet" for kind in manifest.RECORDED}
    assert doctor(tmp_path).healthy


def test_a_newer_manifest_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a later version wrote is not damage."""
    recorded(tmp_path, 0)
    path = tmp_path / "MANIFEST.json"
    path.write_text('{"format":2}')
    assert cli._run(["doctor", "--repair", "--store", str(tmp_path)]) == cli.USAGE
    assert "upgrade" in capsys.readouterr().err
    assert path.read_text() == '{"format":2}'
