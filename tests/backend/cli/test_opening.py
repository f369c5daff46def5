"""A command that cannot read all of a store answers with the rest, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracefork_backend import cli
from wal_samples import write_conversation

from tracefork_otel.store import manifest, sealing


def damaged(store: Path, kind: str) -> str:
    """The name of a file of the later of two runs, which is gone."""
    for number in range(2):
        write_conversation(store, 2, process_id=f"471{number}-0badcafe", seed=number)
        assert sealing.seal_dead(store) == []
    entry = manifest.load(store).segments[-1]
    entry.file(store, kind).unlink()
    return entry.file(store, kind).name


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


def test_last_is_never_quietly_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the last run cannot be read it is not the one before it: that one goes by its id."""
    name = damaged(tmp_path, "exchanges")
    assert cli._run(["show", "last", "--store", str(tmp_path)]) == cli.USAGE
    said = capsys.readouterr().err
    assert name in said
    earlier = said.partition("such as ")[2].partition(",")[0]
    assert cli._run(["show", earlier, "--store", str(tmp_path)]) == 0
