"""The table of verbs, from which help and suggestions come without a verb being loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tracefork_backend import cli
from tracefork_backend.cli.app import VERBS, loaded


@pytest.mark.parametrize("name", VERBS)
def test_the_table_says_what_the_verb_says(name: str) -> None:
    """A verb's line in the list of verbs is the first paragraph of its own help."""
    first = str(loaded(name).help).split("\n\n")[0]
    assert VERBS[name] == " ".join(first.split())


def test_every_verb_is_in_the_table() -> None:
    """A file of a verb without its line would never be found by a person."""
    folder = Path(cli.__file__).parent
    named = {path.stem for path in folder.glob("*.py") if f"def {path.stem}(" in path.read_text()}
    assert named <= set(VERBS)


def test_help_loads_no_verb() -> None:
    """The list of verbs is shown without loading one of them, which takes longer than help may take."""
    asked = (
        "import sys; from tracefork_backend.cli.app import app; app(['--help'], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith('tracefork_backend.cli.')])"
    )
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert "Find the step" in shown
    assert "'tracefork_backend.cli.fork'" not in shown


def test_without_arguments_there_is_help_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A person who types the command alone gets its help, and no empty error below it."""
    assert cli._run([]) == cli.USAGE
    shown = capsys.readouterr()
    assert "Find the step" in shown.out
    assert not shown.err


@pytest.mark.parametrize(
    ("asked", "flag", "after"),
    [
        ("repair last --propose --budget 1", "--propose MODEL", "--budget"),
        ("fork last@1 --set --once", "--set PATH=VALUE", "--once"),
        ("run --state --draws -- python x.py", "--state PATH", "--draws"),
        ("ls --store --json", "--store VALUE", "--json"),
        ("blame resume e --budget --jobs 2", "--budget USD", "--jobs"),
    ],
)
def test_a_forgotten_value_is_said_and_no_flag_is_taken_for_it(
    asked: str, flag: str, after: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next flag would be the value, and what is left over an unexpected argument."""
    assert cli._run(asked.split()) == cli.USAGE
    said = f"error: {flag.split()[0]} needs a value: {flag}; after it stands {after}\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("asked", ["run -- echo --state --draws", "run echo --state --draws"])
def test_what_a_command_is_given_is_its_own(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Flags behind the program's name are no flags of `run`."""
    monkeypatch.chdir(tmp_path)
    assert cli._run(asked.split()) == 3  # no model was called
    assert "--state --draws" in capfd.readouterr().out
