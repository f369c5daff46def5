"""A command that cannot read all of a store answers with the rest, and says what is missing."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from tracefork_backend import cli
from tracefork_backend.cli import output as cli_output
from wal_samples import write_conversation

from tracefork_otel.store import manifest, sealing


def damaged(store: Path, kind: str | None) -> str:
    """The name of a file of the later of two runs, which is gone; of none, if no kind is given."""
    for number in range(2):
        write_conversation(store, 2, process_id=f"471{number}-0badcafe", seed=number)
        assert sealing.seal_dead(store) == []
    if kind is None:
        return ""
    entry = manifest.load(store).segments[-1]
    entry.file(store, kind).unlink()
    return entry.file(store, kind).name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exchanges", "spans", "chunks"])
@pytest.mark.parametrize("command", [["ls"], ["sql", "--csv", "SELECT count(*) FROM exchanges"]])
def test_a_short_answer_says_so(
    tmp_path: Path, kind: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of what can be read come on standard output, the file that cannot on standard error."""
    name = damaged(tmp_path, kind)
    assert cli._run([*command, "--store", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out
    assert shown.err.startswith("incomplete: ")
    assert name in shown.err
    entry = manifest.load(tmp_path).segments[-1]
    lost = f"missing: {entry.exchanges} exchanges and {entry.spans} span of runs "
    assert (lost if kind != "spans" else "its exchanges are shown without the names, starts") in shown.err
    assert cli._run([*command, "--strict", "--store", str(tmp_path)]) == cli_output.FINDING
    assert capsys.readouterr().out == shown.out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["ls"], ["sql", "SELECT 1"], ["show", "{whole}"], ["show", "{whole}@0"],
                                     ["diff", "{whole}", "{whole}"], ["doctor"]])  # fmt: skip
@pytest.mark.parametrize("kind", ["spans", None])
def test_json_says_that_it_is_short(
    tmp_path: Path, command: list[str], kind: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last object has `incomplete`, which names the file; where nothing is missing it has not."""
    name = damaged(tmp_path, kind)
    earlier = f"{random.Random(0).getrandbits(128):032x}"  # as `write_conversation` names it
    words = [word.format(whole=earlier) for word in command]
    cli._run([*words, "--json", "--store", str(tmp_path)])
    *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    told = last.get("incomplete", [])
    assert [name in one for one in told] == ([] if kind is None else [True])


@pytest.mark.slow
def test_a_lost_manifest_is_no_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is told to record a first run where there are runs that no manifest names."""
    damaged(tmp_path, None)
    shutil.rmtree(tmp_path / "wal")
    (tmp_path / manifest.FILE).unlink()
    for command in (["ls"], ["show", "last"], ["show", "abcdef12"]):
        cli._run([*command, "--store", str(tmp_path)])
        said = capsys.readouterr().err
        assert "doctor --repair" in said
        assert "no runs" not in said
        assert "record one" not in said


@pytest.mark.slow
def test_last_is_refused_beside_segments_that_no_manifest_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that came out of a backup names an earlier run: the last one may be another."""
    write_conversation(tmp_path, 2, process_id="4709-0badcafe", seed=1)
    assert sealing.seal_dead(tmp_path) == []
    backup = (tmp_path / manifest.FILE).read_bytes()
    damaged(tmp_path, None)
    (tmp_path / manifest.FILE).write_bytes(backup)
    made_old(tmp_path)
    for command in ("show", "replay"):
        assert cli._run([command, "last", "--store", str(tmp_path)]) == cli.USAGE
        assert "may be a run that cannot be read" in capsys.readouterr().err


def made_old(store: Path) -> None:
    """The files of the store's segments have been there for an hour."""
    for path in (store / "segments").iterdir():
        hour_ago = path.stat().st_mtime - 3600
        os.utime(path, (hour_ago, hour_ago))


@pytest.mark.slow
def test_last_is_never_quietly_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the last run cannot be read it is not the one before it: that one goes by its id."""
    name = damaged(tmp_path, "exchanges")
    assert cli._run(["show", "last", "--store", str(tmp_path)]) == cli.USAGE
    said = capsys.readouterr().err
    assert name in said
    earlier = said.partition("such as ")[2].partition(",")[0]
    assert cli._run(["show", earlier, "--store", str(tmp_path)]) == 0


@pytest.mark.parametrize("below", ["", "below/it"])
@pytest.mark.parametrize("verb", [["serve"], ["proxy", "--upstream", "http://127.0.0.1:1"]])
def test_a_server_does_not_start_where_it_can_record_nothing(
    tmp_path: Path, verb: list[str], below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the place of its store is named before anything is received."""
    (tmp_path / "file").write_text("x")
    store = tmp_path / "file" / below
    assert cli._run([*verb, "--port", "0", "--store", str(store)]) == cli.USAGE
    assert f"{tmp_path / 'file'}: this is a file; a store is a directory" in capsys.readouterr().err
