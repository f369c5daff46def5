"""What a CI shows: texts of a model stay texts, and a file that cannot be written is said."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from tracefork_backend.cli import summary
from tracefork_backend.cli.summary import Checked

from tracefork_otel.errors import UsageError

DRIFT = Checked(
    name="tapes/a,b:c.jsonl",
    result="FAIL",
    finding="drift   step 1: | [x](http://evil) <img src=x> @here\n::error::mine 100%",
    lines=("one\0", "two"),
    site="src/agent.py:12 ask",
    file="tapes/a,b:c.jsonl",
)
FINE = Checked(name="last", result="PASS")


def test_the_table_brings_no_text_of_a_model_to_life() -> None:
    """One line a row, and nothing in it that Markdown or HTML reads."""
    rows = summary.table_of("verify", (FINE, DRIFT)).splitlines()[4:6]
    assert rows[0].startswith("| last | PASS |")
    assert "\\[x\\]" in rows[1]
    assert "\\<img" in rows[1]
    assert "\\@here" in rows[1]


def test_a_mark_is_one_line_at_the_agents_line_or_else_at_the_tape() -> None:
    """What has the form of another mark is data of this one."""
    (mark,) = summary.marks_of((FINE, DRIFT))
    assert mark.startswith(
        "::error file=src/agent.py,line=12,title=tracefork FAIL%3A tapes/a%2Cb%3Ac.jsonl::"
    )
    assert mark.endswith("%0A::error::mine 100%25")
    (elsewhere,) = summary.marks_of((Checked(name="t", result="ERROR", file="t", site="~/x.py:1 f"),))
    assert elsewhere.startswith("::error file=t,title=")


def test_a_table_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It raises nothing; without the variable nothing is written, and marks are GitHub's alone."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    summary.tell_ci("verify", (DRIFT,))
    assert f"the summary was not written: GITHUB_STEP_SUMMARY={tmp_path}" in capsys.readouterr().err
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    summary.tell_ci("verify", (DRIFT,))
    assert capsys.readouterr() == ("", "")


def test_junit(tmp_path: Path) -> None:
    """A case for each, with what was found, whatever characters are in it; else the folder is named."""
    file = tmp_path / "j.xml"
    summary.write_junit(file, (FINE, DRIFT, Checked(name="e", result="ERROR", finding="error: gone")))
    suite = ElementTree.parse(file).getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert suite[1].get("line") == "12"
    assert suite[1][0].text == "one\ufffd\ntwo"
    with pytest.raises(UsageError, match=r"--junit .*No such file"):
        summary.write_junit(tmp_path / "gone" / "j.xml", ())
