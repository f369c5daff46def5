"""Damaged segments: what is intact in them is shown, and `doctor --repair` has the rest from copies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import record
from tracefork_backend import cli
from tracefork_backend.store import compacting, doctor, open_store
from tracefork_backend.store.keeping import KEPT
from tracefork_backend.store.repairing import repair

from tracefork_otel.exchange import Exchange
from tracefork_otel.store import manifest, sealing

COPY = "0000000000001-abcdef"
"""The id of a copy that no manifest names."""


def flip(path: Path) -> None:
    """One bit in the middle of the file is another one."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The end of the file is gone."""
    path.write_bytes(path.read_bytes()[:-30])


HARMS: dict[str, Callable[[Path], object]] = {"flipped": flip, "cut": cut, "gone": Path.unlink}


def two_runs(store: Path) -> dict[str, tuple[Exchange, ...]]:
    """Two runs in one segment, and one in another; the exchanges of each."""
    runs = [record(store, steps=2) for _ in range(2)]
    for _ in runs:
        sealing.seal_dead(store)
    with open_store(store) as opened:
        opened.compact()
        runs.append(record(store, steps=1))
        return {run_id: opened.exchanges(run_id) for run_id in runs}


def copied(store: Path, *, to: str) -> None:
    """A copy of the segment with two runs stands where no manifest names it, or is kept."""
    entry = next(entry for entry in manifest.load(store).segments if entry.exchanges == 4)
    folder = store / ("segments" if to == "unnamed" else KEPT)
    folder.mkdir(exist_ok=True)
    for kind in manifest.RECORDED:
        copy = folder / f"{COPY}.{kind}.parquet"
        copy.write_bytes(entry.file(store, kind).read_bytes())
        os.utime(copy, (1, 1))


def harmed(store: Path, kind: str, harm: str) -> None:
    """That file of the segment with two runs is damaged, and nothing in the store is of this moment."""
    for _ in range(2):  # without what was merged into it
        manifest.commit(store, at_once=True)
    entry = next(entry for entry in manifest.load(store).segments if entry.exchanges == 4)
    HARMS[harm](entry.file(store, kind))
    for path in (store / "segments").iterdir():
        os.utime(path, (1, 1))


def in_store(store: Path) -> dict[str, tuple[Exchange, ...]]:
    """What each run has."""
    with open_store(store) as opened:
        return {run.run_id: opened.exchanges(run.run_id) for run in opened.runs()}


@pytest.mark.slow
@pytest.mark.parametrize("to", ["unnamed", "kept"])
@pytest.mark.parametrize("kind", manifest.RECORDED)
@pytest.mark.parametrize("harm", HARMS)
def test_an_intact_copy_heals_a_damaged_segment(tmp_path: Path, to: str, kind: str, harm: str) -> None:
    """Every body, name and number is there again, each once, and nothing is called damaged."""
    whole = two_runs(tmp_path)
    with open_store(tmp_path) as opened:
        spans = opened.rows("SELECT * FROM spans ORDER BY ALL")
    copied(tmp_path, to=to)
    harmed(tmp_path, kind, harm)
    told = repair(tmp_path)
    assert all(one.done for one in told), told
    assert any("of it came from intact copies" in one.text for one in told)
    assert in_store(tmp_path) == whole
    with open_store(tmp_path) as opened:
        assert opened.rows("SELECT * FROM spans ORDER BY ALL") == spans
        assert opened.rows("SELECT count(*) AS n FROM exchanges") == [{"n": 5}]
    report = doctor(tmp_path)
    assert report.healthy, report.lines()
    assert repair(tmp_path) == []


@pytest.mark.slow
def test_a_copy_of_one_run_heals_its_own(tmp_path: Path) -> None:
    """Of a segment whose bodies are lost the exchanges that no copy has stay as they are, and named."""
    whole = two_runs(tmp_path)
    healed, other = sorted(run_id for run_id, exchanges in whole.items() if len(exchanges) == 2)
    entry = next(entry for entry in manifest.load(tmp_path).segments if entry.exchanges == 4)
    one = sealing.rewritten(tmp_path, entry, sealing.Without(frozenset({other})))
    assert one
    for kind in manifest.RECORDED:
        one.file(tmp_path, kind).rename(tmp_path / "segments" / f"{COPY}.{kind}.parquet")
    harmed(tmp_path, "chunks", "flipped")
    repair(tmp_path)
    found = in_store(tmp_path)
    assert found[healed] == whole[healed]
    assert all(exchange.damage for exchange in found[other])
    assert {path.name.split(".")[1] for path in (tmp_path / KEPT).glob(f"{entry.id}*")} == {
        "chunks",
        "exchanges",
    }
    assert [one.run_id for one in doctor(tmp_path).damaged] == [other] * 2


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_exchanges_outlive_the_file_of_spans(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are shown at once, with a word of what is not; a repair keeps them and says what is lost."""
    whole = two_runs(tmp_path)
    harmed(tmp_path, "spans", harm)
    where = ["--store", str(tmp_path)]
    query = "SELECT count(*) AS n, count(runs.name) AS named FROM exchanges JOIN runs USING (run_id)"
    assert cli._run(["sql", query, *where, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[0])["n"] == 5
    if harm != "flipped":  # DuckDB reads on, and `doctor` compares digests
        assert "its exchanges are shown without the names" in err
    assert in_store(tmp_path) == whole
    assert cli._run(["doctor", *where]) == 1
    assert "spans.parquet" in capsys.readouterr().out
    assert cli._run(["doctor", "--repair", *where]) == 1
    out, err = capsys.readouterr()
    assert "what could be read of it is in a new one" in err
    assert "lost: " in out
    assert "unreadable" not in out
    assert in_store(tmp_path) == whole
    assert len(list((tmp_path / KEPT).glob("*.spans.parquet"))) == (harm != "gone")
    # On a slow machine the files that it replaced are old enough by now to be put aside.
    again = [one.text for one in repair(tmp_path) if "0 exchanges taken in" not in one.text]
    assert again == []
    compacting.pack(tmp_path)
    assert in_store(tmp_path) == whole


def test_a_newer_segment_is_not_healed(tmp_path: Path) -> None:
    """What this version cannot read is not damage."""
    two_runs(tmp_path)
    for _ in range(2):
        manifest.commit(tmp_path, at_once=True)
    path = tmp_path / manifest.FILE
    told = json.loads(path.read_bytes())
    told["segments"][0]["format"] = 99
    path.write_text(json.dumps(told))
    before = path.read_bytes()
    assert repair(tmp_path) == []
    assert path.read_bytes() == before
